"""What nobody foresaw ends as one error of ours."""

import pytest

from pgevents.errors import EXIT_FAILED, PGEventsError, SlotMissing
from pgevents.surprise import surprises_named


def surprise(error: BaseException) -> PGEventsError:
    with pytest.raises(PGEventsError) as caught, surprises_named():
        raise error
    return caught.value


def test_it_is_named_by_its_kind_and_not_by_its_text() -> None:
    error = surprise(ValueError("hunter2"))

    assert str(error) == "an unforeseen ValueError ended the stream"
    assert "PGEVENTS_LOG_LEVEL=debug" in error.hint
    assert (error.exit_code, error.transient) == (EXIT_FAILED, False)


def test_a_group_is_named_by_the_kinds_in_it() -> None:
    group = ExceptionGroup("hunter2", [ValueError(), KeyError("hunter2"), ValueError()])

    assert str(surprise(group)) == "an unforeseen KeyError, ValueError ended the stream"


def test_an_error_of_ours_passes_as_it_is() -> None:
    error = SlotMissing("no slot")

    assert surprise(error) is error


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_is_no_error_passes_too(kind: type[BaseException]) -> None:
    with pytest.raises(kind), surprises_named():
        raise kind
