"""Stored times against the clock of whoever reads them: a time that cannot be is not waited for.

Machines' clocks differ, by minutes as a matter of course; and a clock that was once wrong by years leaves its times in
the store. So what is stored says when at most: never further ahead of now than it can be, and the difference of clocks
that is ordinary. What is further back than it should be makes things happen at once, which each place is safe against.
"""

from __future__ import annotations

from typing import Final

SKEW: Final = 3_600.0  # seconds that clocks of machines may differ and still be believed
FIRST: Final = 1_577_836_800.0  # the year 2020: before all that these times are about

SAID: Final = "of a wrong clock"
"""What jobs call such entries where they count them."""


def is_impossible(time: float, now: float, *, longest: float = 0.0) -> bool:
    """Whether a stored time lies further ahead than it can: whoever wrote it had a wrong clock, or we have.

    Args:
        time: what is stored, Unix seconds.
        now: our clock.
        longest: seconds that it may lie ahead by its nature: a lease, a wait, a lock's time to live.
    """
    return not time <= now + longest + SKEW  # what is no number is none either
