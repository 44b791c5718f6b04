"""RabbitMQ's management API: one question at a time, and why one got no answer."""

import base64
import json
import ssl
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from pgevents.errors import ConfigError
from pgevents.sink.amqp import tls
from pgevents.sink.amqp.url import AmqpUrl, BrokerAddress

TIMEOUT_S = 5.0
PLAIN_PORT, TLS_PORT = 15672, 15671

_UNAUTHORIZED, _NOT_FOUND, _UNHEALTHY = 401, 404, 503


class NotSeenError(Exception):
    """Why something about the broker is not known; the message ends a sentence."""


def check_location(location: str) -> None:
    """Raises ConfigError for what is no URL of HTTP."""
    parts = urlsplit(location)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("--management is not a URL", hint="Write it as http://broker:15672.")


class Management:
    """``location`` is ``http(s)://[user:password@]host[:port]``, checked; what it leaves out the AMQP URL says."""

    def __init__(self, url: AmqpUrl, address: BrokerAddress, *, location: str = "") -> None:
        scheme, port = ("https", TLS_PORT) if url.tls else ("http", PLAIN_PORT)
        parts = urlsplit(location or f"{scheme}://{BrokerAddress(address.host, port)}")
        user = unquote(parts.username) if parts.username else url.user
        password = unquote(parts.password) if parts.password else url.password
        self.vhost = url.vhost
        self.user = user
        self._base = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
        self._login = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self._context = tls.context(url.tls) if url.tls else ssl.create_default_context()

    def get(self, *path: str) -> Any:
        """What is there, None where nothing is. Blocks; raises NotSeenError."""
        where = "/".join(quote(part, safe="") for part in path)
        request = urllib.request.Request(  # noqa: S310 - http or https alone, see above
            f"{self._base}/api/{where}", headers={"Authorization": self._login}
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=self._context) as response:  # noqa: S310
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                # With 503 a health check says what is not healthy.
                return json.load(error) if error.code == _UNHEALTHY else self._refused(error.code)
        except (OSError, ValueError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise NotSeenError(f"no answer of the management API at {self._base} ({reason})") from error

    def _refused(self, code: int) -> None:
        if code == _UNAUTHORIZED:
            raise NotSeenError(f"the management API at {self._base} refuses user {self.user}")
        if code != _NOT_FOUND:
            raise NotSeenError(f"the management API at {self._base} answers {code}")
