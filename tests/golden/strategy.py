"""Any event, for Hypothesis."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from hypothesis import strategies as st

from pgevents.event import Event, Transaction
from pgevents.lsn import Lsn

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

text = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
document = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), text),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
fragment = document.map(lambda value: orjson.Fragment(json.dumps(value)))
scalar = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["NaN", "Infinity", "-Infinity"]),
    text,
    fragment,
)
value = st.one_of(scalar, st.lists(st.one_of(scalar, st.lists(scalar, max_size=2)), max_size=3))
row = st.dictionaries(text, value, max_size=4)
identifier = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=63)


@st.composite
def transactions(draw: st.DrawFn) -> Transaction:
    lsn = Lsn(draw(st.integers(1, 2**64 - 1)))
    prefix = f"7-1-{lsn:X}-"
    if draw(st.booleans()):
        return Transaction(prefix, None, str(lsn), None, 0, None)
    at = draw(st.datetimes(datetime(2000, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)))  # noqa: DTZ001
    committed_at = at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    seconds = (at - EPOCH) // timedelta(seconds=1)
    origin = draw(st.none() | text)
    return Transaction(prefix, draw(st.integers(1, 2**32 - 1)), str(lsn), committed_at, seconds, origin)


@st.composite
def events(draw: st.DrawFn) -> Event:
    op = draw(st.sampled_from(["insert", "update", "delete", "truncate", "message", "skip", "summary"]))
    has_table, transaction, seq = op not in {"message", "skip"}, draw(transactions()), draw(st.integers(0, 2**31))
    content = draw(st.binary().map(lambda raw: ("\\x" + raw.hex(), "hex")) | text.map(lambda said: (said, "text")))
    message = {"prefix": draw(text), "content": content[0], "encoding": content[1], "transactional": True}
    fields: dict[str, Any] = {"message": message} if op == "message" else {}
    if op in {"skip", "summary"}:
        fields = {op: {"rule": draw(text)}}
    return Event(
        id=f"{transaction.id_prefix}{seq}",
        op=op,
        schema=draw(identifier) if has_table else None,
        table=draw(identifier) if has_table else None,
        key=draw(st.none() | row) if op in {"insert", "update", "delete"} else None,
        new=draw(row) if op in {"insert", "update"} else None,
        old=draw(row) if op in {"update", "delete"} else None,
        old_complete=draw(st.booleans()),
        changed=draw(st.none() | st.lists(text, max_size=3)) if op == "update" else None,
        missing=draw(st.lists(text, max_size=2)) if op == "update" else [],
        transaction=transaction,
        seq=seq,
        **fields,
    )
