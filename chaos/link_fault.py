"""The faults of the links to both servers."""

from collections.abc import Callable
from random import Random

from chaos import proxy
from chaos.fault import Breaking, Catalogue, Target
from chaos.proxy import Direction, Mode, Proxy
from chaos.rig import Rig

LINKS = (Target.POSTGRES_LINK, Target.AMQP_LINK)


def put_link_faults(catalogue: Catalogue) -> None:
    """Each for both links, named ``postgres-…`` and ``amqp-…``, and that of both at once."""
    for number, name, mode, lasts_s in (
        ("F50", "reset", _reset, (0.0, 0.0)),
        ("F51", "black-hole", lambda _link, _chance: proxy.BLACK_HOLE, (2.0, 9.0)),
        ("F52", "half-open", _half_open, (2.0, 9.0)),
        ("F53", "latency", lambda _link, chance: proxy.latency(chance.uniform(0.05, 0.3)), (2.0, 5.0)),
        ("F54", "bandwidth", lambda _link, chance: proxy.bandwidth(chance.uniform(2e3, 5e4)), (2.0, 6.0)),
        ("F55", "cut-after", _cut_after, (1.0, 4.0)),
        ("F56", "refuse", _refuse, (0.5, 5.0)),
    ):
        for target in LINKS:
            _put(catalogue, number, name, target=target, mode=mode, lasts_s=lasts_s)
    catalogue.fault("F59", "cut-both-links", *LINKS, lasts_s=(0.5, 4.0))(_cut_both_links)


def _put(
    catalogue: Catalogue,
    number: str,
    name: str,
    *,
    target: Target,
    mode: Callable[[Proxy, Random], Mode],
    lasts_s: tuple[float, float],
) -> None:
    def break_link(rig: Rig, chance: Random) -> Breaking:
        link = rig.postgres_link if target is Target.POSTGRES_LINK else rig.amqp_link
        link.switch(mode(link, chance))
        yield
        link.mend()

    catalogue.fault(number, f"{target.value.partition(' ')[0]}-{name}", target, lasts_s=lasts_s)(break_link)


def _cut_both_links(rig: Rig, chance: Random) -> Breaking:
    links = [rig.postgres_link, rig.amqp_link]
    for link in links:
        link.cut()
    yield
    chance.shuffle(links)
    for link in links:
        link.mend()


def _reset(link: Proxy, _chance: Random) -> Mode:
    link.reset()
    return proxy.PASS


def _half_open(_link: Proxy, chance: Random) -> Mode:
    return proxy.half_open(chance.choice(list(Direction)))


def _cut_after(_link: Proxy, chance: Random) -> Mode:
    return proxy.cut_after(int(10 ** chance.uniform(0, 5)), chance.choice(list(Direction)))


def _refuse(link: Proxy, _chance: Random) -> Mode:
    link.cut()
    return proxy.REFUSE
