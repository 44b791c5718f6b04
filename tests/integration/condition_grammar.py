"""Random rows of a table with columns of every type, and random conditions on them, for the oracle."""

from typing import Any

from hypothesis import strategies as st

from pgevents.condition import kind

COLUMNS = {
    "i2": ("smallint", kind.INT2),
    "i4": ("integer", kind.INT4),
    "i8": ("bigint", kind.INT8),
    "n": ("numeric", kind.NUMERIC),
    "f4": ("real", kind.FLOAT4),
    "f8": ("double precision", kind.FLOAT8),
    "b": ("boolean", kind.BOOL),
    "t": ("text", kind.TEXT),
    "v": ("varchar(12)", kind.VARCHAR),
    "c": ("char(4)", kind.BPCHAR),
    "d": ("date", kind.DATE),
    "tm": ("time", kind.TIME),
    "ts": ("timestamp", kind.TIMESTAMP),
    "tz": ("timestamptz", kind.TIMESTAMPTZ),
    "u": ("uuid", kind.UUID),
    "by": ("bytea", kind.BYTEA),
    "j": ("json", kind.JSON),
    "jb": ("jsonb", kind.JSONB),
    "ia": ("integer[]", 1007),
    "Odd name": ("integer", kind.INT4),
    "o": ("oid", kind.OID),
    "do": ("oid_domain", kind.OID),
    "di": ("integer_domain", kind.INT4),
    "dr": ("real_domain", kind.FLOAT4),
    "db": ("boolean_domain", kind.BOOL),
    "dby": ("bytea_domain", kind.BYTEA),
}
DOMAINS = {name: type.removesuffix("_domain") for name, (type, _) in COLUMNS.items() if type.endswith("_domain")}
"""The columns that have a domain, and what it is over."""
TYPES = {name: oid for name, (_, oid) in COLUMNS.items()}

_INT2 = ["0", "1", "-1", "2", "7", "100", "32767", "-32768"]
_INT4 = [*_INT2, "32768", "65536", "2147483647", "-2147483648"]
_INT8 = [*_INT4, "2147483648", "9007199254740993", "9223372036854775807", "-9223372036854775808"]
_NUMERIC = [
    *_INT8,
    "0.1",
    "1.10",
    "-2.50",
    "0.5",
    "1.5",
    "2.5",
    "1e-20",
    "1e400",
    "-1e400",
    "123456789012345678901234567890.123",
    "9999.9999",
]
_NUMERIC += ["NaN", "Infinity", "-Infinity", "0.000", "1e30", "33.333333333333333333", "10000", "0.0001"]
_FLOAT = [
    "0",
    "-0",
    "1",
    "1.1",
    "0.1",
    "-2.5",
    "0.5",
    "1.5",
    "1e10",
    "16777217",
    "3e-5",
    "NaN",
    "Infinity",
    "-Infinity",
]
_FLOAT4 = [*_FLOAT, "3.4028235e38", "1e-45", "1e6", "123456.7"]
_FLOAT8 = [*_FLOAT, "1.7976931348623157e308", "5e-324", "1e15", "1e14", "123456789.123456789", "9007199254740993"]
_WORDS = [
    "",
    " ",
    "a",
    "A",
    "ab",
    "ab ",
    "AB",
    "abc",
    "%",
    "a%",
    "_",
    "a_c",
    "\\",
    "a\\",
    "é",
    "É",
    "ß",
    "İ",
    "Σσς",
    "ǅ",
    "日本",
]
_WORDS += [
    "it's",
    "1",
    " 12 ",
    "1e3",
    "-5",
    "1.10",
    "NaN",
    "inf",
    "true",
    "f",
    "yes",
    "o",
    "x\ny",
    "😀",
    "2020-01-01",
    "a b c",
]
_DATES = [
    "2020-01-01",
    "1999-12-31",
    "2000-02-29",
    "0001-01-01",
    "0044-03-15 BC",
    "infinity",
    "-infinity",
    "5874897-12-31",
]
_DATES += ["4714-11-24 BC", "294277-01-01", "2020-06-15"]
_TIMES = ["00:00:00", "24:00:00", "23:59:59.999999", "12:34:56.7", "00:00:00.000001"]
_STAMPS = ["2020-01-01 00:00:00", "2020-01-01 12:34:56.789", "1999-12-31 23:59:59.999999", "0044-03-15 10:00:00 BC"]
_STAMPS += ["infinity", "-infinity", "294276-12-31 23:59:59.999999", "4714-11-24 00:00:00 BC", "2020-06-15 00:00:00"]
_UUIDS = [
    "00000000-0000-0000-0000-000000000000",
    "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
]
_BYTES = ["\\x", "\\x00", "\\xff", "\\x61", "\\x6162"]
_DOCUMENTS = ["{}", "[]", "5", "null", '"a"', "true", '{"a": 1, "b": "x"}', '{"a": {"b": [1, "x", null]}, "c": null}']
_DOCUMENTS += [
    '[1, "a", {"a": "b"}, [2]]',
    '{"a": 1.0}',
    '{"a": 1.00}',
    '{"a": "1"}',
    ' { "a" : "q\\"u\\u00e9" , "a" : 2 } ',
]
_DOCUMENTS += [
    '{"a": "]}", "b": [ "{" , 1.50e2 ]}',
    '{"": "e", "0": "z"}',
    '{"a": -0.0, "b": true}',
    "[[[1.10]]]",
    '"\\u0041\\n"',
]
_ONLY_JSON = ['{"a": "\\u0000"}', '{"a": "\\ud800"}']
_OIDS = ["0", "5", "2147483648", "4294967295"]
_ARRAYS = ["{}", "{1,2}", "{1,NULL}", "{{1},{2}}", "[0:1]={1,2}"]

