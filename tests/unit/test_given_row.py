"""Rows that are given as JSON: what PostgreSQL would print is read, all else refused with its column."""

import pytest

from pgevents.condition import kind
from pgevents.errors import ConfigError
from pgevents.given_row import check_row, read_row

TYPES = {
    "flag": kind.BOOL,
    "small": kind.INT2,
    "total": kind.NUMERIC,
    "ratio": kind.FLOAT8,
    "name": kind.TEXT,
    "at": kind.TIMESTAMPTZ,
    "day": kind.DATE,
    "id": kind.UUID,
    "photo": kind.BYTEA,
    "doc": kind.JSON,
    "owner": kind.OID,
    "net": kind.INET,
}


@pytest.mark.parametrize(
    "text",
    [
        '{"flag": true, "small": -32768, "total": 12.50, "ratio": 1e300, "name": "x", "doc": {"a": [1.0]}}',
        '{"flag": "f", "total": "NaN", "ratio": "-Infinity", "day": "0044-03-15 BC", "at": "2020-01-01 00:00:00+00"}',
        '{"id": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "photo": "\\\\x00ff", "doc": "null", "owner": 5}',
        '{"flag": null, "small": null, "doc": null, "at": "infinity", "net": "::1"}',
    ],
)
def test_what_postgresql_prints_is_a_row(text: str) -> None:
    check_row("new", read_row("new", text), TYPES)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"flag": "secret"}', "--old: the value of flag is no boolean"),
        ('{"flag": "true"}', "--old: the value of flag is no boolean"),
        ('{"small": 32768}', "--old: the value of small is no smallint"),
        ('{"small": 1.5}', "--old: the value of small is no smallint"),
        ('{"name": 5, "total": "secret"}', "--old: the value of total is no numeric"),
        ('{"total": true}', "--old: the value of total is no numeric"),
        ('{"ratio": 1e400}', "--old: the value of ratio is no double precision"),
        ('{"at": "yesterday"}', "--old: the value of at is no timestamptz"),
        ('{"day": "2020-02-30"}', "--old: the value of day is no date"),
        ('{"id": "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"}', "--old: the value of id is no uuid"),
        ('{"photo": "secret"}', "--old: the value of photo is no bytea"),
        ('{"doc": "secret"}', "--old: the value of doc is no json"),
        ('{"nmae": "x"}', "--old: the table has no column nmae"),
    ],
)
def test_what_it_never_prints_is_refused_with_its_column(text: str, error: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_row("old", read_row("old", text), TYPES)

    assert str(caught.value) == error
    assert caught.value.hint
    assert "secret" not in caught.value.hint
