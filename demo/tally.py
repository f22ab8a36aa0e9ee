"""What the workers did, counted from their log files: one JSON line a task of the ingestion route (`tasks.batches`)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from storage.meaning import INGEST

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Tally:
    """Sums over tasks.

    Attributes:
        applied: records applied, late records of deleted runs included.
        dead: records dead-lettered.
        covered: records that came again after they had been applied, and were turned away.
        batches: tasks that applied something.
        turned_away: tasks that had nothing left to apply: duplicates and those of an older epoch.
        times: when the first and the last batch was applied.
    """

    applied: int = 0
    dead: int = 0
    covered: int = 0
    batches: int = 0
    turned_away: int = 0
    times: list[datetime] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """From the first batch to the last."""
        return (max(self.times) - min(self.times)).total_seconds() if self.times else 0.0


def count_tasks(logs: list[Path]) -> Tally:
    """Sum up the log files of some workers; lines that are not ours, or cut short by a kill, are passed over."""
    tally = Tally()
    for log in logs:
        for line in log.read_text(errors="replace").splitlines() if log.exists() else ():
            fields = _parse(line)
            if fields is not None:
                _add(tally, fields)
    return tally


def _parse(line: str) -> dict[str, Any] | None:
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    ours = isinstance(fields, dict) and fields.get("event") == "batch" and fields.get("route") == INGEST
    return fields if ours else None


def _add(tally: Tally, fields: dict[str, Any]) -> None:
    done = fields["applied"] + fields["dropped"]
    dead = sum(fields["dead"].values())
    tally.applied += done
    tally.dead += dead
    tally.covered += fields["covered"] if fields["state"] != "duplicate" else fields["records"]
    if done or dead:
        tally.batches += 1
        tally.times.append(datetime.fromisoformat(fields["timestamp"]))
    else:
        tally.turned_away += 1
