"""Which queues an address reaches, asked of the brokers of a sink's URL."""

from pgevents.doctor.management import Management, NotSeenError, check_location
from pgevents.doctor.route import queues_for
from pgevents.doctor.topology import ManagedTopology
from pgevents.event import Address
from pgevents.sink.amqp.url import AmqpUrl, parse


class Bindings:
    """The queues of a sink, as RabbitMQ's management API has them; one of another kind has none.

    ``management`` is the API's URL where it is not beside the broker. Each thing is asked once.
    """

    def __init__(self, sink: str, *, management: str = "") -> None:
        is_broker = sink.partition(":")[0] in ("amqp", "amqps")
        self._url = parse(sink) if is_broker else None
        self._topologies = _topologies(self._url, management) if self._url else []

    def of(self, address: Address) -> tuple[str, tuple[str, ...] | None, str]:
        """The exchange, the queues that get what is published there, and why these could not be seen.

        Blocks. The queues are None where there are none to be had, or none to be seen.
        """
        if self._url is None:
            return address.exchange, None, ""
        exchange, reason = address.exchange or self._url.exchange, ""
        for topology in self._topologies:
            try:
                return exchange, tuple(sorted(queues_for(topology, exchange, address.topic))), ""
            except NotSeenError as error:
                reason = str(error)
        return exchange, None, reason


def _topologies(url: AmqpUrl, management: str) -> list[ManagedTopology]:
    """One for each broker of the URL, of which the first that answers is taken."""
    if management:
        check_location(management)
        return [ManagedTopology(Management(url, url.addresses[0], location=management))]
    return [ManagedTopology(Management(url, address)) for address in url.addresses]
