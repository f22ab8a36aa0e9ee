"""Cron lines: five fields, read here once, so that a wrong one is a wrong setting and not a job that never runs.

    minute  hour  day of month  month  day of week      each: * | n | a-b | */step | a-b/step | several with commas

Months and days of the week may be named (``jan``, ``mon``); Sunday is 0 or 7. Where both days are given, both must fit.
"""

from __future__ import annotations

from typing import Final, NamedTuple

_MONTHS: Final = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_WEEKDAYS: Final = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_DAYS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_MINUTES: Final = 24 * 60


class Cron(NamedTuple):
    """When a job runs: each field's values."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]

    @property
    def gap(self) -> float:
        """Seconds between two runs, at least."""
        times = sorted(hour * 60 + minute for hour in self.hours for minute in self.minutes)
        following = [*times[1:], times[0] + _MINUTES]
        return 60.0 * min(after - before for before, after in zip(times, following, strict=True))


def parse_cron(line: str) -> Cron | None:
    """A cron line; None for an empty one: never.

    Raises:
        ValueError: it is none; says which field is wrong.
    """
    fields = line.split()
    if not fields:
        return None
    if len(fields) != 5:
        msg = "use five fields (minute, hour, day of month, month, day of week), or nothing for never"
        raise ValueError(msg)
    minute, hour, day, month, weekday = fields
    cron = Cron(
        minutes=_parse_field("minute", minute, 0, 59),
        hours=_parse_field("hour", hour, 0, 23),
        days=_parse_field("day of month", day, 1, 31),
        months=_parse_field("month", month, 1, 12, _MONTHS),
        weekdays=frozenset(value % 7 for value in _parse_field("day of week", weekday, 0, 7, _WEEKDAYS)),
    )
    if min(cron.days) > max(_DAYS[month - 1] for month in cron.months):
        msg = "day of month: none of these months has such a day"
        raise ValueError(msg)
    return cron


def _parse_field(what: str, text: str, lowest: int, highest: int, names: list[str] | None = None) -> frozenset[int]:
    values: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        step = _parse_number(what, step_text, 1, highest) if slash else 1
        if span == "*":
            first, last = lowest, highest
        else:
            start, dash, end = span.partition("-")
            first = _parse_number(what, start, lowest, highest, names)
            last = _parse_number(what, end, lowest, highest, names) if dash else highest if slash else first
        if first > last:
            msg = f"{what}: {span!r} ends before it begins"
            raise ValueError(msg)
        values.update(range(first, last + 1, step))
    return frozenset(values)


def _parse_number(what: str, text: str, lowest: int, highest: int, names: list[str] | None = None) -> int:
    if names is not None and text.lower() in names:
        return names.index(text.lower()) + lowest
    if not (text.isascii() and text.isdigit() and lowest <= int(text) <= highest):
        msg = f"{what}: {text!r} is not a number from {lowest} to {highest}" + (" or a name" if names else "")
        raise ValueError(msg)
    return int(text)
