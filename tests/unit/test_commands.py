"""The commands that work on a store alone: what they print, what they leave, how they end."""

from __future__ import annotations

import gzip
import json
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from matyan_celery.__main__ import cli
from storage.application import _SEQUENCE_TYPES
from storage.batch import Record
from storage.recorded import Recorded, format_recorded
from storage.scan import DIRECTORIES
from storage.store import open_store
from tests.unit.test_apply import RUN, message, metric
from tests.unit.test_jobs import finish

GOOD = [message("create_run", {}), *map(metric, range(5)), message("add_tag", {"tag_name": "t"})]
BAD = b"\xff no UTF-8"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str, given: bytes | str | None = None, store: str = "one.db") -> Result:
    return CliRunner().invoke(cli, arguments, input=given, env={"STORAGE_URL": f"sqlite:///{store}"})


def lines(values: Sequence[bytes | None], topic: str = "data-ingestion") -> str:
    records = [Recorded(topic, 1, Record(10 + n, 1_000, RUN.encode(), value)) for n, value in enumerate(values)]
    return "".join(format_recorded(record) + "\n" for record in records)


def dumped(store: str, *options: str) -> str:
    done = run("dump", *options, store=store)
    assert done.exit_code == 0
    return done.stdout


# -- replay ----------------------------------------------------------------------------------------------------------


