"""What a check has found."""

from __future__ import annotations

from typing import Final, NamedTuple

SECONDS: Final = 4.0  # that a dependency has for its answer


class Finding(NamedTuple):
    """What a check has found.

    Attributes:
        subject: what was looked at, in a word.
        well: whether it works.
        sentence: what was found, and what was tried.
        remedy: what to do; empty where there is nothing to do. Where it works and there is something, it is a warning.
    """

    subject: str
    well: bool
    sentence: str
    remedy: str = ""

    @property
    def word(self) -> str:
        """``ok``, ``WARN`` or ``WRONG``."""
        if not self.well:
            return "WRONG"
        return "WARN" if self.remedy else "ok"

    def __str__(self) -> str:
        return f"{self.sentence}: {self.remedy}" if self.remedy else self.sentence
