"""What the documentation says of the code is true, and its links lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pgevents import errors
from pgevents.cli import commands

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("migrations/*.md")])
DECISIONS = sorted(path for path in ROOT.glob("docs/adr/*.md") if path.name != "README.md")


def named(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", without_code(text))


def anchors(text: str) -> set[str]:
    """The anchors GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", without_code(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named(PAGES))
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    for link in links(page.read_text()):
        if link.startswith("https://"):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), link
        assert not anchor or anchor in anchors(file.read_text()), link


def table(head: str) -> dict[str, str]:
    """The table of the README whose first heading cell is ``head``: first cell to second."""
    (rows,) = re.findall(rf"^\| {head} \|.*\n\|[-| ]+\n((?:\|.*\n)+)", README, re.MULTILINE)
    cells = ([cell.strip() for cell in line.split("|")] for line in rows.splitlines())
    return {row[1].strip("`"): row[2] for row in cells}


def test_the_readme_lists_every_exit_code() -> None:
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}

    assert {int(code) for code in table("exit code")} == codes


def test_the_exit_codes_mean_what_the_readme_says() -> None:
    said = {int(code): meaning for code, meaning in table("exit code").items()}

    assert said[errors.EXIT_DONE].startswith("done")
    assert said[errors.PGEventsError.exit_code].startswith("failed")
    assert said[errors.ConfigError.exit_code].startswith("wrong usage")
    assert said[errors.GapDetected.exit_code].startswith("a gap")
    assert said[errors.SourceRefused.exit_code].startswith("refused")
    assert click.UsageError.exit_code == errors.ConfigError.exit_code


def every_command(group: click.Group, path: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from every_command(command, f"{path} {name}")
        else:
            yield f"{path} {name}"


def test_the_readme_lists_every_command_and_no_other() -> None:
    assert set(table("command")) == set(every_command(commands, "pgevents"))


def test_the_index_lists_every_decision_by_its_title() -> None:
    index = (ROOT / "docs" / "adr" / "README.md").read_text()
    listed = dict(re.findall(r"^\| \[(\d{4})\]\(\1-[\w-]+\.md\) \| (.+) \|$", index, re.MULTILINE))
    titles = [path.read_text().partition("\n")[0].removeprefix("# ").partition(" ") for path in DECISIONS]

    assert listed == {number: title for number, _, title in titles}


@pytest.mark.parametrize("decision", DECISIONS, ids=named(DECISIONS))
def test_a_decision_has_its_number_and_its_three_parts(decision: Path) -> None:
    text = decision.read_text()

    assert text.startswith(f"# {decision.name[:4]} ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]


def test_the_architecture_names_every_layer_in_its_order() -> None:
    contract = (ROOT / "pyproject.toml").read_text()
    (layers,) = re.findall(r"^layers = \[\n(.*?)^\]", contract, re.MULTILINE | re.DOTALL)
    expected = [name for name in re.findall(r"pgevents\.(\w+)", layers) if name != "__main__"]
    rows = re.findall(r"^\| (`[^|]+) \|", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE)

    assert re.findall(r"\w+", " ".join(rows)) == expected


def test_modules_that_a_page_or_a_docstring_names_exist() -> None:
    for page in [ROOT / "ARCHITECTURE.md", *DECISIONS]:
        for name in re.findall(r"`((?:\w+/)*\w+\.py)`", page.read_text()):
            assert (ROOT / "pgevents" / name).exists(), f"{page.name}: {name}"
    for number in re.findall(
        r"docs/adr/(\d{4})", "".join(path.read_text() for path in ROOT.glob("pgevents/**/*.py"))
    ):
        assert [path for path in DECISIONS if path.name.startswith(number)], number
