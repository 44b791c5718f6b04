"""What a private server proves itself with over TLS."""

from dataclasses import dataclass
from pathlib import Path

from pgevents.demo.process import OURSELVES, Account

KEY_MODE = 0o600


@dataclass(frozen=True, slots=True)
class Certificate:
    """A server's certificate with its chain, and the key, in PEM.

    With ``client_ca`` a client is let in only with a certificate by that CA.
    """

    chain: bytes
    key: bytes
    client_ca: bytes = b""

    def write(self, folder: Path, *, account: Account = OURSELVES) -> None:
        """Put the files where the settings of the servers name them, for ``account`` alone to read."""
        for name, pem in (("server.crt", self.chain), ("server.key", self.key), ("client_ca.crt", self.client_ca)):
            path = folder / name
            path.touch(KEY_MODE)
            path.write_bytes(pem)
            account.own(path)
