"""A desk: one thread that does blocking jobs one after the other, and hands the answers back to the loop that asked."""

from __future__ import annotations

import queue
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Desk:
    """Jobs go in with `ask`; `answer` runs, in the caller's thread, what follows from those that are done.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._closed = False
        self._done: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def ask(
        self,
        job: Callable[[], T],
        then: Callable[[T], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Do ``job`` in the desk's thread; later `answer` calls ``then`` with its result, or ``failed``."""

        def finish(future: Future[T]) -> None:
            if future.cancelled():
                return
            error = future.exception()
            if error is None:
                self._done.put(lambda: then(future.result()))
            elif isinstance(error, Exception):
                self._done.put(lambda: failed(error))

        self._executor.submit(job).add_done_callback(finish)

    def answer(self) -> None:
        """Run what follows from the jobs that are done by now."""
        while True:
            try:
                follow = self._done.get_nowait()
            except queue.Empty:
                return
            follow()

    def close(self, *, deadline: float | None = None) -> None:
        """End the thread after the job under way. Closing twice is fine.

        Args:
            deadline: until then (`time.monotonic`) the jobs that wait are done too; None: not at all.
        """
        if deadline is not None and not self._closed:
            wait([self._executor.submit(lambda: None)], timeout=max(deadline - time.monotonic(), 0.0))
        self._closed = True
        self._executor.shutdown(wait=True, cancel_futures=True)
        self.answer()
