"""The skip rules that options ask for, behind those of the file."""

from collections.abc import Iterator
from dataclasses import replace

from pgevents.errors import ConfigError
from pgevents.rule import Action, Rules, SkipRule
from pgevents.settings import Settings


def with_options(rules: Rules, settings: Settings) -> Rules:
    """The rules, with those of the options behind: marked, then each origin, then rows.

    Raises ConfigError where a rule of the file has the name of one of these.
    """
    added = tuple(_rules(settings))
    taken = {rule.name for rule in rules.skip} & {rule.name for rule in added}
    if taken:
        raise ConfigError(
            f"a skip rule of the file is named {taken.pop()}, and so is that of the option", hint="Rename it."
        )
    return replace(rules, skip=(*rules.skip, *added))


def _rules(settings: Settings) -> Iterator[SkipRule]:
    action = Action(settings.skip_action)
    if settings.skip_marked:
        yield SkipRule("--skip-marked", action, marked=True)
    for origin in dict.fromkeys(settings.skip_origins):
        yield SkipRule(f"--skip-origin {origin}", action, origin=origin)
    if settings.skip_rows:
        yield SkipRule("--skip-rows", action, rows=settings.skip_rows)
