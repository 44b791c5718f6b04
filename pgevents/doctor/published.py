"""What a publication publishes, as the catalog has it."""

from dataclasses import dataclass

from pgevents.postgres import Sql

OPS = ("insert", "update", "delete", "truncate")

_PUBLICATION = """
select puballtables, pubviaroot, pubinsert, pubupdate, pubdelete, pubtruncate
from pg_catalog.pg_publication where pubname = %s
"""


@dataclass(frozen=True, slots=True)
class Publication:
    """``ops`` are the operations that it publishes; ``via_root``: rows of partitions in the name of their table."""

    name: str
    all_tables: bool
    via_root: bool
    ops: tuple[str, ...]


def find_publication(sql: Sql, name: str) -> Publication | None:
    found = sql.rows(_PUBLICATION, name)
    if not found:
        return None
    all_tables, via_root, *published = found[0]
    return Publication(name, all_tables, via_root, tuple(op for op, yes in zip(OPS, published, strict=True) if yes))
