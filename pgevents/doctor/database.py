"""The database as its checks see it: everything more than one of them asks is asked once."""

from collections.abc import Mapping
from dataclasses import dataclass

from pgevents import publication as publications
from pgevents.doctor.plugin import Plugin, examine
from pgevents.doctor.published import OPS, Publication, find_publication
from pgevents.doctor.relation import Names, Relation, relations
from pgevents.filters import TableFilter
from pgevents.postgres import Sql
from pgevents.server import Server, look
from pgevents.settings import Settings
from pgevents.slot import PLUGINS, SlotReport, find

_PARAMETERS = "select name, setting from pg_catalog.pg_settings"
_WHO = """
select current_user::text, pg_catalog.current_setting('server_version_num')::int,
    pg_catalog.current_setting('server_version'), pg_catalog.pg_is_in_recovery()
"""


@dataclass(frozen=True, slots=True)
class Database:
    """``parameters`` are the settings the role may see, in their base units. ``version`` is as in 150018.

    ``relations`` are what the patterns match, or without any what the publication holds. ``publication`` is None
    where there is none of that name, or the plug-in needs none.
    """

    settings: Settings
    sql: Sql
    server: Server
    role: str
    version: int
    version_name: str
    is_standby: bool
    parameters: Mapping[str, str]
    slot: SlotReport | None
    plugin: Plugin
    publication: Publication | None
    every_relation: tuple[Relation, ...]
    relations: tuple[Relation, ...]

    @property
    def slot_name(self) -> str:
        return f"slot {self.settings.slot}"

    @property
    def ops(self) -> tuple[str, ...]:
        """The operations that the server tells of."""
        return self.publication.ops if self.publication else OPS

    def name_in_events(self, relation: Relation) -> Names:
        """A partition may go by the name of the table it is of."""
        via_root = self.publication is not None and self.publication.via_root
        return relation.root if via_root and relation.root else relation.names

    def number(self, parameter: str) -> int | None:
        """A parameter in its base unit, None where the server has none of that name."""
        return int(self.parameters[parameter]) if parameter in self.parameters else None


def open_database(settings: Settings, sql: Sql) -> Database:
    """Look once. Blocks; raises SourceError when the server does not answer."""
    server = look(sql)
    ((role, version, version_name, is_standby),) = sql.rows(_WHO)
    slot = find(sql, settings.slot)
    plugin = examine(sql, server, _plugin_of(settings, slot))
    publication = find_publication(sql, settings.publication) if plugin.name == "pgoutput" else None
    every = tuple(relations(sql))
    return Database(
        settings=settings,
        sql=sql,
        server=server,
        role=role,
        version=version,
        version_name=version_name.partition(" ")[0],
        is_standby=is_standby,
        parameters=dict(sql.rows(_PARAMETERS)),
        slot=slot,
        plugin=plugin,
        publication=publication,
        every_relation=every,
        relations=_kept(sql, settings, publication, every),
    )


def _kept(
    sql: Sql, settings: Settings, publication: Publication | None, every: tuple[Relation, ...]
) -> tuple[Relation, ...]:
    keep = TableFilter(settings.tables, settings.exclude_tables)
    kept = tuple(relation for relation in every if keep(relation.schema, relation.name))
    if publication is None or settings.tables:
        return kept
    held = publications.held(sql, publication.name)
    return tuple(relation for relation in kept if not relation.is_streamed or relation.names in held)


def _plugin_of(settings: Settings, slot: SlotReport | None) -> str:
    """What the slot was made for; else what is asked for, which may be ``auto``."""
    return slot.plugin if slot and slot.plugin in PLUGINS else settings.plugin
