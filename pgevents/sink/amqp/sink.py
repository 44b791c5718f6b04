"""Publishes batches to exchanges and resolves each when the broker has confirmed and routed all of it.

Batches are written at once, one behind the other, and confirmed by the broker in any order. When a message comes back
unrouted and ``on_unroutable`` is ``wait``, nothing new is written until what is in flight is confirmed; then what
came back is published again, in order, until all of it is routed, and at last with it everything that had gone ahead
of it. After ``hold_s`` the batches fail, so that the slot is let go of, and the retries go on alone.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any

from pika import spec

from pgevents.batch import Batch
from pgevents.errors import PGEventsError, PublishRejected, SinkError, SinkUnavailable
from pgevents.event import Envelope
from pgevents.interfaces import Park, Reason, SinkOptions, Unpublished
from pgevents.sink.amqp.confirm import Confirms, Flight
from pgevents.sink.amqp.connection import Link
from pgevents.sink.amqp.fault import lost_fault
from pgevents.sink.amqp.frame import Framer
from pgevents.sink.amqp.unroutable import FIRST_DELAY_S, LAST_DELAY_S, Warnings, behind_return, still_unrouted
from pgevents.sink.amqp.url import AmqpUrl

OUTCOMES = {"wait": "waiting for one", "park": "parking them", "drop": "dropping them"}


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """What of a batch is still to be published, and whom to tell."""

    envelopes: Sequence[Envelope]
    confirmed: asyncio.Future[None]


class AmqpSink:
    """One channel in confirm mode, to the URL's exchange and those that addresses name."""

    def __init__(self, link: Link, url: AmqpUrl, options: SinkOptions) -> None:
        self._link = link
        self._url = url
        self._exchanges = options.exchanges
        self._on_unroutable = options.on_unroutable
        self._framer = Framer(
            link.channel.channel_number, url.exchange, frame_max=link.frame_max, mandatory=url.mandatory
        )
        self._loop = asyncio.get_running_loop()
        self._confirms: Confirms[Delivery] = Confirms()
        self._unconfirmed: set[asyncio.Future[None]] = set()
        self._failure: PGEventsError | None = None
        self._rejection: PublishRejected | None = None
        self._is_lost = False
        self._is_waiting = False
        self._hold_s = options.hold_s
        self._deadline: asyncio.TimerHandle | None = None
        self._unrouted: Sequence[Envelope] = ()
        self._routed: asyncio.Future[None] = self._loop.create_future()
        self._landed: list[Flight[Delivery]] = []
        self._behind: Sequence[Delivery] = ()
        self._held: list[Delivery] = []
        self._delay_s = FIRST_DELAY_S
        self._warnings = Warnings(url.exchange, OUTCOMES[options.on_unroutable])
        self._park = options.park
        self._parking: set[asyncio.Task[None]] = set()
        link.on_confirm = self._on_confirm
        link.channel.add_on_return_callback(self._on_return)
        link.lost.add_done_callback(self._on_lost)

    def publish(self, batch: Batch) -> Awaitable[None]:
        delivery = Delivery(batch.envelopes, self._loop.create_future())
        self._unconfirmed.add(delivery.confirmed)
        if failure := self._failure or self._rejection:
            self._fail(delivery.confirmed, failure)
        elif self._is_waiting:
            self._held.append(delivery)
        else:
            self._write(delivery)
        return delivery.confirmed

    def forgive(self) -> None:
        """Publish again after a rejection. For a caller that has nothing else in flight, and so knows the order."""
        self._rejection = None

    async def close(self) -> None:
        self._is_lost = True
        self._let_go()
        self._stop(SinkUnavailable("the RabbitMQ sink was closed"))
        await self._link.close()

    def __str__(self) -> str:
        return str(self._url)

    def _write(self, delivery: Delivery) -> None:
        # pika knows first; our own callback may still be on its way.
        if self._link.lost.done():
            self._on_lost(self._link.lost)
            return
        try:
            frames = self._framer.frames(delivery.envelopes)
        except PublishRejected as rejection:
            self._reject(delivery.confirmed, rejection)
            return
        self._confirms.published(delivery.envelopes, delivery)
        self._link.connection.write(frames)

    def _on_confirm(self, frame: Any) -> None:
        """Take an ack or a nack of the broker."""
        tag, multiple = frame.method.delivery_tag, frame.method.multiple
        if isinstance(frame.method, spec.Basic.Nack):
            for flight, envelope in self._confirms.nacked(tag, multiple=multiple):
                self._reject(flight.owner.confirmed, _nacked(envelope))
        else:
            for flight in self._confirms.acked(tag, multiple=multiple):
                self._land(flight)
        if self._is_waiting and self._confirms.is_idle:
            self._review()

    def _on_return(self, _channel: object, _method: object, properties: Any, _body: bytes) -> None:
        envelope = self._confirms.returned(properties.message_id)
        if envelope is not None and envelope.address.is_optional:
            self._warnings.optional(envelope, now=self._loop.time())
        elif envelope is not None and self._on_unroutable == "wait" and not self._is_waiting:
            self._is_waiting = True
            self._unrouted = (envelope,)
            self._deadline = self._loop.call_later(self._hold_s, self._end_hold)

    def _land(self, flight: Flight[Delivery]) -> None:
        if self._is_waiting:
            self._landed.append(flight)
        elif not flight.returned:
            self._confirm(flight.owner.confirmed)
        else:
            self._give_up([flight.envelopes[at] for at in sorted(flight.returned)], flight.owner.confirmed)

    def _give_up(self, envelopes: Sequence[Envelope], confirmed: asyncio.Future[None]) -> None:
        self._warnings.add(envelopes, now=self._loop.time())
        if self._on_unroutable == "drop":
            self._confirm(confirmed)
        elif self._park:
            task = self._loop.create_task(self._put_aside(self._park, envelopes, confirmed))
            self._parking.add(task)
            task.add_done_callback(self._parking.discard)

    async def _put_aside(self, park: Park, envelopes: Sequence[Envelope], confirmed: asyncio.Future[None]) -> None:
        try:
            await park.add([self._unrouted_for_good(each) for each in envelopes], sink=str(self))
        except SinkError as error:
            self._fail(confirmed, error)
        else:
            self._confirm(confirmed)

    def _unrouted_for_good(self, envelope: Envelope) -> Unpublished:
        exchange = envelope.address.exchange or self._url.exchange
        return Unpublished(envelope, Reason.NO_ROUTE, f"no queue of exchange {exchange} was bound for it")

    def _review(self) -> None:
        """Everything in flight has landed: publish again what was not routed, or go on."""
        if self._failure:
            self._cancel_deadline()
        landed, self._landed = sorted(self._landed, key=lambda flight: flight.first), []
        if not self._behind:
            self._behind = self._from_first_return(landed)
        again = [Delivery(envelopes, flight.owner.confirmed) for flight, envelopes in still_unrouted(landed)]
        if again:
            self._retry_later(again)
        elif self._failure or self._rejection or self._is_in_order(landed):
            self._go_on()
        else:
            self._repeat()

    def _from_first_return(self, landed: Sequence[Flight[Delivery]]) -> Sequence[Delivery]:
        """What may have to be repeated; the batches before it are confirmed."""
        behind = behind_return(landed)
        for flight in landed[: len(landed) - len(behind)]:
            self._confirm(flight.owner.confirmed)
        return [Delivery(envelopes, flight.owner.confirmed) for flight, envelopes in behind]

    def _is_in_order(self, landed: Sequence[Flight[Delivery]]) -> bool:
        """Whether what has landed last, all of it routed, is everything from the first return on."""
        if not self._behind:
            return True
        last = [envelope for flight in landed for envelope in flight.envelopes]
        return last == [envelope for delivery in self._behind for envelope in delivery.envelopes]

    def _repeat(self) -> None:
        """All are routed, but some before others that come first: publish them once more, one behind the other."""
        for delivery in self._behind:
            self._write(delivery)

    def _retry_later(self, again: Sequence[Delivery]) -> None:
        envelopes = [envelope for delivery in again for envelope in delivery.envelopes]
        self._warnings.say(envelopes, len(envelopes), now=self._loop.time())
        self._loop.call_later(self._delay_s, self._retry, again)
        self._delay_s = min(self._delay_s * 1.5, LAST_DELAY_S)
        self._unrouted = envelopes

    def _retry(self, again: Sequence[Delivery]) -> None:
        if not self._is_lost:
            for delivery in again:
                self._write(delivery)
            self._expect_confirms()

    def _end_hold(self) -> None:
        if not self._failure:
            self._stop(self._warnings.error(self._unrouted, routed=self._routed))
            self._expect_confirms()

    def _expect_confirms(self) -> None:
        """Once the batches have failed nobody else watches over the retries; a broker may never confirm one."""
        if self._failure and not self._confirms.is_idle:
            self._deadline = self._loop.call_later(self._hold_s, self._let_go)

    def _cancel_deadline(self) -> None:
        if self._deadline:
            self._deadline.cancel()

    def _go_on(self) -> None:
        passed, self._behind = self._behind, []
        self._warnings.routed([envelope for delivery in passed for envelope in delivery.envelopes])
        for delivery in passed:
            if self._rejection:
                self._fail(delivery.confirmed, self._rejection)
            else:
                self._confirm(delivery.confirmed)
        self._cancel_deadline()
        self._let_go()
        self._delay_s = FIRST_DELAY_S
        self._is_waiting = False
        held, self._held = self._held, []
        if self._failure:  # they have failed, and PostgreSQL will send them again
            return
        for delivery in held:
            if self._rejection:
                self._fail(delivery.confirmed, self._rejection)
            else:
                self._write(delivery)

    def _on_lost(self, lost: asyncio.Future[BaseException]) -> None:
        unconfirmed = [envelope for flight in self._confirms.open_flights for envelope in flight.envelopes]
        self._is_lost = True
        self._let_go()
        self._stop(lost_fault(lost.result(), self._url, unconfirmed, exchanges=self._exchanges))

    def _let_go(self) -> None:
        if not self._routed.done():
            self._routed.set_result(None)

    def _stop(self, failure: PGEventsError) -> None:
        self._failure = self._failure or failure
        for confirmed in tuple(self._unconfirmed):
            self._fail(confirmed, self._failure)

    def _reject(self, confirmed: asyncio.Future[None], rejection: PublishRejected) -> None:
        """Fail a batch, and all that are still to come: published now, they would stand before it."""
        self._rejection = self._rejection or rejection
        self._fail(confirmed, rejection)

    def _confirm(self, confirmed: asyncio.Future[None]) -> None:
        self._unconfirmed.discard(confirmed)
        if not confirmed.done():
            confirmed.set_result(None)

    def _fail(self, confirmed: asyncio.Future[None], error: PGEventsError) -> None:
        self._unconfirmed.discard(confirmed)
        if not confirmed.done():
            confirmed.set_exception(error)
            confirmed.exception()  # marks it as seen: nobody need await a batch once the stream has ended


def _nacked(envelope: Envelope) -> PublishRejected:
    return PublishRejected(
        envelope.message_id,
        "nacked by the broker, for instance by a full queue",
        hint="Look for a queue with max-length and overflow=reject-publish, or one without a quorum.",
        transient=True,
    )
