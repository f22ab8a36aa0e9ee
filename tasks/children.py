"""Metrics of a worker's children, added up by its parent: each child counts in files of its own, which outlive it.

Prometheus' multiprocess mode, with what it leaves to us: the gauges of children that were killed go, and the files of
dead children are merged into one, or a worker whose children are replaced often would read ever more of them.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from typing import TYPE_CHECKING, Final

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from tasks.heartbeat import is_alive

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from prometheus_client.core import Metric as Family

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
_FILE: Final = re.compile(r"(counter|histogram|gauge_\w+?)_(\d+|all)\.db")
_MERGED: Final = "all"
_MERGE_AT: Final = 16  # files of dead children


def prepare_folder(parent: Path) -> Path:
    """An empty folder for this worker's children, before they are forked; those of dead workers are removed.

    Args:
        parent: the folder of all workers' folders. Each has its worker's process id for a name.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.iterdir():
        if left.name.isdecimal() and (int(left.name) == os.getpid() or not is_alive(int(left.name))):
            shutil.rmtree(left, ignore_errors=True)
    folder = parent / str(os.getpid())
    folder.mkdir(exist_ok=True)
    os.environ[VARIABLE] = str(folder)
    values.ValueClass = values.get_value_class()  # decided at its import, which may have been before
    return folder


def forget_child(pid: int) -> None:
    """What a child does at its end: its gauges go, its counts stay."""
    if VARIABLE in os.environ:
        mark_process_dead(pid)


class ChildMetrics(Collector):
    """Adds the children's files up, at each scrape.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def collect(self) -> Iterable[Family]:
        """Sums over all children, dead ones included."""
        with self._lock:
            self._bury()
            files = [str(file) for file, _, _ in self._files()]
            return list(MultiProcessCollector.merge(files))

    def _files(self) -> list[tuple[Path, str, str]]:
        """File, kind and process id. One that a child is just making is left for the next time."""
        found = []
        for file in sorted(self._folder.iterdir()):
            match = _FILE.fullmatch(file.name)
            if match and _has_content(file):
                found.append((file, match.group(1), match.group(2)))
        return found

    def _bury(self) -> None:
        dead: dict[str, list[Path]] = {}
        for file, kind, pid in self._files():
            if pid == _MERGED or is_alive(int(pid)):
                continue
            if kind.startswith("gauge"):
                file.unlink(missing_ok=True)
            else:
                dead.setdefault(kind, []).append(file)
        for kind, files in dead.items():
            if len(files) >= _MERGE_AT:
                self._merge(kind, files)

    def _merge(self, kind: str, files: list[Path]) -> None:
        merged, new = self._folder / f"{kind}_{_MERGED}.db", self._folder / f"{kind}.new"
        new.unlink(missing_ok=True)
        sources = [*files, merged] if merged.exists() else files
        written = MmapedDict(str(new))
        for family in MultiProcessCollector.merge([str(file) for file in sources], accumulate=False):
            for sample in family.samples:
                names = list(sample.labels)
                key = mmap_key(
                    family.name, sample.name, names, [sample.labels[name] for name in names], family.documentation
                )
                written.write_value(key, sample.value, 0.0)
        written.close()
        new.replace(merged)
        for file in files:
            file.unlink()


def _has_content(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:
        return False
