"""TLS with a private CA on both links: who is not who was asked for is refused, before anything is said to it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2
import pytest
import trustme

from pgevents.demo.certificate import Certificate
from pgevents.demo.postgres import Postgres
from pgevents.demo.process import eventually
from pgevents.demo.rabbitmq import RabbitMQ
from pgevents.demo.rabbitmq_settings import MANAGEMENT
from tests.contract.amqp import bind, stored
from tests.integration.command import Command, Shop, ids_of, pgevents
from tests.integration.role import as_role
from tests.integration.streaming import ask

REFUSED = 4
DEADLINE_S = 20.0
HOST = "127.0.0.1"
ALIAS = "servers.shop.example"
OTHER_HOST = "elsewhere.example"
TO_NOWHERE = ("--sink", "null:")


@dataclass(frozen=True, slots=True)
class Authority:
    """A private CA, its certificate in a file, and one of a client's own."""

    ca: trustme.CA
    file: Path
    client_file: Path

    @classmethod
    def found(cls, folder: Path) -> "Authority":
        folder.mkdir()
        authority = cls(trustme.CA(), folder / "ca.pem", folder / "client.pem")
        authority.ca.cert_pem.write_to_path(str(authority.file))
        authority.ca.issue_cert("pgevents").private_key_and_cert_chain_pem.write_to_path(str(authority.client_file))
        return authority

    def certificate(self, *, expired: bool = False) -> Certificate:
        ends_at = datetime.now(UTC) - timedelta(minutes=1) if expired else None
        leaf = self.ca.issue_cert(HOST, ALIAS, not_after=ends_at)
        chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
        return Certificate(chain, leaf.private_key_pem.bytes(), client_ca=self.ca.cert_pem.bytes())


@pytest.fixture(scope="module")
def authority(services: Path) -> Authority:
    return Authority.found(services / "authority")


@pytest.fixture(scope="module")
def stranger(services: Path) -> Authority:
    """A CA that nobody here trusts."""
    return Authority.found(services / "stranger")


@pytest.fixture(scope="module")
def postgres(services: Path, postgres15: Postgres, authority: Authority) -> Iterator[Postgres]:
    certificate = authority.certificate()
    with Postgres(services / "pg-tls", binaries=postgres15.binaries, certificate=certificate) as server:
        yield server


@pytest.fixture(scope="module")
def broker(services: Path, authority: Authority) -> Iterator[RabbitMQ]:
    """A node that lets in only who has a certificate by the same CA."""
    with RabbitMQ(services / "mq-tls", plugins=(MANAGEMENT,), certificate=authority.certificate()) as server:
        yield server


@pytest.fixture(scope="module")
def shop(postgres: Postgres) -> Shop:
    return Shop(postgres.dsn())


def verified(shop: Shop, authority: Authority, **changes: str) -> tuple[str, ...]:
    """The options of a stream that demands TLS of the database, and that it is who it says."""
    return shop.with_dsn(**{"sslmode": "verify-full", "sslrootcert": str(authority.file)} | changes)


def verified_url(broker: RabbitMQ, authority: Authority, *more: str) -> str:
    query = [f"cacertfile={authority.file}", f"certfile={authority.client_file}", *more]
    return broker.tls_url(query="&".join(query))


def is_secure(shop: Shop) -> bool:
    """Whether both connections of a stream are there, and every one of the role's is TLS."""
    connections, secure = ask(
        shop.dsn,
        "SELECT count(*) FILTER (WHERE backend_type = 'walsender'), bool_and(ssl)"
        " FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE usename = 'pgevents'",
    )
    return bool(connections) and secure


def is_all_tls(broker: RabbitMQ) -> bool:
    """Whether there is a connection to the broker, and none is plain. Its management hears of one a little later."""
    return {each.get("ssl") for each in broker.api("GET", "/api/connections")} == {True}


def test_events_pass_from_a_verified_database_to_a_verified_broker(
    shop: Shop, authority: Authority, broker: RabbitMQ, tmp_path: Path
) -> None:
    bind(broker.url(), "all")
    options = (*verified(shop, authority), "--sink", verified_url(broker, authority))

    with Command(tmp_path, "stream", *options) as stream:
        stream.ready()
        assert is_secure(shop)
        assert eventually(lambda: is_all_tls(broker), deadline_s=DEADLINE_S)
        shop.add(1, 2)
        lsn = shop.lsn
        assert eventually(lambda: shop.confirmed >= lsn, deadline_s=DEADLINE_S), stream.stderr
        ended = stream.stopped()

    assert ended.code == 0, ended.stderr
    assert ids_of([json.loads(body) for _, body in stored(broker.url(), "all")]) == [1, 2]


def test_a_queue_is_tailed_over_verified_tls(authority: Authority, broker: RabbitMQ, tmp_path: Path) -> None:
    with Command(tmp_path, "tail", "--sink", verified_url(broker, authority)) as tail:
        tail.ready()
        assert eventually(lambda: is_all_tls(broker), deadline_s=DEADLINE_S)
        ended = tail.stopped()

    assert ended.code == 0, ended.stderr


# The database.


def is_trusted(dsn: str) -> bool:
    """Whether libpq takes the server's certificate."""
    try:
        return bool(ask(dsn, "SELECT true"))
    except psycopg2.OperationalError:
        return False


def refuses_database(folder: Path, *options: str, error: str) -> None:
    outcome = pgevents(folder, "stream", *options, *TO_NOWHERE)

    outcome.refused(REFUSED, error=error, hint="sslmode")
    assert "trying again" not in outcome.stderr


@pytest.mark.fault("F58")
def test_a_database_by_an_unknown_ca_is_refused(shop: Shop, stranger: Authority, tmp_path: Path) -> None:
    refuses_database(tmp_path, *verified(shop, stranger), error="certificate verify failed")


