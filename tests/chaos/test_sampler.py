"""Whether memory is flat is told from its samples."""

from chaos.sampler import Sample, memory


def samples(*rss_mib: float, each: int = 300) -> list[Sample]:
    values = [value for value in rss_mib for _ in range(each)]
    return [Sample(at_s=number, age_s=10.0, rss_mib=value) for number, value in enumerate(values)]


def test_memory_that_goes_up_and_down_is_flat() -> None:
    assert memory(samples(50, 90, 50, 90, 50, 90, 50, 90)).is_flat


def test_memory_that_grows_is_not_flat() -> None:
    grown = memory(samples(50, 70, 90, 110))

    assert grown.is_flat is False
    assert (grown.first, grown.last, grown.peak) == (50, 110, 110)


def test_a_process_that_has_only_begun_says_nothing() -> None:
    young = [sample._replace(age_s=1.0, rss_mib=500.0) for sample in samples(0)]

    assert memory([*samples(50, 50), *young]).last == 50


def test_a_few_samples_tell_nothing() -> None:
    assert memory(samples(50, 500, each=10)).is_flat is None
    assert memory([]).is_flat is None
