"""One run while a record is applied: its keys, its meta fields, its index entries (CONTRACT 4.1 and 4.2)."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from storage.encoding import EMPTY, pack_element, pack_key, pack_time, span, unpack_key, unpack_value

if TYPE_CHECKING:
    from storage.directories import Directories
    from storage.overlay import Draft

_META: Final = pack_key("meta")
_LEAF: Final = pack_key("__leaf__")
_REV: Final = pack_key("_rev")


class RunKeys:
    """The packed keys of one run.

    Args:
        directories: key prefixes.
        run_id: the run.
    """

    def __init__(self, directories: Directories, run_id: str) -> None:
        self.directories = directories
        self.id = run_id
        self.packed = pack_key(run_id)
        self.data = directories.runs + self.packed
        self.meta = self.data + _META
        self.attrs = self.data + pack_key("attrs")
        self.tombstone = directories.indexes + pack_key("_deleted", run_id)
        self.reverse = directories.indexes + _REV + self.packed
        self.experiment_link = directories.system + pack_key("run_experiment", run_id)
        self.tag_links = directories.system + pack_key("run_tags", run_id)

    def meta_field(self, name: str) -> bytes:
        """The key of a meta field."""
        return self.meta + pack_element(name) + _LEAF


class Run:
    """One run within one record's draft.

    Args:
        keys: its keys.
        draft: the record's layer.
        time: the record's time, Unix seconds.
    """

    def __init__(self, keys: RunKeys, draft: Draft, time: float) -> None:
        self.keys = keys
        self.draft = draft
        self.time = time

    # -- meta ------------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether it has any meta key."""
        return bool(self.draft.get_range(*span(self.keys.meta)))

    def get(self, field: str) -> Any:
        """A meta field; None if it is null or missing."""
        prefix = self.keys.meta_field(field)
        for key, value in self.draft.get_range(*span(self.keys.meta)):
            if key == prefix:
                return unpack_value(value)
        return None

    def put(self, field: str, value: Any) -> None:
        """Write a meta field."""
        self.draft.set_value(self.keys.meta_field(field), value)

    def touch(self) -> None:
        """Set ``updated_at``."""
        self.draft.set(self.keys.meta_field("updated_at"), pack_time(self.time))

    def create(self) -> None:
        """Write all meta fields afresh, and the index entries of a new run; none of an earlier life stays."""
        for name in ("archived", "active", "created_at"):
            self.remove_entries(name)
        self.draft.clear_range(*span(self.keys.meta))
        fields = {
            "name": "Run: " + self.keys.id,
            "description": "",
            "created_at": self.time,
            "updated_at": self.time,
            "finalized_at": None,
            "is_archived": False,
            "active": True,
            "experiment_id": None,
            "client_start_ts": None,
            "duration": None,
        }
        for field, value in fields.items():
            self.put(field, value)
        self.add_entry("archived", False)
        self.add_entry("active", True)
        self.add_entry("created_at", self.time)

    def ensure(self) -> None:
        """Create it, if it has no meta."""
        if not self.exists():
            self.create()

    # -- index -----------------------------------------------------------------------------------------------------

    def add_entry(self, *elements: Any) -> None:
        """Write an index entry and its reverse."""
        forward = pack_key(*elements) + self.keys.packed
        self.draft.set(self.keys.directories.indexes + forward, EMPTY)
        self.draft.set(self.keys.reverse + forward, EMPTY)

    def remove_entry(self, *elements: Any) -> None:
        """Delete an index entry and its reverse."""
        forward = pack_key(*elements) + self.keys.packed
        self.draft.clear(self.keys.directories.indexes + forward)
        self.draft.clear(self.keys.reverse + forward)

    def entries(self, name: str) -> set[bytes]:
        """The run's index entries of one kind: the part that their forward and reverse keys have in common."""
        reverse = self.keys.reverse
        pairs = self.draft.get_range(*span(reverse + pack_element(name)))
        return {key[len(reverse) :] for key, _ in pairs}

    def remove_entries(self, name: str) -> None:
        """Delete all the run's index entries of one kind."""
        for forward in self.entries(name):
            self.draft.clear(self.keys.directories.indexes + forward)
            self.draft.clear(self.keys.reverse + forward)

    def move_entry(self, name: str, old: Any, new: Any) -> None:
        """Move an index entry to a new value, if it differs; None stands for no entry."""
        if old == new:
            return
        if old is not None:
            self.remove_entry(name, old)
        if new is not None:
            self.add_entry(name, new)


def count_links(draft: Draft, entity: bytes, change: int) -> None:
    """Change the run count of a tag or experiment, not below 0; nothing is written for an entity that is gone.

    Args:
        draft: the record's layer.
        entity: whole key of the entity's tuple, ``("tags", uuid)`` for example.
        change: 1 or -1.
    """
    pairs = dict(draft.get_range(*span(entity)))
    if not pairs:
        return
    key = entity + pack_key("run_count")
    count = unpack_value(pairs.get(key)) or 0
    draft.set_value(key, max(0, count + change))


def parse_client_time(text: Any) -> float | None:
    """Unix seconds of a ``client_datetime``: ISO 8601 as Python reads it, local time without an offset (CONTRACT 6.1).

    Returns:
        None for whatever cannot be read.
    """
    if not isinstance(text, str) or not text:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def entity_fields(draft: Draft, entity: bytes, fields: dict[str, Any]) -> None:
    """Write the fields of a tag or experiment."""
    for name, value in fields.items():
        draft.set_value(entity + pack_key(name), value)


def last_element(key: bytes, prefix: bytes) -> Any:
    """The elements of ``key`` behind ``prefix``, as the only one there is."""
    return unpack_key(key[len(prefix) :])[0]
