import re
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import parse_dsn

from pgevents.config import Resolution, resolve
from pgevents.errors import EXIT_USAGE, ConfigError
from pgevents.rule import Rules
from pgevents.settings import OPTIONS, Settings
from pgevents.spelling import nearest

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "configuration.md"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def resolved(environment: dict[str, str] | None = None, *, file: str | None = None, **flags: Any) -> Resolution:
    return resolve(flags, environment or {}, file=file)


def refusal(environment: dict[str, str] | None = None, *, file: str | None = None, **flags: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        resolve(flags, environment or {}, file=file)
    return caught.value


def test_without_anything_given_every_option_has_its_default() -> None:
    resolution = resolved()

    assert resolution.settings == Settings(state="pgevents-pgevents.state.json", skips="pgevents-pgevents.skips.json")
    assert set(resolution.origins.values()) == {"default"}
    assert resolution.file is None


def test_the_watermark_stands_beside_the_configuration_and_bears_the_slots_name(folder: Path) -> None:
    (folder / "etc").mkdir()
    (folder / "etc" / "shop.toml").write_text('slot = "shop"')

    settings = resolve({}, {}, file="etc/shop.toml").settings

    assert settings.state == "etc/pgevents-shop.state.json"


def test_each_place_outranks_the_next(folder: Path) -> None:
    (folder / "pgevents.toml").write_text('slot = "from_file"')
    places: list[tuple[str, dict[str, str], dict[str, str]]] = [
        ("pgevents.toml", {}, {}),
        ("environment PGSLOT", {"PGSLOT": "from_alias"}, {}),
        ("environment PGEVENTS_SLOT", {"PGSLOT": "from_alias", "PGEVENTS_SLOT": "from_own"}, {}),
        ("flag --slot", {"PGSLOT": "from_alias", "PGEVENTS_SLOT": "from_own"}, {"slot": "from_flag"}),
    ]

    found = [resolved(environment, **flags) for _, environment, flags in places]

    assert [resolution.origins["slot"] for resolution in found] == [origin for origin, _, _ in places]
    assert [resolution.settings.slot for resolution in found] == [
        "from_file",
        "from_alias",
        "from_own",
        "from_flag",
    ]


def test_an_empty_variable_counts_as_not_set(folder: Path) -> None:
    (folder / "pgevents.toml").write_text("window = 3")

    resolution = resolved({"PGEVENTS_WINDOW": "", "PGEVENTS_DSN_FILE": "", "PGSLOT": ""})

    assert (resolution.settings.window, resolution.settings.slot) == (3, "pgevents")


def test_a_variable_is_read_as_the_type_of_its_option() -> None:
    settings = resolved(
        {
            "PGEVENTS_CREATE_SLOT": "Yes",
            "PGEVENTS_DECLARE": "off",
            "PGEVENTS_WINDOW": "4",
            "PGEVENTS_STALL_TIMEOUT": "2.5",
            "PGTABLES": "public.users, shop.*,",
        }
    ).settings

    assert (settings.create_slot, settings.declare, settings.window) == (True, False, 4)
    assert (settings.stall_timeout_s, settings.tables) == (2.5, ("public.users", "shop.*"))


def test_a_switch_turned_off_by_flag_outranks_the_file(folder: Path) -> None:
    (folder / "pgevents.toml").write_text("create_slot = true")

    resolution = resolved(create_slot=False)

    assert resolution.settings.create_slot is False
    assert resolution.origins["create_slot"] == "flag --no-create-slot"


def test_a_repeated_flag_keeps_commas_inside_a_name() -> None:
    assert resolved(tables=("public.a,b", "shop.*")).settings.tables == ("public.a,b", "shop.*")


def test_the_file_takes_whole_numbers_of_seconds_and_lists(folder: Path) -> None:
    (folder / "pgevents.toml").write_text('drain_timeout = 5\nexclude_tables = ["*.audit"]')

    settings = resolved().settings

    assert (settings.drain_timeout_s, settings.exclude_tables) == (5.0, ("*.audit",))


@pytest.mark.parametrize("given_by", ["flag", "environment"])
def test_another_file_can_be_named(folder: Path, given_by: str) -> None:
    (folder / "pgevents.toml").write_text('slot = "wrong_one"')
    (folder / "other.toml").write_text('slot = "right_one"')

    environment = {"PGEVENTS_CONFIG": "other.toml"} if given_by == "environment" else {"PGEVENTS_CONFIG": "none"}
    resolution = resolved(environment, file="other.toml" if given_by == "flag" else None)

    assert (resolution.settings.slot, resolution.file) == ("right_one", "other.toml")


@pytest.mark.parametrize("name", ["missing.toml", "pgevents.toml"])
def test_a_file_that_is_named_must_exist(name: str) -> None:
    error = refusal(file=name)

    assert str(error) == f"the configuration file {name} cannot be read: No such file or directory"


def test_broken_toml_is_reported_with_its_line(folder: Path) -> None:
    (folder / "pgevents.toml").write_text('slot = "a"\nwindow = = 4\n')

    assert re.match(r"pgevents\.toml is not valid TOML: .*line 2", str(refusal()))


def test_a_file_nested_without_end_is_refused(folder: Path) -> None:
    (folder / "pgevents.toml").write_text("tables = " + "[" * 5000 + "]" * 5000)

    assert str(refusal()) == "pgevents.toml cannot be read: its values are nested too deep"


def test_a_file_in_another_encoding_is_refused(folder: Path) -> None:
    (folder / "pgevents.toml").write_bytes(b'slot = "\xff"')

    assert str(refusal()) == "the configuration file pgevents.toml cannot be read: it is not UTF-8"


def test_an_unknown_key_names_the_nearest_one(folder: Path) -> None:
    (folder / "pgevents.toml").write_text("batch_event = 4")

    error = refusal()

    assert str(error) == "unknown key 'batch_event' in pgevents.toml"
    assert error.hint == "Did you mean batch_events?"
    assert error.exit_code == EXIT_USAGE


def test_an_unknown_variable_names_the_nearest_one() -> None:
    error = refusal({"PGEVENTS_SLTO": "x", "PGEVENTSX": "not ours"})

    assert str(error) == "unknown environment variable PGEVENTS_SLTO"
    assert error.hint == "Did you mean PGEVENTS_SLOT?"


def test_every_own_variable_is_known() -> None:
    resolved({option.variables[0]: "" for option in OPTIONS} | {"PGEVENTS_CONFIG": ""})
    resolved({"PGEVENTS_PG_BIN": "/usr/bin", "PGEVENTS_PYTHON": "python3"})


@pytest.mark.parametrize("service", ["PGEVENTS", "PGEVENTS_WEB"])
def test_what_kubernetes_tells_of_a_service_of_our_name_is_left_alone(service: str) -> None:
    resolved(
        {
            f"{service}_SERVICE_HOST": "10.0.0.11",
            f"{service}_SERVICE_PORT": "5432",
            f"{service}_SERVICE_PORT_METRICS": "9090",
            f"{service}_PORT": "tcp://10.0.0.11:5432",
            f"{service}_PORT_5432_TCP": "tcp://10.0.0.11:5432",
            f"{service}_PORT_5432_TCP_PROTO": "tcp",
            f"{service}_PORT_5432_TCP_PORT": "5432",
            f"{service}_PORT_5432_TCP_ADDR": "10.0.0.11",
        }
    )


@pytest.mark.parametrize(
    ("variable", "value"), [("PGEVENTS_PORT", "5432"), ("PGEVENTS_HOST", "db"), ("PGEVENTS_PORTS", "tcp://h:1")]
)
def test_a_variable_that_only_looks_like_those_is_unknown(variable: str, value: str) -> None:
    assert str(refusal({variable: value})) == f"unknown environment variable {variable}"


@pytest.mark.parametrize(
    ("variable", "text", "allowed"),
    [
        ("PGEVENTS_WINDOW", "many", "a whole number from 1 to 10000"),
        ("PGEVENTS_WINDOW", "0", "a whole number from 1 to 10000"),
        ("PGEVENTS_WINDOW", "1.5", "a whole number from 1 to 10000"),
        ("PGEVENTS_STALL_TIMEOUT", "nan", "a number from 0.1 to 86400"),
        ("PGEVENTS_STALL_TIMEOUT", "inf", "a number from 0.1 to 86400"),
        ("PGEVENTS_DRAIN_TIMEOUT", "-1", "a number from 0 to 86400"),
        ("PGEVENTS_CREATE_SLOT", "perhaps", "true or false"),
        ("PGEVENTS_PLUGIN", "decoderbufs", "one of auto, wal2json, pgoutput"),
        ("PGEVENTS_SLOT", "Shop", "text of the form ^[a-z0-9_]{1,63}$"),
        ("PGSLOT", "a" * 64, "text of the form ^[a-z0-9_]{1,63}$"),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_its_place(variable: str, text: str, allowed: str) -> None:
    error = refusal({variable: text})

    assert f"= {text!r} (environment {variable}) is not allowed" in str(error)
    assert error.hint == f"It must be {allowed}."


@pytest.mark.parametrize(
    "line",
    [
        'window = "4"',
        "window = 4.0",
        "window = true",
        "declare = 1",
        'declare = "true"',
        'tables = "public.orders"',
        "tables = [1]",
        'tables = [""]',
        "slot = 1",
        'stall_timeout = "1"',
        "stall_timeout = false",
        "[slot]",
    ],
)
def test_a_value_of_another_type_in_the_file_is_refused(folder: Path, line: str) -> None:
    (folder / "pgevents.toml").write_text(line)

    assert str(refusal()).endswith("(pgevents.toml) is not allowed")


def test_a_secret_of_another_type_is_not_repeated(folder: Path) -> None:
    (folder / "pgevents.toml").write_text('sink = ["amqp://u:hunter2@h"]')

    assert str(refusal()) == "sink = *** (pgevents.toml) is not allowed"


@pytest.mark.parametrize(
    ("variable", "name"), [("PGEVENTS_DSN", "dsn"), ("PGEVENTS_SINK", "sink"), ("RABBITMQ_URL", "sink")]
)
def test_a_secret_may_stand_in_a_file(folder: Path, variable: str, name: str) -> None:
    value = "host=db" if name == "dsn" else "amqp://broker"
    (folder / "secret").write_text(value + "\n")

    resolution = resolved({f"{variable}_FILE": str(folder / "secret")})

    assert getattr(resolution.settings, name) == value
    assert resolution.origins[name] == f"environment {variable}_FILE"


@pytest.mark.parametrize("variable", ["PGEVENTS_DSN", "PGEVENTS_SINK", "RABBITMQ_URL", "PGPASSWORD"])
def test_a_secret_and_its_file_may_not_both_be_given(folder: Path, variable: str) -> None:
    (folder / "secret").write_text("x")

    error = refusal({variable: "x", f"{variable}_FILE": str(folder / "secret")})

    assert str(error) == f"{variable} and {variable}_FILE are both set"


def test_a_secret_file_that_cannot_be_read_is_named_without_its_content(folder: Path) -> None:
    (folder / "secret").write_bytes(b"hunter2\xff")

    missing = refusal({"PGEVENTS_DSN_FILE": "nowhere"})
    binary = refusal({"PGEVENTS_DSN_FILE": "secret"})

    assert str(missing) == "the file nowhere that PGEVENTS_DSN_FILE names cannot be read: No such file or directory"
    assert str(binary) == "the file secret that PGEVENTS_DSN_FILE names cannot be read: it is not UTF-8"


def test_a_password_file_completes_the_dsn(folder: Path) -> None:
    (folder / "password").write_text("it's a\nsecret\n")

    resolution = resolved({"PGPASSWORD_FILE": "password"}, dsn="postgresql://app@db/shop")

    assert parse_dsn(resolution.settings.dsn) == {
        "user": "app",
        "host": "db",
        "dbname": "shop",
        "password": "it's a\nsecret",
    }
    assert resolution.origins["dsn"] == "flag --dsn, password from environment PGPASSWORD_FILE"


def test_a_password_file_serves_without_a_dsn_too(folder: Path) -> None:
    (folder / "password").write_text("hunter2")

    assert parse_dsn(resolved({"PGPASSWORD_FILE": "password"}).settings.dsn) == {"password": "hunter2"}


def test_a_password_in_the_dsn_outranks_the_file(folder: Path) -> None:
    (folder / "password").write_text("other")
    dsn = "postgresql://app:hunter2@db/shop"

    assert resolved({"PGPASSWORD_FILE": "password"}, dsn=dsn).settings.dsn == dsn


@pytest.mark.parametrize(
    "dsn",
    [
        "nonsense",
        "password='hunter2",
        "postgresql://u:hunter2@[h",
        "postgresql://h?hunter2=1",
        "hunter2=x",
        "password=my hunter2=x",
    ],
)
def test_a_broken_dsn_is_refused_without_being_repeated(dsn: str) -> None:
    error = refusal(dsn=dsn)

    assert str(error) == "dsn (flag --dsn) is not a connection string"
    assert "hunter2" not in error.hint


@pytest.mark.parametrize("dsn", ["pasword=hunter2 host=h", "postgresql://h?pasword=hunter2"])
def test_a_mistyped_keyword_of_the_dsn_names_the_nearest(dsn: str) -> None:
    error = refusal(dsn=dsn)

    assert str(error) == "dsn (flag --dsn) is not a connection string: unknown keyword 'pasword'"
    assert error.hint == "Did you mean password?"


@pytest.mark.parametrize(
    ("sink", "completed"),
    [
        ("amqp://h", "amqp://h?exchange=my%20shop%2F1"),
        ("amqps://h/v?heartbeat=5", "amqps://h/v?heartbeat=5&exchange=my%20shop%2F1"),
        ("amqp://h/?exchange=other", "amqp://h/?exchange=other"),
        ("amqp://h/?exchange=", "amqp://h/?exchange="),
        ("amqp://u:p[+#w@h/v", "amqp://u:p[+#w@h/v?exchange=my%20shop%2F1"),
        ("stdout:", "stdout:"),
    ],
)
def test_the_exchange_variable_completes_an_amqp_sink_that_names_none(sink: str, completed: str) -> None:
    assert resolved({"RABBITMQ_EXCHANGE": "my shop/1", "RABBITMQ_URL": sink}).settings.sink == completed


def test_the_origin_of_a_completed_sink_names_both_variables() -> None:
    resolution = resolved({"RABBITMQ_EXCHANGE": "shop", "RABBITMQ_URL": "amqp://h"})

    assert resolution.origins["sink"] == "environment RABBITMQ_URL, exchange from environment RABBITMQ_EXCHANGE"


def test_what_is_shown_hides_secrets() -> None:
    resolution = resolved(
        {"PGPASSWORD": "hunter2", "PGHOST": "db", "PGDATA": "not libpq's"},
        dsn="host=h password=hunter2",
        sink="amqp://u:hunter2@h/v",
    )

    shown = resolution.shown()

    assert shown["dsn"] == {"value": "host=h password=***", "origin": "flag --dsn"}
    assert shown["sink"] == {"value": "amqp://u:***@h/v", "origin": "flag --sink"}
    assert resolution.libpq == {"PGHOST": "db", "PGPASSWORD": "***"}


def test_a_name_like_none_has_no_nearest() -> None:
    assert nearest("zzzzzz", ["slot", "sink"]) == ""


def test_the_documentation_has_the_table_of_the_code() -> None:
    rows = re.findall(
        r"^\| (`--.*?) \| `(PGEVENTS_\w+)` \| `(\w+)` \| (.*?) ?\| (.*?) ?\| (.*?) ?\|$",
        DOCUMENTATION.read_text("utf-8"),
        re.MULTILINE,
    )

    assert [row[:4] + row[5:] for row in rows] == [documented(option) for option in OPTIONS]


def documented(option: Any) -> tuple[str, str, str, str, str]:
    flag = f"`{option.flag}`"
    default = str(option.default).lower() if option.kind is bool else str(option.default)
    default = f"`{default}`" if default else ""
    if option.kind is bool:
        flag += f", `{option.off_flag}`"
    if option.kind is tuple:
        flag += " (repeatable)"
        default = "all" if option.name == "tables" else "none"
    aliases = ", ".join(f"`{alias}`" for alias in option.limits.aliases)
    return flag, option.variables[0], option.key, default, aliases


@pytest.mark.parametrize(
    "option", [option for option in OPTIONS if option.limits.lowest is not None or option.limits.choices]
)
def test_the_documentation_has_the_limits_of_the_code(option: Any) -> None:
    limits = option.limits
    row = next(line for line in DOCUMENTATION.read_text("utf-8").splitlines() if f"| `{option.key}` |" in line)

    expected = (
        ", ".join(f"`{choice}`" for choice in limits.choices)
        if limits.choices
        else f"{limits.lowest:.10g} to {limits.highest:.10g}" + (" s" if option.kind is float else "")
    )
    assert row.split("|")[5].strip() == expected


def test_the_file_holds_rules_beside_options(folder: Path) -> None:
    (folder / "pgevents.toml").write_text('slot = "shop"\n[[skip]]\nmarked = true\n[[columns]]\nmask = ["email"]')

    settings = resolved().settings

    assert settings.slot == "shop"
    assert ([rule.name for rule in settings.rules.skip], len(settings.rules.columns)) == (["skip 1"], 1)


def test_without_a_file_there_are_no_rules() -> None:
    assert resolved().settings.rules == Rules()


def test_a_wrong_rule_is_named_with_its_file(folder: Path) -> None:
    (folder / "other.toml").write_text("[[route]]\npriority = 1000")

    error = refusal(file="other.toml")

    assert str(error) == "other.toml [[route]] 1: priority: it must be a whole number from 0 to 255"


def test_a_mistyped_kind_of_rule_names_the_nearest(folder: Path) -> None:
    (folder / "pgevents.toml").write_text("[[filters]]\ndrop_unchanged = true")

    error = refusal()

    assert (str(error), error.hint) == ("unknown key 'filters' in pgevents.toml", "Did you mean filter?")


def test_options_add_skip_rules_behind_those_of_the_file(folder: Path) -> None:
    (folder / "pgevents.toml").write_text("skip_marked = true\n[[skip]]\nxid = 812")

    rules = resolved(
        {"PGEVENTS_SKIP_ROWS": "10000", "PGEVENTS_SKIP_ACTION": "summarise"}, skip_origins=("bulk", "etl", "bulk")
    ).settings.rules

    assert [(rule.name, rule.action) for rule in rules.skip] == [
        ("skip 1", "drop"),
        ("--skip-marked", "summarise"),
        ("--skip-origin bulk", "summarise"),
        ("--skip-origin etl", "summarise"),
        ("--skip-rows", "summarise"),
    ]
    assert [(rule.marked, rule.origin, rule.rows) for rule in rules.skip[1:]] == [
        (True, "", None),
        (False, "bulk", None),
        (False, "etl", None),
        (False, "", 10_000),
    ]


def test_a_flag_turns_the_marks_of_the_file_off(folder: Path) -> None:
    (folder / "pgevents.toml").write_text("skip_marked = true")

    assert resolved(skip_marked=False).settings.rules == Rules()


def test_a_rule_may_not_have_the_name_of_an_options(folder: Path) -> None:
    (folder / "pgevents.toml").write_text('skip_rows = 5\n[[skip]]\nname = "--skip-rows"\nmarked = true')

    assert str(refusal()) == "a skip rule of the file is named --skip-rows, and so is that of the option"


def test_an_unknown_format_names_the_nearest() -> None:
    error = refusal({"PGEVENTS_FORMAT": "debezum"})

    assert str(error) == "format = 'debezum' (environment PGEVENTS_FORMAT) is not allowed"
    assert error.hint == "Did you mean debezium?"


def test_a_format_that_there_is_can_be_chosen() -> None:
    assert resolved(format="maxwell").settings.format == "maxwell"


def test_the_hash_key_is_shown_to_be_there_and_no_more(folder: Path) -> None:
    (folder / "key").write_text("0123456789abcdef\n")

    resolution = resolved({"PGEVENTS_HASH_KEY_FILE": "key"})

    assert resolution.settings.hash_key == "0123456789abcdef"
    assert resolution.shown()["hash_key"] == {"value": "***", "origin": "environment PGEVENTS_HASH_KEY_FILE"}
    assert resolved().shown()["hash_key"] == {"value": "", "origin": "default"}


def test_a_hash_key_of_another_type_is_not_repeated(folder: Path) -> None:
    (folder / "pgevents.toml").write_text("hash_key = ['hunter2']")

    assert str(refusal()) == "hash_key = *** (pgevents.toml) is not allowed"
