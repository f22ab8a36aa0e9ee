"""Do two clocks agree? By seconds they differ as a matter of course; by minutes, where there is no time server."""

from __future__ import annotations

from typing import Final

from matyan_celery.checks.finding import Finding

WRONG: Final = 60.0  # seconds
_WARN: Final = 5.0  # what a time server's client should never let happen
_REMEDY: Final = "set both by one time server: locks, leases and ages compare the times that machines have written"


def compare_clocks(whose: str, ahead: float) -> Finding:
    """How far a dependency's clock is from this machine's.

    Args:
        whose: the dependency, in the genitive.
        ahead: seconds that its clock is ahead of ours.
    """
    way = "ahead of" if ahead > 0 else "behind"
    sentence = f"{whose} clock is {abs(ahead):.1f} s {way} this machine's"
    if abs(ahead) > WRONG:
        return Finding("clock", False, sentence, _REMEDY)
    return Finding("clock", True, sentence, _REMEDY if abs(ahead) > _WARN else "")
