"""What still points to an experiment or a tag that is gone: how it is found, and how it is cleared.

The API deletes an experiment with its name and its ``experiment_runs``, and a tag with its ``tag_runs``, ``run_tags``
and the index entries of its present name; the runs go on pointing to them. So the runs are found by walks over whole
ranges of keys, page by page; each run that looks as if it pointed there is then looked at within the transaction that
clears.

Arrival decides nothing: only what names the dead uuid is cleared, and index entries that no association of the run
accounts for. A run that was given another experiment or tag meanwhile keeps that, with its entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Protocol, TypeVar

from storage.encoding import pack_key, pack_value, span, unpack_key, unpack_value
from storage.engine import KEY_LIMIT
from storage.handlers.run import RunKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from storage.directories import Directories
    from storage.engine import KeyValue, Read, Transaction

    Walk = Callable[[Transaction, str, bytes, int], "Page"]

T = TypeVar("T")

_NULL: Final = pack_value(None)


class Page(NamedTuple):
    """A part of a walk.

    Attributes:
        runs: the runs to look at closely.
        scanned: keys read.
        after: the last key dealt with; None where the walk is at its end.
    """

    runs: list[str]
    scanned: int
    after: bytes | None


class Dangling(Protocol):
    """What points to one kind of entity."""

    @property
    def walks(self) -> Sequence[Walk]:
        """The walks that find the runs, each called with the uuid, the last key dealt with, and how many keys."""
        ...

    def exists(self, transaction: Transaction, uuid: str) -> bool:
        """Whether the entity is there: has a name. A lone ``run_count`` is what stock workers leave of a dead one."""
        ...

    def release(self, transaction: Transaction, uuid: str, runs: Sequence[str]) -> int:
        """Clear what of these runs points to the entity; how many runs were changed."""
        ...

    def bury(self, transaction: Transaction, uuid: str) -> None:
        """Clear what is left under the entity's own key."""
        ...


class DanglingExperiment:
    """Links, meta fields and index entries of an experiment.

    Args:
        directories: key prefixes.
    """

    def __init__(self, directories: Directories) -> None:
        self._directories = directories
        self.walks: Sequence[Walk] = (self._by_links, self._by_runs_links, self._by_meta, self._by_entries)

    def exists(self, transaction: Transaction, uuid: str) -> bool:
        """Whether the experiment has a name."""
        return transaction.get(self._entity(uuid) + pack_key("name")).wait() is not None

    def bury(self, transaction: Transaction, uuid: str) -> None:
        """Clear its fields."""
        transaction.clear_range(*span(self._entity(uuid)))

    def release(self, transaction: Transaction, uuid: str, runs: Sequence[str]) -> int:
        """Clear link, meta field and index entries, as far as they are this experiment's."""
        started = [_ExperimentOf(transaction, RunKeys(self._directories, run)) for run in runs]
        return sum(self._release(transaction, uuid, run) for run in started)

    def _release(self, transaction: Transaction, uuid: str, run: _ExperimentOf) -> bool:
        keys, wanted = run.keys, pack_value(uuid)
        link, meta = run.link.wait(), run.meta.wait()
        other = meta if link in (None, wanted) else link
        stale = self._find_stale(transaction, run, None if other in (None, wanted, _NULL) else other)
        listed = _clear_if_there(transaction, self._links(uuid) + keys.packed)
        if link == wanted:
            transaction.clear(keys.experiment_link)
        if meta == wanted:
            transaction.set(keys.meta_field("experiment_id"), _NULL)
        _clear_entries(transaction, keys, stale)
        return listed or bool(stale) or wanted in (link, meta)

    def _find_stale(self, transaction: Transaction, run: _ExperimentOf, other: bytes | None) -> list[bytes]:
        """The entries under other names than that of the run's present experiment, whose packed uuid is ``other``."""
        entries = {_entry_name(key, run.keys): key for key, _ in run.entries.wait()}
        if not entries or other is None:
            return list(entries.values())
        name = unpack_value(transaction.get(self._entity(unpack_value(other)) + pack_key("name")).wait())
        return [key for value, key in entries.items() if value != name]

    def _entity(self, uuid: Any) -> bytes:
        return self._directories.system + pack_key("experiments", uuid)

    def _links(self, uuid: str) -> bytes:
        return self._directories.system + pack_key("experiment_runs", uuid)

    # -- walks -----------------------------------------------------------------------------------------------------

    def _by_links(self, transaction: Transaction, uuid: str, after: bytes, limit: int) -> Page:
        prefix = self._links(uuid)
        pairs = _read(transaction, prefix, after, limit)
        return _page(pairs, limit, (_last(key, prefix) for key, _ in pairs))

    def _by_runs_links(self, transaction: Transaction, uuid: str, after: bytes, limit: int) -> Page:
        prefix = self._directories.system + pack_key("run_experiment")
        pairs, wanted = _read(transaction, prefix, after, limit), pack_value(uuid)
        return _page(pairs, limit, (_last(key, prefix) for key, value in pairs if value == wanted))

    def _by_meta(self, transaction: Transaction, uuid: str, after: bytes, limit: int) -> Page:
        wanted = pack_value(uuid)
        return _walk_runs(
            transaction,
            self._directories,
            after,
            limit,
            lambda keys: keys.meta_field("experiment_id"),
            lambda value: value == wanted,
        )

    def _by_entries(self, transaction: Transaction, _: str, after: bytes, limit: int) -> Page:
        """Entries under a name that is not the name of the run's experiment: of a run that got another since."""
        system = self._directories.system
        prefix = self._directories.indexes + pack_key("experiment")
        pairs = _read(transaction, prefix, after, limit)
        entries = [unpack_key(key[len(prefix) :]) for key, _ in pairs]
        by_name = {name: transaction.get(system + pack_key("experiments_by_name", name)) for name, _ in entries}
        links = [(name, run, transaction.get(system + pack_key("run_experiment", run))) for name, run in entries]
        return _page(pairs, limit, (run for name, run, link in links if link.wait() != by_name[name].wait()))


