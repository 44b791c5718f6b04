"""Random statements of one transaction: each step writes some rows, in some way PostgreSQL has of doing so."""

import io
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg2

from chaos.ledger import DEFAULT_TABLES

PREFIX = "chaos"
"""Of the logical messages."""

_FRESH = 1_000_000
_TOAST_CHANCE = 0.08
_SAVEPOINT_CHANCE = 0.3
_DEEPEST = 3
_WORDS = ("zebra", "Übermaß", 'quote " and \\ backslash', "line\nbreak", "'; --", "日本", "", "tab\t")


@dataclass(slots=True)
class Steps:
    """Writes as ``chance`` has it, to rows of ``keys`` where it does not make new ones.

    ``rows`` counts what was written. A step may raise psycopg2.Error, as any statement may.
    """

    cursor: Any
    chance: random.Random
    keys: Sequence[int]
    names: Sequence[str] = DEFAULT_TABLES
    rows: int = 0

    def some(self, count: int, depth: int = 0) -> None:
        """That many steps, some of them within savepoints, of which some are rolled back to."""
        for _ in range(count):
            if depth < _DEEPEST and self.chance.random() < _SAVEPOINT_CHANCE:
                self._savepoint(depth)
            else:
                self.one()

    def one(self) -> None:
        (step,) = self.chance.choices(list(_STEPS), list(_STEPS.values()))
        step(self)

    def _savepoint(self, depth: int) -> None:
        name = f"s{depth}"
        self._run(f"SAVEPOINT {name}")
        try:
            self.some(self.chance.randint(1, 3), depth + 1)
            if self.chance.random() < 0.2:
                self._fail()
        except psycopg2.IntegrityError:
            self._run(f"ROLLBACK TO {name}")
        else:
            self._run(f"ROLLBACK TO {name}" if self.chance.random() < 0.4 else f"RELEASE {name}")

    def insert(self) -> None:
        self._new(self._table(), self.chance.choice((1, 1, 2, 5)))

    def copy(self) -> None:
        """New rows that share their LSN."""
        count = self.chance.choice((1, 10, 60))
        self.cursor.execute("SELECT nextval('audit.key') FROM generate_series(1, %s)", (count,))
        lines = "".join(f"{key}\t{number}.50\t{{}}\n" for number, (key,) in enumerate(self.cursor.fetchall()))
        table = self._table()
        self.cursor.copy_expert(f"COPY {table} (id, amount, tags) FROM STDIN", io.StringIO(lines))
        self.rows += count

    def upsert(self) -> None:
        table = self._table()
        self._write(
            f"INSERT INTO {table} AS t (id, amount, note) SELECT key, %s, %s FROM unnest(%s) AS key"
            " ON CONFLICT (id) DO UPDATE SET version = t.version + 1, op = DEFAULT, note = excluded.note",
            self._amount(),
            self._note(),
            self._some_keys(4),
        )

    def update(self) -> None:
        table, keys = self._table(), self._some_keys(5)
        if self.chance.random() < _TOAST_CHANCE:
            self._write(f"UPDATE {table} SET op = DEFAULT, body = %s WHERE id = ANY(%s)", self._body(), keys)
        else:
            self._write(
                f"UPDATE {table} SET version = version + 1, op = DEFAULT, note = %s, tags = %s WHERE id = ANY(%s)",
                self._note(),
                self._tags(),
                keys,
            )

    def delete(self) -> None:
        self._write(f"DELETE FROM {self._table()} WHERE id = ANY(%s)", self._some_keys(2))

    def rekey(self) -> None:
        """The row gets a key that no row ever had, or one that another may have, which fails."""
        table, key = self._table(), self.chance.choice(self.keys)
        if self.chance.random() < 0.5:
            self._write(f"UPDATE {table} SET id = nextval('audit.key'), op = DEFAULT WHERE id = %s", key)
        else:
            self._write(
                f"UPDATE {table} SET id = %s, op = DEFAULT, version = version + 1 WHERE id ="
                f" (SELECT id FROM {table} AS other WHERE id >= {_FRESH}"
                f" AND NOT EXISTS (SELECT FROM {table} WHERE id = %s) ORDER BY id LIMIT 1)",
                key,
                key,
            )

    def live_and_die(self) -> None:
        """Inserted, updated and deleted within one transaction."""
        table = self._table()
        (key,) = self._new(table, 1)
        self._write(f"UPDATE {table} SET op = DEFAULT, note = %s WHERE id = %s", self._note(), key)
        if self.chance.random() < 0.5:
            self._write(f"UPDATE {table} SET op = DEFAULT, body = %s WHERE id = %s", self._body(), key)
        self._write(f"DELETE FROM {table} WHERE id = %s", key)

    def several_tables(self) -> None:
        keys = self._some_keys(2)
        for table in self.names:
            self._write(f"UPDATE {table} SET op = DEFAULT, version = version + 1 WHERE id = ANY(%s)", keys)
            self._new(table, 1)

    def trim(self) -> None:
        """Keeps a table from growing for ever."""
        table = self._table()
        self._write(
            f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE id >= {_FRESH} ORDER BY id LIMIT 40"
            " FOR UPDATE SKIP LOCKED)"
        )

    def say(self) -> None:
        self.cursor.execute("SELECT audit.say(%s, %s)", (PREFIX, " " + "x" * self.chance.choice((0, 10, 3000))))
        self.rows += 1

    def scratch(self) -> None:
        """A small table that is emptied now and then."""
        if self.chance.random() < 0.1:
            self._run("TRUNCATE scratch")
            self.rows += 1
        else:
            self._new("scratch", 3)

    def huge(self) -> None:
        """A few thousand rows in one statement: more than the server decodes in memory."""
        count = self.chance.randint(1500, 4000)
        self.cursor.execute("SELECT count(*) FROM bulk")
        if self.cursor.fetchone()[0] < 3 * count:
            self._new("bulk", count)
        elif self.chance.random() < 0.3:
            self._write("UPDATE bulk SET op = DEFAULT, version = version + 1")
        else:
            self._write("DELETE FROM bulk WHERE id IN (SELECT id FROM bulk ORDER BY id LIMIT %s)", count)

    def _new(self, table: str, count: int) -> list[int]:
        self.cursor.execute(
            f"INSERT INTO {table} (id, amount, note, tags, body)"
            " SELECT nextval('audit.key'), %s, %s, %s, %s FROM generate_series(1, %s) RETURNING id",
            (
                self._amount(),
                self._note(),
                self._tags(),
                self._body() if self.chance.random() < _TOAST_CHANCE and count < 10 else None,
                count,
            ),
        )
        self.rows += count
        return [key for (key,) in self.cursor.fetchall()]

    def _write(self, statement: str, *parameters: object) -> None:
        self.cursor.execute(statement, parameters)
        self.rows += self.cursor.rowcount

    def _run(self, statement: str) -> None:
        self.cursor.execute(statement)

    def _fail(self) -> None:
        """An error in the middle, which the savepoint takes back."""
        (key,) = self._new(self._table(), 1)
        for table in self.names:
            self._write(f"INSERT INTO {table} (id) VALUES (%s), (%s)", key, key)

    def _table(self) -> str:
        return self.chance.choice(self.names)

    def _some_keys(self, most: int) -> list[int]:
        return sorted(self.chance.sample(self.keys, self.chance.randint(1, most)))

    def _amount(self) -> str:
        return f"{self.chance.randint(-10_000, 10**9) / 100:.2f}"

    def _note(self) -> str | None:
        return self.chance.choice((*_WORDS, None))

    def _tags(self) -> str:
        return json.dumps({"n": self.chance.randint(0, 2**53), "words": [self._note(), None], "nested": {"a": {}}})

    def _body(self) -> str:
        """Large and stored outside its row."""
        return f"{self.chance.getrandbits(64):016x}" * self.chance.choice((200, 400, 1200))


_STEPS: dict[Callable[[Steps], None], float] = {
    Steps.insert: 6,
    Steps.upsert: 8,
    Steps.update: 10,
    Steps.delete: 3,
    Steps.rekey: 3,
    Steps.live_and_die: 2,
    Steps.several_tables: 2,
    Steps.copy: 1,
    Steps.trim: 2,
    Steps.say: 2,
    Steps.scratch: 1,
}
