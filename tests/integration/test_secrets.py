"""No password is seen anywhere: every command is run with secrets, well and badly, and what it leaves is searched."""

import json
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psycopg2
import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from chaos.proxy import Proxy
from pgevents.cli import main
from pgevents.demo.postgres import Postgres
from pgevents.demo.process import descendants, eventually, free_ports
from pgevents.demo.rabbitmq import RabbitMQ
from tests.contract.amqp import bind, stored
from tests.integration.command import Command, Outcome, Shop, environment, pgevents, through
from tests.integration.role import ROLE
from tests.integration.streaming import ask, run

REFUSED = 4
SOON = ("--start-timeout", "0.3", "--retry-max", "0.2", "--log-level", "debug")
IMPATIENT = ("--retry-max", "0.2", "--log-level", "debug")
JSON_LOG = ("--log-format", "json")


@dataclass(frozen=True, slots=True)
class Secret:
    """A password full of what has to be escaped, in which each stretch of letters would be known anywhere.

    However it is quoted or encoded, and if only a part of it is shown, one of the stretches is there.
    """

    parts: tuple[str, ...] = field(default_factory=lambda: tuple(secrets.token_hex(6) for _ in range(6)))

    @property
    def text(self) -> str:
        first, second, third, fourth, fifth, sixth = self.parts
        return f"{first}@{second}:{third}/?{fourth}#'{fifth}\\ %41{sixth}"

    @property
    def in_url(self) -> str:
        return quote(self.text, safe="")

    def is_in(self, text: str) -> bool:
        return any(part in text for part in self.parts)


@dataclass(frozen=True, slots=True)
class Vault:
    """Every secret of a test."""

    database: Secret = field(default_factory=Secret)
    broker: Secret = field(default_factory=Secret)
    wrong: Secret = field(default_factory=Secret)
    key: Secret = field(default_factory=Secret)

    def seen_in(self, text: str) -> list[str]:
        named = {"database": self.database, "broker": self.broker, "wrong": self.wrong, "key": self.key}
        return [name for name, secret in named.items() if secret.is_in(text)]


@dataclass(frozen=True, slots=True)
class Ends:
    """A database and a broker that want passwords, and a folder where everything is run."""

    vault: Vault
    shop: Shop
    url: str
    folder: Path

    def dsn(self, secret: Secret | None = None, **changes: str) -> str:
        password = (secret or self.vault.database).text
        return make_dsn(self.shop.dsn, user=ROLE, **{"password": password} | changes)

    @property
    def dsn_without_password(self) -> str:
        parts = parse_dsn(self.shop.dsn)
        return make_dsn(host=parts["host"], port=parts["port"], dbname=parts["dbname"], user=ROLE)

    def sink(self, secret: Secret | None = None) -> str:
        return self.url.replace("SECRET", (secret or self.vault.broker).in_url)

    @property
    def env(self) -> dict[str, str]:
        return {"PGEVENTS_DSN": self.dsn(), "PGEVENTS_SINK": self.sink(), "PGEVENTS_SLOT": self.shop.slot}

    def runs(self, *arguments: str, code: int | None = None, **env: str) -> Outcome:
        """Run to the end; nothing secret may be in what it says."""
        outcome = pgevents(self.folder, *arguments, env=self.env | env)
        assert code in (None, outcome.code), f"exit code {outcome.code}\n{outcome.stderr}"
        self.hides(outcome.stdout + outcome.stderr)
        return outcome

    def hides(self, text: str) -> None:
        assert self.vault.seen_in(text) == [], text

    def check_files(self, *, given: Sequence[Path] = ()) -> None:
        """Nothing secret in any file that was left, but in those that the secrets were ``given`` in."""
        left = [path for path in self.folder.rglob("*") if path.is_file() and path not in given]
        assert left
        for path in left:
            assert self.vault.seen_in(path.read_text(errors="replace")) == [], path


@pytest.fixture(scope="module")
def strict(services: Path, postgres15: Postgres) -> Iterator[Postgres]:
    with Postgres(services / "pg-secrets", binaries=postgres15.binaries, auth="scram-sha-256") as server:
        yield server


