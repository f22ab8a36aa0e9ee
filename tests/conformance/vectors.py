"""Conformance files: loading, what they expect of us, and comparing.

A file holds records and the key-values that they must leave (see the README beside the files). Ours differ from the
peer's in what docs/compatibility.md lists; a file whose state that changes has an entry in ``differences.py``.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import fdb.tuple
import msgpack

from storage.batch import Record
from storage.envelope import decode
from storage.errors import Poison

OWN = Path(__file__).parent / "cases"
SHARED = Path(os.environ.get("MATYAN_CONFORMANCE") or Path(__file__).parents[3] / "shared" / "conformance")
CLOCK = 1_800_000_000.0  # ours, for tombstones

Entry = tuple[str, bytes]
State = dict[Entry, bytes]


class Case(NamedTuple):
    name: str
    records: list[Record]
    initial: State
    expected: State
    approximate: frozenset[Entry]
    deleted: list[str] | None  # the runs whose deletion is published, sorted; None: the peer's process died before


def find_cases() -> list[Path]:
    """Our own cases, and the shared ones where they are."""
    return sorted(OWN.glob("*.json")) + sorted(SHARED.glob("[rs][0-9]*.json"))


def load_case(path: Path) -> Case:
    content = json.loads(path.read_text())
    records = [
        Record(offset, 1_700_000_000_000 + offset, b"", text.encode()) for offset, text in enumerate(content["raw"])
    ]
    suffix = "_one_per_batch" if "expected_one_per_batch" in content else ""
    rows = content["expected" + suffix]
    entries = [(row["dir"], bytes.fromhex(row["key_hex"]), bytes.fromhex(row["value_hex"])) for row in rows]
    approximate: set[Entry] = set()
    for derived in content["wall_clock_derived" + suffix]:
        number = derived["entry"]
        where, key, value = entries[number]
        time = _time_of(records[derived["message"]])
        elements = fdb.tuple.unpack(key)
        if derived["in"] == "key":
            changed = list(elements)
            changed[derived["element"]] = time
            key = fdb.tuple.pack(tuple(changed))
        elif elements[0] == "_deleted":
            value = msgpack.packb(CLOCK)
        else:
            value = msgpack.packb(time + derived.get("plus", 0.0))
            if "plus" in derived:
                approximate.add((where, key))
        entries[number] = (where, key, value)
    initial = {
        (row["dir"], bytes.fromhex(row["key_hex"])): bytes.fromhex(row["value_hex"])
        for row in content.get("initial", [])
    }
    expected = {(where, key): value for where, key, value in entries}
    deleted = None if content["crash"] else sorted(_run_of(event) for event in content["control_events"])
    return Case(content["name"], records, initial, expected, frozenset(approximate), deleted)


def _run_of(event: dict[str, Any]) -> str:
    assert (event["type"], event["key"], list(event["payload"])) == ("run_deleted", None, ["run_id"])
    run: str = event["payload"]["run_id"]
    return run


def _time_of(record: Record) -> float:
    try:
        return decode(record).timestamp
    except Poison:
        return 0.0


def name_uuids(state: State) -> State:
    """The same state with the random ids of tags and experiments replaced by ids made from their names."""
    names: dict[bytes, bytes] = {}
    for (where, key), value in state.items():
        elements = fdb.tuple.unpack(key)
        if where == "system" and elements[0] in {"tags", "experiments"} and elements[2:] == ("name",):
            digest = hashlib.sha256(f"{elements[0]} {value!r}".encode()).hexdigest()
            names[elements[1].encode()] = str(UUID(digest[:32])).encode()
    named = {}
    for (where, key), value in state.items():
        for uuid, name in names.items():
            key, value = key.replace(uuid, name), value.replace(uuid, name)  # noqa: PLW2901
        named[where, key] = value
    return named


def differences(case: Case, got: State) -> list[str]:
    """What a state has other than expected, in words; nothing where all is the same."""
    expected, found = name_uuids(case.expected), name_uuids(got)
    lines = []
    for entry in sorted(expected.keys() | found.keys()):
        wanted, present = expected.get(entry), found.get(entry)
        if wanted == present or (entry in case.approximate and _are_close(wanted, present)):
            continue
        lines.append(f"{show(entry)}: expected {show_value(wanted)}, found {show_value(present)}")
    return lines


def _are_close(one: bytes | None, other: bytes | None) -> bool:
    if one is None or other is None:
        return False
    return bool(abs(msgpack.unpackb(one) - msgpack.unpackb(other)) < 1e-5)


def show(entry: Entry) -> str:
    where, key = entry
    return f"{where} {fdb.tuple.unpack(key)!r:.300}"


def show_value(value: bytes | None) -> str:
    if value is None:
        return "nothing"
    if value == b"":
        return "an empty value"
    return f"{msgpack.unpackb(value, strict_map_key=False)!r:.80}"


def dump(store: Any) -> State:
    """The three Matyan directories of an open store."""
    state: State = {}
    directories = store.directories
    for where, prefix in (
        ("data/runs", directories.runs),
        ("data/indexes", directories.indexes),
        ("system", directories.system),
    ):
        pairs = store.engine.read(
            lambda transaction, prefix=prefix: transaction.get_range(prefix, prefix + b"\xff").wait()
        )
        state.update({(where, key[len(prefix) :]): value for key, value in pairs})
    return state


def load(store: Any, state: State) -> None:
    """Write a state into an open store."""
    prefixes = {
        "data/runs": store.directories.runs,
        "data/indexes": store.directories.indexes,
        "system": store.directories.system,
    }

    def work(transaction: Any) -> None:
        for (where, key), value in state.items():
            transaction.set(prefixes[where] + key, value)

    store.engine.transact(work)


def apply(store: Any, records: list[Record], size: int) -> list[Any]:
    """Apply records in batches of ``size``, each in one transaction; their outcomes."""
    outcomes: list[Any] = []
    for start in range(0, len(records), size):
        items: list[Any] = []
        for record in records[start : start + size]:
            try:
                items.append(decode(record))
            except Poison as error:
                items.append(error)
        outcomes += store.engine.transact(
            lambda transaction, items=items: store.applier.begin(transaction, items).finish()
        )
    return outcomes