VALUES: dict[int, list[str]] = {
    kind.INT2: _INT2,
    kind.INT4: _INT4,
    kind.INT8: _INT8,
    kind.NUMERIC: _NUMERIC,
    kind.FLOAT4: _FLOAT4,
    kind.FLOAT8: _FLOAT8,
    kind.BOOL: ["true", "false"],
    kind.TEXT: _WORDS,
    kind.VARCHAR: _WORDS,
    kind.BPCHAR: [word for word in _WORDS if len(word.rstrip()) <= 4],
    kind.DATE: _DATES,
    kind.TIME: _TIMES,
    kind.TIMESTAMP: _STAMPS,
    kind.TIMESTAMPTZ: _STAMPS,
    kind.UUID: _UUIDS,
    kind.BYTEA: _BYTES,
    kind.JSON: [*_DOCUMENTS, *_ONLY_JSON],
    kind.JSONB: _DOCUMENTS,
    1007: _ARRAYS,
    kind.OID: _OIDS,
}

rows = st.fixed_dictionaries({name: st.sampled_from([None, *VALUES[oid]]) for name, oid in TYPES.items()})

NUMBERS = (kind.INT2, kind.INT4, kind.INT8, kind.NUMERIC, kind.FLOAT4, kind.FLOAT8)
TEXTS = (kind.TEXT, kind.VARCHAR, kind.BPCHAR)
MOMENTS = (kind.DATE, kind.TIMESTAMP, kind.TIMESTAMPTZ)
ORDERED = (*NUMBERS, *MOMENTS, kind.BOOL, kind.TIME, kind.UUID, kind.BYTEA)
WITHOUT_LITERALS = (kind.JSON, kind.JSONB, 1007, kind.OID)
EQUALITY = ("=", "<>", "!=")
ORDER = (*EQUALITY, "<", "<=", ">", ">=")
CASTS = {
    kind.INT2: "int2",
    kind.INT4: "integer",
    kind.INT8: "bigint",
    kind.NUMERIC: "numeric",
    kind.FLOAT4: "real",
    kind.FLOAT8: "double precision",
    kind.BOOL: "bool",
    kind.TEXT: "text",
    kind.VARCHAR: "varchar",
    kind.DATE: "date",
    kind.TIME: "time",
    kind.TIMESTAMP: "timestamp",
    kind.TIMESTAMPTZ: "timestamp with time zone",
    kind.UUID: "uuid",
}


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _identifier(name: str) -> str:
    return name if name.isidentifier() and name.islower() else f'"{name}"'


