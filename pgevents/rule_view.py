"""Rules as a person or a program reads them, in the words of the file, without what is left at its default."""

import json
from collections.abc import Iterator
from typing import Any

from pgevents.filters import TableFilter
from pgevents.rule import OPERATIONS, ColumnRule, FilterRule, Missing, RouteRule, Rules, SkipRule
from pgevents.rule_mistake import place

Rule = SkipRule | FilterRule | ColumnRule | RouteRule


def as_document(rules: Rules) -> dict[str, list[dict[str, Any]]]:
    """Each kind of rules, in order, ready for JSON."""
    return {kind: [rule_document(rule) for rule in each] for kind, each in _kinds(rules)}


def lines(rules: Rules) -> list[str]:
    """A line for each rule."""
    return [f"{place(kind, rule.name)}: {_keys_line(rule)}" for kind, each in _kinds(rules) for rule in each]


def rule_document(rule: Rule) -> dict[str, Any]:
    """One rule: its name, and the keys that it gives."""
    given = {"name": rule.name} | dict(_keys(rule))
    return {key: value for key, value in given.items() if value is not False and value not in (None, "", [], {})}


def _kinds(rules: Rules) -> tuple[tuple[str, tuple[Rule, ...]], ...]:
    return ("skip", rules.skip), ("filter", rules.filter), ("columns", rules.columns), ("route", rules.route)


def _keys_line(rule: Rule) -> str:
    given = rule_document(rule)
    return ", ".join(
        f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in given.items() if key != "name"
    )


def _keys(rule: Rule) -> Iterator[tuple[str, Any]]:
    if rule.tables is not None:
        yield from _tables(rule.tables)
    match rule:
        case SkipRule():
            yield from _skip(rule)
        case ColumnRule():
            yield from ((key, sorted(getattr(rule, key))) for key in ("include", "exclude", "mask", "hash"))
            yield "truncate", rule.truncate
        case FilterRule():
            yield from _change(rule)
            yield "drop_unchanged", rule.unchanged
            yield "ignore", sorted(rule.ignore)
        case RouteRule():
            yield from _change(rule)
            yield from _destination(rule)


def _tables(tables: TableFilter) -> Iterator[tuple[str, Any]]:
    yield "tables", list(tables.include)
    yield "exclude_tables", list(tables.exclude)


def _skip(rule: SkipRule) -> Iterator[tuple[str, Any]]:
    for key in ("marked", "origin", "rows", "xid"):
        yield key, getattr(rule, key)
    yield "lsn", f"{rule.first}..{rule.last}" if rule.last else ""
    for key in ("since", "until", "action", "reason", "exchange", "routing_key"):
        yield key, getattr(rule, key)
    yield "push_down", rule.push_down


def _change(rule: FilterRule | RouteRule) -> Iterator[tuple[str, Any]]:
    yield (
        "operations",
        [op for op in OPERATIONS if op in rule.operations] if set(OPERATIONS) - rule.operations else [],
    )
    yield "when", rule.when.text if rule.when else ""
    yield "on_missing", "" if rule.on_missing is Missing.STOP else rule.on_missing


def _destination(rule: RouteRule) -> Iterator[tuple[str, Any]]:
    yield "exchange", rule.exchange
    yield "routing_key", rule.routing_key
    yield "headers", dict(rule.headers)
    yield "priority", rule.priority
    yield "expiration", None if rule.expiration_ms is None else rule.expiration_ms / 1000
    yield "format", rule.format
    yield "compression", rule.compression
