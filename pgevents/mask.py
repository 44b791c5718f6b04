"""Secrets taken out of text that is shown. Errs on the side of hiding too much, and never raises."""

import re

HIDDEN = "***"
"""What is shown in place of a secret."""

# A password may hold unescaped "@", "/" or "?": everything up to the last "@" of the URL is taken for it.
_USERINFO = re.compile(r"([A-Za-z][\w+.-]*:(?://)?[^:@/?#\s]*:)[^\n]*@")
_PARAMETER = re.compile(r"(?i)([?&;][\w.-]*(?:password|passwd|passphrase|secret|token)=)[^&;#\s]*")
_KEYWORD = re.compile(r"(?i)\b((?:ssl)?password\s*=\s*)(?:'(?:\\.|[^'\\])*(?:'|$)|(?:\\.|[^\s\\])+)", re.DOTALL)


def mask_url(url: str) -> str:
    """The URL with ``***`` for the password of its user and of its parameters."""
    return _PARAMETER.sub(rf"\g<1>{HIDDEN}", _USERINFO.sub(rf"\g<1>{HIDDEN}@", url))


def mask_dsn(dsn: str) -> str:
    """The connection string, a URL or ``key=value`` pairs, with ``***`` for its passwords."""
    if dsn.lower().startswith(("postgres://", "postgresql://")):
        return mask_url(dsn)
    return mask_url(_KEYWORD.sub(rf"\g<1>{HIDDEN}", dsn))
