"""What the rules make of transactions, by the very gate and shape that a stream has. Nothing is published."""

from collections import Counter
from collections.abc import Iterator, Sequence

from pgevents.assembly import codec_opener, shape_of, sift_of
from pgevents.encoder import Encoder
from pgevents.errors import ConfigError, DecodeError, PGEventsError, RuleFailed
from pgevents.event import Envelope, Event
from pgevents.explain.change import ChangeVerdict, Outcome, Where
from pgevents.explain.contest import Contest
from pgevents.explain.recording import Excerpt, Head
from pgevents.explain.verdict import TransactionVerdict
from pgevents.filters import TableFilter
from pgevents.gate import Gate
from pgevents.look_ahead import Item, Numbered
from pgevents.lsn import NOWHERE, Lsn
from pgevents.mark import PREFIX
from pgevents.plugin import decoder_of
from pgevents.routing import MESSAGE_SCHEMA, Route
from pgevents.row_filter import takes_operation
from pgevents.rule import SkipRule
from pgevents.settings import Settings
from pgevents.skip import Rulebook
from pgevents.tally import Counts, Skipped, Summary
from pgevents.wal import Begin, Change, Commit, LogicalMessage, Outline, RawMessage, Relation, Truncate, WalItem


class Explainer:
    """Takes the messages of one excerpt. ``limit`` bounds how many are read, up to the end of a transaction, and how
    many changes are listed; ``is_cut`` says that there may be more.

    ``windows`` are those of ``pgevents skip add``; ``watermark`` is where the stream stands; ``exchange`` is the
    sink's own.
    """

    def __init__(
        self,
        settings: Settings,
        excerpt: Excerpt,
        *,
        limit: int,
        lists_changes: bool = True,
        windows: tuple[SkipRule, ...] = (),
        watermark: Lsn = NOWHERE,
        exchange: str = "",
    ) -> None:
        head, rules = excerpt.head, settings.rules
        self._messages = excerpt.messages
        self._limit = limit
        self._room = limit if lists_changes else 0
        self._exchange = exchange
        self._filters = rules.filter
        self._default_format = settings.format
        self._keep = TableFilter(settings.tables, settings.exclude_tables)
        self._counts = Counts()
        self._decoder = decoder_of(
            head.plugin, excerpt.catalog, quoted_numbers=head.quoted_numbers, encoding=head.encoding
        )
        book = Rulebook(rules.skip)
        book.windows = windows
        self._sift = sift_of(settings, book, self._counts)
        self._gate = Gate(head.identity, watermark, sift=self._sift)
        self._witness = Witness(settings, head)
        self._shape = shape_of(settings, excerpt.catalog, self._witness, self._counts)
        self._contest = Contest(rules.skip, windows)
        self._verdict = TransactionVerdict()
        self.is_cut = False

    def transactions(self) -> Iterator[TransactionVerdict]:
        """The verdict on each transaction that holds anything, in order; the last is of where the stream stops."""
        for read, message in enumerate(self._messages, 1):
            verdict = self._verdict_at(message)
            if verdict is not None and not verdict.is_empty:
                yield verdict
                if verdict.stops:
                    return
            if read >= self._limit and not self._gate.inside:
                self.is_cut = True
                return

    def _verdict_at(self, message: RawMessage) -> TransactionVerdict | None:
        """The verdict, where the message ends a transaction, or the stream."""
        try:
            return self._taken(message)
        except DecodeError as error:
            verdict = self._verdict if self._gate.inside else TransactionVerdict(commit_lsn=str(error.lsn))
            self._list(_stop(0, "unreadable", "message", error), verdict)
            return self._ended() if self._gate.inside else verdict

    def _taken(self, message: RawMessage) -> TransactionVerdict | None:
        """As Pipeline does it."""
        gate = self._gate
        if gate.skims and (outline := self._decoder.skim(message)) is not None and gate.passes_over(outline):
            self._count(outline)
            return None
        item = self._decoder.decode(message)
        if item is None:
            return None
        if isinstance(item, LogicalMessage) and not item.transactional:
            return self._lone(item)
        self._look_at(item)
        for numbered in gate.admit(item):
            self._judge(numbered, self._verdict)
            if self._verdict.stops:
                break
        return self._ended() if isinstance(item, Commit) or self._verdict.stops else None

    def _lone(self, message: LogicalMessage) -> TransactionVerdict:
        verdict = TransactionVerdict(commit_lsn=str(message.lsn))
        for numbered in self._gate.admit(message):
            self._judge(numbered, verdict)
        return verdict

    def _look_at(self, item: WalItem) -> None:
        match item:
            case Begin():
                self._begin(item)
            case Change():
                self._count(Outline(item.op, item.relation.schema, item.relation.name))
            case Truncate():
                for relation in item.relations:
                    self._count(Outline("truncate", relation.schema, relation.name))
            case LogicalMessage(prefix=prefix) if prefix == PREFIX:
                self._contest.mark(item.content)

    def _begin(self, begin: Begin) -> None:
        self._verdict = TransactionVerdict(begin.xid, str(begin.commit_lsn), begin.committed_at, begin.origin)
        self._counts.late_marks = self._counts.malformed_marks = 0
        self._contest.begin(begin)

    def _count(self, outline: Outline) -> None:
        if self._keep(outline.schema, outline.table):
            self._verdict.rows[outline] += 1
        else:
            self._verdict.not_streamed[f"{outline.schema}.{outline.table}"] += 1

    def _ended(self) -> TransactionVerdict:
        verdict, ruling = self._verdict, self._sift.ruling
        verdict.is_resent = self._gate.resent > 0
        self._gate.resent = 0
        of_table: Counter[tuple[str, str]] = Counter()
        for (_, schema, table), count in verdict.rows.items():
            of_table[schema, table] += count
        verdict.matches = self._contest.matches(of_table)
        verdict.late_marks, verdict.malformed_marks = self._counts.late_marks, self._counts.malformed_marks
        if ruling is not None and not verdict.is_resent:
            verdict.rule, verdict.action, verdict.reason = ruling.rule.name, str(ruling.action), ruling.reason
            verdict.by, verdict.application, verdict.is_marked = ruling.by, ruling.application, ruling.rule.marked
        return verdict

    def _judge(self, numbered: Numbered, verdict: TransactionVerdict) -> None:
        item = numbered[0]
        if isinstance(item, Skipped):
            verdict.skipped, verdict.from_seq = item.rows, item.from_seq
        change = self._change(numbered)
        if change.outcome is Outcome.NOT_STREAMED:
            return
        if change.where is not None and change.outcome is Outcome.PUBLISHED:
            verdict.events += 1
            verdict.bytes += change.where.bytes
        verdict.filtered.update([change.rule] if change.outcome is Outcome.FILTERED else [])
        self._list(change, verdict)

    def _list(self, change: ChangeVerdict, verdict: TransactionVerdict) -> None:
        verdict.stops = change.outcome is Outcome.STOPS
        if self._room > 0 or verdict.stops:
            self._room -= 1
            verdict.changes.append(change)
        else:
            verdict.unlisted += 1

    def _change(self, numbered: Numbered) -> ChangeVerdict:
        item, _, seq = numbered
        op, table = _named(item)
        seq = 0 if isinstance(item, Skipped | Summary) else seq
        self._counts.filtered.clear()
        self._witness.seen = None
        try:
            envelopes = self._shape(numbered)
        except (RuleFailed, ConfigError) as error:  # the latter for a rule that does not fit the table as it was
            return _stop(seq, op, table, error)
        if self._witness.seen is not None:
            return self._encoded(ChangeVerdict(seq, op, table, Outcome.PUBLISHED), *self._witness.seen, envelopes)
        rule = self._filter_of(item)
        return ChangeVerdict(seq, op, table, Outcome.FILTERED if rule else Outcome.NOT_STREAMED, rule=rule)

    def _filter_of(self, item: Item) -> str:
        """The filter that has just taken the change out; messages are not counted by table."""
        if isinstance(item, LogicalMessage):
            return takes_operation(self._filters, MESSAGE_SCHEMA, item.prefix, "message") or ""
        return next((rule for rule, _ in self._counts.filtered), "")

    def _encoded(
        self, change: ChangeVerdict, event: Event, route: Route, envelopes: Sequence[Envelope]
    ) -> ChangeVerdict:
        address = route.address
        where = Where(
            address.exchange or self._exchange,
            address.topic,
            route.rule,
            route.format or self._default_format,
            len(envelopes),
            sum(len(envelope.body) for envelope in envelopes),
        )
        outcome = Outcome.PUBLISHED if envelopes else Outcome.NOT_IN_FORMAT
        if address.parked_by and envelopes:
            outcome = Outcome.PARKED
        return ChangeVerdict(change.seq, change.op, change.table, outcome, event.key, where, rule=address.parked_by)


class Witness(Encoder):
    """An encoder that remembers the event it encoded last, masked as it is by then, and the route it took."""

    def __init__(self, settings: Settings, head: Head) -> None:
        codec_of = codec_opener(settings, head.database)
        super().__init__(codec_of(settings.format), codec_of)
        self.seen: tuple[Event, Route] | None = None

    def envelopes(self, event: Event, route: Route) -> Sequence[Envelope]:
        self.seen = (event, route)
        return super().envelopes(event, route)


def _stop(seq: int, op: str, table: str, error: PGEventsError) -> ChangeVerdict:
    """The transaction, which a stream's error names behind the rule's own, is known here."""
    cause = error.__cause__ if isinstance(error.__cause__, RuleFailed) else error
    return ChangeVerdict(seq, op, table, Outcome.STOPS, problem=str(cause), hint=error.hint)


def _named(item: Item) -> tuple[str, str]:
    match item:
        case Change(op=op, relation=relation):
            return op, str(relation)
        case Relation():
            return "truncate", str(item)
        case LogicalMessage(prefix=prefix):
            return "message", prefix
        case Summary(relation=relation):
            return "summary", str(relation)
    return "skip", "transaction"