def test_replay_prints_counts() -> None:
    Path("some.jsonl").write_text(lines([*GOOD, BAD, None]))
    with gzip.open("more.jsonl.gz", "wt") as packed:
        packed.write(lines([metric(9)]) + lines([b"{}"], topic="control-events"))
    done = run("replay", "some.jsonl", "more.jsonl.gz")
    assert done.exit_code == 0
    counts = {tuple(line.split()[:2]): line.split()[-1] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert counts == {
        ("applied", "add_tag"): "1",
        ("applied", "create_run"): "1",
        ("applied", "log_metric"): "6",
        ("dead", "invalid"): "3",
    }
    assert done.stdout.startswith("11 records in ")
    assert "matyan-celery dead-letters list" in done.stdout


def event(kind: str, **payload: str) -> bytes:
    return json.dumps({"type": kind, "timestamp": "2026-01-02T03:04:05Z", "payload": payload}).encode()


EVENTS = [event("run_archived", run_id=RUN), event("run_deleted", run_id=RUN), event("tag_deleted", tag_id="t")]


def test_replay_holds_deletes_of_control_topics_back_unless_asked() -> None:
    both = (
        lines(GOOD[:3]) + lines(EVENTS, topic="control-events") + lines(GOOD[3:]) + lines([b"{}"], topic="my-control")
    )
    done = run("replay", "-", given=both)
    assert done.exit_code == 0
    counts = {tuple(line.split()[:2]): line.split()[-1] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert counts[("applied", "run_archived")] == "1"
    assert {key: count for key, count in counts.items() if key[0] in {"held", "dead"}} == {
        ("held", "run_deleted"): "1",
        ("held", "tag_deleted"): "1",
        ("dead", "invalid"): "1",
    }
    assert "apply them too with --with-deletes" in done.stdout
    assert run("cleanups", "list", "--all").stdout == "no cleanups\n"
    assert run("cascades", "list").stdout == "no cascades\n"
    done = run("replay", "--with-deletes", "--topic", "control-events", "-", given=both)
    assert "held" not in done.stdout
    assert "look at it with: matyan-celery cleanups list" in done.stdout
    assert "1 cleanups: 1 pending" in run("cleanups", "list").stdout
    assert "1 cascades: 1 pending" in run("cascades", "list").stdout
    with open_store("sqlite:///one.db") as store:
        (letter,) = store.dead_letters.each(store.engine)
    assert letter.route == "control", "a requeue takes it for what it is"


@pytest.mark.parametrize("packed", [False, True])
def test_a_byte_order_mark_is_passed_over(packed: bool) -> None:
    marked = b"\xef\xbb\xbf" + lines(GOOD[:-1]).encode()
    name = "marked.jsonl.gz" if packed else "marked.jsonl"
    Path(name).write_bytes(gzip.compress(marked) if packed else marked)
    assert run("replay", name).exit_code == 0
    assert run("replay", "-", given=marked, store="two.db").exit_code == 0
    assert run("replay", "-", given=b"\xef\xbb\xbf\n" + lines(GOOD[:-1]).encode(), store="three.db").exit_code == 0
    assert dumped("one.db", "--directory", "data/runs") == dumped("two.db", "--directory", "data/runs")
    dump = b"\xef\xbb\xbf" + dumped("one.db").encode()
    assert run("load", "-", given=dump, store="loaded.db").exit_code == 0
    assert dumped("loaded.db") == dumped("one.db")


def test_utf_16_is_named() -> None:
    done = run("replay", "-", given=lines(GOOD).encode("utf-16"))
    assert done.exit_code == 1
    assert "-: this is UTF-16, as some shells write it: write it as UTF-8" in done.stderr


def test_a_list_of_cleanups_that_are_all_done_says_so() -> None:
    with open_store("sqlite:///one.db") as store:
        for number in range(3):
            finish(store, f"run-{number}")
    assert run("cleanups", "list").stdout == (
        "no cleanup is left to do; 3 are done: list them with --all, or --state done\n"
    )
    assert "3 cleanups: 3 done" in run("cleanups", "list", "--all").stdout
    assert run("cleanups", "list", "--state", "failed").stdout == "no cleanup passes these filters\n"


@pytest.mark.parametrize(("values", "code"), [([*GOOD, BAD], 1), (GOOD, 0)])
def test_replay_is_strict_where_it_is_asked_to_be(values: list[bytes | None], code: int) -> None:
    assert run("replay", "--strict", "-", given=lines(values)).exit_code == code
    assert run("replay", "-", given=lines(values), store="two.db").exit_code == 0


def test_replay_names_a_line_that_is_none_and_keeps_what_came_before() -> None:
    done = run("replay", "-", given=lines(GOOD[:3]) + "{}\n" + lines(GOOD[3:]))
    assert done.exit_code == 1
    assert "-, line 4: topic is missing. All before this line is applied" in done.stderr
    assert dumped("one.db", "--directory", "data/runs").count('"val"') == 2


def test_a_replay_is_the_same_however_it_is_cut() -> None:
    for size in ("1", "3", "1000"):
        assert run("replay", "--records", size, "-", given=lines(GOOD), store=f"{size}.db").exit_code == 0
    kept = [dumped(f"{size}.db", "--directory", "data/runs") for size in ("1", "3", "1000")]
    uuids = [json.loads(line)["key"][2]["v"] for line in kept[0].splitlines() if '"tags"' in line]
    assert len(uuids) == 1
    assert len({len(one.splitlines()) for one in kept}) == 1
    assert len({"".join(line for line in one.splitlines() if '"tags"' not in line) for one in kept}) == 1


# -- dump and load ---------------------------------------------------------------------------------------------------


@pytest.fixture
def dump() -> str:
    """A store's dump, with every directory in it."""
    assert run("replay", "-", given=lines([*GOOD, BAD])).exit_code == 0
    text = dumped("one.db")
    assert {json.loads(line)["dir"] for line in text.splitlines()} == set(DIRECTORIES)
    return text


def test_a_dump_is_sorted_and_says_all(dump: str) -> None:
    rows = [json.loads(line) for line in dump.splitlines()]
    assert {*rows[0]} == {"dir", "key", "key_hex", "value_hex", "value"}
    places = [(row["dir"], bytes.fromhex(row["key_hex"])) for row in rows]
    assert places == sorted(places)
    assert dumped("one.db", "--directory", "system") == "".join(
        line + "\n" for line in dump.splitlines() if json.loads(line)["dir"] == "system"
    )


def from_file(text: str) -> Result:
    Path("dump.jsonl").write_text(text)
    return run("load", "dump.jsonl", store="two.db")


def from_gzip(text: str) -> Result:
    with gzip.open("dump.jsonl.gz", "wt") as packed:
        packed.write(text)
    return run("load", "dump.jsonl.gz", store="two.db")


def from_standard_input(text: str) -> Result:
    return run("load", "-", given=text, store="two.db")


def from_pipe(text: str) -> Result:
    """As in ``load <(matyan-celery dump ...)`` or ``load /dev/stdin``."""
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "w") as pipe:
            pipe.write(text)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        return run("load", f"/dev/fd/{reading}", store="two.db")
    finally:
        os.close(reading)
        writer.join()


@pytest.mark.parametrize("way", [from_file, from_gzip, from_standard_input, from_pipe])
def test_load_is_the_inverse_of_dump(way: object, dump: str) -> None:
    done = way(dump)  # type: ignore[operator]
    assert (done.exit_code, done.stdout) == (0, f"{len(dump.splitlines())} keys written\n")
    assert dumped("two.db") == dump


def test_load_needs_only_what_says_all(dump: str) -> None:
    needed = ("dir", "key_hex", "value_hex")
    bare = [json.dumps({name: json.loads(line)[name] for name in needed}) for line in dump.splitlines()]
    assert from_file("\n".join(bare)).exit_code == 0
    assert dumped("two.db") == dump


def test_load_refuses_a_store_that_holds_keys(dump: str) -> None:
    assert from_file(dump).exit_code == 0
    again = run("load", "dump.jsonl", store="two.db")
    assert again.exit_code == 1
    assert "already holds keys" in again.stderr
    assert run("load", "--force", "dump.jsonl", store="two.db").exit_code == 0
    assert dumped("two.db") == dump


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("no JSON", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"dir": "system", "key_hex": "00"}', "value_hex must be there"),
        ('{"dir": "elsewhere", "key_hex": "00", "value_hex": ""}', "dir is 'elsewhere'"),
        ('{"dir": "system", "key_hex": "0", "value_hex": ""}', "key_hex is not hexadecimal"),
        ('{"dir": "system", "key_hex": "00", "value_hex": "' + "00" * 100_001 + '"}', "100001 bytes"),
    ],
)
def test_load_checks_a_file_before_it_writes(line: str, complaint: str, dump: str) -> None:
    done = from_file(dump + line + "\n")
    assert done.exit_code == 1
    assert f"line {len(dump.splitlines()) + 1}: " in done.stderr
    assert complaint in done.stderr
    assert not Path("two.db").exists()


