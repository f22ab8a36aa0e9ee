"""A wait that a signal interrupts does not harm the waits that follow it in the same thread."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.contract.actors import count_up
from tests.engines import make_space, open_kind, remove_directory
from tests.fdb_double.library import Library, load_binding

if TYPE_CHECKING:
    from storage.engine import Engine, Transaction

DEADLINE = 60.0
SIGNAL = signal.SIGUSR1


class Interrupt(BaseException):
    """As KeyboardInterrupt: no Exception."""


class SoftLimit(Exception):
    """As Celery's SoftTimeLimitExceeded."""


class Striker:
    """Interrupts the thread that made it.

    Args:
        error: what the signal raises in that thread.
    """

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error
        self._target = threading.get_ident()
        self._struck = threading.Event()

    def handle(self, *_: object) -> None:
        if not self._struck.is_set():
            self._struck.set()
            raise self.error

    @property
    def has_struck(self) -> bool:
        """Whether it has raised, also where that was swallowed, as it is in a destructor."""
        return self._struck.is_set()

    @contextmanager
    def strike_when(self, ready: Callable[[], object]) -> Iterator[None]:
        """Send the signal once ``ready`` returns, again and again until it has interrupted something.

        One alone may come right before the system call that it was to interrupt, and then nothing wakes that up.
        """
        self._struck.clear()

        def run() -> None:
            ready()
            while not self._struck.wait(0.01):
                signal.pthread_kill(self._target, SIGNAL)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            self._struck.set()
            thread.join()


@pytest.fixture(params=[Interrupt, SoftLimit])
def striker(request: pytest.FixtureRequest) -> Iterator[Striker]:
    made = Striker(request.param)
    before = signal.signal(SIGNAL, made.handle)
    yield made
    signal.signal(SIGNAL, before)


def test_the_next_wait_waits_for_its_own_answer(tmp_path: Path, striker: Striker) -> None:
    """The client's package keeps a semaphore for each thread: one that was left to an old future ends a later wait."""
    _, library = load_binding()
    engine = open_kind("binding", tmp_path)
    key = make_space(engine).key("a")
    engine.transact(lambda transaction: transaction.set(key, b"value"))
    waits: tuple[Callable[[], object], ...] = (
        lambda: engine.read(read(key)),
        lambda: engine.transact(write(key)),
        lambda: engine.directory("new"),
    )
    for wait in waits:
        library.hold()
        try:
            with striker.strike_when(library.waited_for.wait), pytest.raises(striker.error):
                wait()
        finally:
            library.release()  # only now the interrupted wait gets its answer
        for _ in range(5):
            assert read_late(engine, library, key) == b"value"
    engine.close()


def read_late(engine: Engine, library: Library, key: bytes) -> bytes | None:
    """The value of a key, by a wait whose answer comes a moment later."""
    library.hold()
    late = threading.Timer(0.02, library.release)
    late.start()
    value = engine.read(read(key))
    late.join()
    return value


def read(key: bytes) -> Callable[[Transaction], bytes | None]:
    return lambda transaction: transaction.get(key).wait()


def write(key: bytes) -> Callable[[Transaction], None]:
    def work(transaction: Transaction) -> None:
        assert transaction.get_range(key, key + b"\xff").wait()
        transaction.set(key, b"value")

    return work


@pytest.mark.timeout(30)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it strikes where it is swallowed
def test_a_wait_ends_although_its_callback_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A future that is ready when its callback is set is called back in the waiting thread: a signal may come there."""
    binding, library = load_binding()
    engine = open_kind("binding", tmp_path)
    key = make_space(engine).key("a")
    engine.transact(lambda transaction: transaction.set(key, b"value"))

    def interrupted(_: object) -> None:
        raise Interrupt

    with monkeypatch.context() as patched:
        patched.setattr(binding.impl, "_unpin_callback", interrupted)  # what the callback does first
        assert read_late(engine, library, key) == b"value"
    engine.close()


@pytest.mark.parametrize("kind", ["binding", "cluster"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it may strike in a destructor
def test_the_store_is_of_use_after_many_interrupts(kind: str, tmp_path: Path, striker: Striker) -> None:
    engine: Engine = open_kind(kind, tmp_path)
    space = make_space(engine)
    key = space.key("n")
    random = Random(7)
    try:
        counted, rounds = 0, 25
        for _ in range(rounds):
            pause = random.uniform(0, 0.02)
            counting = threading.Event()

            def ready(pause: float = pause, counting: threading.Event = counting) -> None:
                counting.wait()
                time.sleep(pause)

            with striker.strike_when(ready):
                try:
                    counting.set()
                    while not striker.has_struck:
                        count_up(engine, key, 1)
                        counted += 1
                except striker.error:
                    pass
        number = engine.transact(settle(key))
        assert counted <= number <= counted + rounds  # some were interrupted behind their commit
        count_up(engine, key, 50)
        assert engine.transact(settle(key)) == number + 50
    finally:
        remove_directory(kind, engine, space.path)
        engine.close()


def settle(key: bytes) -> Callable[[Transaction], int]:
    """The number, once no commit that was interrupted on its way can change it: written, it conflicts with those."""

    def work(transaction: Transaction) -> int:
        value = transaction.get(key).wait() or b"0"
        transaction.set(key, value)
        return int(value)

    return work
