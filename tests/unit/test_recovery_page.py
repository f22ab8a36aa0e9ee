"""The page in Flower, as HTTP: who may see and write, forged forms, text from outside, stores that are away."""

from __future__ import annotations

import asyncio
import html
import json
import re
import threading
import types
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import flower.urls
import pytest
from flower.app import Flower
from flower.options import default_options
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from matyan_celery.recovery.desk import Desk
from matyan_celery.recovery.install import install
from storage.batch import NO_TIME, Epoch, Record, Source
from storage.cleanups import CleanupState
from storage.dead_letters import DeadLetter
from storage.ledger import Owner
from storage.stalls import Stall, Stalls
from storage.store import Store, open_store
from tasks.app import make_app
from tasks.settings import load_settings

SOURCE = Source("cluster", "data-ingestion", "topic-1", 2)
NASTY = "<script>alert('x')</script>\"&"
BASIC = {"Authorization": "Basic " + b64encode(b"user:password").decode()}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with open_store(url) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _flower_as_it_was() -> Iterator[None]:
    handlers, settings = list(flower.urls.handlers), dict(flower.urls.settings)
    yield
    flower.urls.handlers[:] = handlers
    flower.urls.settings.clear()
    flower.urls.settings.update(settings)


@dataclass
class Client:
    """A browser that keeps the token's cookie."""

    port: int
    prefix: str
    headers: dict[str, str]
    token: str = ""
    cookie: str = ""

    async def get(self, path: str, **headers: str) -> HTTPResponse:
        response = await self._fetch(path, headers=headers)
        for cookie in response.headers.get_list("Set-Cookie"):
            if cookie.startswith("_xsrf="):
                self.cookie = cookie.split(";")[0]
        found = re.search(r'name="_xsrf" value="([^"]+)"', text_of(response))
        self.token = html.unescape(found.group(1)) if found else self.token
        return response

    async def post(self, path: str, fields: list[tuple[str, str]], **headers: str) -> HTTPResponse:
        if self.token:
            fields = [*fields, ("_xsrf", self.token)]
        return await self._fetch(path, method="POST", body=urlencode(fields), headers=headers)

    async def _fetch(self, path: str, headers: dict[str, str], **options: Any) -> HTTPResponse:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {**self.headers, **({"Cookie": self.cookie} if self.cookie else {}), **headers}
        return await AsyncHTTPClient().fetch(
            f"http://127.0.0.1:{self.port}{self.prefix}{path}",
            headers=sent,
            raise_error=False,
            follow_redirects=False,
            **options,
        )


def text_of(response: HTTPResponse) -> str:
    return response.body.decode()


def page(
    url: str,
    script: Callable[[Client], Awaitable[None]],
    *,
    headers: dict[str, str] | None = None,
    settings: dict[str, Any] | None = None,
    **options: Any,
) -> None:
    """Run a script against Flower's handlers, in this process; Redis is nowhere."""
    ours = load_settings(None, storage_url=url, redis_url="redis://127.0.0.1:1/0", **(settings or {}))
    desk = install(ours)
    assert install(ours) is desk  # twice is fine
    values = {option.name.replace("-", "_"): option.value() for option in default_options._options.values()}
    chosen = types.SimpleNamespace(**{**values, "basic_auth": ["user:password"], "conf": "", **options})
    prefix = f"/{options['url_prefix']}" if options.get("url_prefix") else ""

    async def run() -> None:
        from tornado.ioloop import IOLoop

        with make_app(ours) as celery_app:
            application = Flower(capp=celery_app, options=chosen, io_loop=IOLoop.current(), **flower.urls.settings)
            server = HTTPServer(application)
            (socket,) = bind_sockets(0, "127.0.0.1")
            server.add_sockets([socket])
            try:
                await script(Client(socket.getsockname()[1], prefix, BASIC if headers is None else headers))
            finally:
                server.stop()
                await server.close_all_connections()
                application.executor.shutdown(wait=True)

    try:
        asyncio.run(run())
    finally:
        desk.close()


def fail(store: Store, run: str, error: str = "AccessDenied") -> None:
    def work(transaction: Any) -> None:
        store.cleanups.ask(transaction, run, source="event", now=1.0)
        store.cleanups.begin(transaction, run, task_id="t", token="token", now=1.0, lease=9.0)
        store.cleanups.fail(transaction, run, token="token", error=error, tries=1, due=2.0, now=2.0)

    store.engine.transact(work)


def hold(store: Store, run: str) -> None:
    fail(store, run)
    store.engine.transact(lambda transaction: store.cleanups.hold(transaction, run, reason="it lives", now=3.0))