def test_a_pipe_that_breaks_is_told(dump: str) -> None:
    done = from_pipe(dump + '{"dir": "sys')
    assert done.exit_code == 1
    assert f"{len(dump.splitlines())} keys came before the bad line" in done.stderr


# -- dead letters ----------------------------------------------------------------------------------------------------


@pytest.fixture
def letters() -> None:
    """Three dead letters at offsets 11, 13, 15, among metrics."""
    mixed = [metric(0), BAD, metric(1), message("log_nothing", {}), metric(2), message("log_metric", {"name": "x"})]
    assert run("replay", "-", given=lines([*mixed])).exit_code == 0


@pytest.mark.usefixtures("letters")
def test_dead_letters_are_listed_and_filtered() -> None:
    assert listed() == [(11, "invalid"), (13, "unknown_type"), (15, "invalid")]
    assert listed("--reason", "unknown_type") == [(13, "unknown_type")]
    assert listed("--run", RUN, "--topic", "data-ingestion") == listed()
    assert listed("--run", "other") == listed("--topic", "other") == listed("--partition", "2") == []
    assert listed("--partition", "1", "--offset", "11", "--offset", "13") == [(11, "invalid"), (13, "unknown_type")]
    assert run("dead-letters", "list", "--offset", "11").exit_code == 2
    assert "3 dead letters: 2 invalid, 1 unknown_type" in run("dead-letters", "list").stdout


