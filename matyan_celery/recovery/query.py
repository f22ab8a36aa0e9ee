"""What a person asked to see, as it stands in the page's address. Everything in it may be anything; no I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, get_args
from urllib.parse import urlencode

from storage.batch import Source
from storage.choices import CleanupChoice, LetterChoice
from storage.cleanups import CleanupState

if TYPE_CHECKING:
    from collections.abc import Callable

Show = Literal["failed", "held", "pending", "running", "done", "letters", "lanes"]
How = Literal["runs", "text"]

WAITING: Final[tuple[Show, ...]] = ("failed", "held", "letters", "lanes")
"""What waits for a person, and may be requeued all at once. The others go on by themselves, or are done."""
LONGEST: Final = 1_000  # characters of a search


@dataclass(frozen=True, slots=True)
class Query:
    """What to show.

    Attributes:
        show: cleanups in one state, dead letters, or stalled lanes.
        reason: dead letters: only with this reason; empty: any.
        find: text that is searched for; empty: all.
        how: where: at the beginning of run ids (by index), or anywhere (looks at one after the other).
        after: position of the page before; empty: the first page.
    """

    show: Show = "failed"
    reason: str = ""
    find: str = ""
    how: How = "runs"
    after: str = ""

    def choice(self) -> CleanupChoice | LetterChoice:
        """The filter; stalled lanes have none."""
        runs, text = (self.find, "") if self.how == "runs" else ("", self.find)
        if self.show == "letters":
            return LetterChoice(self.reason, runs, text)
        return CleanupChoice(CleanupState(self.show), runs, text)

    def fields(self) -> dict[str, str]:
        """What differs from an empty query, for links and hidden form fields."""
        values = {"show": self.show, "reason": self.reason, "find": self.find, "after": self.after}
        return {name: value for name, value in values.items() if value} | (
            {"how": "text"} if self.how == "text" else {}
        )

    def link(self, **changes: Any) -> str:
        """The address' query of this query with changes; a change but of the position begins at the first page."""
        return urlencode(replace(self, **({"after": ""} | changes)).fields())


def read_query(argument: Callable[[str], str], show: Show) -> Query:
    """The query of an address or form.

    Args:
        argument: gives an argument by name, empty where it is missing.
        show: what to show where nothing is asked for.
    """
    wanted = argument("show")
    return Query(
        show=next((name for name in get_args(Show) if name == wanted), show),
        reason=argument("reason")[:LONGEST],
        find=argument("find")[:LONGEST],
        how="text" if argument("how") == "text" else "runs",
        after=argument("after")[: 10 * LONGEST],
    )


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that can be requeued.

    Attributes:
        kind: what it is.
        run: a cleanup's run id.
        source: a letter's or lane's partition.
        number: a letter's offset, or a lane's number.
    """

    kind: Literal["cleanup", "letter", "lane"]
    run: str = ""
    source: Source | None = None
    number: int = 0

    def __str__(self) -> str:
        if self.kind == "cleanup":
            return self.run
        return f"{self.source} {'offset' if self.kind == 'letter' else 'lane'} {self.number}"

    def pack(self) -> str:
        """The value of its checkbox."""
        if self.source is None:
            return json.dumps([self.kind, self.run])
        return json.dumps([self.kind, *self.source, self.number])


def read_item(text: str) -> Item:
    """The inverse of `Item.pack`.

    Raises:
        ValueError: it names no item.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    match value:
        case ["cleanup", str(run)]:
            return Item("cleanup", run)
        case ["letter" | "lane" as kind, str(cluster), str(topic), str(topic_id), int(partition), int(number)]:
            if 0 <= partition < 2**31 and 0 <= number < 2**63:
                return Item(kind, source=Source(cluster, topic, topic_id, partition), number=number)
    msg = f"{text!r:.200} names nothing that can be requeued"
    raise ValueError(msg)
