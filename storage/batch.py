"""What travels from the bridge to a worker: records, and batches of them. Plain data, no behaviour but its packing.

`Source`, `Epoch` and `Batch` are the words of docs/guarantees.md; see there for why each field is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import msgpack

Headers = tuple[tuple[str, bytes | None], ...]

NO_TIME: Final = -1  # Kafka's own way to say that a record has no timestamp
_BARE: Final = 4  # fields of a record without headers


class Record(NamedTuple):
    """One Kafka message.

    Attributes:
        offset: its place in the partition.
        timestamp_ms: Kafka's time of it in milliseconds; `NO_TIME`: it has none.
        key: None: absent, which an empty one is not.
        value: None: absent, a Kafka tombstone.
        headers: names and values in their order; a name may stand there several times.
    """

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    @property
    def size(self) -> int:
        """Bytes of key, value and headers."""
        size = len(self.key or b"") + len(self.value or b"")
        if self.headers:
            size += sum(len(name.encode()) + len(value or b"") for name, value in self.headers)
        return size


class Source(NamedTuple):
    """One partition of one life of a topic. A topic deleted and made again has another topic id."""

    cluster: str
    topic: str
    topic_id: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class Epoch(NamedTuple):
    """The fencing token: a number raised at each take-over, and a random id (two bridges never share one)."""

    number: int
    id: str

    def __str__(self) -> str:
        return f"{self.number}-{self.id[:6]}"


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one source and lane, in offset order, that travel as one task.

    Attributes:
        source: where the records come from.
        lane: the lane that all of them hash to.
        epoch: the epoch of the bridge that cut the batch.
        attempt: 1 when first sent, raised with each re-send.
        after: the offset that the lane's cursor shows when this batch's turn has come.
        records: at least one, offsets strictly rising, all above ``after``.
    """

    source: Source
    lane: int
    epoch: Epoch
    attempt: int
    after: int
    records: tuple[Record, ...]

    @property
    def first(self) -> int:
        """Offset of the first record."""
        return self.records[0].offset

    @property
    def last(self) -> int:
        """Offset of the last record; the lane's cursor once the batch is applied."""
        return self.records[-1].offset

    def again(self) -> Batch:
        """The same batch for its next attempt."""
        return replace(self, attempt=self.attempt + 1)

    def __str__(self) -> str:
        runs = len({record.key for record in self.records})
        return (
            f"{self.source} lane {self.lane} offsets {self.first}..{self.last} "
            f"({len(self.records)} records, {runs} runs, epoch {self.epoch}, attempt {self.attempt})"
        )


def pack_batch(batch: Batch) -> bytes:
    """The batch as msgpack bytes, for the task's one argument.

    A record without headers travels as its first four fields, as in every release: older workers read no others.
    """
    records = [record if record.headers else record[:_BARE] for record in batch.records]
    packed: bytes = msgpack.packb(
        (tuple(batch.source), batch.lane, tuple(batch.epoch), batch.attempt, batch.after, records)
    )
    return packed


def unpack_batch(data: bytes) -> Batch:
    """The inverse of `pack_batch`.

    Raises:
        ValueError: the bytes are no packed batch.
    """
    try:
        source, lane, epoch, attempt, after, records = msgpack.unpackb(data, use_list=False)
        return Batch(Source(*source), lane, Epoch(*epoch), attempt, after, tuple(Record(*record) for record in records))
    except (TypeError, ValueError, msgpack.UnpackException) as error:
        msg = f"not a packed batch ({len(data)} bytes): {error}"
        raise ValueError(msg) from error
