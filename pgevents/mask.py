"""Secrets taken out of text that is shown. Errs on the side of hiding too much, and never raises."""

import re

HIDDEN = "***"
"""What is shown in place of a secret."""

# A password may hold unescaped "@", "/" or "?": everything up to the last "@" of the URL is taken for it.
_USERINFO = re.compile(r"([A-Za-z][\w+.-]*(?::/*|//)[^:@/?#\s]*:)[^\n]*@")
_PARAMETER = re.compile(r"(?i)([?&;][\w.-]*(?:password|passwd|passphrase|secret|token)=)[^&\n]*")
_KEYWORD = re.compile(r"(?i)\b((?:ssl)?password\s*=\s*)(?:'(?:\\.|[^'\\])*(?:'|$)|(?:\\.|[^\s\\])+)", re.DOTALL)
_SCHEME = re.compile(r"[A-Za-z][\w+.-]*:/*")
_PAIRS = re.compile(r"\s*\w+\s*=")
_USER_ALONE = re.compile(r"[A-Za-z][\w+.-]*://[^:@/?#\s]*")
# Whatever else stands in a sink's URL may be a password under a name mistyped.
_KNOWN_PARAMETERS = (
    "exchange|routing_key|heartbeat|connection_timeout|mandatory|cacertfile|certfile|keyfile|verify"
    "|server_name_indication"
)
_UNKNOWN_PARAMETER = re.compile(rf"([?&](?!(?:{_KNOWN_PARAMETERS})=)[^=&]*=)[^&]*")


def mask_url(url: str) -> str:
    """The URL with ``***`` for the password of its user and of its parameters."""
    return _PARAMETER.sub(rf"\g<1>{HIDDEN}", _USERINFO.sub(rf"\g<1>{HIDDEN}@", url))


def mask_dsn(dsn: str) -> str:
    """The connection string, a URL or ``key=value`` pairs, with ``***`` for its passwords."""
    if dsn.lower().startswith(("postgres://", "postgresql://")):
        return mask_url(dsn)
    return mask_url(_KEYWORD.sub(rf"\g<1>{HIDDEN}", dsn))


def mask_value(value: str) -> str:
    """The whole of a setting that was meant as a connection string or URL, which it need not be.

    What is none, or has parameters that nobody knows, is hidden up to its last ``@``, and in those parameters.
    """
    masked = mask_dsn(value)
    if _PAIRS.match(value) or value.lower().startswith(("postgres://", "postgresql://")):
        return masked
    head, at, host = _UNKNOWN_PARAMETER.sub(rf"\g<1>{HIDDEN}", masked).rpartition("@")
    if at and not head.endswith(HIDDEN) and not _USER_ALONE.fullmatch(head):
        scheme = _SCHEME.match(head)
        head = f"{scheme[0] if scheme else ''}{HIDDEN}"
    return head + at + host
