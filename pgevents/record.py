"""The events without rows: truncated tables, logical messages, and the records of what rules kept back."""

from collections import defaultdict
from typing import Any

from pgevents.event import Event, Transaction
from pgevents.tally import Skipped, Summary
from pgevents.wal import LogicalMessage, Relation


def truncate_event(relation: Relation, transaction: Transaction, seq: int) -> Event:
    event = _event("truncate", transaction, suffix=str(seq), seq=seq)
    return event._replace(schema=relation.schema, table=relation.name)


def message_event(message: LogicalMessage, transaction: Transaction, seq: int) -> Event:
    """The event of a logical message. Content that is not UTF-8 is given in hex, as bytea is."""
    try:
        content, encoding = message.content.decode(), "text"
    except UnicodeDecodeError:
        content, encoding = "\\x" + message.content.hex(), "hex"
    detail = {
        "prefix": message.prefix,
        "content": content,
        "encoding": encoding,
        "transactional": message.transactional,
    }
    return _event("message", transaction, suffix=str(seq), seq=seq, message=detail)


def skip_event(skipped: Skipped, transaction: Transaction, number: int) -> Event:
    """The record that a transaction was skipped, docs/event.md. ``number`` counts the records before it."""
    return _event(
        "skip",
        transaction,
        suffix=f"skip-{number + 1}" if number else "skip",
        seq=skipped.from_seq,
        skip={
            "rule": skipped.rule,
            "action": skipped.action,
            "reason": skipped.reason,
            "by": skipped.by or None,
            "application": skipped.application or None,
            "from_seq": skipped.from_seq or None,
            "rows": _rows(skipped),
            "messages": sum(count for outline, count in skipped.rows.items() if not outline.table),
        },
    )


def _rows(skipped: Skipped) -> list[dict[str, Any]]:
    tables: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for (op, schema, table), count in skipped.rows.items():
        if table:
            tables[schema, table][op] = count
    return [{"schema": schema, "table": table, **counts} for (schema, table), counts in sorted(tables.items())]


def summary_event(summary: Summary, transaction: Transaction, number: int) -> Event:
    """What a summarised transaction did to one table. Its id ends with ``summary-`` and the table's number in it."""
    relation, operations, first, last, columns = summary
    detail = {
        "operations": operations,
        "first": first,
        "last": last,
        "columns": None if columns is None else list(columns),
    }
    event = _event("summary", transaction, suffix=f"summary-{number}", seq=0, summary=detail)
    return event._replace(schema=relation.schema, table=relation.name)


def _event(op: str, transaction: Transaction, *, suffix: str, seq: int, **detail: Any) -> Event:
    return Event(
        id=f"{transaction.id_prefix}{suffix}",
        op=op,
        schema=None,
        table=None,
        key=None,
        new=None,
        old=None,
        old_complete=False,
        changed=None,
        missing=[],
        transaction=transaction,
        seq=seq,
        **detail,
    )