class _ExperimentOf:
    """The reads that say which experiment a run has, all under way."""

    def __init__(self, transaction: Transaction, keys: RunKeys) -> None:
        self.keys = keys
        self.link = _get(transaction, keys.experiment_link)
        self.meta = _get(transaction, keys.meta_field("experiment_id"))
        self.entries = _get_below(transaction, keys.reverse + pack_key("experiment"))


class DanglingTag:
    """Links, run keys and index entries of a tag.

    Args:
        directories: key prefixes.
    """

    def __init__(self, directories: Directories) -> None:
        self._directories = directories
        self.walks: Sequence[Walk] = (self._by_links, self._by_runs_links, self._by_runs)

    def exists(self, transaction: Transaction, uuid: str) -> bool:
        """Whether the tag has a name."""
        return transaction.get(self._entity(uuid) + pack_key("name")).wait() is not None

    def bury(self, transaction: Transaction, uuid: str) -> None:
        """Clear its fields."""
        transaction.clear_range(*span(self._entity(uuid)))

    def release(self, transaction: Transaction, uuid: str, runs: Sequence[str]) -> int:
        """Clear both links, the run's own key, and index entries that no tag of the run accounts for."""
        started = [_TagsOf(transaction, RunKeys(self._directories, run)) for run in runs]
        return sum(self._release(transaction, uuid, run) for run in started)

    def _release(self, transaction: Transaction, uuid: str, run: _TagsOf) -> bool:
        keys = run.keys
        others = [tag for key, _ in run.links.wait() if (tag := _last(key, keys.tag_links)) != uuid]
        stale = self._find_stale(transaction, run.entries.wait(), keys, others)
        there = [
            _clear_if_there(transaction, key)
            for key in (
                keys.tag_links + pack_key(uuid),
                self._links(uuid) + keys.packed,
                keys.data + pack_key("tags", uuid),
            )
        ]
        _clear_entries(transaction, keys, stale)
        return any(there) or bool(stale)

    def _find_stale(
        self, transaction: Transaction, pairs: list[KeyValue], keys: RunKeys, others: list[Any]
    ) -> list[bytes]:
        """The entries that no living tag of the run accounts for; none where that cannot be told.

        A renamed tag keeps its entries under the old name: where the run has a tag without an entry of its present
        name, any of the entries left over may be that one's.
        """
        entries = {_entry_name(key, keys): key for key, _ in pairs}
        if not entries:
            return []
        reads = [transaction.get(self._entity(tag) + pack_key("name")) for tag in others]
        names = {name for read in reads if (name := unpack_value(read.wait()))}  # no entry for an empty name
        return [key for name, key in entries.items() if name not in names] if names <= entries.keys() else []

    def _entity(self, uuid: Any) -> bytes:
        return self._directories.system + pack_key("tags", uuid)

    def _links(self, uuid: str) -> bytes:
        return self._directories.system + pack_key("tag_runs", uuid)

    # -- walks -----------------------------------------------------------------------------------------------------

    def _by_links(self, transaction: Transaction, uuid: str, after: bytes, limit: int) -> Page:
        prefix = self._links(uuid)
        pairs = _read(transaction, prefix, after, limit)
        return _page(pairs, limit, (_last(key, prefix) for key, _ in pairs))

    def _by_runs_links(self, transaction: Transaction, uuid: str, after: bytes, limit: int) -> Page:
        prefix, ending = self._directories.system + pack_key("run_tags"), pack_key(uuid)
        pairs = _read(transaction, prefix, after, limit)
        return _page(pairs, limit, (unpack_key(key[len(prefix) :])[0] for key, _ in pairs if key.endswith(ending)))

    def _by_runs(self, transaction: Transaction, uuid: str, after: bytes, limit: int) -> Page:
        behind = pack_key("tags", uuid)
        return _walk_runs(
            transaction,
            self._directories,
            after,
            limit,
            lambda keys: keys.data + behind,
            lambda value: value is not None,
        )


