"""What the demo says: headings, and progress as a bar on a terminal, as plain lines elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SLOWEST_LINE = 2.0  # seconds between plain lines of progress

console = Console(highlight=False)


def say(text: str) -> None:
    """What is happening now."""
    console.print(f"[bold]==[/bold] {text}", soft_wrap=True)


def tell(text: str) -> None:
    """Plain words, as they are, whatever brackets are in them."""
    console.print(text, soft_wrap=True, markup=False)


def show_progress(parts: Iterator[float], describe: Callable[[], str]) -> Iterator[float]:
    """Pass on the parts that are done, 0 to 1, and show them with a phrase."""
    if console.is_terminal:
        columns = (TextColumn("   {task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("", total=1.0)
            for part in parts:
                progress.update(task, completed=part, description=describe())
                yield part
        return
    last = time.monotonic()
    for part in parts:
        if time.monotonic() - last >= _SLOWEST_LINE:
            last = time.monotonic()
            tell(f"   {describe()}, {part:.0%} of the training done")
        yield part
