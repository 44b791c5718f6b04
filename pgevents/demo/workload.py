"""A small shop at work: orders placed, paid, shipped and cancelled, prices changed, and some changes of mind."""

import random
from collections.abc import Sequence

from psycopg2.extensions import connection, cursor
from psycopg2.extras import execute_values

TABLES = ("shop.customers", "shop.products", "shop.orders", "shop.order_lines")

BULK_ROWS = 300
BULK_EVERY, BULK_AT = 240, 40
ROLLBACK_EVERY, ROLLBACK_AT = 90, 20

# Orders carry their old values, so that a consumer can see what changed; the others send their key alone.
_SCHEMA = """
CREATE SCHEMA shop;
CREATE TABLE shop.customers (id bigserial PRIMARY KEY, name text NOT NULL, city text, tags jsonb);
CREATE TABLE shop.products (id bigserial PRIMARY KEY, title text NOT NULL, price numeric(10,2), stock int);
CREATE TABLE shop.orders (id bigserial PRIMARY KEY, customer bigint NOT NULL, status text NOT NULL,
                          total numeric(12,2), placed_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE shop.order_lines (id bigserial PRIMARY KEY, order_id bigint NOT NULL, product bigint, quantity int);
ALTER TABLE shop.orders REPLICA IDENTITY FULL;
"""
_NAMES = ("Ada", "Grace", "Edsger", "Barbara", "Tony", "Frances", "Alan", "Radia")
_CITIES = ("Zürich", "Lyon", "Oslo", "København", "Kraków", "Porto")
_GOODS = ("teapot", "lantern", "notebook", "compass", "kettle", "umbrella", "chess set", "atlas")
_NEXT_STATUS = {"new": "paid", "paid": "shipped", "shipped": "delivered"}


def open_shop(database: connection) -> None:
    """Create the empty tables."""
    with database, database.cursor() as sql:
        sql.execute(_SCHEMA)


class Shop:
    """Works one transaction at a time on an open shop; the same ``seed`` gives the same business."""

    def __init__(self, database: connection, *, seed: int = 1) -> None:
        self._database = database
        self._random = random.Random(seed)  # noqa: S311 - a shop, not a secret
        self._open_orders: dict[int, str] = {}
        self._products: list[int] = []
        self._steps = 0
        self.rolled_back = 0

    def step(self) -> str:
        """Run one transaction; a word about it when it was an unusual one, else empty."""
        self._steps += 1
        with self._database.cursor() as sql:
            if not self._products:
                return self._stock_the_shelves(sql)
            if self._steps % BULK_EVERY == BULK_AT:
                return self._import_customers(sql)
            if self._steps % ROLLBACK_EVERY == ROLLBACK_AT:
                return self._abandon_checkout(sql)
            self._ordinary_business(sql)
        return ""

    def _stock_the_shelves(self, sql: cursor) -> str:
        rows = [(f"{goods} no. {n}", 5 + n * 1.25, 100) for n in range(5) for goods in _GOODS]
        self._products = _insert(sql, "shop.products (title, price, stock)", rows)
        self._database.commit()
        return f"one transaction of {len(rows)} inserts: the shelves are filled"

    def _import_customers(self, sql: cursor) -> str:
        rows = [(self._random.choice(_NAMES), self._random.choice(_CITIES), '{"src": "import"}')] * BULK_ROWS
        _insert(sql, "shop.customers (name, city, tags)", rows)
        self._database.commit()
        return f"one transaction of {BULK_ROWS} inserts: customers were imported"

    def _abandon_checkout(self, sql: cursor) -> str:
        order = self._write_order(sql, status="abandoned")
        lines = self._lines_of(sql, order)
        sql.execute("UPDATE shop.products SET stock = stock - 1")
        written = 1 + lines + sql.rowcount
        self._database.rollback()
        self.rolled_back += written
        return f"{written} changes were rolled back: none of them may appear"

    def _ordinary_business(self, sql: cursor) -> None:
        (business,) = self._random.choices(("order", "advance", "cancel", "price"), weights=(4, 4, 1, 1))
        match business if self._open_orders else "order":
            case "order":
                self._open_orders[self._place_order(sql)] = "new"
            case "advance":
                self._advance_order(sql)
            case "cancel":
                self._cancel_order(sql)
            case "price":
                product = self._random.choice(self._products)
                sql.execute("UPDATE shop.products SET price = price * 1.01 WHERE id = %s", (product,))
        self._database.commit()

    def _place_order(self, sql: cursor) -> int:
        (customer,) = _insert(
            sql,
            "shop.customers (name, city, tags)",
            [(self._random.choice(_NAMES), self._random.choice(_CITIES), '{"src": "web"}')],
        )
        order = self._write_order(sql, status="new", customer=customer)
        self._lines_of(sql, order)
        return order

    def _write_order(self, sql: cursor, *, status: str, customer: int = 0) -> int:
        total = self._random.randrange(500, 50000) / 100
        (order,) = _insert(sql, "shop.orders (customer, status, total)", [(customer, status, total)])
        return order

    def _lines_of(self, sql: cursor, order: int) -> int:
        count = self._random.randrange(1, 5)
        rows = [(order, self._random.choice(self._products), self._random.randrange(1, 4)) for _ in range(count)]
        _insert(sql, "shop.order_lines (order_id, product, quantity)", rows)
        return count

    def _advance_order(self, sql: cursor) -> None:
        order = self._random.choice(list(self._open_orders))
        status = _NEXT_STATUS[self._open_orders[order]]
        sql.execute("UPDATE shop.orders SET status = %s WHERE id = %s", (status, order))
        if status in _NEXT_STATUS:
            self._open_orders[order] = status
        else:
            del self._open_orders[order]

    def _cancel_order(self, sql: cursor) -> None:
        order = self._random.choice(list(self._open_orders))
        sql.execute("DELETE FROM shop.order_lines WHERE order_id = %s", (order,))
        sql.execute("DELETE FROM shop.orders WHERE id = %s", (order,))
        del self._open_orders[order]


def _insert(sql: cursor, into: str, rows: Sequence[Sequence[object]]) -> list[int]:
    """Insert in one statement; the ids the database gave, in order."""
    statement = f"INSERT INTO {into} VALUES %s RETURNING id"
    return [row[0] for row in execute_values(sql, statement, rows, page_size=len(rows), fetch=True)]