@pytest.mark.usefixtures("letters")
def test_a_dead_letter_is_shown_whole() -> None:
    place = ("--topic", "data-ingestion", "--partition", "1", "--offset", "11")
    assert run("dead-letters", "show", "--raw", *place).stdout_bytes == BAD
    as_line = run("dead-letters", "show", "--json", *place).stdout
    assert as_line == lines([None, BAD]).splitlines(keepends=True)[1]
    assert "not UTF-8" in run("dead-letters", "show", *place).stdout
    assert run("dead-letters", "show", "--raw").exit_code == 2
    assert run("dead-letters", "show", "--run", "other").exit_code == 1


@pytest.mark.usefixtures("letters")
def test_requeue_says_what_became_of_each_and_drop_deletes() -> None:
    assert run("dead-letters", "requeue").exit_code == run("dead-letters", "drop").exit_code == 2
    again = run("dead-letters", "requeue", "--reason", "invalid")
    assert again.exit_code == 1
    assert again.stdout.count("failed again (invalid)") == 2
    assert len(listed()) == 3
    assert run("dead-letters", "drop", "--reason", "unknown_type").stdout == "1 dropped\n"
    assert run("dead-letters", "drop", "--all").stdout == "2 dropped\n"
    assert listed() == []


def test_what_a_new_release_understands_is_requeued_in_offset_order(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [message("log_record", {"message": f"m{n}", "level": 20, "timestamp": 1.0}) for n in range(12)]
    with monkeypatch.context() as older:
        older.delitem(_SEQUENCE_TYPES, "log_record")
        assert run("replay", "-", given=lines([*records])).exit_code == 0
        assert {reason for _, reason in listed()} == {"unknown_type"}
    done = run("dead-letters", "requeue", "--all")
    assert done.exit_code == 0
    assert "12 applied" in done.stdout
    assert "out of their runs' order" in done.stdout
    assert run("dead-letters", "requeue", "--all").stdout == "no dead letter passes these\n"
    rows = [json.loads(line) for line in dumped("one.db", "--directory", "data/runs").splitlines()]
    values = [row["value"] for row in rows if [part["v"] for part in row["key"]][3:5] == ["__log_records", "val"]]
    assert [value["message"] for value in values] == [f"m{n}" for n in range(12)]


def listed(*filters: str) -> list[tuple[int, str]]:
    done = run("dead-letters", "list", "--json", *filters)
    assert done.exit_code == 0
    return [(letter["offset"], letter["reason"]) for letter in map(json.loads, done.stdout.splitlines())]


# -- all of them -----------------------------------------------------------------------------------------------------


def each_command(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from each_command(command, (*path, name))


@pytest.mark.parametrize("path", [(), *each_command(cli)], ids=" ".join)
def test_help_reads_well(path: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, [*path, "--help"], terminal_width=110)
    assert done.exit_code == 0
    assert done.stdout.startswith(f"Usage: cli {' '.join(path)}".rstrip())
    _, _, commands = done.stdout.partition("Commands:\n")
    cut = [line for line in commands.splitlines() if line.endswith("...")]
    assert cut == [], "a description is cut off: make its first sentence shorter"


def test_a_store_that_is_not_there_is_not_made_by_looking() -> None:
    for command in (("dump",), ("dead-letters", "list"), ("status",)):
        done = run(*command, store="misspelt.db")
        assert done.exit_code == 1
        assert "there is no store at sqlite:///misspelt.db" in done.stderr
    assert not Path("misspelt.db").exists()


def test_a_store_can_be_named_on_the_command_line() -> None:
    assert run("replay", "--store", "sqlite:///named.db", "-", given=lines(GOOD)).exit_code == 0
    assert Path("named.db").is_file()
    wrong = run("replay", "--store", "redis://:secret@nowhere", "-", given="")
    assert wrong.exit_code == 2
    assert "STORAGE_URL=" in wrong.stderr