@pytest.fixture
def ends(strict: Postgres, rabbitmq: RabbitMQ, vhost: str, tmp_path: Path) -> Iterator[Ends]:
    vault, user = Vault(), f"user_{secrets.token_hex(4)}"
    rabbitmq.api("PUT", f"/api/users/{user}", {"password": vault.broker.text, "tags": ""})
    name = vhost.rpartition("/")[2]
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    rabbitmq.api("PUT", f"/api/permissions/{name}/{user}", everything)
    bind(vhost, "all", "public.orders.*")
    database = f"secrets_{secrets.token_hex(4)}"
    run(strict.dsn(), f"CREATE DATABASE {database}")
    shop = Shop(strict.dsn(database))
    run_quietly(strict, f"ALTER ROLE {ROLE} PASSWORD %s", vault.database.text)
    yield Ends(vault, shop, f"amqp://{user}:SECRET@127.0.0.1:{rabbitmq.port}/{name}", tmp_path)
    rabbitmq.api("DELETE", f"/api/users/{user}")
    drop_slots(strict.dsn(database), database)
    run(strict.dsn(), f"DROP DATABASE {database} WITH (FORCE)")


def drop_slots(dsn: str, database: str) -> None:
    """Once nobody reads them."""
    slots = f"FROM pg_replication_slots WHERE database = '{database}'"
    assert eventually(lambda: not ask(dsn, f"SELECT count(*) {slots} AND active"), deadline_s=20)
    run(dsn, f"SELECT pg_drop_replication_slot(slot_name) {slots}")


def run_quietly(server: Postgres, statement: str, *parameters: str) -> None:
    connection = psycopg2.connect(server.dsn())
    connection.autocommit = True
    connection.cursor().execute(statement, parameters)
    connection.close()


# All goes well.


@pytest.mark.parametrize("form", [(), JSON_LOG])
@pytest.mark.fault("I21")
def test_a_stream_that_works_shows_no_password_anywhere(ends: Ends, vhost: str, form: tuple[str, ...]) -> None:
    park = ("--on-unroutable", "park", "--park-file", "parked.ndjson")
    with Command(ends.folder, "stream", *park, *form, "--log-level", "debug", env=ends.env) as stream:
        stream.ready()
        ends.shop.add(1, 2)
        run(ends.shop.dsn, "CREATE TABLE elsewhere (id int PRIMARY KEY)", "INSERT INTO elsewhere VALUES (3)")
        lsn = ends.shop.lsn
        assert eventually(lambda: ends.shop.confirmed >= lsn, deadline_s=20), stream.stderr
        for pid in (stream.pid, *descendants(stream.pid)):
            ends.hides(Path(f"/proc/{pid}/cmdline").read_text())
        backends = ask(ends.shop.dsn, "SELECT string_agg(to_jsonb(a)::text, '') FROM pg_stat_activity a")
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    events = stored(vhost, "all")
    assert len(events) == 2
    ends.hides(backends)
    ends.hides("".join(f"{properties} {body.decode()}" for properties, body in events))
    ends.check_files()
    assert len((ends.folder / "parked.ndjson").read_text().splitlines()) == 1
    assert list(ends.folder.glob("*.state.json"))


def test_secrets_are_taken_from_files_and_from_libpqs_variable(ends: Ends) -> None:
    password, sink, dsn = (ends.folder / name for name in ("password", "sink", "dsn"))
    password.write_text(ends.vault.database.text + "\n")
    sink.write_text(ends.sink() + "\n")
    dsn.write_text(ends.dsn() + "\n")
    bare = ends.dsn_without_password
    ways = [
        {"PGEVENTS_DSN": bare, "PGPASSWORD": ends.vault.database.text, "PGEVENTS_SINK": ends.sink()},
        {"PGEVENTS_DSN": bare, "PGPASSWORD_FILE": str(password), "PGEVENTS_SINK_FILE": str(sink)},
        {"PGEVENTS_DSN_FILE": str(dsn), "PGEVENTS_SINK_FILE": str(sink)},
    ]
    for way in ways:
        env = {"PGEVENTS_SLOT": ends.shop.slot} | way
        for command in (("stream", "--until-lsn", "now"), ("config", "show"), ("config", "show", "--json")):
            outcome = pgevents(ends.folder, *command, env=env)

            assert outcome.code == 0, outcome.stderr
            ends.hides(outcome.stdout + outcome.stderr)
    ends.check_files(given=[password, sink, dsn])


