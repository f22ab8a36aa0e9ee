"""The page's addresses. Who may see it is Flower's authentication; what may be written is decided here.

Flower checks forged requests only as far as its own pages need it. Here every form carries Tornado's token, whatever
Flower's authentication is, and a browser that says that the form stood on another site is refused.
"""

from __future__ import annotations

import base64
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urlparse

import tornado.web
from flower.views import BaseHandler
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from matyan_celery.commands.printing import show_bytes, show_headers, show_time
from matyan_celery.recovery.desk import MOST, ROWS, Desk, View
from matyan_celery.recovery.query import WAITING, Item, Query, Show, read_item, read_query
from matyan_celery.recovery.rows import (
    HEADS,
    Row,
    show_cleanup,
    show_count,
    show_deleted,
    show_letter,
    show_size,
    show_stall,
    show_when,
)
from storage.batch import NO_TIME
from storage.cleanups import CleanupState
from storage.errors import StorageError
from storage.masking import mask_url
from tasks.redis_answers import explain

if TYPE_CHECKING:
    from storage.stalls import Stall

log = logging.getLogger(__name__)  # Flower's own way

_LOGGED: Final = 2_000  # characters of what became of it
_TASKS: Final = 2_000  # of Flower's memory, newest first, that are looked through for a lane's
_SELECTED: Final = 10 * ROWS  # in one form
_VALUE: Final = 100_000  # characters of a record that are shown
_POLICY: Final = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'self'"
)


class _Handler(BaseHandler):  # type: ignore[misc]  # Flower has no types
    def initialize(self, desk: Desk) -> None:
        self._desk = desk

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.clear_header("Access-Control-Allow-Origin")  # Flower's, for an API that is open to all
        self.set_header("Content-Security-Policy", _POLICY)
        self.set_header("Cache-Control", "no-store")

    def check_xsrf_cookie(self) -> None:
        """Refuse a form that did not stand on our page.

        Raises:
            HTTPError: 403.
        """
        site, origin = self.request.headers.get("Sec-Fetch-Site"), self.request.headers.get("Origin")
        if site is not None and site != "same-origin":
            raise tornado.web.HTTPError(HTTPStatus.FORBIDDEN, "a form of another site is refused")
        if site is None and origin is not None and urlparse(origin).netloc != self.request.host:
            raise tornado.web.HTTPError(HTTPStatus.FORBIDDEN, "a form of another site is refused")
        tornado.web.RequestHandler.check_xsrf_cookie(self)

    def plain(self, name: str) -> str:
        """An argument as it was sent (Flower's own method escapes it); empty where it is missing."""
        values = self.get_arguments(name, strip=False)
        return str(values[-1]) if values else ""

    def refusal(self) -> str:
        """Why nothing may be requeued here; empty where it may."""
        options = self.application.options
        if options.read_only:
            return "Flower runs with --read_only."
        if not (options.basic_auth or options.auth or self._desk.settings.recovery_allow_unauthenticated):
            return (
                "Flower runs without authentication, so nothing can be requeued here: start it with --basic_auth or "
                "--auth, or set RECOVERY_ALLOW_UNAUTHENTICATED=true."
            )
        return ""

    def who(self) -> str:
        """Who asks, for the log."""
        if isinstance(self.current_user, str):
            return self.current_user
        kind, _, credentials = self.request.headers.get("Authorization", "").partition(" ")
        if kind != "Basic":
            return "somebody"
        return base64.b64decode(credentials).decode(errors="replace").partition(":")[0]

    def knows_task(self, task_id: str) -> bool:
        """Whether Flower has a page of a task."""
        return bool(task_id) and self.application.events.state.tasks.get(task_id) is not None

    def show(self, template: str, **names: Any) -> None:
        """Render one of our templates with what all of them need."""
        self.render(template, refusal=self.refusal(), static=self._static, **names)

    def _static(self, name: str) -> str:
        return str(self.reverse_url("recovery_static", name))

    def show_away(self, error: Exception) -> None:
        """Say that store or Redis did not answer, or cannot be used."""
        self.set_status(HTTPStatus.SERVICE_UNAVAILABLE)
        store = isinstance(error, StorageError)
        self.show("recovery_away.html", error=f"{type(error).__name__}: {error}" if store else mask_url(explain(error)))


