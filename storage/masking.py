"""Passwords out of text that people read: error messages and log lines may hold URLs, whoever wrote them."""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "***"

# A password may hold anything, also unescaped: the last @ before the next URL, a blank or a quote ends it.
_USER_INFO: Final = re.compile(r"""(://)(?!/)(?:([^:@/;,\s'"]*):)?(?:(?![;,][a-z+]+://)[^\s'"])*@""")
_PARAMETER: Final = re.compile(r"""([?&;][^=&;\s]*(?:password|secret|token|sig|key)=)[^&;\s'"]*""", re.IGNORECASE)


def mask_url(text: str) -> str:
    """``text`` without the passwords in the URLs that it holds; user names stay."""
    if "://" not in text:
        return text

    def hide(found: re.Match[str]) -> str:
        user = found.group(2)
        return f"{found.group(1)}{'' if user is None else user + ':'}{HIDDEN}@"

    return _PARAMETER.sub(rf"\1{HIDDEN}", _USER_INFO.sub(hide, text))