@pytest.mark.fault("I21")
def test_no_other_command_shows_a_password(ends: Ends) -> None:
    dsn = ends.dsn(sslpassword=ends.vault.key.text)

    shown = ends.runs("config", "show", code=0, PGEVENTS_DSN=dsn, PGPASSWORD=ends.vault.wrong.text).stdout
    as_json = ends.runs("config", "show", "--json", code=0, PGEVENTS_DSN=dsn, PGPASSWORD=ends.vault.wrong.text)
    ends.runs("slot", "status", code=0)
    ends.runs("slot", "status", "--json", code=0)
    ends.runs("slot", "create", "--slot", f"{ends.shop.slot}_2", code=0)
    ends.runs("slot", "drop", "--slot", f"{ends.shop.slot}_2", "--yes", code=0)
    ends.runs("stream", "--dry-run", "--until-lsn", "now", code=0)
    ends.runs("schema", code=0)
    ends.runs("doctor")
    ends.runs("doctor", "--json")
    ends.runs("parked", "list")
    with Command(ends.folder, "tail", env=ends.env) as database:
        queue = Command(ends.folder, "tail", "--bind", "#", env=ends.env)
        with queue:
            database.ready()
            queue.ready()
            ends.hides(database.stopped().stderr + queue.stopped().stderr)

    assert "***" in shown
    assert "***" in json.loads(as_json.stdout)["options"]["dsn"]["value"]
    ends.check_files()


# All goes wrong.


@pytest.mark.parametrize("form", [(), JSON_LOG])
def test_a_wrong_password_is_not_shown(ends: Ends, form: tuple[str, ...]) -> None:
    wrong = ends.vault.wrong

    for command in (("stream", *SOON, *form), ("slot", "status"), ("slot", "create"), ("tail",), ("doctor",)):
        ends.runs(*command, PGEVENTS_DSN=ends.dsn(wrong))
        ends.runs(*command, PGEVENTS_DSN=ends.dsn_without_password, PGPASSWORD=wrong.text)
    ends.runs("stream", *SOON, *form, code=REFUSED, PGEVENTS_SINK=ends.sink(wrong))
    ends.runs("tail", "--bind", "#", PGEVENTS_SINK=ends.sink(wrong))
    ends.check_files()


@pytest.mark.parametrize("form", [(), JSON_LOG])
def test_a_server_that_is_not_there_is_named_without_the_password(ends: Ends, form: tuple[str, ...]) -> None:
    (port,) = free_ports(1)
    nowhere = through(ends.sink(), port)
    key = ends.vault.key.text

    ends.runs("stream", *SOON, *form, PGEVENTS_DSN=ends.dsn(port=str(port)))
    ends.runs("stream", *SOON, *form, PGEVENTS_DSN=ends.dsn(host="no-such-host.invalid"))
    ends.runs("stream", *SOON, *form, PGEVENTS_DSN=ends.dsn(sslmode="require", sslpassword=key))
    ends.runs("stream", *SOON, *form, PGEVENTS_SINK=nowhere)
    ends.runs("stream", *SOON, *form, PGEVENTS_SINK=nowhere.replace("amqp:", "amqps:"))
    ends.runs("tail", "--bind", "#", PGEVENTS_SINK=nowhere)
    ends.check_files()


URLS = [
    # As a person writes it who does not know what is to be encoded.
    "{scheme}://user:{raw}@127.0.0.1/shop",
    "{scheme}://user:{raw}@127.0.0.1:port/shop",
    "{scheme}://:{raw}@127.0.0.1/shop",
    "{scheme}:user:{raw}@127.0.0.1/shop",
    "{scheme}:/user:{raw}@127.0.0.1/shop",
    "{scheme}:///user:{raw}@127.0.0.1/shop",
    "{scheme}//user:{raw}@127.0.0.1/shop",
    "{scheme}s://user:{raw}@127.0.0.1/shop",
    "x{scheme}://user:{raw}@127.0.0.1/shop",
    "user:{raw}@127.0.0.1/shop",
    "{raw}@127.0.0.1/shop",
    "{scheme}://user:{encoded}@127.0.0.1:99999/shop",
    "{scheme}://user:{encoded}@[::1/shop",
    "{scheme}://user:{encoded}@127.0.0.1/shop?password={encoded}",
    "{scheme}://user:{encoded}@127.0.0.1/shop?passwrod={encoded}",
    "{scheme}://127.0.0.1/shop?password={raw}",
    "{scheme}://user:{encoded}@127.0.0.1/shop?host=a&host=b%zz",
]
PAIRS = [
    "host=127.0.0.1 password={raw}",
    "host=127.0.0.1 password='{raw}'",
    "host=127.0.0.1 password = {raw}",
    "host=127.0.0.1 passwrod={raw}",
    "host=127.0.0.1 user:{raw}",
    "host=127.0.0.1 sslpassword='{raw}",
    "password={encoded}&host=127.0.0.1",
    "{raw}",
]


