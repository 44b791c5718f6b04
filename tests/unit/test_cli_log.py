import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest

from pgevents import log

logger = logging.getLogger("pgevents.some.part")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Leaves the process's logging as it was found."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("pgevents", "pika")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def test_a_line_has_time_level_message_and_fields() -> None:
    stream = io.StringIO()
    log.configure("info", "text", stream=stream)

    logger.info("slot opened", extra={"slot": "shop", "lag_bytes": 12, "reason": 'a "b" c', "nothing": ""})

    time, _, rest = stream.getvalue().partition(" ")
    assert len(time) == len("12:30:01")
    assert rest == 'info slot opened slot=shop lag_bytes=12 reason="a \\"b\\" c" nothing=""\n'


def test_a_line_break_in_text_does_not_make_a_second_line() -> None:
    stream = io.StringIO()
    log.configure("info", "text", stream=stream)

    logger.info("first\nsecond", extra={"reason": "third\nfourth"})

    assert stream.getvalue().endswith(' info first\\nsecond reason="third\\nfourth"\n')


@pytest.mark.parametrize("character", [*"\0\t\v\f\r\x1b\x1c\x7f", *"\x85\x9b\xa0\u2028\u2029\u202e\u200b\U000e0001"])
def test_what_cannot_be_printed_is_escaped_in_the_message_and_in_fields(character: str) -> None:
    stream = io.StringIO()
    log.configure("info", "text", stream=stream)
    text = f"a{character}b"
    escaped = f"a{json.dumps(character)[1:-1]}b"

    logger.info(text, extra={"reason": text, "words": f"two {text}"})

    assert stream.getvalue().endswith(f' info {escaped} reason="{escaped}" words="two {escaped}"\n')


def test_words_of_any_language_are_written_as_they_are() -> None:
    stream = io.StringIO()
    log.configure("info", "text", stream=stream)

    logger.info("höflich 価格", extra={"reason": "価格", "words": 'zwölf "é" €'})

    assert stream.getvalue().endswith(' info höflich 価格 reason=価格 words="zwölf \\"é\\" €"\n')


def test_a_json_line_is_one_object() -> None:
    stream = io.StringIO()
    log.configure("info", "json", stream=stream)

    logger.warning("trying again", extra={"attempt": 2, "reason": "höflich\n"})

    line = json.loads(stream.getvalue())
    assert stream.getvalue().count("\n") == 1
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "warning",
        "logger": "pgevents.some.part",
        "message": "trying again",
        "attempt": 2,
        "reason": "höflich\n",
    }


@pytest.mark.parametrize("style", ["text", "json"])
def test_secrets_are_not_logged(style: str) -> None:
    stream = io.StringIO()
    log.configure("info", style, stream=stream)

    try:
        int("amqp://u:hunter2@")
    except ValueError:
        logger.exception("cannot open amqp://u:hunter2@h", extra={"dsn": "host=h password=hunter2"})

    assert "ValueError" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


def test_lines_below_the_level_are_left_out() -> None:
    stream = io.StringIO()
    log.configure("warning", "text", stream=stream)

    logger.info("not this")
    logger.warning("this")

    assert "this" in stream.getvalue()
    assert "not this" not in stream.getvalue()


def test_debug_is_ours_alone_and_pika_is_quiet() -> None:
    stream = io.StringIO()
    log.configure("debug", "text", stream=stream)

    logging.getLogger("asyncio").debug("not this")
    logging.getLogger("pika.adapters").error("nor this")
    logger.debug("this")

    assert stream.getvalue().count("\n") == 1


def test_levels_are_coloured_on_a_terminal_unless_told_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    coloured, plain = Terminal(), Terminal()

    monkeypatch.delenv("NO_COLOR", raising=False)
    log.configure("info", "text", stream=coloured)
    logger.error("broken")
    monkeypatch.setenv("NO_COLOR", "1")
    log.configure("info", "text", stream=plain)
    logger.error("broken")

    assert "\033[31merror\033[0m" in coloured.getvalue()
    assert "\033" not in plain.getvalue()


def test_the_log_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info", "text", stream=sys.stderr)

    logger.info("here")

    assert capsys.readouterr().err.endswith("info here\n")
