"""Conditions that are refused: where, why, and what is nearest."""

import sys
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgevents.condition import Condition, ConditionError, Unfit, kind
from pgevents.errors import ConfigError

TYPES = {"total": kind.NUMERIC, "status": kind.TEXT, "id": kind.INT4, "doc": kind.JSON, "at": kind.TIMESTAMPTZ}
TYPES |= {"net": kind.INET, "mood": 20_001, "docb": kind.JSONB, "ratio": kind.FLOAT8}
MORE_TYPES = TYPES | {"code": kind.VARCHAR, 'A"b': kind.TEXT, "day": kind.DATE, "ts": kind.TIMESTAMP}
TYPES |= {
    "Select": kind.INT4,
    "größe": kind.INT4,
    'Odd "one"': kind.INT4,
    "owner": kind.OID,
    "at_x": 600,
    "points": 1017,
}


def refusal(text: str) -> ConditionError:
    with pytest.raises(ConditionError) as caught:
        Condition.parse(text).bind(TYPES, enums=frozenset())
    return caught.value


@pytest.mark.parametrize(
    ("text", "position", "hint"),
    [
        ("new.id = ", 10, ""),
        ("id = 1", 1, "new.id or old.id"),
        ("nwe.id = 1", 1, "Did you mean new?"),
        ("new.id == 1", 8, "Write = alone."),
        ("(new.id == 1)", 9, "Write = alone."),
        ("new.id <=> 1", 8, "IS NOT DISTINCT FROM"),
        ("new.id = 1 && new.id = 2", 12, "Write AND"),
        ("new.id = 1 || new.id = 2", 12, "Write OR"),
        ("!new.id", 1, "Write NOT"),
        ('new.status = "paid"', 14, "single quotes: 'paid'"),
        ('new.status = "it\'s"', 14, "single quotes: 'it''s'"),
        ('"status" = 1', 1, 'new."status" or old."status"'),
        ("new.status = paid", 14, "single quotes: 'paid'"),
        ("new.status IN (paid, new)", 16, "single quotes: 'paid'"),
        ("new.id IN [1, 2]", 11, "Write IN ('a', 'b')."),
        ("TG_OP = 'INSERT'", 1, 'operations = ["insert"]'),
        ("new.id = 1 AND tg_table_name = 'x'", 16, "tables ="),
        ("WHEN new.id = 1", 1, "Begin with"),
        ("OLD.* IS DISTINCT FROM NEW.*", 1, "drop_unchanged = true"),
        ('"NEW".id = 1', 1, "Did you mean new?"),
        ("new.id = 1 ADN new.id = 2", 12, "Did you mean and?"),
        ("new.id = 1 = true", 12, ""),
        ("new.status LIK 'x'", 12, "Did you mean like?"),
        ("lowr(new.status) = 'x'", 1, "Did you mean lower?"),
        ("now() > new.at", 1, "The functions are"),
        ("count(new.id) > 1", 1, ""),
        ("new.status::varchr = 'x'", 13, "Did you mean varchar?"),
        ("new.status::varchar(3) = 'x'", 13, "Write varchar alone."),
        ("CASE WHEN true THEN true END", 1, ""),
        ("new.id IN (SELECT 1)", 12, ""),
        ("EXISTS (SELECT 1)", 1, ""),
        ("new.id = ANY ('{1}')", 10, "Write IN"),
        ("new.id = ANY(ARRAY[1, 2])", 10, "Write IN"),
        ("new.id <> ALL (ARRAY[1, 2])", 11, "Write NOT IN"),
        ("new.status ~ 'x'", 12, "LIKE"),
        ("new.status = E'x'", 14, ""),
        ("new.status = $$x$$", 14, ""),
        ("new.id IN ()", 8, ""),
        ("new.id IN (1, new.total)", 15, ""),
        ("new IS NULL", 1, "new.x"),
        ("new.id = 1; DROP TABLE x", 11, ""),
        ("current_date > new.at", 1, ""),
        ("new.status = 'a' 'b'", 18, ""),
        ("", 1, ""),
    ],
)
def test_what_is_not_understood_is_placed(text: str, position: int, hint: str) -> None:
    error = refusal(text)

    assert f"at character {position}: " in str(error)
    assert hint in error.hint


