"""The parts between an open stream and an open sink, put together as the settings say."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache, partial

from pgevents.assembler import Foresee
from pgevents.encoder import Encoder
from pgevents.filters import TableFilter
from pgevents.foresight import Foresight
from pgevents.format import CodecContext, open_codec
from pgevents.gate import Gate
from pgevents.interfaces import Catalog, Codec, Sink
from pgevents.lsn import NOWHERE, Lsn
from pgevents.pipeline import Limits, Pipeline, Progress
from pgevents.rule_table import timestamp
from pgevents.session import Stream, base_type, routing_key
from pgevents.settings import Settings
from pgevents.shape import Shape
from pgevents.sift import Sift
from pgevents.skip import Rulebook
from pgevents.tally import Counts
from pgevents.version import VERSION
from pgevents.wal import Begin

# A table is asked for with each of its rows, and tables come and go.
_MOST_TABLES = 10_000


def pipeline_of(
    settings: Settings,
    opened: Stream,
    sink: Sink,
    progress: Progress,
    *,
    until: Lsn = NOWHERE,
    book: Rulebook | None = None,
    counts: Counts | None = None,
) -> Pipeline:
    """What the settings say, between an open stream and an open sink. ``book`` holds the skip rules."""
    counts, book = counts or Counts(), book or Rulebook(settings.rules.skip)
    return Pipeline(
        source=opened.source,
        decoder=opened.decoder,
        gate=Gate(opened.identity, opened.start_lsn, sift=sift_of(settings, book, counts)),
        shape=shape_of(settings, opened.catalog, encoder_of(settings, opened.database), counts),
        sink=sink,
        limits=Limits(
            batch_events=settings.batch_events,
            batch_bytes=settings.batch_bytes,
            window=settings.window,
            stall_timeout_s=settings.stall_timeout_s,
            drain_timeout_s=settings.drain_timeout_s,
            until=until,
        ),
        progress=progress,
    )


def sift_of(settings: Settings, book: Rulebook, counts: Counts) -> Sift:
    keep = TableFilter(settings.tables, settings.exclude_tables)
    return Sift(book, keep=keep, counts=counts, max_bytes=settings.look_ahead_bytes)


def foresee_of(settings: Settings, book: Rulebook) -> Foresee:
    """What begins to look at transactions before they commit."""
    keep = lru_cache(_MOST_TABLES)(TableFilter(settings.tables, settings.exclude_tables))

    def foresee(xid: int) -> Foresight:
        # A window over an xid has an end and no beginning. Read late, it may hold a little longer than it says.
        begin = Begin(xid, NOWHERE, timestamp(datetime.now(UTC)))
        return Foresight(book, keep, begin, max_bytes=settings.look_ahead_bytes)

    return foresee


def encoder_of(settings: Settings, database: str) -> Encoder:
    """An encoder of every format, that of the settings where a route names none."""
    codec_of = codec_opener(settings, database)
    return Encoder(codec_of(settings.format), codec_of)


def codec_opener(settings: Settings, database: str) -> Callable[[str], Codec]:
    """What opens the codec of a format by its name."""
    return partial(open_codec, context=CodecContext(database, settings.slot, VERSION))


def shape_of(settings: Settings, catalog: Catalog, encoder: Encoder, counts: Counts) -> Shape:
    return Shape(
        TableFilter(settings.tables, settings.exclude_tables),
        routing_key(settings.sink),
        encoder,
        rules=settings.rules,
        hash_key=settings.hash_key.encode(),
        counts=counts,
        base_type=partial(base_type, catalog),
        is_enum=lambda oid: catalog.type(oid).is_enum,
    )
