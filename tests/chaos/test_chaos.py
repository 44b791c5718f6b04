"""Everything goes wrong for half a minute, on real servers, and nothing is lost."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.faults import CATALOGUE
from chaos.rig import rigged
from chaos.run import Storm
from chaos.servers import Servers, serving
from tests.conftest import _with_wal2json
from tests.reliability import COUNTERS, count

LOADED_S = 25.0
LEAST_CHANGES = 2000
LEAST_FAULTS = 5


@pytest.fixture(scope="module")
def servers(services: Path) -> Iterator[Servers]:
    """Of their own, because they are going to be broken."""
    folder = services / "chaos"
    folder.mkdir()
    with serving(folder, binaries=_with_wal2json()) as servers:
        yield servers
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(
    ("plugin", "seed", "options"), [("wal2json", 1, ()), ("pgoutput", 2, ()), ("pgoutput", 3, ("--streaming",))]
)
@pytest.mark.fault("I1", "I6", "I8", "I9", "I14")
def test_mixed_faults_lose_invent_and_reorder_nothing(
    servers: Servers, plugin: str, seed: int, options: tuple[str, ...]
) -> None:
    faults = [fault for fault in CATALOGUE.faults.values() if fault.keeps_order]

    with rigged(servers, plugin=plugin, seed=seed, options=options) as rig:
        rig.start()
        storm = Storm(rig, faults, seed, print)
        storm.blow(LOADED_S)
        outcome = rig.settle()

    verdict = outcome.verdict
    count(**{name: number for name, number in verdict.counters().items() if name in COUNTERS})
    print("\n".join(verdict.lines()))  # noqa: T201  # shown by pytest when the test fails
    assert (verdict.lost, verdict.unexpected, verdict.reordered, verdict.differing) == (0, 0, 0, 0)
    assert outcome.exits == outcome.delays == ()
    assert outcome.forgotten == 0
    assert verdict.committed > LEAST_CHANGES
    assert storm.counts.total() >= LEAST_FAULTS
