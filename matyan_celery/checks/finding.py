"""What a check has found."""

from __future__ import annotations

from typing import Final, NamedTuple

SECONDS: Final = 4.0  # that a dependency has for its answer


class Finding(NamedTuple):
    """What a check has found.

    Attributes:
        subject: what was looked at, in a word.
        well: whether all is well with it.
        sentence: what was found.
        remedy: what to do; empty where all is well.
    """

    subject: str
    well: bool
    sentence: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.sentence}: {self.remedy}" if self.remedy else self.sentence
