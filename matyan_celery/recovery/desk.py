"""What the page asks of store and Redis. Every call blocks: handlers make them in `Desk.run`, beside Flower's loop."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any, Final, TypeVar

from matyan_celery.commands.options import open_existing
from storage.choices import CleanupChoice, read_cleanups, read_letters
from storage.cleanups import CleanupState
from storage.stalls import Stalls
from tasks.app import make_app
from tasks.queues import REQUEUE_MANY_TASK
from tasks.requeue import Requeued, Requeuer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery import Celery

    from matyan_celery.recovery.query import Item, Query
    from storage.batch import Record
    from storage.cleanups import Cleanup
    from storage.dead_letters import DeadLetter
    from storage.stalls import Stall
    from storage.store import Store
    from tasks.settings import Settings

T = TypeVar("T")

ROWS: Final = 50  # on a page
MOST: Final = 10_000  # cleanups of a state that are counted; more are "10,000+"
_COUNTED: Final = (CleanupState.FAILED, CleanupState.HELD, CleanupState.PENDING, CleanupState.RUNNING)
_TOLD: Final = 200  # messages kept for the page after a form
_THREADS: Final = 4
_REDIS_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class View:
    """What one look found.

    Attributes:
        cleanups: how many in each state, at most `MOST` + 1.
        letters: how many dead letters, by reason.
        lanes: stalled lanes.
        items: the cleanups or letters of the page asked for.
        position: where the next page begins; None: this is the last.
        looked_at: how many were looked at for this page.
    """

    cleanups: dict[CleanupState, int]
    letters: Counter[str]
    lanes: list[Stall]
    items: list[Any]
    position: str | None
    looked_at: int


class Desk:
    """Opens the store when it is first asked, so that Flower starts without it.

    Args:
        settings: which store, which Redis.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="recovery")
        self._lock = threading.Lock()
        self._opened: tuple[Store, Celery] | None = None
        self._celery: Celery | None = None
        self._told: OrderedDict[str, list[str]] = OrderedDict()

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do something blocking in a thread of our own; Flower's stay free for Flower."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)

    def _open(self) -> tuple[Store, Celery]:
        with self._lock:
            if self._opened is None:
                self._opened = (open_existing(self.settings), self._app())
            return self._opened

    def _app(self) -> Celery:
        if self._celery is None:
            self._celery = make_app(self.settings)
        return self._celery

    def close(self) -> None:
        """End the threads, and close the store. Closing twice is fine."""
        self._executor.shutdown(wait=True)
        with self._lock:
            opened, self._opened = self._opened, None
            app, self._celery = self._celery, None
        if opened is not None:
            opened[0].close()
        if app is not None:
            app.close()

    # -- looking ---------------------------------------------------------------------------------------------------

    def look(self, query: Query | None) -> View:
        """Counts of everything, and one page of what was asked for; None: counts alone.

        Raises:
            StorageError: the store did not answer, or cannot be used.
        """
        store, _ = self._open()
        cleanups = {state: store.cleanups.count_some(store.engine, state, most=MOST + 1) for state in _COUNTED}
        letters: Counter[str] = Counter()
        for (_, _, reason), count in store.dead_letters.count(store.engine).items():
            letters[reason] += count
        lanes = Stalls(store.ledger).find(store.engine)
        if query is None or query.show == "lanes":
            return View(cleanups, letters, lanes, [], None, 0)
        choice, position = query.choice(), query.after or None
        if isinstance(choice, CleanupChoice):
            found = read_cleanups(store, choice, position, limit=ROWS)
            return View(cleanups, letters, lanes, list(found.items), found.position, found.looked_at)
        page = read_letters(store, choice, position, limit=ROWS)
        return View(cleanups, letters, lanes, list(page.items), page.position, page.looked_at)

    def count_waiting(self, names: Sequence[str]) -> dict[str, int]:
        """How many tasks wait in queues, by name.

        Raises:
            OperationalError, RedisError: Redis did not answer.
        """
        with self._lock:
            app = self._app()
        with app.connection_for_read() as connection:
            connection.ensure_connection(max_retries=1, timeout=_REDIS_SECONDS)
            client: Any = connection.default_channel.client
            return {name: int(client.llen(name)) for name in names}

    def cleanup(self, run: str) -> Cleanup | None:
        """One cleanup; None where there is none. Raises `StorageError`."""
        store, _ = self._open()
        return store.engine.read(lambda transaction: store.cleanups.get(transaction, run))

    def letter(self, item: Item) -> tuple[DeadLetter, Record] | None:
        """One dead letter with its record; None where there is none. Raises `StorageError`."""
        store, _ = self._open()
        source = item.source
        if source is None:
            return None
        return store.engine.read(lambda transaction: store.dead_letters.get(transaction, source, item.number))

    # -- requeueing ------------------------------------------------------------------------------------------------

    def requeue(self, items: list[Item], *, force: bool = False, named: bool = False) -> list[str]:
        """Requeue selected items; a sentence for each.

        Args:
            items: which ones.
            force: delete although held; see `Requeuer.requeue_cleanup`.
            named: asked for on the item's own page; otherwise cleanups that a person holds are left.

        Raises:
            StorageError: the store did not answer; those before are done.
        """
        store, app = self._open()
        requeuer = Requeuer(store, app)
        return [f"{item}: {self._requeue(requeuer, item, force=force, named=named).words}" for item in items]

    def _requeue(self, requeuer: Requeuer, item: Item, *, force: bool, named: bool) -> Requeued:
        if item.source is None:
            return requeuer.requeue_cleanup(item.run, force=force, named=named)
        if item.kind == "lane":
            return requeuer.resend(item.source)
        found = self.letter(item)
        if found is None:
            return Requeued("gone", "gone: somebody else requeued or dropped it")
        return requeuer.requeue_letter(found[0])

    def requeue_all(self, query: Query) -> str:
        """Send the task that requeues all that a query chooses; a sentence.

        Raises:
            OperationalError, RedisError: Redis did not take it.
        """
        _, app = self._open()
        choice = query.choice()
        what = "cleanups" if isinstance(choice, CleanupChoice) else "dead_letters"
        fields = {name: str(value) for name, value in asdict(choice).items() if value}
        app.send_task(REQUEUE_MANY_TASK, (what, fields), retry=False)
        left = " Those that a person holds are left, for their own pages." if query.show == "held" else ""
        return f"A worker requeues them all, one after the other; the counts below follow.{left}"

    # -- messages for the page after a form ------------------------------------------------------------------------

    def tell(self, lines: list[str]) -> str:
        """Keep a message; its name for the address. In Flower's loop only."""
        name = token_urlsafe(9)
        self._told[name] = lines
        while len(self._told) > _TOLD:
            self._told.popitem(last=False)
        return name

    def told(self, name: str) -> list[str]:
        """A message that was kept; empty where there is none (any more)."""
        return self._told.get(name, [])
