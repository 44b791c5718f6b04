"""The watermark as JSON. Pure."""

from dataclasses import asdict
from typing import Any

import orjson

from pgevents.errors import StateRefused
from pgevents.lsn import Lsn
from pgevents.watermark import AcceptedGap, Watermark

VERSION = 1


def written(watermark: Watermark, *, saved_at: str) -> bytes:
    """One object, indented, ``end_lsn`` as PostgreSQL prints it; ``saved_at`` is for people."""
    document = {"version": VERSION, **asdict(watermark), "saved_at": saved_at}
    document["end_lsn"] = str(watermark.end_lsn)
    document["gaps"] = gaps_written(watermark)
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def gaps_written(watermark: Watermark) -> list[dict[str, str]]:
    return [
        {"accepted_at": gap.accepted_at, "reason": gap.reason, "before": str(gap.before), "after": str(gap.after)}
        for gap in watermark.gaps
    ]


def read(text: bytes, name: str) -> Watermark:
    """Raises StateRefused, naming ``name``, for anything that ``written`` did not write."""
    try:
        document = orjson.loads(text)
        version = document["version"]
        if version != VERSION:
            raise StateRefused(
                f"{name} holds a watermark of version {version}, and this PGEvents reads version {VERSION}",
                hint="Use the PGEvents that wrote it, or a newer one.",
            )
        return Watermark(
            system_id=_text(document["system_id"]),
            timeline=int(document["timeline"]),
            database=_text(document["database"]),
            slot=_text(document["slot"]),
            plugin=_text(document["plugin"]),
            end_lsn=Lsn.parse(document["end_lsn"]),
            gaps=gaps_read(document["gaps"]),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise StateRefused(
            f"{name} does not hold a watermark",
            hint="Name another file with --state. If this one was damaged, restore it: without it a gap before now "
            "would go unnoticed.",
        ) from error


def gaps_read(documents: list[dict[str, Any]]) -> tuple[AcceptedGap, ...]:
    return tuple(
        AcceptedGap(gap["accepted_at"], gap["reason"], Lsn.parse(gap["before"]), Lsn.parse(gap["after"]))
        for gap in documents
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
