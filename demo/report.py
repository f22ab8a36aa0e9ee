"""What the demo found: the check of every value, and the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from demo.check import compare
from demo.terminal import console, say
from storage.store import open_store

if TYPE_CHECKING:
    from demo.frontier import Sent
    from demo.tally import Tally


def report(sent: Sent, tally: Tally, committed: int, seconds: float, store_url: str) -> list[str]:
    """Print what happened; the sentences that say what is wrong.

    Args:
        sent: what was sent.
        tally: what the workers logged.
        committed: records that the consumer group committed.
        seconds: from the first record to the last commit.
        store_url: where everything should be now.
    """
    say("comparing every sequence in the store with what was sent")
    with open_store(store_url) as store:
        wrong = compare(sent, store.engine)
        letters = len(list(store.dead_letters.each(store.engine)))
    if letters != sent.bad:
        wrong.append(f"{letters} dead letters, {sent.bad} bad records were sent")
    points = sum(len(steps) for steps in sent.points.values())
    table = Table(title="what happened")
    table.add_column("what")
    table.add_column("count", justify="right")
    for name, value in (
        ("records produced", sent.records),
        ("records applied", committed - letters),
        ("records dead-lettered", letters),
        ("duplicates turned away", tally.covered),
        ("batches", tally.batches),
        ("records a batch", round(sent.records / max(tally.batches, 1))),
        ("sequences compared", len(sent.points)),
        ("points compared", points),
    ):
        table.add_row(name, f"{value:,}")
    table.add_row("records per second, training included", f"{sent.records / seconds:,.0f}")
    console.print(table)
    if not wrong:
        say(f"all {points:,} points are there once, in order, with their values: nothing lost, nothing twice")
    return wrong
