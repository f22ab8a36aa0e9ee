"""Ending programs side by side: each is asked, all are waited for together, and what stays is killed."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from demo.servers.process import Process

_PATIENCE: Final = 2.0  # seconds before it is said what is waited for


def end_all(processes: Sequence[Process], *, seconds: float, tell: Callable[[str], None]) -> bool:
    """SIGTERM to all at once; SIGKILL to the groups of all when the time is over, or at Ctrl-C.

    Args:
        processes: whatever state they are in.
        seconds: that they have, together.
        tell: given a sentence for people now and then.

    Returns:
        Whether nobody pressed Ctrl-C.
    """
    began, told = time.monotonic(), False
    try:
        for process in processes:
            if process.is_alive():
                process.signal(signal.SIGTERM)
        while left := [process.name for process in processes if process.is_alive()]:
            passed = time.monotonic() - began
            if passed > seconds:
                tell(f"killing {', '.join(left)}: not ended within {seconds:g} s")
                break
            if passed > _PATIENCE and not told:
                told = True
                tell(f"waiting for {', '.join(left)}, {seconds:g} s at most; Ctrl-C kills them now")
            time.sleep(0.05)
    except KeyboardInterrupt:
        tell("killing everything")
        return False
    finally:
        for process in processes:
            process.kill()
    return True