class RecoveryHandler(_Handler):
    """``/recovery``: counts, and one page of what was asked for."""

    @tornado.web.authenticated
    async def get(self) -> None:
        """Show it; without a question, what most needs a person."""
        try:
            if self.plain("show"):
                query = read_query(self.plain, "failed")
                view = await self._desk.run(self._desk.look, query)
            else:
                query = read_query(self.plain, _most_urgent(await self._desk.run(self._desk.look, None)))
                view = await self._desk.run(self._desk.look, query)
        except StorageError as error:
            self.show_away(error)
            return
        rows = self._rows(query, view)
        self.show(
            "recovery.html",
            query=query,
            view=view,
            rows=rows,
            heads=HEADS[query.show if query.show in HEADS else "cleanups"],
            count=lambda number: show_count(number, MOST),
            states=CleanupState,
            total=self._total(query, view),
            may_all=query.show in WAITING,
            told=self._desk.told(self.plain("told")),
            detail=self._detail,
        )

    def _rows(self, query: Query, view: View) -> list[Row]:
        if query.show == "lanes":
            return [show_stall(stall, **self._find_task(stall)) for stall in view.lanes]
        if query.show == "letters":
            return [show_letter(letter) for letter in view.items]
        return [show_cleanup(entry, known=self.knows_task(entry.task_id)) for entry in view.items]

    def _detail(self, item: Item) -> str:
        """The address of an item's own page; empty for lanes."""
        if item.kind == "lane":
            return ""
        if item.kind == "cleanup":
            return f"{self.reverse_url('recovery_cleanup')}?{urlencode({'run': item.run})}"
        return f"{self.reverse_url('recovery_letter')}?{urlencode({'item': item.pack()})}"

    def _total(self, query: Query, view: View) -> str:
        """How many *Requeue all* means, as far as that is known; empty where it is not."""
        if query.find:
            return ""
        if query.show == "letters":
            return f"{view.letters[query.reason] if query.reason else view.letters.total():,}"
        counted = view.cleanups.get(CleanupState(query.show)) if query.show != "lanes" else len(view.lanes)
        return "" if counted is None else show_count(counted, MOST)

    def _find_task(self, stall: Stall) -> dict[str, str]:
        """The newest task of a stalled batch that Flower remembers, and its error."""
        wanted = f"({stall.source} lane {stall.lane} offsets {stall.first}..{stall.last} "
        for task_id, task in self.application.events.state.tasks_by_time(limit=_TASKS):
            if str(task.args or "").startswith(wanted):
                return {"task": task_id, "error": str(task.traceback or task.exception or "")}
        return {"task": "", "error": ""}


class RequeueHandler(_Handler):
    """``/recovery/requeue``: what the buttons do; then back to the page with what became of it."""

    @tornado.web.authenticated
    async def post(self) -> None:
        """Requeue what is selected, or all that is chosen."""
        refusal = self.refusal()
        if refusal:
            raise tornado.web.HTTPError(HTTPStatus.FORBIDDEN, refusal)
        query = read_query(self.plain, "failed")
        try:
            lines = await self._requeue(query)
        except (StorageError, OperationalError, RedisError) as error:
            self.show_away(error)
            return
        log.info("%s asked on the page: %s", self.who(), "; ".join(lines)[:_LOGGED])
        place = f"{self.reverse_url('recovery')}?{urlencode(query.fields() | {'told': self._desk.tell(lines)})}"
        self.redirect(place, status=HTTPStatus.SEE_OTHER)

    async def _requeue(self, query: Query) -> list[str]:
        if self.plain("all"):
            if query.show not in WAITING:
                raise tornado.web.HTTPError(
                    HTTPStatus.BAD_REQUEST, f"not all that is {query.show} can be requeued at once"
                )
            if query.show == "lanes":
                items = [
                    Item("lane", source=stall.source, number=stall.lane)
                    for stall in (await self._desk.run(self._desk.look, None)).lanes
                ]
                return await self._desk.run(self._desk.requeue, items)
            return [await self._desk.run(self._desk.requeue_all, query)]
        try:
            items = [read_item(text) for text in self.get_body_arguments("item", strip=False)]
        except ValueError as error:
            raise tornado.web.HTTPError(HTTPStatus.BAD_REQUEST, str(error)) from error
        if len(items) > _SELECTED:
            raise tornado.web.HTTPError(HTTPStatus.BAD_REQUEST, f"select {_SELECTED} at most")
        if self.plain("force"):
            names = [item.run for item in items if item.kind == "cleanup"]
            if names != [self.plain("confirm")]:
                return ["Not forced: the run id that was typed is not this run's."]
            return await self._desk.run(lambda: self._desk.requeue(items, force=True, named=True))
        if not items:
            return ["Nothing was selected."]
        named = bool(self.plain("named")) and len(items) == 1  # on the item's own page, where its reason is shown
        return await self._desk.run(lambda: self._desk.requeue(items, named=named))


