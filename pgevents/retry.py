"""``pgevents parked retry``: parked events are published again, in the order in which they were parked."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from pgevents.batch import Batch
from pgevents.errors import PGEventsError, PublishRejected, SinkStalled, Unroutable
from pgevents.event import Envelope
from pgevents.interfaces import Sink, SinkOptions
from pgevents.lsn import NOWHERE
from pgevents.parked import Decisions, Entry, commit_order, deciding, open_events, read, select
from pgevents.poison import Poison
from pgevents.session import open_url
from pgevents.settings import Settings
from pgevents.surprise import surprises_named

Say = Callable[[str], None]


async def retry(settings: Settings, names: Sequence[str], *, routing_key: str | None = None, say: Say) -> None:
    """Publish the open events of these names, all without names. Each is resolved once the sink has confirmed it.

    ``routing_key`` takes the place of what each was to be published with. Raises PGEventsError, at the end, where
    some were refused and stay parked; at once where sink or file fail.
    """
    park_file, stayed = Path(settings.park_file), 0
    with surprises_named(), deciding(park_file) as decisions:
        # One may have been parked after others that were committed later.
        entries = sorted(select(open_events(park_file), names), key=commit_order)
        publisher = Publisher(settings, {entry.exchange for entry in entries if entry.exchange})
        try:
            for chunk in _chunks(entries, settings):
                envelopes = [_addressed(read(park_file, entry).envelope, routing_key) for entry in chunk]
                stayed += await _retry(chunk, envelopes, publisher, decisions, say)
        finally:
            await publisher.close()
    say(f"retried {len(entries) - stayed} of {len(entries)} parked events")
    if stayed:
        raise PGEventsError(f"{stayed} events stay parked", hint="Remove what each was refused for, and try again.")


async def _retry(
    chunk: Sequence[Entry], envelopes: Sequence[Envelope], publisher: "Publisher", decisions: Decisions, say: Say
) -> int:
    """How many of ``chunk`` stay parked."""
    if await publisher.takes(envelopes):
        decisions.add(chunk, "retried")
        return 0
    stayed = 0
    for entry, envelope in zip(chunk, envelopes, strict=True):
        refusal = await publisher.refusal(envelope)
        if refusal:
            stayed += 1
            say(f"event {entry.message_id} stays parked: {refusal}")
        else:
            decisions.add([entry], "retried")
    return stayed


def _addressed(envelope: Envelope, routing_key: str | None) -> Envelope:
    if routing_key is None:
        return envelope
    return envelope._replace(address=envelope.address._replace(topic=routing_key))


class Publisher:
    """Publishes to the sink of the settings, which is opened anew after a refusal: that may have closed it.

    ``exchanges`` are those that the events name.
    """

    def __init__(self, settings: Settings, exchanges: Iterable[str]) -> None:
        self._settings = settings
        self._exchanges = tuple(sorted(exchanges))
        self._poison = Poison(nack_limit=1)
        self._unbound: dict[tuple[str, str], str] = {}
        self._sink: Sink | None = None

    async def takes(self, envelopes: Sequence[Envelope]) -> bool:
        """Whether the sink confirmed all of ``envelopes``; if not, some of them may have arrived."""
        if self._poison.found_in(envelopes):
            return False
        try:
            await self._publish(envelopes)
        except (PublishRejected, Unroutable):
            return False
        return True

    async def refusal(self, envelope: Envelope) -> str:
        """Why the sink does not take ``envelope``; empty when it confirmed it."""
        known = self._poison.found_in([envelope])
        if known:
            return known[0].detail
        target = (envelope.address.exchange, envelope.address.topic)
        if target in self._unbound:
            return self._unbound[target]
        try:
            await self._publish([envelope])
        except PublishRejected as rejection:
            self._poison.judge(rejection)
            return rejection.reason
        except Unroutable as unroutable:
            self._unbound[target] = str(unroutable)
            return str(unroutable)
        return ""

    async def close(self) -> None:
        if self._sink:
            await self._sink.close()
            self._sink = None

    async def _publish(self, envelopes: Sequence[Envelope]) -> None:
        settings = self._settings
        if self._sink is None:
            # Nothing waits for a queue to be bound, and nothing is ever dropped.
            options = SinkOptions(declare=settings.declare, exchanges=self._exchanges, hold_s=0.0)
            self._sink = await open_url(settings.sink, options)
        try:
            async with asyncio.timeout(settings.stall_timeout_s):
                await self._sink.publish(Batch(list(envelopes), NOWHERE))
        except TimeoutError:
            raise SinkStalled(
                f"the sink confirmed nothing for {settings.stall_timeout_s:g} s",
                hint="What is not confirmed stays parked. Look at the broker's alarms and queues.",
            ) from None
        except (PublishRejected, Unroutable):
            await self.close()
            raise


def _chunks(entries: Sequence[Entry], settings: Settings) -> Iterator[list[Entry]]:
    chunk: list[Entry] = []
    size = 0
    for entry in entries:
        chunk.append(entry)
        size += entry.body_bytes
        if len(chunk) >= settings.batch_events or size >= settings.batch_bytes:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
