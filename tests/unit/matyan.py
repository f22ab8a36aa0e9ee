"""What others than we write into Matyan's directories: ingestion messages, and the stock API's changes of entities.

The API's part is written after ``storage/entities.py`` of matyan-backend 0.3.0, leftovers included.
"""

from __future__ import annotations

import json
from typing import Any

import fdb.tuple
import msgpack

from storage.batch import Record
from storage.engine import Transaction
from storage.envelope import decode
from storage.store import Store
from tests.conformance.vectors import State, dump

RUNS, INDEXES, SYSTEM = "data/runs", "data/indexes", "system"


def send(store: Store, kind: str, run: str, *, time: str = "2026-01-01T00:00:00Z", **payload: Any) -> None:
    """Apply one ingestion message."""
    text = json.dumps({"type": kind, "run_id": run, "timestamp": time, "payload": payload})
    envelope = decode(Record(0, 0, b"", text.encode()))
    (outcome,) = store.engine.transact(lambda transaction: store.applier.begin(transaction, [envelope]).finish())
    assert outcome.error is None


def read(store: Store, where: str, *elements: Any) -> Any:
    """The object under a key; None if it is not there, ``b""`` for an index entry."""
    value = dump(store).get((where, fdb.tuple.pack(elements)))
    return msgpack.unpackb(value) if value else value


def put(store: Store, where: str, value: Any, *elements: Any) -> None:
    """Write an object (or, as bytes, a raw value) under a key."""
    key = _prefix(store, where) + fdb.tuple.pack(elements)
    raw = value if isinstance(value, bytes) else msgpack.packb(value)
    store.engine.transact(lambda transaction: transaction.set(key, raw))


def mentions(store: Store, *elements: Any) -> list[tuple[str, tuple[Any, ...]]]:
    """All keys, by directory, that have every one of these elements or hold it as their value."""
    state: State = dump(store)
    found = []
    for (where, key), value in sorted(state.items()):
        unpacked = fdb.tuple.unpack(key)
        held = msgpack.unpackb(value, strict_map_key=False) if value else None
        if all(element in unpacked or element == held for element in elements):
            found.append((where, unpacked))
    return found


def id_of(store: Store, kind: str, name: str) -> str:
    """The uuid of the living tag or experiment of this name."""
    found = read(store, SYSTEM, f"{kind}s_by_name", name)
    assert isinstance(found, str)
    return found


def delete_experiment(store: Store, uuid: str) -> None:
    """As the API deletes an experiment: the runs go on pointing to it."""

    def work(transaction: Transaction) -> None:
        _clear_name(store, transaction, "experiment", uuid)
        _clear_below(store, transaction, SYSTEM, "experiments", uuid)
        _clear_below(store, transaction, SYSTEM, "experiment_runs", uuid)

    store.engine.transact(work)


def delete_tag(store: Store, uuid: str) -> None:
    """As the API deletes a tag: the runs' own keys stay, and entries under an earlier name."""

    def work(transaction: Transaction) -> None:
        name = _clear_name(store, transaction, "tag", uuid)
        _clear_below(store, transaction, SYSTEM, "tags", uuid)
        for (run,) in _below(store, transaction, SYSTEM, "tag_runs", uuid):
            transaction.clear(_key(store, SYSTEM, "run_tags", run, uuid))
        _clear_below(store, transaction, SYSTEM, "tag_runs", uuid)
        for (run,) in _below(store, transaction, INDEXES, "tag", name):
            transaction.clear(_key(store, INDEXES, "_rev", run, "tag", name, run))
        _clear_below(store, transaction, INDEXES, "tag", name)

    store.engine.transact(work)


def rename_tag(store: Store, uuid: str, name: str) -> None:
    """As the API renames a tag: the index entries stay under the old name."""

    def work(transaction: Transaction) -> None:
        _clear_name(store, transaction, "tag", uuid)
        transaction.set(_key(store, SYSTEM, "tags_by_name", name), msgpack.packb(uuid))
        transaction.set(_key(store, SYSTEM, "tags", uuid, "name"), msgpack.packb(name))

    store.engine.transact(work)


def relink_as_stock(store: Store, run: str, uuid: str, name: str) -> None:
    """As stock software gives a run whose experiment is gone another one: the old index entry stays."""
    old = read(store, SYSTEM, "run_experiment", run)

    def work(transaction: Transaction) -> None:
        transaction.clear(_key(store, SYSTEM, "experiment_runs", old, run))
        transaction.set(_key(store, SYSTEM, "experiment_runs", uuid, run), msgpack.packb(True))
        transaction.set(_key(store, SYSTEM, "run_experiment", run), msgpack.packb(uuid))
        transaction.set(_key(store, RUNS, run, "meta", "experiment_id", "__leaf__"), msgpack.packb(uuid))
        transaction.set(_key(store, INDEXES, "experiment", name, run), b"")
        transaction.set(_key(store, INDEXES, "_rev", run, "experiment", name, run), b"")

    store.engine.transact(work)


def _prefix(store: Store, where: str) -> bytes:
    directories = store.directories
    return {RUNS: directories.runs, INDEXES: directories.indexes, SYSTEM: directories.system}[where]


def _key(store: Store, where: str, *elements: Any) -> bytes:
    packed: bytes = fdb.tuple.pack(elements)
    return _prefix(store, where) + packed


def _clear_name(store: Store, transaction: Transaction, kind: str, uuid: str) -> Any:
    stored = transaction.get(_key(store, SYSTEM, f"{kind}s", uuid, "name")).wait()
    name = None if stored is None else msgpack.unpackb(stored)
    transaction.clear(_key(store, SYSTEM, f"{kind}s_by_name", name))
    return name


def _below(store: Store, transaction: Transaction, where: str, *elements: Any) -> list[tuple[Any, ...]]:
    prefix = _key(store, where, *elements)
    pairs = transaction.get_range(prefix + b"\x00", prefix + b"\xff").wait()
    return [fdb.tuple.unpack(key[len(prefix) :]) for key, _ in pairs]


def _clear_below(store: Store, transaction: Transaction, where: str, *elements: Any) -> None:
    prefix = _key(store, where, *elements)
    transaction.clear_range(prefix + b"\x00", prefix + b"\xff")