@pytest.mark.parametrize(
    ("text", "position", "reason", "hint"),
    [
        ("new.totl > 1", 1, "no column totl", "Did you mean total?"),
        ("new.id = 1 AND old.Status = 'x' AND old.\"Status\" = 'x'", 37, "no column Status", "status"),
        ('new."STATUS" = 1', 1, "no column STATUS", "Did you mean status?"),
        ("new.Select = 7", 1, "no column select", 'Did you mean new."Select"? Without the quotes'),
        ("old.SELECT = 7", 1, "no column select", 'Did you mean old."Select"? Without the quotes'),
        ("new.grösse = 7", 1, "no column grösse", "Did you mean größe?"),
        ("new.odd_one = 7", 1, "no column odd_one", 'Did you mean "Odd ""one"""?'),
        ("new.zzzzzzz = 7", 1, "no column zzzzzzz", '"Select", größe, "Odd ""one""", owner'),
        ("new.owner = '5'", 13, "a literal of type oid is not supported", "::text"),
        ("new.owner = 5", 11, "there is no operator oid = integer", ""),
        ("new.at_x = old.at_x", 10, "values of point cannot be compared", "::text"),
        ("new.points = old.points", 12, "values of point[] cannot be compared", "::text"),
        ("new.status > 5", 12, "text > integer", "Cast"),
        ("new.id = 'abc'", 10, "no integer", ""),
        ("new.id = '5.5'", 10, "no integer", ""),
        ("new.at > 'yesterday'", 10, "ISO 8601", ""),
        ("new.id", 1, "not boolean", ""),
        ("NOT new.id", 5, "not boolean", ""),
        ("new.status < 'x'", 12, "order of texts", 'COLLATE "C"'),
        ("new.doc = '{}'", 11, "type json", "->>"),
        ("new.docb = '{}'", 12, "jsonb", "->>"),
        ("new.status ->> 'a' = 'x'", 12, "takes json", ""),
        ("new.id LIKE '5%'", 8, "takes a text", "::text"),
        ("new.status LIKE new.status", 17, "pattern in quotes", ""),
        ("new.status LIKE 'a\\'", 17, "escape", "twice"),
        ("new.mood = 'ok'", 12, "OID 20001", "::text"),
        ("new.net::text = '::1'", 8, "is not supported", ""),
        ("new.ratio % 2 = 1", 11, "double precision %", ""),
        ("new.id = 1e999999999999999999999999", 10, "out of range", ""),
        ("new.id = 1e-16384", 10, "out of range", ""),
        ("new.id::int2 = '" + "9" * 5_000 + "'", 16, "out of range", ""),
        ("new.id = 1 / 0", 12, "division by zero", ""),
        ("coalesce(new.id, new.status) = 'x'", 1, "one type", ""),
    ],
)
def test_what_the_table_does_not_allow_is_placed(text: str, position: int, reason: str, hint: str) -> None:
    error = refusal(text)

    assert f"at character {position}: " in str(error)
    assert reason in str(error)
    assert hint in error.hint


STATUS = kind.Enum("order_status", ("new", "paid", "Sent"))


def test_an_enum_is_called_by_its_name_where_it_is_known() -> None:
    with pytest.raises(ConditionError, match="> of the enum order_status is not supported"):
        Condition.parse("new.mood > 'new'").bind(TYPES, enums={20_001: STATUS})