class CleanupHandler(_Handler):
    """``/recovery/cleanup?run=``: one cleanup with all that is known of it."""

    @tornado.web.authenticated
    async def get(self) -> None:
        """Show it."""
        run = self.plain("run")
        try:
            entry = await self._desk.run(self._desk.cleanup, run)
        except StorageError as error:
            self.show_away(error)
            return
        if entry is None:
            raise tornado.web.HTTPError(HTTPStatus.NOT_FOUND, "There is no cleanup of this run (any more).")
        facts = [
            ("Run", entry.run),
            ("State", f"{entry.state}{' by a person' if entry.by_hand else ''}{', forced' if entry.forced else ''}"),
            ("Asked by", {"event": "an event", "orphans": "the sweep for orphans", "hand": "a person"}[entry.source]),
            ("Deletes", "everything under the run's prefix" if entry.whole else f"{entry.named:,} named keys"),
            ("Deleted", show_deleted(entry)),
            ("Attempts", f"{entry.attempts} in round {entry.round}"),
            ("Asked", show_when(entry.created)),
            ("Changed", show_when(entry.updated)),
            ("Due", f"{show_time(entry.due)[:19].replace('T', ' ')} UTC" if entry.is_open else ""),
            ("Last task", entry.task_id),
        ]
        self.show(
            "recovery_item.html",
            title="Cleanup",
            item=Item("cleanup", entry.run),
            query=Query(_show_of(entry.state)),
            facts=[(name, value) for name, value in facts if value],
            error=entry.error,
            task=entry.task_id if self.knows_task(entry.task_id) else "",
            force=entry.state is CleanupState.HELD,
            run=entry.run,
            parts=[],
        )


class LetterHandler(_Handler):
    """``/recovery/letter?item=``: one dead letter with its record."""

    @tornado.web.authenticated
    async def get(self) -> None:
        """Show it."""
        try:
            item = read_item(self.plain("item"))
            found = await self._desk.run(self._desk.letter, item)
        except ValueError as error:
            raise tornado.web.HTTPError(HTTPStatus.BAD_REQUEST, str(error)) from error
        except StorageError as error:
            self.show_away(error)
            return
        if found is None:
            raise tornado.web.HTTPError(HTTPStatus.NOT_FOUND, "There is no such dead letter (any more).")
        letter, record = found
        facts = [
            ("Record", f"{letter.source} offset {letter.offset} (lane {letter.lane})"),
            ("Run", letter.run or "(no run id)"),
            ("Type", letter.type or "(none that could be read)"),
            ("Reason", letter.reason),
            ("Kept", show_when(letter.time)),
            ("Requeued", f"{letter.requeues} times, and failed again" if letter.requeues else ""),
            ("Sent", "(no time)" if record.timestamp_ms == NO_TIME else show_when(record.timestamp_ms / 1_000)),
            ("Size", show_size(letter.size)),
        ]
        value = show_bytes(record.value)
        cut = (
            f"\n… cut here; all of it: matyan-celery dead-letters show --topic {letter.source.topic} "
            f"--partition {letter.source.partition} --offset {letter.offset} --raw"
        )
        self.show(
            "recovery_item.html",
            title="Dead letter",
            item=item,
            query=Query("letters"),
            facts=[(name, value) for name, value in facts if value],
            error=letter.error,
            task="",
            force=False,
            run=letter.run,
            parts=[
                *([("Headers", show_headers(record.headers)[:_VALUE])] if record.headers else []),
                ("Key", show_bytes(record.key)[:_VALUE]),
                ("Value", value if len(value) <= _VALUE else value[:_VALUE] + cut),
            ],
        )


def _most_urgent(view: View) -> Show:
    if view.cleanups[CleanupState.FAILED]:
        return "failed"
    if view.letters:
        return "letters"
    if view.cleanups[CleanupState.HELD]:
        return "held"
    return "lanes" if view.lanes else "failed"


def _show_of(state: CleanupState) -> Show:
    return next(show for show in ("failed", "held", "pending", "running", "done") if show == state)