def one_of_each_state(store: Store) -> None:
    """Cleanups of runs that are named after their states."""

    def work(transaction: Any) -> None:
        for run in ("pending", "running", "done"):
            store.cleanups.ask(transaction, run, source="event", now=1.0)
        for run in ("running", "done"):
            store.cleanups.begin(transaction, run, task_id="t", token="token", now=1.0, lease=9.0)
        store.cleanups.finish(transaction, "done", token="token", seen=1, now=2.0)

    store.engine.transact(work)
    fail(store, "failed")
    hold(store, "held")


def keep(store: Store, offset: int, *, run: str = "run-1", error: str = "no number", value: bytes = b"{}") -> None:
    letter = DeadLetter(SOURCE, 0, offset, "invalid", error, 1.0, run, "log_metric", len(value))
    record = Record(offset, 0, b"key", value)
    store.engine.transact(lambda transaction: store.dead_letters.keep(transaction, letter, record))


def state_of(store: Store, run: str) -> CleanupState:
    entry = store.engine.read(lambda transaction: store.cleanups.get(transaction, run))
    assert entry is not None
    return entry.state


def cleanup(run: str) -> tuple[str, str]:
    return ("item", json.dumps(["cleanup", run]))


class TestAuthentication:
    @pytest.mark.parametrize(
        "path", ["/recovery", "/recovery?show=letters", "/recovery/cleanup?run=a", "/recovery/letter"]
    )
    def test_nobody_sees_it_without(self, url: str, store: Store, path: str) -> None:
        fail(store, "secret-run")

        async def script(client: Client) -> None:
            response = await client.get(path)
            assert response.code == 401
            assert "secret-run" not in text_of(response)

        page(url, script, headers={})

    def test_nobody_writes_without(self, url: str, store: Store) -> None:
        fail(store, "run-1")

        async def script(client: Client) -> None:
            await client.get("/recovery")
            client.headers = {}
            assert (await client.post("/recovery/requeue", [cleanup("run-1")])).code == 401

        page(url, script)
        assert state_of(store, "run-1") is CleanupState.FAILED

    def test_an_open_flower_shows_and_does_not_write(self, url: str, store: Store) -> None:
        fail(store, "run-1")

        async def script(client: Client) -> None:
            shown = await client.get("/recovery")
            assert "run-1" in text_of(shown)
            assert "Flower runs without authentication" in text_of(shown)
            refused = await client.post("/recovery/requeue", [cleanup("run-1")])
            assert refused.code == 403
            assert "RECOVERY_ALLOW_UNAUTHENTICATED" in text_of(refused)

        page(url, script, headers={}, basic_auth=[])
        assert state_of(store, "run-1") is CleanupState.FAILED

    def test_a_setting_lets_an_open_flower_write(self, url: str, store: Store) -> None:
        fail(store, "run-1")

        async def script(client: Client) -> None:
            await client.get("/recovery")
            assert (await client.post("/recovery/requeue", [cleanup("run-1")])).code == 303

        page(url, script, headers={}, basic_auth=[], settings={"recovery_allow_unauthenticated": True})
        assert state_of(store, "run-1") is CleanupState.PENDING

    def test_a_read_only_flower_does_not_write(self, url: str, store: Store) -> None:
        fail(store, "run-1")

        async def script(client: Client) -> None:
            await client.get("/recovery")
            assert (await client.post("/recovery/requeue", [cleanup("run-1")])).code == 403

        page(url, script, read_only=True)
        assert state_of(store, "run-1") is CleanupState.FAILED