@pytest.mark.parametrize(
    ("text", "position", "label", "hint"),
    [
        ("new.mood = 'piad'", 12, "piad", "Did you mean paid?"),
        ("'piad' <> old.mood", 1, "piad", "Did you mean paid?"),
        ("new.mood IN ('paid', 'snt')", 22, "snt", "Did you mean Sent?"),
        ("new.mood IS DISTINCT FROM 'PAID'", 27, "PAID", "Did you mean paid?"),
        ("coalesce(new.mood, 'zz') = 'new'", 20, "zz", "The labels are new, paid, Sent."),
    ],
)
def test_a_label_that_an_enum_lacks_is_refused_where_the_labels_are_known(
    text: str, position: int, label: str, hint: str
) -> None:
    with pytest.raises(ConditionError) as caught:
        Condition.parse(text).bind(TYPES, enums={20_001: STATUS})

    assert f"the enum order_status has no label {label!r} at character {position}:" in str(caught.value)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    "text", ["new.mood = 'paid'", "new.mood = NULL", "new.mood::text = 'piad'", "new.mood = old.mood"]
)
def test_labels_that_an_enum_has_are_taken_and_any_text_beside_a_cast(text: str) -> None:
    Condition.parse(text).bind(TYPES, enums={20_001: STATUS})


def test_a_label_of_a_running_stream_is_not_questioned() -> None:
    passes = Condition.parse("new.mood = 'piad'").bind(TYPES, enums=frozenset({20_001}))

    assert passes({"mood": "paid"}, None) is False


FRAGMENTS = [
    "new",
    "old",
    ".",
    "id",
    '"',
    "'",
    "(",
    ")",
    "and",
    "not",
    "is",
    "null",
    "=",
    "->>",
    "::",
    "int4",
    "-",
    "1",
    "1e",
    " ",
]
FRAGMENTS += [
    "in",
    "between",
    "like",
    "escape",
    "--",
    "/*",
    "$$",
    "{{",
    "{%",
    "\\",
    "E'",
    "U&'",
    "٣",
    "é",
    "\0",
    "lower(",
    ",",
    ";",
]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3)).map("".join)
    | st.lists(st.sampled_from(FRAGMENTS)).map(" ".join)
)
def test_whatever_is_written_is_a_condition_or_refused(text: str) -> None:
    try:
        condition = Condition.parse(text)
        condition.bind(TYPES)
    except ConditionError as error:
        said = str(error)
    else:
        said = f"{text!r} {condition.never()}"
        with suppress(Unfit):
            said += condition.as_row_filter(TYPES)

    assert repr(text) in said


def test_a_text_that_does_not_end_is_refused() -> None:
    assert "ends inside" in str(refusal("new.status = 'x"))


def test_parentheses_without_end_are_refused_before_the_stack_is() -> None:
    assert "nested" in str(refusal("(" * 5_000 + "true" + ")" * 5_000))


def test_without_sqlglot_the_hint_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlglot.dialects.postgres", None)

    with pytest.raises(ConfigError) as caught:
        Condition.parse("new.id = 1")

    assert "pip install 'pgevents-stream[rules]'" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "false",
        "NULL",
        "new.x = NULL",
        "new.x IS NULL AND new.x IS NOT NULL",
        "new.x = 1 AND new.x = 2",
        "new.x > 5 AND 3 > new.x",
        "new.x BETWEEN 5 AND 3",
        "new.x = 'paid' AND new.x = 'open'",
        "new.x <> new.x",
        "new.x AND NOT new.x",
        "new.x IN (1, 2) AND new.x NOT IN (1, 2, 3)",
        "new.x NOT IN (1, NULL)",
        "new.s LIKE 'x' AND new.s NOT LIKE 'x'",
        "coalesce(new.x, 5) IS NULL",
        "1 = 2",
        " AND ".join(f"new.x{number} = {number}" for number in range(20)) + " AND false",
        "new.s IS NULL AND length(new.s) = 0",
    ],
)
def test_a_condition_no_row_can_meet_is_known(text: str) -> None:
    assert Condition.parse(text).never()


