"""Every format's golden files. ``python -m tests.golden`` writes them anew; review the difference."""

import json

import pytest

from pgevents.format import codec_names, open_codec
from tests.golden.case import CASES, CONTEXT, FOLDER, bodies, golden_files


def test_every_format_has_golden_files_and_no_other_folder_does() -> None:
    folders = {path.name for path in FOLDER.iterdir() if path.is_dir() and not path.name.startswith("__")}

    assert folders == set(codec_names())


@pytest.mark.parametrize("name", codec_names())
def test_a_format_makes_its_golden_files_byte_for_byte(name: str) -> None:
    kept = {path.name: path.read_bytes() for path in (FOLDER / name).iterdir()}

    assert dict(golden_files(name)) == kept


@pytest.mark.parametrize("name", codec_names())
def test_a_format_has_a_word_for_every_case_but_the_operations_it_leaves_out(name: str) -> None:
    codec = open_codec(name, CONTEXT)

    wordless = {case for case, event in CASES.items() if not bodies(codec, event)}

    assert wordless == {case for case, event in CASES.items() if event.op not in codec.operations}


@pytest.mark.parametrize("name", codec_names())
def test_golden_bodies_are_one_line_of_json_in_utf8(name: str) -> None:
    lines = [path for path in (FOLDER / name).iterdir() if not path.name.endswith(".headers.json")]

    for path in lines:
        (line,) = path.read_text("utf-8").split("\n")[:-1]
        assert json.loads(line)
