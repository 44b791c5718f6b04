"""The output plug-in: whether the server loads it now, and whether it still will after its next update."""

from collections.abc import Iterator

from pgevents.doctor.database import Database
from pgevents.doctor.finding import Finding, ok, refusal, unseen, warning
from pgevents.server import Server

# Minors since which a server loads only what output_plugin_libraries names (CVE-2026-6471).
_GUARDED_SINCE = {14: 24, 15: 19, 16: 15, 17: 11, 18: 6}

ALLOW = ("ALTER SYSTEM SET output_plugin_libraries = {}", "SELECT pg_catalog.pg_reload_conf()")


def is_guarded(version: int) -> bool:
    """Whether a server of that version knows output_plugin_libraries."""
    major, minor = divmod(version, 10_000)
    return major > max(_GUARDED_SINCE) or minor >= _GUARDED_SINCE.get(major, 10_000)


def check_plugin(database: Database) -> Iterator[Finding]:
    plugin, name = database.plugin, f"plug-in {database.plugin.name}"
    if plugin.refusal:
        is_forbidden = "may not be used" in str(plugin.refusal)
        yield refusal("output plug-in", name, plugin.refusal, sql=_allowed(database.server) if is_forbidden else ())
    elif plugin.unseen:
        yield unseen(
            "output plug-in",
            name,
            f"whether the server loads it: {plugin.unseen}",
            fix="Mend that first, and run this again.",
        )
    else:
        yield ok("output plug-in", f"{name}: {plugin.reason}" if plugin.reason else name)


def _allowed(server: Server) -> tuple[str, ...]:
    """The statements that add wal2json to what is allowed; no quotes, which would make one name of the list."""
    if server.plugins_allowed is None:  # unseen, it cannot be added to
        return ()
    allowed = ", ".join(filter(None, (server.plugins_allowed, "wal2json")))
    return ALLOW[0].format(allowed), ALLOW[1]


def check_next_update(database: Database) -> Iterator[Finding]:
    major, minor = divmod(database.version, 10_000)
    if database.plugin.name != "wal2json" or is_guarded(database.version):
        yield ok("next update", "it takes no output plug-in away")
        return
    since = _GUARDED_SINCE.get(major)
    when = f"{major}.{since}" if since else "a newer major version"
    yield warning(
        "next update",
        f"PostgreSQL {major}.{minor} with wal2json",
        f"from {when} on the server refuses wal2json, also for slots that exist, unless output_plugin_libraries "
        "names it",
        fix="Not before the update, because an older server would not start with the setting, but at once after it: "
        + "; ".join(statement.format("pgoutput, test_decoding, wal2json") for statement in ALLOW)
        + ". Or move to a slot of pgoutput.",
    )


CHECKS = (check_plugin, check_next_update)