class _TagsOf:
    """The reads that say which tags a run has, all under way."""

    def __init__(self, transaction: Transaction, keys: RunKeys) -> None:
        self.keys = keys
        self.links = _get_below(transaction, keys.tag_links)
        self.entries = _get_below(transaction, keys.reverse + pack_key("tag"))


def _walk_runs(
    transaction: Transaction,
    directories: Directories,
    after: bytes,
    limit: int,
    choose_key: Callable[[RunKeys], bytes],
    is_wanted: Callable[[bytes | None], bool],
) -> Page:
    """A walk over all runs, in the order of their creation, by what one key of each holds."""
    prefix = directories.indexes + pack_key("created_at")
    pairs = _read(transaction, prefix, after, limit)
    runs = [_last(key, prefix) for key, _ in pairs]
    reads = [(run, _get(transaction, choose_key(RunKeys(directories, run)))) for run in runs]
    return _page(pairs, limit, (run for run, read in reads if is_wanted(read.wait())))


def _read(transaction: Transaction, prefix: bytes, after: bytes, limit: int) -> list[KeyValue]:
    begin, end = span(prefix)
    return transaction.get_range(after + b"\x00" if after else begin, end, limit=limit).wait()


def _page(pairs: list[KeyValue], limit: int, runs: Iterable[str]) -> Page:
    return Page(list(dict.fromkeys(runs)), len(pairs), pairs[-1][0] if len(pairs) == limit else None)


def _last(key: bytes, prefix: bytes) -> Any:
    return unpack_key(key[len(prefix) :])[-1]


def _entry_name(reverse_key: bytes, keys: RunKeys) -> Any:
    """The name that an entry of experiment or tag is under."""
    return unpack_key(reverse_key[len(keys.reverse) :])[1]


def _clear_entries(transaction: Transaction, keys: RunKeys, reverse_keys: Iterable[bytes]) -> None:
    for key in reverse_keys:
        transaction.clear(keys.directories.indexes + key[len(keys.reverse) :])
        transaction.clear(key)


class _Known(Generic[T]):
    """The answer to a read of what cannot exist: a key over the limit."""

    def __init__(self, answer: T) -> None:
        self._answer = answer

    def wait(self) -> T:
        return self._answer


def _get(transaction: Transaction, key: bytes) -> Read[bytes | None]:
    return transaction.get(key) if len(key) <= KEY_LIMIT else _Known(None)


def _get_below(transaction: Transaction, prefix: bytes) -> Read[list[KeyValue]]:
    nothing: list[KeyValue] = []
    return transaction.get_range(*span(prefix)) if len(prefix) < KEY_LIMIT else _Known(nothing)


def _clear_if_there(transaction: Transaction, key: bytes) -> bool:
    if _get(transaction, key).wait() is None:
        return False
    transaction.clear(key)
    return True
