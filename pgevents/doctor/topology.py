"""Exchanges, bindings and queues of a virtual host, as the management API shows them."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from pgevents.doctor.management import Management, NotSeenError
from pgevents.doctor.route import Binding, Exchange


class ManagedTopology:
    """Asks each thing once."""

    def __init__(self, management: Management) -> None:
        self._management = management
        self.exchange = cache(self._exchange)
        self.bindings = cache(self._bindings)

    def _exchange(self, name: str) -> Exchange | None:
        found = self._management.get("exchanges", self._management.vhost, name)
        if found is None:
            return None
        alternate = found["arguments"].get("alternate-exchange") or self._by_policy(found)
        return Exchange(found["name"], found["type"], found["durable"], alternate)

    def _by_policy(self, found: dict[str, Any]) -> str:
        policy = found.get("policy")
        if not policy:
            return ""
        definition = (self._management.get("policies", self._management.vhost, policy) or {}).get("definition", {})
        return str(definition.get("alternate-exchange", ""))

    def _bindings(self, exchange: str) -> Sequence[Binding]:
        found = self._management.get("exchanges", self._management.vhost, exchange, "bindings", "source")
        return [
            Binding(each["destination"], each["destination_type"] == "queue", each["routing_key"])
            for each in found or ()
        ]

    def queue(self, name: str) -> dict[str, Any]:
        """Everything the broker tells of a queue. Raises NotSeenError."""
        found: dict[str, Any] | None = self._management.get("queues", self._management.vhost, name)
        if found is None:
            raise NotSeenError(f"queue {name} was deleted meanwhile")
        return found
