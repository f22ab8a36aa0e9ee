"""Compare a store with what was sent: every sequence point by point. Reads keys by itself, not through the handlers."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import fdb.tuple
import msgpack

from storage.scan import scan

if TYPE_CHECKING:
    from demo.frontier import Sent
    from storage.engine import Engine

_MOST = 10  # complaints that are printed


class Found:
    """What a store holds of runs, read from its keys (CONTRACT 4)."""

    def __init__(self, engine: Engine) -> None:
        self.points: dict[tuple[str, int, str], dict[int, Any]] = defaultdict(dict)
        self.contexts: dict[str, dict[int, Any]] = defaultdict(dict)
        self.leaves: dict[str, dict[tuple[Any, ...], Any]] = defaultdict(dict)
        self.tags: dict[str, set[str]] = defaultdict(set)
        self.experiments: dict[str, str] = {}
        self.active: Counter[tuple[bool, str]] = Counter()
        for row in scan(engine, "data/runs"):
            self._read_run(fdb.tuple.unpack(row.key), row.value)
        for row in scan(engine, "data/indexes"):
            self._read_index(fdb.tuple.unpack(row.key))

    def _read_run(self, key: tuple[Any, ...], value: bytes) -> None:
        match key:
            case (run, "seqs", context, name, "val", step):
                self.points[run, context, name][step] = msgpack.unpackb(value)
            case (run, "contexts", context):
                self.contexts[run][context] = msgpack.unpackb(value)
            case (run, ("attrs" | "meta"), *_):
                self.leaves[run][key[1:]] = msgpack.unpackb(value)

    def _read_index(self, key: tuple[Any, ...]) -> None:
        match key:
            case ("tag", name, run):
                self.tags[run].add(name)
            case ("experiment", name, run):
                self.experiments[run] = name
            case ("active", active, run):
                self.active[active, run] += 1


def compare(sent: Sent, engine: Engine) -> list[str]:
    """What the store has otherwise than sent, in sentences; nothing if all is well."""
    found = Found(engine)
    wrong: list[str] = []
    for place in sorted(sent.points.keys() | found.points.keys()):
        wrong += _compare_points(place, sent.points.get(place, {}), found.points.get(place, {}))
    for what, wanted, present in (
        ("contexts", dict(sent.contexts), dict(found.contexts)),
        ("tags", {run: tags for run, tags in sent.tags.items() if tags}, dict(found.tags)),
        ("experiments", sent.experiments, found.experiments),
        ("active runs", {}, {run: count for (active, run), count in found.active.items() if active}),
        ("finished runs", dict.fromkeys(sent.finished, 1), {r: n for (on, r), n in found.active.items() if not on}),
    ):
        if wanted != present:
            wrong.append(f"{what}: sent {wanted!r:.200}, found {present!r:.200}")
    for run, params in sent.params.items():
        wrong += _compare_leaves(run, ("attrs", "hparams"), params, found)
    for run, blobs in sent.blobs.items():
        for path, key in blobs.items():
            if found.leaves[run].get(("attrs", "__blobs__", path, "s3_key", "__leaf__")) != key:
                wrong.append(f"run {run}: blob {path} is not noted")
    if len(wrong) > _MOST:
        wrong[_MOST:] = [f"and {len(wrong) - _MOST} more"]
    return wrong


def _compare_points(place: tuple[str, int, str], sent: dict[int, Any], found: dict[int, Any]) -> list[str]:
    if sent == found:
        return []
    missing, extra = sorted(sent.keys() - found.keys()), sorted(found.keys() - sent.keys())
    other = sorted(step for step in sent.keys() & found.keys() if sent[step] != found[step])
    return [f"sequence {place}: steps missing {missing[:5]}, too many {extra[:5]}, with other values {other[:5]}"]


def _compare_leaves(run: str, path: tuple[Any, ...], value: Any, found: Found) -> list[str]:
    """A tree of parameters, leaf by leaf."""
    if isinstance(value, dict):
        return [line for name, child in value.items() for line in _compare_leaves(run, (*path, name), child, found)]
    if isinstance(value, list):
        return [
            line for index, child in enumerate(value) for line in _compare_leaves(run, (*path, index), child, found)
        ]
    present = found.leaves[run].get((*path, "__leaf__"))
    return [] if present == value else [f"run {run}: {path} is {present!r}, sent was {value!r}"]