class Grammar:
    """Draws one condition; ``draw`` is Hypothesis's."""

    def __init__(self, draw: Any) -> None:
        self._draw = draw

    def pick(self, choices: Any) -> Any:
        return self._draw(st.sampled_from(list(choices)))

    def condition(self, depth: int) -> str:
        if depth and self._draw(st.integers(0, 2)):
            return self._logic(depth - 1)
        return str(
            self.pick(
                [self._compared, self._compared, self._null, self._distinct, self._in, self._between, self._like]
            )(depth)
        )

    def _logic(self, depth: int) -> str:
        one = f"({self.condition(depth)})"
        match self.pick(("and", "or", "and", "or", "not", "is", "constant", "boolean")):
            case "not":
                return f"NOT {one}"
            case "is":
                return f"{one} IS {self.pick(('', 'NOT '))}{self.pick(('TRUE', 'FALSE', 'UNKNOWN', 'NULL'))}"
            case "constant":
                return f"{one} {self.pick(('AND', 'OR'))} {self.pick(('TRUE', 'FALSE', 'NULL'))}"
            case "boolean":
                return f"{self.column(kind.BOOL)} = {one}"
            case word:
                return f"{one} {str(word).upper()} ({self.condition(depth)})"

    def column(self, oid: int) -> str:
        name = self.pick([name for name, known in TYPES.items() if known == oid])
        return f"{self.pick(('new', 'old'))}.{_identifier(name)}"

    def literal(self, oid: int) -> str:
        value = self.pick(VALUES[oid])
        plain = oid in NUMBERS and value.lstrip("-")[:1].isdigit()
        return str(value) if plain and self._draw(st.booleans()) else quoted(value)

    def value(self, oid: int, depth: int) -> str:
        """Something of this type that depends on a row."""
        ways: list[Any] = [self._column]
        if depth:
            ways += [self._coalesce]
            if oid in (
                *NUMBERS,
                kind.TEXT,
                kind.DATE,
                kind.TIMESTAMP,
                kind.TIMESTAMPTZ,
                kind.BOOL,
                kind.UUID,
                kind.TIME,
            ):
                ways.append(self._cast)
            if oid in NUMBERS:
                ways += [self._arithmetic, self._arithmetic, self._minus]
            if oid == kind.INT4:
                ways.append(self._length)
            if oid == kind.TEXT:
                ways += [self._folded, self._left, self._extracted, self._extracted]
            if oid in (kind.JSON, kind.JSONB):
                ways.append(self._part)
        return str(self.pick(ways)(oid, depth - 1))

    def _column(self, oid: int, _depth: int) -> str:
        return self.column(oid)

    def _coalesce(self, oid: int, depth: int) -> str:
        other = self.literal(oid) if oid not in (*WITHOUT_LITERALS, kind.BYTEA) else self.column(oid)
        return f"coalesce({self.value(oid, depth)}, {self.pick((other, self.column(oid)))})"

    def _cast(self, oid: int, depth: int) -> str:
        sources: tuple[int, ...] = (kind.TEXT,)
        if oid in NUMBERS:
            sources = (*NUMBERS, kind.TEXT, kind.BPCHAR) if oid != kind.INT4 else (*NUMBERS, kind.TEXT, kind.BOOL)
        elif oid in MOMENTS:
            sources = MOMENTS
        elif oid == kind.TIME:
            sources = (kind.TIMESTAMP, kind.TIMESTAMPTZ)
        elif oid == kind.BOOL:
            sources = (kind.INT4, kind.TEXT)
        elif oid == kind.TEXT:
            plain = (*NUMBERS, *TEXTS, kind.BOOL, kind.UUID, kind.BYTEA, kind.JSON, kind.JSONB, kind.OID)
            return (
                f"({self.value(self.pick(plain), depth)})::text"
                if self._draw(st.booleans())
                else self._column_as_text()
            )
        value = self.value(self.pick(sources), depth)
        return f"CAST({value} AS {CASTS[oid]})" if self._draw(st.booleans()) else f"({value})::{CASTS[oid]}"

    def _column_as_text(self) -> str:
        return f"{self.column(self.pick(set(TYPES.values())))}::text"

    def _arithmetic(self, oid: int, depth: int) -> str:
        narrower = NUMBERS[: NUMBERS.index(oid) + 1] if oid != kind.FLOAT4 else (oid,)
        sign = self.pick("+-*/%" if oid not in (kind.FLOAT4, kind.FLOAT8) else "+-*/")
        left, right = self.value(oid, depth), self._number(self.pick(narrower), depth)
        return f"({left} {sign} {right})" if self._draw(st.booleans()) else f"({right} {sign} {left})"

    def _number(self, oid: int, depth: int) -> str:
        if self._draw(st.booleans()):
            return self.value(oid, depth)
        literal = self.literal(oid)
        return literal if literal.startswith("'") or literal.lstrip("-").isdigit() else f"({literal})"

    def _minus(self, oid: int, depth: int) -> str:
        return f"{self.pick(('-', 'abs'))}({self.value(oid, depth)})"

    def _length(self, _oid: int, depth: int) -> str:
        return f"length({self.value(self.pick((*TEXTS, kind.BYTEA)), depth)})"

    def _folded(self, _oid: int, depth: int) -> str:
        return f"{self.pick(('lower', 'upper'))}({self.value(self.pick(TEXTS), depth)})"

    def _left(self, _oid: int, depth: int) -> str:
        count = self.pick(("1", "0", "-1", "3", "new.i4", "'2'"))
        return f"left({self.value(self.pick(TEXTS), depth)}, {count})"

    def _key(self) -> str:
        return str(self.pick(("'a'", "'b'", "'c'", "''", "'0'", "0", "1", "-1", "2", "-4")))

    def _part(self, oid: int, depth: int) -> str:
        return f"({self.value(oid, depth)} -> {self._key()})"

    def _extracted(self, _oid: int, depth: int) -> str:
        return f"({self.value(self.pick((kind.JSON, kind.JSONB)), depth)} ->> {self._key()})"

    def _family(self, oid: int) -> tuple[int, ...]:
        return next((family for family in (NUMBERS, TEXTS, MOMENTS) if oid in family), (oid,))

    def _other(self, oid: int, depth: int) -> str:
        """Something that compares with this type."""
        if oid in WITHOUT_LITERALS or self._draw(st.booleans()):
            return self.value(self.pick(self._family(oid)), depth)
        return self.literal(oid)

    def _compared(self, depth: int) -> str:
        oid = self.pick([each for each in TYPES.values() if each != kind.JSON])
        collated = oid in TEXTS and self._draw(st.booleans())
        sign = self.pick(ORDER if oid in ORDERED or collated else EQUALITY)
        left, right = self.value(oid, depth), self._other(oid, depth)
        if self._draw(st.booleans()):
            left, right = right, left
        if collated:
            left = f'{left} COLLATE "C"'
        return f"{left} {sign} {right}"

    def _null(self, depth: int) -> str:
        return f"{self.value(self.pick(TYPES.values()), depth)} IS {self.pick(('', 'NOT '))}NULL"

    def _distinct(self, depth: int) -> str:
        oid = self.pick([each for each in TYPES.values() if each != kind.JSON])
        other = self.pick((self._other(oid, depth), "NULL"))
        return f"{self.value(oid, depth)} IS {self.pick(('', 'NOT '))}DISTINCT FROM {other}"

    def _in(self, depth: int) -> str:
        oid = self.pick([each for each in TYPES.values() if each not in WITHOUT_LITERALS])
        choices = [self.literal(oid) for _ in range(self._draw(st.integers(1, 4)))]
        if oid in NUMBERS:
            choices.append(self.pick(("1.1", "NULL", "0", "2147483648")))
        return f"{self.value(oid, depth)} {self.pick(('', 'NOT '))}IN ({', '.join(choices)})"

    def _between(self, depth: int) -> str:
        oid = self.pick(ORDERED)
        low, high = self._other(oid, depth), self._other(oid, depth)
        return f"{self.value(oid, depth)} {self.pick(('', 'NOT '))}BETWEEN {low} AND {high}"

    def _like(self, depth: int) -> str:
        pattern = self._draw(
            st.lists(st.sampled_from(["%", "_", "a", "A", "b", "é", "É", " ", "\\\\", "\\%", "c", "!_"]), max_size=5)
        )
        escape = self.pick(("", "", "", " ESCAPE '!'", " ESCAPE ''"))
        written = quoted("".join(pattern))
        sign = f"{self.pick(('', 'NOT '))}{self.pick(('LIKE', 'ILIKE'))}"
        return f"{self.value(self.pick(TEXTS), depth)} {sign} {written}{escape}"

    def wild(self) -> str:
        """A condition of parts whose types need not fit."""
        one, other = self._anything(), self._anything()
        match self.pick(("compared", "compared", "distinct", "in", "like", "truth", "logic", "between")):
            case "compared":
                return f"{one} {self.pick(ORDER)} {other}"
            case "distinct":
                return f"{one} IS DISTINCT FROM {other}"
            case "in":
                return f"{one} IN ({self._any_literal()}, {self._any_literal()})"
            case "like":
                return f"{one} LIKE {self._any_literal()}"
            case "truth":
                return f"{one} IS {self.pick(('TRUE', 'UNKNOWN'))}"
            case "logic":
                return f"({one}) AND {other} IS NULL"
        return f"{one} BETWEEN {other} AND {self._any_literal()}"

    def _any_literal(self) -> str:
        choices = ("NULL", "TRUE", "1.5", "3", "'x'", "'1'", "date '2020-01-01'", "'5'::text", "9223372036854775807")
        return str(self.pick((*choices, self.literal(self.pick(VALUES)))))

    def _anything(self) -> str:
        value = self.column(self.pick(VALUES)) if self._draw(st.booleans()) else self._any_literal()
        match self.pick(("plain", "plain", "cast", "call", "sum", "json", "coalesce", "minus")):
            case "cast":
                return f"({value})::{self.pick(CASTS.values())}"
            case "call":
                return f"{self.pick(('lower', 'length', 'abs'))}({value})"
            case "sum":
                return f"({value} {self.pick('+-*/%')} {self._any_literal()})"
            case "json":
                return f"({value} {self.pick(('->', '->>'))} {self._key()})"
            case "coalesce":
                return f"coalesce({value}, {self._any_literal()})"
            case "minus":
                return f"(- {value})"
        return value


@st.composite
def wild_conditions(draw: Any) -> str:
    return Grammar(draw).wild()


@st.composite
def conditions(draw: Any) -> str:
    return Grammar(draw).condition(draw(st.integers(0, 3)))
