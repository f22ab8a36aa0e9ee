"""Alive, ready, started: in the process, in its heartbeat file, and over HTTP."""

from __future__ import annotations

import gzip
import json
import math
import os
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tasks.endpoint import Endpoint
from tasks.health import Health
from tasks.heartbeat import find_ailments, find_folder
from tasks.meter import Meter
from tasks.metrics import UP, Role
from tasks.settings import WrongSettingError, load_settings
from tasks.watch import Watch


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr("tasks.health.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def make_health(folder: Path) -> Health:
    return Health(Role.BRIDGE, folder, stale=60.0, needs={"store": 30.0, "topic": math.inf})


class TestHealth:
    def test_a_loop_that_does_not_turn_is_hung(self, tmp_path: Path, clock: Clock) -> None:
        health = make_health(tmp_path)
        assert health.find_unstarted() == health.find_hung() == ["no loop has turned yet"]
        health.turn("a")
        health.turn("b")
        assert health.find_unstarted() == health.find_hung() == []
        clock.now += 59
        health.turn("a")
        clock.now += 2
        assert health.find_hung() == ["b: has not turned for 61 s"]
        health.end_loop("b")
        assert health.find_hung() == []

    def test_a_loop_that_stands_still_is_not_ready_and_for_long_not_alive(self, tmp_path: Path) -> None:
        health = make_health(tmp_path)
        health.turn("topic")
        health.answered("store")
        health.answered("topic")
        health.stand("topic", ["it stands still"], hung=False)
        assert (health.find_unready(), health.find_hung()) == (["it stands still"], [])
        health.stand("topic", ["it stands still"], hung=True)
        health.write()
        assert health.find_hung() == find_ailments(tmp_path, ["bridge"], "live") == ["it stands still"]
        health.stand("topic", [], hung=False)
        health.write()
        assert health.find_unready() == health.find_hung() == find_ailments(tmp_path, ["bridge"], "live") == []

    def test_dependencies_decide_readiness_alone(self, tmp_path: Path, clock: Clock) -> None:
        health = make_health(tmp_path)
        health.turn()
        assert health.find_unready() == ["store: no answer yet", "topic: no answer yet"]
        health.answered("store")
        health.answered("topic")
        assert health.find_unready() == []
        clock.now += 31
        assert health.find_unready() == ["store: no answer for 31 s"]
        health.failed("store", "nobody there")
        assert health.find_unready() == ["store: nobody there"]
        assert health.find_hung() == []


class TestHeartbeatFile:
    def test_says_what_the_process_says(self, tmp_path: Path, clock: Clock) -> None:
        health = make_health(tmp_path)
        health.turn()
        assert find_ailments(tmp_path, ["bridge"], "live") == []
        assert find_ailments(tmp_path, ["bridge"], "started") == []
        assert find_ailments(tmp_path, ["bridge"], "ready") == ["store: no answer yet", "topic: no answer yet"]
        health.answered("store")
        health.answered("topic")
        clock.now += 1
        health.turn()
        assert find_ailments(tmp_path, ["bridge"], "ready") == []
        clock.now += 61
        assert find_ailments(tmp_path, ["bridge"], "live") == ["main: has not turned for 61 s"]
        clock.now -= 5_000  # the machine was started again
        assert find_ailments(tmp_path, ["bridge"], "live") != []

    def test_is_where_the_settings_say(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HEARTBEAT_FOLDER", raising=False)
        env_file = tmp_path / ".env"
        assert find_folder(env_file) == Path(load_settings(env_file).heartbeat_folder)
        env_file.write_text("heartbeat_folder=/by/file\n")
        assert str(find_folder(env_file)) == load_settings(env_file).heartbeat_folder == "/by/file"
        monkeypatch.setenv("Heartbeat_Folder", "/by/environment")
        assert str(find_folder(env_file)) == load_settings(env_file).heartbeat_folder == "/by/environment"

    def test_goes_with_the_process(self, tmp_path: Path) -> None:
        health = make_health(tmp_path)
        health.turn()
        health.close()
        health.close()
        health.turn()
        assert "no heartbeat at" in find_ailments(tmp_path, ["bridge"], "live")[0]

    def test_of_a_process_that_was_killed_is_told(self, tmp_path: Path) -> None:
        health = make_health(tmp_path)
        health.turn()
        file = tmp_path / "bridge.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "pid": 999_999_999}))
        assert find_ailments(tmp_path, ["bridge"], "live") == [f"process 999999999 of {file} is gone"]

    def test_the_first_role_with_a_heartbeat_counts(self, tmp_path: Path) -> None:
        make_health(tmp_path).turn()
        assert find_ailments(tmp_path, ["cleaner", "bridge"], "live") == []

    def test_a_file_that_cannot_be_written_does_not_end_the_process(self, tmp_path: Path) -> None:
        health = make_health(tmp_path / "folder")
        (tmp_path / "folder").rmdir()
        health.turn()
        health.write()
        assert health.find_hung() == []


def get(port: int, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)


class TestEndpoint:
    def test_answers_probes_and_shows_metrics_at_any_other_path(self, tmp_path: Path) -> None:
        health, meter = make_health(tmp_path), Meter()
        meter.show(UP, {("bridge",): 1})
        endpoint = Endpoint("127.0.0.1", 0, health, [meter])
        try:
            assert get(endpoint.port, "/startupz")[0] == 503
            health.turn()
            assert get(endpoint.port, "/startupz")[:2] == (200, b"ok\n")
            assert get(endpoint.port, "/livez")[:2] == (200, b"ok\n")
            assert get(endpoint.port, "/readyz?verbose")[:2] == (503, b"store: no answer yet\ntopic: no answer yet\n")
            for path in ("/", "/metrics", "/anything"):
                code, body, headers = get(endpoint.port, path)
                assert code == 200
                assert b'matyan_up{role="bridge"} 1.0\n' in body
                assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
            code, body, headers = get(endpoint.port, "/metrics", **{"Accept-Encoding": "gzip"})
            assert b"process_resident_memory_bytes" in gzip.decompress(body)
            code, body, headers = get(endpoint.port, "/", Accept="application/openmetrics-text; version=1.0.0")
            assert body.endswith(b"# EOF\n")
        finally:
            endpoint.close()
            endpoint.close()

    def test_a_port_in_use_is_a_wrong_setting(self, tmp_path: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(WrongSettingError, match=f"METRICS_PORT={port}: cannot listen there on 127.0.0.1"):
                Endpoint("127.0.0.1", port, make_health(tmp_path), [])


class TestWatch:
    def test_no_port_means_no_server_and_still_a_heartbeat(self, tmp_path: Path) -> None:
        settings = load_settings(None, metrics_port=0, heartbeat_folder=str(tmp_path))
        with Watch(settings, Role.BEAT, Meter(), [], {}) as watch:
            assert watch.endpoint is None
            watch.health.turn()
            assert json.loads((tmp_path / "beat.json").read_text())["pid"] == os.getpid()
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_cannot_be_made_is_a_wrong_setting(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        settings = load_settings(None, metrics_port=0, heartbeat_folder=str(tmp_path / "file" / "below"))
        with pytest.raises(WrongSettingError, match="HEARTBEAT_FOLDER="):
            Watch(settings, Role.BEAT, Meter(), [], {})
