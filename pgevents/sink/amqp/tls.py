"""The TLS context for a broker: verified unless the URL says ``verify=verify_none``."""

import ssl

from pgevents.errors import ConfigError
from pgevents.sink.amqp.url import Tls


def context(tls: Tls) -> ssl.SSLContext:
    """Raises ConfigError, naming the parameter, for a file that cannot be used."""
    made = ssl.create_default_context(cafile=_readable("cacertfile", tls.ca_file) or None)
    if not tls.verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    if tls.cert_file:
        _load_certificate(made, tls)
    elif tls.key_file:
        raise ConfigError("keyfile in the RabbitMQ URL needs certfile, the certificate of that key")
    return made


def _readable(name: str, path: str) -> str:
    try:
        if path:
            ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise _unusable(name, path, error) from error
    return path


def _load_certificate(made: ssl.SSLContext, tls: Tls) -> None:
    try:
        # An empty password, so that an encrypted key is an error and not a question on the terminal.
        made.load_cert_chain(tls.cert_file, tls.key_file or None, password="")
    except (OSError, ssl.SSLError) as error:
        names = f"{tls.cert_file} or {tls.key_file}" if tls.key_file else tls.cert_file
        raise _unusable("certfile", names, error) from error


def _unusable(name: str, path: str, error: OSError) -> ConfigError:
    return ConfigError(
        f"{name} in the RabbitMQ URL: cannot use {path}: {error.strerror or error}",
        hint="It must be a readable file in PEM format.",
    )
