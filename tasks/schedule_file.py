"""Where beat remembers what it sent last: a file of JSON, put in place whole, so that no kill leaves half of one.

    {"version": 1, "sent": {"outbox": {"at": 1760000000.0, "times": 12}}}

It saves beat from sending a job again, or passing over one that fell due while beat was away; nothing else hangs on it.
So whatever is wrong with it is said, and beat begins anew.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping

_VERSION: Final = 1
_LAST: Final = 253_402_300_799.0  # the end of the year 9999: no calendar goes on

log = structlog.get_logger("tasks.beat")


class Sent(NamedTuple):
    """When a job was sent last, Unix seconds, and how often in all."""

    at: float
    times: int


class ScheduleFile:
    """Reads and writes the file. What goes wrong is logged, once until it goes well again.

    Args:
        path: the file; its folder is made if it is absent.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._complained = False

    def read(self) -> dict[str, Sent]:
        """What was sent last, by the jobs' names; nothing where the file is absent, or is not what it should be."""
        try:
            return _parse(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning(
                "the schedule file cannot be read and is made anew: jobs are sent from now on when their lines say",
                file=str(self._path),
                error=str(error),
            )
            return {}

    def write(self, sent: Mapping[str, Sent]) -> None:
        """Put what was sent last in place of what the file held."""
        entries = {name: {"at": at, "times": times} for name, (at, times) in sent.items()}
        content = json.dumps({"version": _VERSION, "sent": entries})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # A name that nobody can guess: others may write in the folder too.
            number, new = tempfile.mkstemp(prefix=f".{self._path.name}-", dir=self._path.parent)
            try:
                with os.fdopen(number, "w", encoding="utf-8") as file:
                    file.write(content)
                Path(new).replace(self._path)
            except OSError:
                Path(new).unlink(missing_ok=True)
                raise
        except OSError as error:
            if not self._complained:
                log.warning(
                    "the schedule file cannot be written: beat goes on, but a job that falls due while it is away is "
                    "left to its next turn; name another file with BEAT_SCHEDULE_FILE",
                    file=str(self._path),
                    error=str(error),
                )
            self._complained = True
        else:
            self._complained = False


def _parse(content: bytes) -> dict[str, Sent]:
    try:
        fields: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        msg = "it is empty" if not content else "it is no JSON: cut short, or an earlier release's"
        raise ValueError(msg) from error
    if not isinstance(fields, dict) or fields.get("version") != _VERSION:
        msg = f"it is no schedule of version {_VERSION}"
        raise ValueError(msg)
    try:
        return {str(name): Sent(_as_time(one["at"]), int(one["times"])) for name, one in fields["sent"].items()}
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        msg = f"an entry of it is wrong ({error!r})"
        raise ValueError(msg) from error


def _as_time(value: Any) -> float:
    """A time that a calendar has: the nearest one."""
    time = float(value)
    if math.isnan(time):
        msg = "a time is no number"
        raise ValueError(msg)
    return min(max(time, 0.0), _LAST)