class TestForgedForms:
    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "https://evil.example"},
            {"Sec_Fetch_Site": "cross-site"},
            {"Sec_Fetch_Site": "same-site"},
            {"Sec_Fetch_Site": "none"},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("open_flower", [False, True])
    def test_of_another_site(self, url: str, store: Store, headers: dict[str, str], open_flower: bool) -> None:
        fail(store, "run-1")

        async def script(client: Client) -> None:
            await client.get("/recovery")
            refused = await client.post("/recovery/requeue", [cleanup("run-1")], **headers)
            assert refused.code == 403
            assert "another site" in text_of(refused)

        options: dict[str, Any] = {"basic_auth": []} if open_flower else {}
        page(url, script, settings={"recovery_allow_unauthenticated": True}, **options)
        assert state_of(store, "run-1") is CleanupState.FAILED

    @pytest.mark.parametrize("token", ["", "2|00000000|00000000000000000000000000000000|1", "nonsense"])
    @pytest.mark.parametrize("open_flower", [False, True])
    def test_without_our_token(self, url: str, store: Store, token: str, open_flower: bool) -> None:
        fail(store, "run-1")

        async def script(client: Client) -> None:
            await client.get("/recovery")
            client.token = token
            assert (await client.post("/recovery/requeue", [cleanup("run-1")])).code == 403

        options: dict[str, Any] = {"basic_auth": []} if open_flower else {}
        page(url, script, settings={"recovery_allow_unauthenticated": True}, **options)
        assert state_of(store, "run-1") is CleanupState.FAILED

    def test_a_link_requeues_nothing(self, url: str, store: Store) -> None:
        fail(store, "run-1")

        async def script(client: Client) -> None:
            response = await client.get("/recovery/requeue?" + urlencode([cleanup("run-1")]))
            assert response.code == 405

        page(url, script)
        assert state_of(store, "run-1") is CleanupState.FAILED

    def test_another_site_cannot_read_it(self, url: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FLOWER_UNAUTHENTICATED_API", "true")

        async def script(client: Client) -> None:
            response = await client.get("/recovery", Origin="https://evil.example")
            assert "Access-Control-Allow-Origin" not in response.headers
            assert "frame-ancestors 'self'" in response.headers["Content-Security-Policy"]

        page(url, script, headers={}, basic_auth=[])


class TestTextFromOutside:
    def test_nothing_of_it_is_markup(self, url: str, store: Store) -> None:
        run = NASTY.replace("/", "|")
        fail(store, run, error=f"{NASTY}\n{NASTY}")
        keep(store, 7, run=NASTY, error=f"{NASTY}\n{NASTY}", value=b"</pre>" + NASTY.encode())
        letter = json.dumps(["letter", *SOURCE, 7])

        async def script(client: Client) -> None:
            for path in (
                "/recovery?show=failed",
                "/recovery?show=letters",
                "/recovery?"
                + urlencode({"show": "letters", "find": NASTY, "reason": NASTY, "after": NASTY, "how": "text"}),
                "/recovery?" + urlencode({"show": NASTY, "told": NASTY}),
                "/recovery/cleanup?" + urlencode({"run": run}),
                "/recovery/letter?" + urlencode({"item": letter}),
            ):
                response = await client.get(path)
                assert response.code == 200, path
                assert "alert('x')" not in text_of(response), path
                assert "</pre><script" not in text_of(response), path
            assert html.escape(NASTY) in text_of(response)
            refused = await client.get("/recovery/letter?" + urlencode({"item": NASTY}))
            assert refused.code == 400
            assert refused.headers["Content-Type"] == "text/plain"
            gone = await client.get("/recovery/cleanup?" + urlencode({"run": NASTY}))
            assert gone.code == 404
            done = await client.post("/recovery/requeue", [cleanup(run), ("show", "failed")])
            told = await client.get(done.headers["Location"])
            assert "requeued" in text_of(told)
            assert "alert('x')" not in text_of(told)

        page(url, script)

    @pytest.mark.parametrize(
        "item",
        [
            "",
            "[]",
            "{}",
            '["cleanup"]',
            '["cleanup", 1]',
            '["letter", "c", "t", "i", -1, 0]',
            '["lane", 1]',
            "[" * 9_000,
        ],
    )
    def test_an_item_that_is_none_is_refused(self, url: str, store: Store, item: str) -> None:
        async def script(client: Client) -> None:
            await client.get("/recovery")
            assert (await client.post("/recovery/requeue", [("item", item)])).code == 400

        page(url, script)


class TestPage:
    def test_begins_with_what_is_most_urgent(self, url: str, store: Store) -> None:
        hold(store, "held-run")

        async def script(client: Client) -> None:
            assert "held-run" in text_of(await client.get("/recovery"))
            keep(store, 1)
            assert "data-ingestion[2] @ 1" in text_of(await client.get("/recovery"))
            fail(store, "failed-run")
            assert "failed-run" in text_of(await client.get("/recovery"))

        page(url, script)

    def test_pages_of_letters(self, url: str, store: Store) -> None:
        for offset in range(120):
            keep(store, offset)

        async def script(client: Client) -> None:
            seen, path = [], "?show=letters"
            while path:
                body = text_of(await client.get("/recovery" + path))
                seen += [int(offset) for offset in re.findall(r"data-ingestion\[2\] @ (\d+)", body)]
                following = re.search(r'href="[^"?]*(\?[^"]*)" rel="next"', body)
                path = html.unescape(following.group(1)) if following else ""
            assert seen == list(range(120))
            assert "120" in body

        page(url, script)

    def test_a_prefix_is_in_every_address(self, url: str, store: Store) -> None:
        fail(store, "run-1")

        async def script(client: Client) -> None:
            for path in ("/recovery", "/recovery/cleanup?run=run-1"):
                body = text_of(await client.get(path))
                links = re.findall(r'(?:href|action|src)="(/[^"]*)"', body)
                ours = [link for link in links if "recovery" in link]
                assert len(ours) > 3
                assert [link for link in ours if not link.startswith("/inside/recovery")] == []
            assert (await client.get("/recovery/static/recovery.js")).code == 200
            done = await client.post("/recovery/requeue", [cleanup("run-1")])
            assert done.headers["Location"].startswith("/inside/recovery?")

        page(url, script, url_prefix="inside")

    def test_flowers_own_pages_link_to_it(self, url: str, store: Store) -> None:
        async def script(client: Client) -> None:
            for path in ("/tasks", "/workers"):
                assert 'href="/recovery"' in text_of(await client.get(path))

        page(url, script)

    def test_a_slow_store_does_not_hold_flower_up(
        self, url: str, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked, go = threading.Event(), threading.Event()
        look = Desk.look

        def slow(desk: Desk, query: Any) -> Any:
            asked.set()
            assert go.wait(60)
            return look(desk, query)

        monkeypatch.setattr(Desk, "look", slow)

        async def script(client: Client) -> None:
            waiting = asyncio.ensure_future(client.get("/recovery?show=done"))
            assert await asyncio.get_running_loop().run_in_executor(None, asked.wait, 60)
            assert (await client.get("/tasks")).code == 200
            assert not waiting.done()
            go.set()
            assert (await waiting).code == 200

        page(url, script)

    def test_says_that_the_store_is_away(self, tmp_path: Path) -> None:
        async def script(client: Client) -> None:
            response = await client.get("/recovery")
            assert response.code == 503
            assert "there is no store at" in text_of(response)
            assert (await client.get("/tasks")).code == 200

        page(f"sqlite:///{tmp_path / 'nowhere.db'}", script)


def test_a_letters_page_shows_its_headers_and_that_it_has_no_time(url: str, store: Store) -> None:
    headers = (("trace", b"00-1"), ("raw", b"\xff"), ("none", None), (NASTY, NASTY.encode()))
    letter = DeadLetter(SOURCE, 0, 9, "invalid", "no number", 1.0, "run-1", "log_metric", 2)
    record = Record(9, NO_TIME, None, None, headers)
    store.engine.transact(lambda transaction: store.dead_letters.keep(transaction, letter, record))
    keep(store, 10)

    async def script(client: Client) -> None:
        shown = text_of(await client.get("/recovery/letter?" + urlencode({"item": json.dumps(["letter", *SOURCE, 9])})))
        assert "<dt>Headers</dt>" in shown
        assert html.escape("trace: 00-1\nraw: b'\\xff' (not UTF-8)\nnone: (none)\n" + NASTY) in shown
        assert "alert('x')" not in shown
        assert "(no time)" in shown
        other = "/recovery/letter?" + urlencode({"item": json.dumps(["letter", *SOURCE, 10])})
        assert "<dt>Headers</dt>" not in text_of(await client.get(other))

    page(url, script)


class TestRequeue:
    def test_selected_letters_apply_or_stay_with_their_reason(self, url: str, store: Store) -> None:
        good = {"type": "finish_run", "run_id": "a" * 32, "timestamp": "2026-01-01T00:00:00Z", "payload": {}}
        keep(store, 1, value=json.dumps(good).encode())
        keep(store, 2, value=b"still no JSON")
        items = [("item", json.dumps(["letter", *SOURCE, offset])) for offset in (1, 2, 3)]

        async def script(client: Client) -> None:
            await client.get("/recovery?show=letters")
            done = await client.post("/recovery/requeue", [*items, ("show", "letters")])
            body = text_of(await client.get(done.headers["Location"]))
            assert "data-ingestion[2] offset 1: applied" in body
            assert "data-ingestion[2] offset 2: failed again (invalid)" in body
            assert "data-ingestion[2] offset 3: gone" in body

        page(url, script)
        assert [letter.offset for letter in store.dead_letters.each(store.engine)] == [2]

    @pytest.mark.parametrize("show", ["done", "pending", "running", "failed", "held"])
    def test_all_that_is_done_is_not_requeued_at_once(self, url: str, store: Store, show: str) -> None:
        one_of_each_state(store)

        async def script(client: Client) -> None:
            body = text_of(await client.get(f"/recovery?show={show}"))
            assert f'value="[&quot;cleanup&quot;, &quot;{show}&quot;]"' in body
            waits = show in {"failed", "held"}
            assert bool(re.search(r'id="requeue-all"\s+disabled', body)) != waits
            if not waits:
                assert (await client.post("/recovery/requeue", [("show", show), ("all", "1")])).code == 400

        page(url, script)

    def test_says_who_asked(self, url: str, store: Store, caplog: pytest.LogCaptureFixture) -> None:
        fail(store, "run-1")
        caplog.set_level("INFO")

        async def script(client: Client) -> None:
            await client.get("/recovery")
            await client.post("/recovery/requeue", [cleanup("run-1")])

        page(url, script)
        assert any("user asked on the page: run-1: requeued" in record.getMessage() for record in caplog.records)

    def test_says_that_redis_did_not_take_the_task(self, url: str, store: Store) -> None:
        fail(store, "run-1")

        async def script(client: Client) -> None:
            await client.get("/recovery")
            done = await client.post("/recovery/requeue", [cleanup("run-1")])
            assert "beat will send it" in text_of(await client.get(done.headers["Location"]))
            everything = await client.post("/recovery/requeue", [("show", "failed"), ("all", "1")])
            assert everything.code == 503

        page(url, script)
        assert state_of(store, "run-1") is CleanupState.PENDING

    def test_what_a_person_holds_is_reopened_on_its_own_page_alone(self, url: str, store: Store) -> None:
        hold(store, "run-1")

        async def script(client: Client) -> None:
            own = text_of(await client.get("/recovery/cleanup?run=run-1"))
            done = await client.post("/recovery/requeue", [cleanup("run-1"), ("show", "held")])
            assert "a person holds it" in text_of(await client.get(done.headers["Location"]))
            assert state_of(store, "run-1") is CleanupState.HELD
            assert 'name="named" value="1"' in own
            await client.post("/recovery/requeue", [cleanup("run-1"), ("named", "1")])

        page(url, script)
        assert state_of(store, "run-1") is CleanupState.PENDING

    def test_of_several_none_counts_as_named(self, url: str, store: Store) -> None:
        hold(store, "run-1")
        hold(store, "run-2")

        async def script(client: Client) -> None:
            await client.get("/recovery")
            await client.post("/recovery/requeue", [cleanup("run-1"), cleanup("run-2"), ("named", "1")])

        page(url, script)
        assert (state_of(store, "run-1"), state_of(store, "run-2")) == (CleanupState.HELD, CleanupState.HELD)

    def test_a_held_one_is_forced_by_its_name_alone(self, url: str, store: Store) -> None:
        hold(store, "run-1")

        async def script(client: Client) -> None:
            assert "Type the run" in text_of(await client.get("/recovery/cleanup?run=run-1"))
            for confirm in ("", "run-2", "RUN-1"):
                fields = [cleanup("run-1"), ("force", "1"), ("confirm", confirm)]
                done = await client.post("/recovery/requeue", fields)
                assert "Not forced" in text_of(await client.get(done.headers["Location"]))
                assert state_of(store, "run-1") is CleanupState.HELD
            await client.post("/recovery/requeue", [cleanup("run-1"), ("force", "1"), ("confirm", "run-1")])

        page(url, script)
        entry = store.engine.read(lambda transaction: store.cleanups.get(transaction, "run-1"))
        assert entry is not None
        assert (entry.state, entry.forced) == (CleanupState.PENDING, True)

    def test_a_lane_is_sent_again_by_a_new_epoch(self, url: str, store: Store) -> None:
        epoch = Epoch(3, "e3")

        def work(transaction: Any) -> None:
            store.ledger.write_owner(transaction, SOURCE, Owner(epoch, "group", 8))
            store.ledger.write_cursor(transaction, SOURCE, 5, 9)

        store.engine.transact(work)
        Stalls(store.ledger).note(store.engine, Stall(SOURCE, 5, epoch, 9, 10, 19, 2, 1.0))

        async def script(client: Client) -> None:
            assert "data-ingestion[2] lane 5" in text_of(await client.get("/recovery?show=lanes"))
            item = json.dumps(["lane", *SOURCE, 5])
            done = await client.post("/recovery/requeue", [("item", item), ("show", "lanes")])
            assert "takes the partition over again" in text_of(await client.get(done.headers["Location"]))

        page(url, script)
        owner = store.engine.read(lambda transaction: store.ledger.standings(transaction, [SOURCE]))[SOURCE].owner
        assert owner is not None
        assert (owner.epoch.number, owner.group, owner.lanes) == (4, "group", 8)
        assert Stalls(store.ledger).find(store.engine) == []
