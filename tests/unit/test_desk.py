"""A desk: jobs one after the other, answers in the asker's thread, and an end that does not wait for ever."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pytest

from bridge.desk import Desk
from demo.servers.process import wait_until

LONG = 60.0  # seconds, never waited out


class Blocked:
    """A desk whose first job waits until it is let go; it has begun when this is made."""

    def __init__(self) -> None:
        self.desk = Desk("test")
        self.go = threading.Event()
        self.done: list[str] = []
        begun = threading.Event()

        def job() -> str:
            begun.set()
            assert self.go.wait(LONG)
            return "first"

        self._ask(job)
        assert begun.wait(LONG)
        self._ask(lambda: "second")

    def is_refusing(self) -> bool:
        try:
            self._ask(lambda: "too late")
        except RuntimeError:
            return True
        return False

    def _ask(self, job: Callable[[], str]) -> None:
        self.desk.ask(job, self.done.append, lambda error: pytest.fail(str(error)))


def test_closing_drops_what_waits(caplog: pytest.LogCaptureFixture) -> None:
    blocked = Blocked()
    threading.Timer(0.2, blocked.go.set).start()
    with caplog.at_level(logging.ERROR):
        blocked.desk.close()
    assert blocked.done == ["first"]
    assert caplog.records == []  # a job that is dropped is no error
    blocked.desk.close()


def test_closing_before_the_deadline_finishes_what_waits() -> None:
    blocked = Blocked()
    threading.Timer(0.2, blocked.go.set).start()
    blocked.desk.close(deadline=time.monotonic() + LONG)
    assert blocked.done == ["first", "second"]
    blocked.desk.close(deadline=time.monotonic() + LONG)


def test_no_job_begins_past_the_deadline() -> None:
    """Each would take its timeout where the store is away, and the process would be killed at the end of its grace."""
    blocked = Blocked()
    closing = threading.Thread(target=lambda: blocked.desk.close(deadline=time.monotonic()))
    closing.start()
    wait_until(blocked.is_refusing, "the desk's closing", seconds=LONG)
    assert closing.is_alive()  # waits for the job under way
    blocked.go.set()
    closing.join(LONG)
    assert blocked.done == ["first"]