@pytest.mark.parametrize("shape", [*URLS, *PAIRS])
def test_a_dsn_that_is_no_dsn_is_refused_without_repeating_it(shape: str, tmp_path: Path) -> None:
    secret = Secret()
    dsn = shape.format(scheme="postgresql", raw=secret.text, encoded=secret.in_url)

    stream = pgevents(tmp_path, "stream", *SOON, *JSON_LOG, "--sink", "null:", "--dsn", dsn)
    shown = pgevents(tmp_path, "config", "show", env={"PGEVENTS_DSN": dsn})

    assert stream.code != 0
    assert not secret.is_in(stream.stderr + shown.stdout + shown.stderr), (stream.stderr, shown)


@pytest.mark.parametrize("shape", URLS)
def test_a_sink_url_that_is_none_is_refused_without_repeating_it(shape: str, tmp_path: Path) -> None:
    secret = Secret()
    sink = shape.format(scheme="amqp", raw=secret.text, encoded=secret.in_url)

    stream = pgevents(tmp_path, "stream", *SOON, *JSON_LOG, "--dsn", "host=127.0.0.1 port=1", "--sink", sink)
    shown = pgevents(tmp_path, "config", "show", "--json", env={"PGEVENTS_SINK": sink})

    assert (stream.code, shown.code) == (2, 0)
    assert not secret.is_in(stream.stderr + shown.stdout + shown.stderr), (stream.stderr, shown)


@pytest.mark.parametrize("kind", ["sink", "dsn", "dsn_url"])
def test_a_url_in_the_wrong_place_is_refused_without_repeating_it(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret, flags = Secret(), ("--slot", "--plugin", "--window", "--until-lsn", "--log-level", "--snik")
    url = {
        "sink": f"amqp://user:{secret.in_url}@127.0.0.1/shop",
        "dsn": make_dsn(host="127.0.0.1", user="user", password=secret.text),
        "dsn_url": f"postgresql://user:{secret.in_url}@127.0.0.1/shop",
    }[kind]
    arguments = [(url,), ("stream", url), ("slot", url), ("slot", "status", url), ("config", "show", url)]
    arguments += [("completion", url), *(("stream", flag, url) for flag in flags), ("stream", f"--snik={url}")]
    for number, line in enumerate((f"slto = {json.dumps(url)}", f"sink = {url}", f"{json.dumps(url)} = 1")):
        file = tmp_path / f"{number}.toml"
        file.write_text(line)
        arguments.append(("stream", "--config", str(file)))

    codes = {main(each) for each in arguments}

    said = capsys.readouterr()
    assert codes == {2}
    assert not secret.is_in(said.out + said.err), said.err


@pytest.mark.parametrize("flag", ["--table", "--state"])
def test_a_url_for_what_is_looked_for_is_not_repeated(ends: Ends, flag: str) -> None:
    assert ends.runs("stream", *SOON, flag, ends.sink()).code != 0


@pytest.mark.parametrize("form", [(), JSON_LOG])
@pytest.mark.fault("I21")
def test_servers_that_fail_in_mid_stream_do_not_bring_out_a_password(
    ends: Ends, strict: Postgres, rabbitmq: RabbitMQ, vhost: str, form: tuple[str, ...]
) -> None:
    with Proxy(strict.port) as to_database, Proxy(rabbitmq.port) as to_broker:
        env = ends.env | {
            "PGEVENTS_DSN": ends.dsn(port=str(to_database.port)),
            "PGEVENTS_SINK": through(ends.sink(), to_broker.port),
        }
        with Command(ends.folder, "stream", *IMPATIENT, *form, env=env) as stream:
            stream.ready()
            for way in (to_broker, to_database):
                interrupt(ends, stream, way)
            user = re.search(r"user_\w+", ends.url)
            assert user
            rabbitmq.api("PUT", f"/api/users/{user[0]}", {"password": "rotated", "tags": ""})
            to_broker.cut()
            ends.shop.add(1)
            to_broker.mend()
            stream.says("refused|ACCESS_REFUSED")
            stream.stopped()
            ends.hides(stream.stdout + stream.stderr)
    ends.check_files()


def interrupt(ends: Ends, stream: Command, way: Proxy) -> None:
    before = stream.stderr.count("trying again")
    way.cut()
    ends.shop.add(before + 10)
    stream.says("trying again", times=before + 1)
    way.mend()
    lsn = ends.shop.lsn
    assert eventually(lambda: ends.shop.confirmed >= lsn, deadline_s=20), stream.stderr


def test_the_environment_of_a_test_holds_no_secret_of_its_own(ends: Ends) -> None:
    """Or what is found here could come from there."""
    ends.hides(json.dumps(environment({})))
