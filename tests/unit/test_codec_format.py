"""Which formats there are, and what each has words for."""

import re
from importlib import metadata
from pathlib import Path

import pytest

from pgevents.errors import ConfigError
from pgevents.format import CodecContext, codec_names, open_codec
from tests.golden.case import CASES, CONTEXT, event

DOCUMENTATION = (Path(__file__).parents[2] / "docs" / "formats.md").read_text("utf-8")


def test_the_formats_are_named() -> None:
    assert codec_names() == (
        "cloudevents",
        "cloudevents-binary",
        "debezium",
        "fyle",
        "maxwell",
        "native",
        "sequin",
        "wal2json",
    )


@pytest.mark.parametrize(
    ("name", "near"), [("debezum", "debezium"), ("cloudevent", "cloudevents"), ("Native", "native")]
)
def test_an_unknown_format_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' is not a format") as caught:
        open_codec(name, CONTEXT)

    assert f"Did you mean {near}?" in caught.value.hint


def test_a_format_like_no_other_is_answered_with_all_of_them() -> None:
    with pytest.raises(ConfigError) as caught:
        open_codec("zzz", CONTEXT)

    assert caught.value.hint == f"The formats are {', '.join(codec_names())}."


@pytest.mark.parametrize("name", ["_row", "_cloudevent", "__init__", "cloudevents_binary"])
def test_what_formats_share_is_no_format(name: str) -> None:
    with pytest.raises(ConfigError, match="is not a format"):
        open_codec(name, CONTEXT)


def test_a_format_of_another_package_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    points = metadata.EntryPoints([metadata.EntryPoint("ours", "pgevents.codec.fyle", "pgevents.codec")])
    monkeypatch.setattr("pgevents.format.entry_points", lambda *, group: points.select(group=group))

    assert "ours" in codec_names()
    assert open_codec("ours", CONTEXT).encode(CASES["insert"]) == open_codec("fyle", CONTEXT).encode(CASES["insert"])


@pytest.mark.parametrize("op", ["skip", "summary"])
@pytest.mark.parametrize("name", sorted(set(codec_names()) - {"native", "cloudevents", "cloudevents-binary"}))
def test_evidence_has_no_word_in_the_formats_of_others(name: str, op: str) -> None:
    codec = open_codec(name, CONTEXT)

    assert codec.encode(event(op)) == ()
    assert op not in codec.operations


@pytest.mark.parametrize("name", codec_names())
def test_the_documentation_says_which_operations_a_format_has(name: str) -> None:
    (line,) = re.findall(rf"^\| `{name}` \|(.*)\|$", DOCUMENTATION, re.MULTILINE)
    words = dict(zip(("insert", "update", "delete", "truncate", "message"), line.split("|")[1:], strict=True))

    said = {op for op, word in words.items() if word.strip() != "–"}

    assert said == open_codec(name, CodecContext("d", "n", "v")).operations - {"skip", "summary"}


@pytest.mark.parametrize("name", codec_names())
def test_the_documentation_says_the_content_type_of_a_format(name: str) -> None:
    (line,) = re.findall(rf"^\| `{name}` \|(.*)\|$", DOCUMENTATION, re.MULTILINE)

    assert line.split("|")[0].strip() == f"`{open_codec(name, CONTEXT).content_type}`"
