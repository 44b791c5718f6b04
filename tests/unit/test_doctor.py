"""The parts of ``pgevents doctor`` that ask no server."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgevents.doctor import host
from pgevents.doctor.broker import check_transport
from pgevents.doctor.destination import Use, destinations
from pgevents.doctor.exchange import permits
from pgevents.doctor.finding import Finding, exit_code, fatal, ok, unseen, warning
from pgevents.doctor.management import NotSeenError, check_location
from pgevents.doctor.output import is_guarded
from pgevents.doctor.queue import Queue, examined
from pgevents.doctor.report import fixes, lines
from pgevents.doctor.route import Binding, Destination, Exchange, matches, queues_for, unrouted
from pgevents.doctor.wire import encryption, is_poolers, measured_skew, pins
from pgevents.errors import ConfigError
from pgevents.postgres import PINNED_SETTINGS
from pgevents.rules import parse_rules
from pgevents.session import routing_key
from pgevents.settings import Settings
from pgevents.sink.amqp.url import parse

GOOD = ok("clocks", "they agree")
POOR = warning("role", "role app", "it is a superuser", fix="Connect as another.")
BAD = fatal("slot", "slot shop", "it is lost", fix="Make\nanother.", sql=("SELECT 1",))


# Findings and how they are printed


@pytest.mark.parametrize(
    ("findings", "code"), [([], 0), ([GOOD], 0), ([GOOD, POOR], 1), ([BAD, GOOD], 4), ([BAD, POOR], 4)]
)
def test_the_worst_finding_decides_the_exit_code(findings: list[Finding], code: int) -> None:
    assert exit_code(findings) == code


def test_a_finding_is_a_line_and_its_fix_one_below() -> None:
    assert list(lines([GOOD, POOR, BAD])) == [
        "✔ clocks: they agree",
        "! role: role app: it is a superuser",
        "    fix: Connect as another.",
        "✘ slot: slot shop: it is lost",
        "    fix: Make\\nanother.",
        "3 checks: 1 fatal, 1 to think about",
    ]


def test_what_could_not_be_seen_is_never_ok() -> None:
    finding = unseen("alarms", "nodes", "no answer")

    assert (finding.level, finding.problem) == ("warning", "could not be seen: no answer")


def test_a_line_break_in_a_name_does_not_leave_its_comment() -> None:
    odd = fatal("replica identity", "public.a\n; DROP TABLE b", "no key", fix="Give\rone.", sql=("SELECT 1",))

    script = "\n".join(fixes([GOOD, odd]))

    assert [line for line in script.splitlines() if line and not line.startswith("-- ")] == ["SELECT 1;"]


def test_a_password_in_a_problem_is_hidden() -> None:
    leaky = fatal("sink", "amqp:", "cannot use amqp://app:hunter2@broker/", fix="dsn password=hunter2")

    assert "hunter2" not in "".join([*lines([leaky]), *fixes([leaky]), *map(str, leaky.as_dict().values())])


# Routes


@pytest.mark.parametrize(
    ("pattern", "key", "routed"),
    [
        ("#", "public.orders.insert", True),
        ("public.#", "public.orders.insert", True),
        ("public.#", "public", True),
        ("public.*", "public.orders.insert", False),
        ("public.*.insert", "public.orders.insert", True),
        ("*.*.*", "public.orders.insert", True),
        ("#.insert", "public.orders.insert", True),
        ("#.insert", "insert", True),
        ("#.orders.#", "public.orders.insert", True),
        ("public.orders", "public.orders.insert", False),
        ("", "public.orders.insert", False),
        ("*", "", True),
    ],
)
def test_topic_patterns_match_as_in_rabbitmq(pattern: str, key: str, *, routed: bool) -> None:
    assert matches(pattern, key) == routed


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5), st.integers(0, 5), st.integers(0, 5))
def test_any_run_of_words_may_stand_behind_a_hash(words: list[str], start: int, end: int) -> None:
    first, last = sorted((min(start, len(words)), min(end, len(words))))

    assert matches(".".join([*words[:first], "#", *words[last:]]), ".".join(words))


class Declared:
    """A topology in memory."""

    def __init__(self, exchanges: Sequence[Exchange], bindings: Mapping[str, Sequence[Binding]]) -> None:
        self._exchanges = {each.name: each for each in exchanges}
        self._bindings = bindings

    def exchange(self, name: str) -> Exchange | None:
        return self._exchanges.get(name)

    def bindings(self, exchange: str) -> Sequence[Binding]:
        return self._bindings.get(exchange, ())


def to_queue(name: str, key: str) -> Binding:
    return Binding(name, is_queue=True, key=key)


def to_exchange(name: str, key: str) -> Binding:
    return Binding(name, is_queue=False, key=key)


TOPOLOGY = Declared(
    [
        Exchange("events", "topic", durable=True, alternate="rest"),
        *(Exchange(n, "fanout", durable=True) for n in ("all", "rest")),
    ],
    {
        "events": [to_queue("orders", "public.orders.*"), to_exchange("all", "audit.#")],
        "all": [to_queue("audit", ""), to_exchange("events", "#")],
        "rest": [to_queue("other", "")],
    },
)


def test_an_event_goes_where_bindings_of_its_exchange_lead() -> None:
    assert queues_for(TOPOLOGY, "events", "public.orders.insert") == {"orders"}


def test_a_binding_may_lead_through_another_exchange_and_back() -> None:
    assert queues_for(TOPOLOGY, "events", "audit.log.insert") == {"audit"}


def test_what_no_binding_takes_goes_to_the_alternate_exchange() -> None:
    assert queues_for(TOPOLOGY, "events", "public.items.insert") == {"other"}


def test_without_a_key_every_queue_is_found() -> None:
    assert queues_for(TOPOLOGY, "events", None) == {"orders", "audit", "other"}


def test_a_key_without_a_queue_is_named_with_its_table() -> None:
    topology = Declared([Exchange("e", "direct", durable=True)], {"e": [to_queue("q", "a.b.insert")]})

    found = unrouted(topology, {Destination("e", key): "a.b" for key in ("a.b.insert", "a.b.delete")})

    assert found == {Destination("e", "a.b.delete"): "a.b"}


def test_how_an_unknown_kind_of_exchange_routes_is_not_guessed() -> None:
    topology = Declared([Exchange("e", "headers", durable=True)], {"e": [to_queue("q", "")]})

    with pytest.raises(NotSeenError, match="headers"):
        queues_for(topology, "e", "a.b.insert")


# Queues


def problems(queue: Queue, *, nodes: int = 1, major: int = 3) -> list[str]:
    return [f"{each.level} {each.problem}" for each in examined(queue, vhost="/", nodes=nodes, major=major)]


@pytest.mark.parametrize(
    "queue",
    [
        Queue("q", "classic"),
        Queue("q", "quorum"),
        Queue("q", "stream"),
        Queue("q", "classic", settings={"max-length": 5, "overflow": "reject-publish"}),
        Queue("q", "quorum", settings={"delivery-limit": 5, "dead-letter-exchange": "dead"}),
    ],
)
def test_a_queue_that_keeps_what_it_gets_has_no_problem(queue: Queue) -> None:
    assert problems(queue) == []


def test_a_full_queue_that_drops_its_head_is_fatal() -> None:
    (problem,) = problems(Queue("q", "classic", settings={"max-length-bytes": 5}))

    assert problem == "fatal when it holds its max-length-bytes of 5 its head is dropped, though it was confirmed"


def test_a_dropped_head_that_goes_to_dead_letters_is_not_lost() -> None:
    (problem,) = problems(Queue("q", "classic", settings={"max-length": 5, "dead-letter-exchange": "dead"}))

    assert problem == "warning when it holds its max-length of 5 its head goes to its dead letters"


def test_the_fix_of_a_queue_keeps_what_its_policy_says_already() -> None:
    policy = {"max-length": 5, "ha-mode": "all"}

    (finding,) = examined(Queue("it's", "classic", settings=policy, policy=policy), vhost="/", nodes=1, major=3)

    assert '{"max-length": 5, "ha-mode": "all", "overflow": "reject-publish"}' in finding.fix


def test_a_classic_queue_of_a_cluster_is_on_one_node_alone() -> None:
    assert problems(Queue("q", "classic"), nodes=3) == [
        "warning it is classic: of 3 nodes one alone has what is in it"
    ]
    assert problems(Queue("q", "quorum"), nodes=3) == []


def test_a_quorum_queue_of_rabbitmq_4_gives_up_after_twenty_deliveries() -> None:
    assert problems(Queue("q", "quorum"), major=4) == [
        "warning what was handed out 20 times and not acknowledged is dropped"
    ]
    assert problems(Queue("q", "quorum", settings={"delivery-limit": -1}), major=4) == []


def test_a_stream_with_a_limit_forgets() -> None:
    assert problems(Queue("q", "stream", settings={"max-age": "7D"})) == [
        "warning it is a stream that forgets its oldest events"
    ]


# The way to either end


def test_settings_that_are_in_force_are_ok() -> None:
    (finding,) = pins({**PINNED_SETTINGS, "datestyle": "ISO, MDY"})

    assert finding.level == "ok"


def test_a_setting_that_did_not_take_effect_is_named() -> None:
    (finding,) = pins({**PINNED_SETTINGS, "bytea_output": "escape"})

    assert finding.level == "fatal"
    assert "bytea_output is 'escape' instead of 'hex'" in finding.problem


def test_a_setting_that_cannot_be_seen_is_not_ok() -> None:
    shown = {name: value for name, value in PINNED_SETTINGS.items() if name != "timezone"}

    (finding,) = pins(shown)

    assert finding.level == "fatal"


@pytest.mark.parametrize(
    "sentence",
    [
        "Feature not supported: RDS Proxy currently doesn't support streaming replication mode",
        "unsupported startup parameter: replication",
        "unsupported startup parameter in options: datestyle",
    ],
)
def test_a_poolers_refusal_is_known(sentence: str) -> None:
    assert is_poolers(sentence)


def test_the_servers_own_refusal_is_no_poolers() -> None:
    assert not is_poolers("must be superuser or replication role to start walsender")
    assert not is_poolers("number of requested standby connections exceeds max_wal_senders (currently 1)")


@pytest.mark.parametrize(
    ("host_name", "is_encrypted", "mode", "level"),
    [
        ("127.0.0.1", False, "prefer", "ok"),
        ("/run/postgresql", False, "prefer", "ok"),
        ("", False, "prefer", "ok"),
        ("db.example", False, "prefer", "warning"),
        ("db.example", True, "require", "warning"),
        ("db.example", True, "verify-full", "ok"),
    ],
)
def test_rows_should_not_travel_in_clear(host_name: str, mode: str, level: str, *, is_encrypted: bool) -> None:
    assert encryption(host_name, is_encrypted=is_encrypted, mode=mode).level == level


@pytest.mark.parametrize(
    ("url", "levels"),
    [
        ("amqp://app:x@localhost/", ["ok"]),
        ("amqp://app:x@broker/", ["warning"]),
        ("amqp://broker/", ["warning", "warning"]),
        ("amqps://app:x@broker/", ["ok"]),
        ("amqps://app:x@broker/?verify=verify_none", ["warning"]),
        ("amqps://app:x@one,[::1]/", ["ok", "ok"]),
    ],
)
def test_credentials_should_not_travel_in_clear(url: str, levels: list[str]) -> None:
    assert [finding.level for finding in check_transport(parse(url))] == levels


def test_the_skew_of_clocks_is_without_the_time_of_the_trip() -> None:
    times = iter([0.0, 10.0, 20.0, 20.2, 30.0, 34.0])
    answers = iter([5.0, 25.1, 32.0])

    assert measured_skew(lambda: next(answers), now=lambda: next(times)) == pytest.approx(5.0)


def test_a_skew_smaller_than_the_trip_is_none() -> None:
    times = iter([0.0, 2.0] * 3)

    assert measured_skew(lambda: 1.5, now=lambda: next(times)) == 0.0


# Versions, permissions, the management API


@pytest.mark.parametrize(
    ("version", "guarded"),
    [
        (130_023, False),
        (140_023, False),
        (140_024, True),
        (150_018, False),
        (150_019, True),
        (180_005, False),
        (190_000, True),
    ],
)
def test_which_servers_load_named_plug_ins_alone(version: int, *, guarded: bool) -> None:
    assert is_guarded(version) == guarded


@pytest.mark.parametrize(
    ("pattern", "permitted"), [("", False), (".*", True), ("^events$", True), ("^other", False), ("[", False)]
)
def test_a_permission_is_a_regular_expression(pattern: str, *, permitted: bool) -> None:
    assert permits(pattern, "events") == permitted


@pytest.mark.parametrize("location", ["file:///etc/passwd", "broker:15672", "http://"])
def test_the_management_url_must_be_one(location: str) -> None:
    with pytest.raises(ConfigError, match="--management"):
        check_location(location)


# The host


def test_a_folder_that_is_missing_is_fatal(tmp_path: Path) -> None:
    (finding,) = host.check_state_file(Settings(state=str(tmp_path / "no" / "state.json")))

    assert (finding.level, finding.problem) == ("fatal", "its folder does not exist")


def test_a_full_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "SMALL_BYTES", 2**80)

    (finding,) = host.check_state_file(Settings(state=str(tmp_path / "state.json")))

    assert finding.level == "warning"
    assert list(tmp_path.iterdir()) == []


def test_a_file_sink_is_looked_at_as_a_url(tmp_path: Path) -> None:
    (finding,) = host.check_file_sink(Settings(sink=f"file://{tmp_path}/a%20b.ndjson"))

    assert finding.level == "ok"
    assert "a b.ndjson can be written" in finding.subject


@pytest.mark.parametrize("option", ["on_unroutable", "on_poison"])
def test_the_park_file_is_looked_at_where_something_parks(tmp_path: Path, option: str) -> None:
    parking = {option: "park", "park_file": str(tmp_path)}

    (finding,) = host.check_park_file(Settings(**parking))  # type: ignore[arg-type]

    assert (finding.level, finding.problem) == ("fatal", "it is a folder")
    assert list(host.check_park_file(Settings())) == []


def test_the_page_lists_every_check_and_no_other() -> None:
    root = Path(__file__).parents[2]
    code = "".join(path.read_text() for path in sorted((root / "pgevents" / "doctor").glob("*.py")))
    made = re.findall(r'\b(?:ok|warning|fatal|unseen|refusal|level|Finding|_writable)\(\s*"([a-zA-Z -]+)"', code)
    rows = re.findall(r"^\| (`[^|]+`[ †]*) \|", (root / "docs" / "doctor.md").read_text(), re.MULTILINE)

    assert set(re.findall(r"`([^`]+)`", " ".join(rows))) == set(made)


# Where events go


def goes(text: str, *names: tuple[str, str], sink: str = "amqp://h/v?exchange=e", **settings: Any) -> dict[str, Use]:
    made = Settings(sink=sink, rules=parse_rules(tomllib.loads(text), "pgevents.toml"), **settings)
    found = destinations(made, "e", routing_key(sink), names, ("insert", "truncate"))
    return {f"{each.exchange} {each.key}": use for each, use in found.items()}


ORDERS = ("shop", "orders")


def test_without_rules_each_operation_has_a_key_of_the_sinks_own_exchange() -> None:
    used = goes("", ORDERS)

    assert used == dict.fromkeys(("e shop.orders.insert", "e shop.orders.truncate"), Use("shop.orders"))


def test_of_what_a_condition_decides_each_outcome_is_one_and_behind_the_last_that_fits_there_is_none() -> None:
    rules = """
    [[route]]
    tables = ["shop.*"]
    operations = ["insert"]
    when = "new.total > 5"
    exchange = "big"
    [[route]]
    tables = ["shop.orders"]
    routing_key = "o"
    [[route]]
    exchange = "never"
    """

    assert goes(rules, ORDERS) == {
        "big shop.orders.insert": Use("shop.orders by [[route]] 1"),
        "e o": Use("shop.orders by [[route]] 2"),
    }


def test_what_a_filter_leaves_out_and_what_a_format_has_no_word_for_goes_nowhere() -> None:
    rules = '[[filter]]\ntables = ["shop.orders"]\noperations = ["truncate"]'

    assert list(goes(rules, ORDERS, ("shop", "items"), format="maxwell")) == ["e shop.items.insert"]


def test_a_slow_lane_is_a_second_way_for_the_tables_it_is_about() -> None:
    rules = '[[skip]]\nname = "large"\nrows = 5\ntables = ["shop.orders"]\naction = "slow-lane"\nexchange = "slow"'

    used = goes(rules, ORDERS, ("shop", "items"))

    assert [key for key, use in used.items() if use == Use("shop.orders in the slow lane of [[skip]] large")] == [
        "slow shop.orders.insert",
        "slow shop.orders.truncate",
    ]
    assert not [key for key in used if key.startswith("slow shop.items")]


def test_records_and_summaries_are_optional_where_they_have_keys_of_their_own() -> None:
    rules = '[[skip]]\nmarked = true\naction = "summarise"'

    used = goes(rules, ORDERS)

    assert used["e _.transaction.skipped"] == Use("records of skipped transactions", is_optional=True)
    assert used["e shop.orders.summary"] == Use("summaries of shop.orders", is_optional=True)
    assert goes(rules, ORDERS, sink="amqp://h/v?routing_key=all") == {"e all": Use("shop.orders")}


@pytest.mark.parametrize(
    "rule", ['rows = 5\naction = "publish"', 'origin = "bulk"\npush_down = true', 'rows = 5\naction = "slow-lane"']
)
def test_a_rule_that_leaves_no_record_needs_no_queue_for_one(rule: str) -> None:
    lane = '\nexchange = "slow"' if "slow" in rule else ""

    assert "e _.transaction.skipped" not in goes(f"[[skip]]\n{rule}{lane}", ORDERS)


def test_messages_go_somewhere_known_where_a_route_names_their_prefix() -> None:
    rules = '[[route]]\ntables = ["_.mail", "_.sms*"]\noperations = ["message"]\nexchange = "post"'

    assert goes(rules) == {"post _.mail.message": Use("messages with the prefix mail by [[route]] 1")}
