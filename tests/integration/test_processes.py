"""Programs as child processes: nothing of them outlives a stop, a kill, or us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.servers.ending import end_all
from demo.servers.guard import guard
from demo.servers.process import DidNotStart, Process, free_port, wait_until
from tests.integration.leaks import living_processes, our_processes, our_threads

pytestmark = pytest.mark.integration

# A shell with a child of its own, whose process id it writes.
FAMILY = "sleep 600 & echo child=$!; wait"
STUBBORN = "trap '' TERM; echo armed; while true; do sleep 0.1; done"


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Process]:
    process = Process("family", ["sh", "-c", FAMILY], tmp_path / "family.log")
    yield process
    process.kill()


def child_of(process: Process) -> int:
    process.wait_output("child=", 10)
    return int(process.output().partition("child=")[2].split()[0])


def wait_gone(*pids: int) -> None:
    wait_until(lambda: not set(pids) & set(living_processes()), f"processes {pids} are gone", seconds=20)


def test_kill_takes_children_too(family: Process) -> None:
    family.start()
    pids = family.pid, child_of(family)
    assert set(pids) <= set(living_processes())
    family.kill()
    wait_gone(*pids)
    assert family.code == -signal.SIGKILL


def test_stop_takes_children_too(family: Process) -> None:
    family.start()
    pids = family.pid, child_of(family)
    assert family.stop() == -signal.SIGTERM
    wait_gone(*pids)


def test_start_clears_what_a_crash_has_left(family: Process) -> None:
    family.start()
    orphan = child_of(family)
    family.signal(signal.SIGKILL)
    wait_until(lambda: not family.is_alive(), "the shell ended", seconds=10)
    assert orphan in living_processes()
    family.start()
    wait_gone(orphan)
    assert child_of(family) != orphan


def test_starting_and_stopping_twice_is_fine(family: Process) -> None:
    assert family.stop() is None
    family.kill()
    family.start()
    pid = family.pid
    family.start()
    assert family.pid == pid
    family.stop()
    assert family.stop() == -signal.SIGTERM
    family.kill()


def test_stop_kills_what_does_not_listen(tmp_path: Path) -> None:
    process = Process("stubborn", ["sh", "-c", STUBBORN], tmp_path / "log")
    process.start()
    process.wait_output("armed", 10)
    assert process.stop(seconds=0.2) == -signal.SIGKILL


def test_context_stops(family: Process) -> None:
    with family:
        assert family.is_alive()
    assert not family.is_alive()


class NeverReady(Process):
    def is_ready(self) -> bool:
        return False


def test_what_is_not_ready_in_time_is_ended_and_its_log_told(tmp_path: Path) -> None:
    process = NeverReady("slow", ["sh", "-c", "echo hello; sleep 600"], tmp_path / "log", ready_seconds=1.5)
    with pytest.raises(DidNotStart, match=r"(?s)slow is ready: not within 1.5 s.*hello"):
        process.start()
    assert not process.is_alive()


def test_what_ends_at_once_is_told_with_its_log(tmp_path: Path) -> None:
    process = NeverReady("broken", ["sh", "-c", "echo no such luck; exit 3"], tmp_path / "log")
    with pytest.raises(DidNotStart, match=r"(?s)broken ended with code 3.*no such luck"):
        process.start()


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DidNotStart, match=r"absent: .*no-such-program"):
        Process("absent", ["no-such-program"], tmp_path / "log").start()


def test_environment_adds_and_takes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAKEN", "still here")
    environment = {"ADDED": "yes", "TAKEN": None}
    process = Process("env", ["sh", "-c", 'echo "[$ADDED][$TAKEN]"'], tmp_path / "log", environment=environment)
    process.launch()
    assert process.wait(10) == 0
    assert process.output() == "[yes][]\n"


def test_output_is_that_of_the_last_start(tmp_path: Path) -> None:
    process = Process("echo", ["sh", "-c", "echo I am $$"], tmp_path / "log")
    for _ in range(2):
        process.launch()
        assert process.wait(10) == 0
        assert process.output() == f"I am {process.pid}\n"
    assert len(process.log.read_text().splitlines()) == 2


def test_waiting_for_output_ends_with_the_program(tmp_path: Path) -> None:
    process = Process("quiet", ["sh", "-c", "echo bye"], tmp_path / "log")
    process.launch()
    with pytest.raises(TimeoutError, match=r"(?s)quiet ended with code 0 before it said 'hello':.*bye"):
        process.wait_output("hello", 30)


def test_the_thread_that_started_it_may_end(family: Process) -> None:
    starter = threading.Thread(target=family.start)
    starter.start()
    starter.join()
    assert child_of(family) in living_processes()
    assert family.is_alive()


# Ends in a way that no handler sees, with a process running, which has a child.
PARENT = f"""
import os, pathlib, signal, sys
from demo.servers.process import Process
process = Process("family", ["sh", "-c", {FAMILY!r}], pathlib.Path(sys.argv[1]))
process.start()
process.wait_output("child=", 10)
print(process.pid, process.output().partition("child=")[2].split()[0], flush=True)
if sys.argv[2] == "is killed":
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "stops it":
    process.stop()
