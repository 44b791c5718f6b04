"""How the table of options becomes click options, and how a wrong word gets the nearest right one."""

import platform
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

import click

from pgevents.lsn import Lsn
from pgevents.settings import OPTIONS, Option
from pgevents.spelling import nearest
from pgevents.version import VERSION

F = TypeVar("F", bound=Callable[..., Any])

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

_METAVARS: dict[type, str] = {str: "TEXT", int: "N", float: "SECONDS", tuple: "PATTERN"}


def takes(*names: str) -> Callable[[F], F]:
    """Give a command the flags of these settings (of all when none is named) and ``--config``."""

    def decorate(command: F) -> F:
        for option in reversed(OPTIONS):
            if not names or option.name in names:
                command = _click_option(option)(command)
        return click.option("--config", metavar="FILE", help="Read this file instead of ./pgevents.toml.")(command)

    return decorate


def _click_option(option: Option) -> Callable[[F], F]:
    text = option.limits.help
    if option.kind is bool:
        return click.option(f"{option.flag}/{option.off_flag}", option.name, default=None, help=text)
    if option.default not in ("", ()):
        text += f" Default: {option.default}"
    if option.limits.choices:
        return click.option(option.flag, option.name, type=click.Choice(option.limits.choices), help=text)
    is_list = option.kind is tuple
    metavar = option.limits.metavar or _METAVARS[option.kind]
    return click.option(option.flag, option.name, metavar=metavar, multiple=is_list, help=text)


def check_lsn(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """The text of an LSN, or the word ``now``."""
    try:
        return value if value in (None, "now") else str(Lsn.parse(value))
    except ValueError as error:
        raise click.BadParameter(f"{error}, nor the word now") from error


def print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's callback
    """Our version and those that faults are most often about."""
    if not wanted:
        return
    from importlib.metadata import version

    psycopg2, pika = version("psycopg2-binary"), version("pika")
    click.echo(f"pgevents {VERSION} (Python {platform.python_version()}, psycopg2 {psycopg2}, pika {pika})")
    context.exit()


WITH_VERSION = click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=print_version,
    help="Print the version and exit.",
)


class Commands(click.Group):
    """A group that names the nearest command for a wrong one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args[0] not in known and not ctx.resilient_parsing:
            near = nearest(args[0], known) or f"Commands are {', '.join(known)}."
            ctx.fail(f"No such command {args[0]!r}. {near}")
        return super().resolve_command(ctx, args)


class Lazy(click.Command):
    """A command whose module is imported when the command is used, so that ``--help`` stays fast."""

    def __init__(self, name: str, module: str, *, short_help: str) -> None:
        super().__init__(name, short_help=short_help)
        self._module = module

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        command: click.Command = getattr(import_module(self._module), self.name or "")
        return command.make_context(info_name, args, parent, **extra)
