"""Where to begin reading a partition at a take-over, and what its cursors become. Pure: DESIGN's table as a function.

the group's commit                              start
none, and no cursors                            log start; new cursors one below it
none, though the store has cursors              at the floor or behind the lowest cursor: all below is applied
without metadata (stock workers, an operator)   there; new cursors one below it, lower ones lifted to it
ours, same topic id, at most the floor          there
ours, above the floor                           the store has gone back: at the floor
ours, same cluster, other topic id              the topic was made anew: as with none
ours, other cluster or store, or no cursors     refused; `adopt` trusts the commit like one without metadata

Where the log begins above that, reading begins there; what lies between and was neither applied nor noted is a gap.
Where the log ends below what was read or applied, it was cut: refused. A commit whose stamp names another offset than
its own was moved by somebody who kept the metadata (MirrorMaker does), and is not ours.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from storage.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storage.batch import Source


class Stamp(NamedTuple):
    """The metadata of our commits: which topic, and which store, the offset belongs to.

    Attributes:
        cluster: the cluster's id.
        topic_id: the topic's id.
        store: the store's own id.
        offset: the offset that it was made for; None in those of versions that did not say.
    """

    cluster: str
    topic_id: str
    store: str
    offset: int | None = None

    def at(self, offset: int | None) -> Stamp:
        """The same for an offset."""
        return self._replace(offset=offset)

    def fits(self, offset: int | None) -> bool:
        """Whether it was made for this offset, as far as it says."""
        return self.offset is None or self.offset == offset

    def pack(self) -> str:
        """As Kafka commit metadata (at most 4,096 bytes by the broker's default)."""
        return json.dumps({name: value for name, value in self._asdict().items() if value is not None})


def unpack_stamp(metadata: str | None) -> Stamp | None:
    """The stamp in a commit's metadata; None where it is not of our making."""
    try:
        fields = json.loads(metadata or "")
        stamp = Stamp(str(fields["cluster"]), str(fields["topic_id"]), str(fields["store"]))
        return stamp if "offset" not in fields else stamp.at(int(fields["offset"]))
    except (ValueError, TypeError, KeyError):
        return None


@dataclass(frozen=True, slots=True)
class Found:
    """What Kafka and the store say at a take-over, read after the epoch was raised.

    Attributes:
        committed: the group's committed offset, None where there is none.
        stamp: that commit's metadata, None where it is not ours.
        log_start: the first offset that Kafka still has.
        log_end: the offset that the next record will get, behind those of open transactions.
        lanes: lanes in force.
        cursors: the cursors of this topic id.
        floor: the highest offset that was about to be committed, None before the first.
        store: the store's own id.
    """

    committed: int | None
    stamp: Stamp | None
    log_start: int
    log_end: int
    lanes: int
    cursors: Mapping[int, int]
    floor: int | None
    store: str


@dataclass(frozen=True, slots=True)
class Start:
    """The decision.

    Attributes:
        offset: where to begin reading.
        cursors: what every lane's cursor becomes.
        floor: what the floor becomes.
        gap: first and last offset that are gone from Kafka before we read them, if any and not noted before.
        notes: what a person should know, in sentences.
    """

    offset: int
    cursors: dict[int, int]
    floor: int
    gap: tuple[int, int] | None
    notes: tuple[str, ...]


def decide_start(source: Source, found: Found, *, adopt: bool = False) -> Start:
    """Where to begin, by the table above.

    Args:
        source: the partition taken over.
        found: what Kafka and the store say.
        adopt: trust a commit that belongs to another cluster or store, once.

    Raises:
        Refused: a person has to decide; the message names both sides and the way out.
    """
    notes: list[str] = []
    stamp = found.stamp
    ours = Stamp(source.cluster, source.topic_id, found.store)
    if stamp is not None and stamp.at(None) == ours and not stamp.fits(found.committed):
        notes.append(f"{source}: the group's commit was moved from offset {stamp.offset} to {found.committed}")
        stamp = None
    if stamp is not None:
        stamp = _check_stamp(source, found, stamp, notes, adopt=adopt)
    lift = False
    if found.committed is None:
        offset = _find_known(found)
    elif stamp is None:
        offset, lift = found.committed, True
    elif stamp.topic_id != source.topic_id:
        notes.append(
            f"{source} was made anew (topic id {stamp.topic_id} is now {source.topic_id}): from the log's start"
        )
        offset = _find_known(found)  # which is the start, unless it was taken over since and not committed
    elif found.floor is None or found.committed > found.floor:
        floor = found.log_start if found.floor is None else found.floor
        notes.append(
            f"{source}: the group's commit {found.committed} is above the store's floor {floor}: "
            "the store has gone back, reading again from the floor"
        )
        offset = floor
    else:
        offset = found.committed
    gap = None
    expected = max(offset, found.floor or 0)  # what lies below the floor is applied, or its gap is noted
    if found.log_start > expected:
        gap = (expected, found.log_start - 1)
        notes.append(f"{source}: offsets {gap[0]} to {gap[1]} are gone from Kafka before they were read")
    offset = max(offset, found.log_start)  # nothing of a gap can be read any more, so cursors need not wait for it
    cursors = _make_cursors(source, found, offset, notes, lift=lift)
    _check_end(source, found, offset, max(cursors.values()))
    return Start(offset, cursors, max(offset, found.floor or 0), gap, tuple(notes))


def _find_known(found: Found) -> int:
    """Without a commit of this topic: the offset below which all is applied or gone, as far as the store knows."""
    if not found.cursors:
        return found.log_start
    lowest = min(found.cursors.get(lane, -1) for lane in range(found.lanes))
    return max(found.floor or 0, lowest + 1)  # of a lane without runs the cursor stays where it was made


def _check_end(source: Source, found: Found, offset: int, highest: int) -> None:
    """Refuse a log that ends below what was read or applied."""
    if found.log_end > highest and found.log_end >= offset:
        return
    done = f"offset {highest} is applied" if highest >= found.log_end else f"all below offset {offset} is read"
    msg = (
        f"{source}: the log ends at offset {found.log_end}, but {done} already: "
        "the topic was truncated or restored. Make the topic anew, or point the bridge at another store"
    )
    raise Refused(msg)


def _check_stamp(source: Source, found: Found, stamp: Stamp, notes: list[str], *, adopt: bool) -> Stamp | None:
    """The stamp if it belongs here; None if it is adopted, and so trusted like one without metadata."""
    if stamp.cluster != source.cluster:
        why = f"Kafka cluster {stamp.cluster!r}, this one is {source.cluster!r}"
    elif stamp.store != found.store:
        why = f"store {stamp.store!r}, this one is {found.store!r}"
    elif stamp.topic_id == source.topic_id and not found.cursors:
        why = f"store {stamp.store!r}, in which the records of {source} are gone"
    else:
        return stamp
    if not adopt:
        msg = (
            f"{source}: the group's commit {found.committed} belongs to {why}. Start with the right settings, or with "
            "--adopt to trust the commit and go on from it with this store"
        )
        raise Refused(msg)
    notes.append(f"{source}: the group's commit {found.committed} belongs to {why}; adopted as it is")
    return None


def _make_cursors(source: Source, found: Found, offset: int, notes: list[str], *, lift: bool) -> dict[int, int]:
    cursors: dict[int, int] = {}
    for lane in range(found.lanes):
        cursor = found.cursors.get(lane)
        if cursor is None:
            cursors[lane] = offset - 1
        elif lift and cursor < offset - 1:
            notes.append(f"{source} lane {lane}: cursor lifted from {cursor} to {offset - 1}, the group's commit")
            cursors[lane] = offset - 1
        else:
            cursors[lane] = cursor
    return cursors