"""


@pytest.mark.parametrize(
    ("way", "warnings", "code"),
    [("is killed", "error", -signal.SIGKILL), ("forgets", "ignore", 0), ("stops it", "error", 0)],
)
def test_nothing_outlives_us(tmp_path: Path, way: str, warnings: str, code: int) -> None:
    command = [sys.executable, "-W", warnings, "-c", PARENT, str(tmp_path / "log"), way]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (code, "")
    wait_gone(*map(int, done.stdout.split()))


def test_the_leak_check_sees_processes(family: Process) -> None:
    family.start()
    pids = {family.pid, child_of(family)}
    assert pids <= {process.pid for process in our_processes()}
    family.signal(signal.SIGKILL)
    wait_until(lambda: not family.is_alive(), "the shell ended", seconds=10)
    assert {process.pid for process in our_processes()} & pids == pids - {family.pid}, "an orphan is seen too"
    family.kill()
    wait_until(lambda: not {process.pid for process in our_processes()} & pids, "all are gone", seconds=10)


def test_the_leak_check_sees_a_process_that_nobody_watches() -> None:
    with subprocess.Popen(["sleep", "600"]) as sleeper:
        assert sleeper.pid in {process.pid for process in our_processes()}
        sleeper.kill()


def test_the_leak_check_spares_the_guard(family: Process) -> None:
    family.start()
    assert guard.pid in living_processes()
    assert living_processes()[guard.pid].parent == os.getpid()
    assert guard.pid not in {process.pid for process in our_processes()}


def test_the_leak_check_sees_threads() -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    assert thread in our_threads()
    end.set()
    thread.join()
    assert thread not in our_threads()


def test_free_ports_are_out_of_the_way_of_outgoing_connections() -> None:
    lowest, _ = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert all(free_port() < lowest for _ in range(20))


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[list[Process]]:
    """Three that ignore SIGTERM, one that ends at it, and one that was never started."""
    stubborn = [Process(f"stubborn-{number}", ["sh", "-c", STUBBORN], tmp_path / f"{number}.log") for number in "abc"]
    meek = Process("meek", ["sleep", "600"], tmp_path / "meek.log")
    unborn = Process("unborn", ["sleep", "600"], tmp_path / "unborn.log")
    for process in (*stubborn, meek):
        process.launch()
    for process in stubborn:
        process.wait_output("armed", 20)
    yield [*stubborn, meek, unborn]
    for process in (*stubborn, meek):
        process.kill()


def test_all_are_ended_side_by_side_and_what_stays_is_killed(crowd: list[Process]) -> None:
    said: list[str] = []
    began = time.monotonic()
    assert end_all(crowd, seconds=3.0, tell=said.append)
    passed = time.monotonic() - began
    assert [process.code for process in crowd] == [-signal.SIGKILL] * 3 + [-signal.SIGTERM, None]
    assert said == [
        "waiting for stubborn-a, stubborn-b, stubborn-c, 3 s at most; Ctrl-C kills them now",
        "killing stubborn-a, stubborn-b, stubborn-c: not ended within 3 s",
    ]
    assert passed > 3.0, "they have their time"
    assert end_all(crowd, seconds=3.0, tell=said.append)
    assert len(said) == 2, "once more is fine"


def test_ctrl_c_while_all_are_ended_kills_them(crowd: list[Process]) -> None:
    said: list[str] = []

    def press(sentence: str) -> None:
        said.append(sentence)
        if sentence.startswith("waiting for"):
            signal.raise_signal(signal.SIGINT)

    assert not end_all(crowd, seconds=600.0, tell=press)
    assert said[1:] == ["killing everything"]
    assert not any(process.is_alive() for process in crowd)