@pytest.mark.fault("F58")
def test_a_database_of_another_name_is_refused(shop: Shop, authority: Authority, tmp_path: Path) -> None:
    elsewhere = verified(shop, authority, host=OTHER_HOST, hostaddr=HOST)

    refuses_database(tmp_path, *elsewhere, error=f'does not match host name "{OTHER_HOST}"')


@pytest.mark.fault("F58")
def test_a_database_that_has_no_tls_is_refused_where_tls_is_demanded(
    postgres15: Postgres, database15: str, authority: Authority, tmp_path: Path
) -> None:
    shop = Shop(database15)
    assert ask(postgres15.dsn(), "SHOW ssl") == "off"

    refuses_database(tmp_path, *verified(shop, authority), error="server does not support SSL")
    refuses_database(tmp_path, *shop.with_dsn(sslmode="require"), error="server does not support SSL")


def test_a_ca_file_that_is_missing_is_refused(shop: Shop, authority: Authority, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pem")

    refuses_database(tmp_path, *verified(shop, authority, sslrootcert=missing), error="missing.pem.* does not exist")


@pytest.mark.fault("F58")
def test_a_database_whose_certificate_has_expired_is_refused_until_it_is_renewed(
    postgres: Postgres, shop: Shop, authority: Authority, tmp_path: Path
) -> None:
    options = verified(shop, authority)
    probe = as_role(postgres.dsn(sslmode="verify-full", sslrootcert=str(authority.file)))
    postgres.renew(authority.certificate(expired=True))
    try:
        assert eventually(lambda: not is_trusted(probe), deadline_s=DEADLINE_S)
        refuses_database(tmp_path, *options, error="certificate (verify failed|has expired)")
    finally:
        postgres.renew(authority.certificate())
    assert eventually(lambda: is_trusted(probe), deadline_s=DEADLINE_S)

    outcome = pgevents(tmp_path, "stream", *options, *TO_NOWHERE, "--until-lsn", "now")

    assert outcome.code == 0, outcome.stderr


# The broker.


def refuses_broker(folder: Path, shop: Shop, url: str, *, error: str, hint: str) -> None:
    outcome = pgevents(folder, "stream", *shop.options, "--sink", url)

    outcome.refused(REFUSED, error=error, hint=hint)
    assert "trying again" not in outcome.stderr


@pytest.mark.fault("F58")
def test_a_broker_by_an_unknown_ca_is_refused(
    shop: Shop, broker: RabbitMQ, stranger: Authority, tmp_path: Path
) -> None:
    url = broker.tls_url(query=f"cacertfile={stranger.file}")

    refuses_broker(tmp_path, shop, url, error=f"certificate of {HOST}:.* was refused", hint="cacertfile=")


@pytest.mark.fault("F58")
def test_a_broker_of_another_name_is_refused(
    shop: Shop, broker: RabbitMQ, authority: Authority, tmp_path: Path
) -> None:
    url = verified_url(broker, authority, f"server_name_indication={OTHER_HOST}")

    refuses_broker(tmp_path, shop, url, error=f"refused: .*{OTHER_HOST}", hint="server_name_indication=")


@pytest.mark.parametrize("name", [f"server_name_indication={ALIAS}", "verify=verify_none"])
def test_a_broker_of_another_name_is_taken_where_it_is_expected_or_nothing_is_verified(
    shop: Shop, broker: RabbitMQ, authority: Authority, name: str, tmp_path: Path
) -> None:
    by_name = broker.tls_url(query=f"certfile={authority.client_file}&{name}")
    if "verify_none" not in name:
        by_name += f"&cacertfile={authority.file}"

    outcome = pgevents(tmp_path, "stream", *shop.options, "--sink", by_name, "--until-lsn", "now")

    assert outcome.code == 0, outcome.stderr


@pytest.mark.fault("F58")
def test_a_broker_whose_certificate_has_expired_is_refused_until_it_is_renewed(
    shop: Shop, broker: RabbitMQ, authority: Authority, tmp_path: Path
) -> None:
    url = verified_url(broker, authority)
    bind(broker.url(), "all")
    broker.renew(authority.certificate(expired=True))
    try:
        refuses_broker(tmp_path, shop, url, error="refused: certificate has expired", hint="cacertfile=")
    finally:
        broker.renew(authority.certificate())

    outcome = pgevents(tmp_path, "stream", *shop.options, "--sink", url, "--until-lsn", "now")

    assert outcome.code == 0, outcome.stderr


@pytest.mark.fault("F58")
def test_a_broker_that_has_no_tls_is_refused_where_tls_is_demanded(
    shop: Shop, broker: RabbitMQ, authority: Authority, tmp_path: Path
) -> None:
    plain_port = broker.url().replace("amqp://", "amqps://") + f"?cacertfile={authority.file}"

    refuses_broker(tmp_path, shop, plain_port, error=f"no TLS with {HOST}", hint="TLS port")


def test_a_broker_that_wants_a_certificate_of_us_refuses_without(
    shop: Shop, broker: RabbitMQ, authority: Authority, tmp_path: Path
) -> None:
    url = broker.tls_url(query=f"cacertfile={authority.file}")

    refuses_broker(tmp_path, shop, url, error=f"no TLS with {HOST}.*", hint="certfile=")


def test_a_broker_refuses_a_certificate_of_ours_by_an_unknown_ca(
    shop: Shop, broker: RabbitMQ, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    url = broker.tls_url(query=f"cacertfile={authority.file}&certfile={stranger.client_file}")

    refuses_broker(tmp_path, shop, url, error=f"no TLS with {HOST}.*", hint="certfile=")
