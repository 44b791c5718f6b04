"""What libpq decides by itself: its environment variables and connection strings."""

import re
from collections.abc import Mapping

from pgevents.errors import ConfigError
from pgevents.mask import HIDDEN
from pgevents.spelling import nearest

# ruff: noqa: SIM905 - a list of one word a line would be longer than the rest of the module

VARIABLES = (
    "PGHOST PGHOSTADDR PGPORT PGDATABASE PGUSER PGPASSWORD PGPASSFILE PGSERVICE PGSERVICEFILE PGSYSCONFDIR "
    "PGREQUIREAUTH PGCHANNELBINDING PGSSLMODE PGSSLNEGOTIATION PGSSLCERT PGSSLKEY PGSSLCERTMODE PGSSLROOTCERT "
    "PGSSLCRL PGSSLCRLDIR PGSSLSNI PGREQUIREPEER PGSSLMINPROTOCOLVERSION PGSSLMAXPROTOCOLVERSION PGGSSENCMODE "
    "PGKRBSRVNAME PGGSSLIB PGGSSDELEGATION PGCONNECT_TIMEOUT PGCLIENTENCODING PGOPTIONS PGAPPNAME "
    "PGTARGETSESSIONATTRS PGLOADBALANCEHOSTS"
).split()
"""Source: PostgreSQL manual, "Environment Variables" of libpq."""

_KEYWORDS = (
    "host hostaddr port dbname user password passfile connect_timeout client_encoding options application_name "
    "keepalives keepalives_idle keepalives_interval keepalives_count tcp_user_timeout sslmode sslcert sslkey "
    "sslpassword sslrootcert sslcrl service target_session_attrs load_balance_hosts"
).split()
_UNKNOWN = re.compile(r'(?:invalid connection option|invalid URI query parameter:) "(\w+)"')


def variables_set(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables libpq reads that are set, the password masked. They fill in what a DSN leaves out."""
    found = {name: environment[name] for name in VARIABLES if environment.get(name)}
    return {name: HIDDEN if name == "PGPASSWORD" else text for name, text in found.items()}


def parse_dsn(dsn: str, origin: str) -> dict[str, str]:
    """The keywords of a connection string. Raises ConfigError, which does not repeat what may be secret."""
    import psycopg2
    from psycopg2.extensions import parse_dsn as parse

    authority = dsn.partition("://")[2].partition("/")[0]
    if authority.count("@") > 1:
        raise ConfigError(
            f"dsn ({origin}) has more than one @ before its host",
            hint="In a user name or a password write @ : / % as %40 %3A %2F %25.",
        )
    try:
        return parse(dsn)
    except (psycopg2.ProgrammingError, ValueError) as error:
        refusal = str(error)
    word = _UNKNOWN.search(refusal)
    # libpq's sentence may quote the DSN: a word of it is repeated only where it is a keyword mistyped.
    near = nearest(word[1], _KEYWORDS, likeness=0.75) if word else ""
    named = f": unknown keyword {word[1]!r}" if word and near else ""
    raise ConfigError(
        f"dsn ({origin}) is not a connection string{named}",
        hint=near or "Write postgresql://user@host:5432/database or 'host=… dbname=… user=…'.",
    )


def with_password(dsn: str, password: str) -> str:
    """The connection string with a password added."""
    from psycopg2.extensions import make_dsn

    return make_dsn(dsn, password=password)
