"""Tables rebuilt from events alone."""

from typing import Any

from chaos.ledger import COLUMNS, TABLES, Row, Tables

Event = dict[str, Any]


class Replica:
    """Applies events in the order they are given. A complaint says what an event did not fit, with no values."""

    def __init__(self) -> None:
        self.tables: Tables = {table: {} for table in TABLES}

    def apply(self, event: Event) -> str:
        """Empty where the event fits what came before it."""
        op, rows = event["op"], self.tables.get(event["table"])
        if op == "message":
            return ""
        if rows is None:
            return f"unknown table {event['table']}"
        match op:
            case "insert":
                return self._insert(rows, event)
            case "update":
                return self._update(rows, event)
            case "delete":
                return self._delete(rows, event)
        rows.clear()
        return ""

    def differences(self, source: Tables) -> list[str]:
        """Which rows are not as they are in the database."""
        return [
            f"{table} {key}"
            for table, rows in source.items()
            for key in sorted(rows.keys() | self.tables[table].keys())
            if rows.get(key) != self.tables[table].get(key)
        ]

    def _insert(self, rows: dict[int, Row], event: Event) -> str:
        new = _known(event["new"])
        was_there = new["id"] in rows
        rows[new["id"]] = new
        return "inserted over a row" if was_there else ""

    def _update(self, rows: dict[int, Row], event: Event) -> str:
        old = rows.pop(event["old"]["id"], None)
        new = _known(event["new"])
        was_there = new["id"] in rows
        filled = {name: old[name] for name in event["missing"] if name in COLUMNS and name in old} if old else {}
        rows[new["id"]] = {**filled, **new}
        if old is None:
            return "updated a row that was not there"
        if was_there:
            return "a key changed to that of another row"
        return "" if _fits(event, old) else "the old row was another"

    def _delete(self, rows: dict[int, Row], event: Event) -> str:
        old = rows.pop(event["old"]["id"], None)
        if old is None:
            return "deleted a row that was not there"
        return "" if _fits(event, old) else "the old row was another"


def _fits(event: Event, old: Row) -> bool:
    return not event["old_complete"] or _known(event["old"]) == old


def _known(row: Row) -> Row:
    """Without columns that a fault adds and drops."""
    return {name: row[name] for name in COLUMNS if name in row}
