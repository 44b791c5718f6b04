"""``pgevents route``: where changes go."""

from typing import Any

import click

from pgevents import log
from pgevents.errors import EXIT_DONE, EXIT_FAILED
from pgevents.flags import AS_JSON, Commands, takes
from pgevents.rule import OPERATIONS
from pgevents.terminal import as_text, say, settings_of

MANAGEMENT_HINT = (
    "hint: Name RabbitMQ's management API with --management; its plug-in must be enabled, and the user be tagged "
    "monitoring."
)


@click.group(cls=Commands)
def route() -> None:
    """Look at the routes of the configuration."""


@route.command(
    "test",
    epilog="""\b
Example:
  pgevents route test public.orders update --sink amqp://app@broker/
  pgevents route test orders insert --new '{"total": "250.00"}'
  pgevents route test billing message""",
)
@click.argument("table", metavar="TABLE|PREFIX")
@click.argument("operation", metavar="OPERATION", type=click.Choice(OPERATIONS))
@takes("dsn", "sink", "tables", "exclude_tables", "format")
@click.option("--new", metavar="JSON", help="Values of the new row, by column.")
@click.option("--old", metavar="JSON", help="Values of the old row, by column.")
@click.option("--management", metavar="URL", default="", help="Where RabbitMQ's management API is.")
@AS_JSON
def try_route(
    config: str | None,
    table: str,
    operation: str,
    new: str | None,
    old: str | None,
    management: str,
    *,
    as_json: bool,
    **flags: Any,
) -> int:
    """Show where a change would go, and which queues would get it. Nothing is published.

    OPERATION is insert, update, delete, truncate or message. Where routes have conditions, --new and --old decide;
    without them every route is shown that the change may take. Exit code 1: of one that is shown, no queue is known
    to be bound.
    """
    settings = settings_of(config, flags)
    from pgevents import route_trial

    rows = {name: text for name, text in (("new", new), ("old", old)) if text is not None}
    trials = route_trial.try_route(settings, table, operation, rows=rows, management=management, say=say)
    if as_json:
        document = {"table": table, "operation": operation, "routes": [trial.as_dict() for trial in trials]}
        click.echo(as_text(document))
    else:
        click.echo("\n\n".join("\n".join(map(log.one_line, trial.lines())) for trial in trials))
    if any(trial.unseen for trial in trials):
        say(MANAGEMENT_HINT)
    return EXIT_FAILED if any(trial.is_lost for trial in trials) else EXIT_DONE