@pytest.mark.parametrize(
    "text",
    [
        "true",
        "new.x IS NULL",
        "new.x > 5 OR new.x < 3",
        "new.x = 't' AND new.x = 'true'",
        "new.x = '1' AND new.x = '1.0'",
        "new.x = 1 AND old.x = 2",
        "NOT (new.x > 5 OR new.x <= 5) IS TRUE",
        "new.d->>'a' IS NULL AND new.d IS NOT NULL",
        "new.ts::time IS NULL AND new.ts IS NOT NULL",
        "new.a AND new.b AND new.c AND new.d AND new.e AND new.f AND new.g AND new.h AND new.i AND new.j AND new.k",
        "new.x + 1 = 2 AND new.x = 1",
        "new.x BETWEEN 3 AND 5 AND new.x NOT IN (3, 5)",
        "new.x IS DISTINCT FROM old.x AND new.x = 1",
        # Too much to try: it is not known.
        " AND ".join(f"(new.x{number} = 1 OR new.y{number} = 2)" for number in range(50))
        + " AND new.z = 1 AND new.z = 2",
    ],
)
def test_a_condition_some_row_may_meet_is_not_called_impossible(text: str) -> None:
    assert not Condition.parse(text).never()


@pytest.mark.parametrize(
    ("text", "pushed"),
    [
        ("new.total > 100 -- big\n AND new.\"A\"\"b\" LIKE '%''x'", """"total" > 100 AND "A""b" LIKE '%''x'"""),
        ("NEW.id IN (1, -2)", '"id" IN ( 1 , - 2 )'),
        ("new.at > timestamptz '2020-01-01 00:00+00'", "\"at\" > timestamptz '2020-01-01 00:00+00'"),
        ("(new.code) IN ('a', 'b')", "( \"code\"::text ) IN ( 'a' , 'b' )"),
        ("new.code NOT IN ('a')", "\"code\" NOT IN ( 'a' )"),
        ("new.id > 5 * 60 AND abs(-3) = 3", '"id" > 5 * 60 AND abs ( - 3 ) = 3'),
        ("-new.total < 5 AND abs(new.ratio) > 1", '- "total" < 5 AND abs ( "ratio" ) > 1'),
        ("new.docb ->> 'a' = 'x'", "\"docb\" ->> 'a' = 'x'"),
        ("new.ratio > 1.5 AND new.id = new.total", '"ratio" > 1.5 AND "id" = "total"'),
        ("new.at > '2020-01-01' AND new.day < new.ts", '"at" > \'2020-01-01\' AND "day" < "ts"'),
    ],
)
def test_a_row_filter_is_the_condition_in_the_words_of_a_publication(text: str, pushed: str) -> None:
    assert Condition.parse(text).as_row_filter(MORE_TYPES) == pushed


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("new.id = old.id", "it asks for old"),
        ("new.at::text = 'x'", "it has a cast"),
        ("new.id::int8 = 1", "it has a cast"),
        ("new.id > 1 OR 10 / new.id > 1", "arithmetic may fail on a row"),
        ("coalesce(new.total * 2, 5) > 1", "arithmetic may fail on a row"),
        ("-new.id > 1", "the negative of an integer may fail on a row"),
        ("abs(new.id) > 1", "abs of an integer may fail on a row"),
        ("new.doc ->> 'a' = 'x'", "a part of a json document"),
        ("new.total > new.ratio", "numeric as a floating-point number may fail"),
        ("coalesce(new.day, new.ts) > '2020-01-01'", "a date as a timestamp may fail"),
        ("new.at > new.ts", "it compares timestamptz with date or timestamp"),
        ("new.at IN (date '2020-01-01', '2020-01-02')", "it compares timestamptz with date or timestamp"),
        ("new.status ILIKE 'a%'", "it folds letters"),
        ("new.status = upper('a')", "it folds letters"),
        ("coalesce(new.code, 'x') IN ('a', 'b')", "PostgreSQL takes no IN of character varying but of a column"),
    ],
)
def test_what_a_publication_must_not_be_asked_is_no_row_filter(text: str, reason: str) -> None:
    with pytest.raises(Unfit) as caught:
        Condition.parse(text).as_row_filter(MORE_TYPES)

    assert str(caught.value).startswith(reason)
