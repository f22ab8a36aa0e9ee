"""The stock backend reads what our handlers wrote, through its own REST API, and we go on with what it wrote."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from storage.application import Applier
from storage.batch import Record
from storage.directories import open_directories
from storage.encoding import pack_key
from storage.engine import open_engine
from storage.envelope import decode
from tests.integration.stock_backend import NoStockBackend, StockApi, run_backend, stock_python

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from storage.directories import Directories
    from storage.engine import Engine

pytestmark = [pytest.mark.integration, pytest.mark.stock, pytest.mark.timeout(600)]

RUN = "0123456789abcdef0123456789abcdef"
OTHER = "ffffffffffffffffffffffffffffffff"
RUNS = "/api/v1/rest/runs"
TRAIN, VALID = {"subset": "train"}, {"fold": 3, "subset": "val"}
LOSSES = [(step, 1.0 / (step + 1)) for step in range(120)]
PARAMS = {
    "lr": 0.001,
    "layers": [64, 32, 10],
    "optimizer": {"name": "adam", "betas": [0.9, 0.999], "nesterov": False, "extra": {}, "none": None},
    "größe": "日本",
}
LINES = ["epoch 0", "  loss=1.0 \u00e4", ""]


def envelope(kind: str, payload: dict[str, Any], *, run: str = RUN, second: int = 0) -> dict[str, Any]:
    return {"type": kind, "run_id": run, "timestamp": f"2026-03-01T12:00:{second:02}.500000Z", "payload": payload}


def metric(name: str, value: float, step: int, context: dict[str, Any] | None) -> dict[str, Any]:
    return envelope(
        "log_metric",
        {
            "name": name,
            "value": value,
            "step": step,
            "epoch": step // 10,
            "context": context,
            "dtype": "float",
            "client_datetime": "2026-03-01T12:00:00+00:00",
        },
    )


MESSAGES = [
    envelope("create_run", {"client_datetime": "2026-03-01T12:00:00+00:00", "force_resume": False}),
    envelope("set_run_property", {"name": "first", "description": "a run", "experiment": "digits"}),
    envelope("log_hparams", {"value": {"hparams": PARAMS}}),
    envelope("add_tag", {"tag_name": "good"}),
    envelope("add_tag", {"tag_name": "to-review"}),
    *(metric("loss", value, step, TRAIN) for step, value in LOSSES),
    *(metric("loss", 2 * value, step, VALID) for step, value in LOSSES[:30]),
    *(metric("accuracy", float(step), step, None) for step in range(5)),
    *(envelope("log_terminal_line", {"line": line, "step": step}) for step, line in enumerate(LINES)),
    envelope(
        "log_record",
        {
            "message": "started",
            "level": 20,
            "timestamp": 1772366400.25,
            "logger_info": ["train.py", 7],
            "extra_args": {"samples": 10},
        },
    ),
    envelope("log_record", {"message": "careful", "level": 30, "timestamp": 1772366401.25}),
    envelope(
        "log_custom_object",
        {
            "name": "note",
            "value": {"type": "text", "data": "hello"},
            "step": 0,
            "epoch": 0,
            "context": {},
            "dtype": "text",
        },
    ),
    envelope("remove_tag", {"tag_name": "to-review"}),
    envelope("finish_run", {}, second=30),
    envelope("create_run", {"client_datetime": None, "force_resume": False}, run=OTHER, second=5),
    envelope("delete_run", {}, run=OTHER, second=6),
]


def apply(engine: Engine, directories: Directories, messages: list[dict[str, Any]]) -> None:
    applier = Applier(directories)
    records = [
        Record(offset, 0, message["run_id"].encode(), json.dumps(message).encode())
        for offset, message in enumerate(messages)
    ]
    items = [decode(record) for record in records]
    outcomes = engine.transact(lambda transaction: applier.begin(transaction, items).finish())
    assert [outcome.kind for outcome in outcomes] == ["applied"] * len(messages)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stock")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    opened = open_engine(f"sqlite:///{folder / 'store.db'}")
    apply(opened, open_directories(opened), MESSAGES)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def backend(engine: Engine, folder: Path) -> Iterator[StockApi]:
    try:
        python = stock_python()
    except NoStockBackend as error:
        pytest.skip(str(error))
    with run_backend(python, folder / "store.db", folder) as running:
        yield running


def info(backend: StockApi) -> Any:
    return backend.get_json(f"{RUNS}/{RUN}/info/")


def test_it_finds_its_directories(backend: StockApi) -> None:
    assert backend.get_json("/health/ready/")["checks"]["fdb"] == "ok"


def test_params_are_what_was_logged(backend: StockApi) -> None:
    assert info(backend)["params"]["hparams"] == PARAMS


def test_properties_are_what_was_logged(backend: StockApi) -> None:
    props = info(backend)["props"]
    assert props["name"] == "first"
    assert props["description"] == "a run"
    assert props["experiment"]["name"] == "digits"
    assert props["archived"] is False
    assert props["active"] is False
    assert props["creation_time"] == 1772366400.5
    assert props["end_time"] == 1772366430.5
    assert "good" in [tag["name"] for tag in props["tags"]]
    assert "to-review" not in [tag["name"] for tag in props["tags"]]


def test_the_overview_names_every_sequence(backend: StockApi) -> None:
    traces = info(backend)["traces"]
    found = {(trace["name"], json.dumps(trace["context"], sort_keys=True)) for trace in traces["metric"]}
    assert found == {("loss", json.dumps(TRAIN)), ("loss", json.dumps(VALID)), ("accuracy", "{}")}
    assert [trace["name"] for trace in traces["texts"]] == ["note"]


def test_metric_sequences_come_back_whole(backend: StockApi) -> None:
    wanted = [
        {"name": "loss", "context": TRAIN},
        {"name": "loss", "context": VALID},
        {"name": "accuracy", "context": {}},
    ]
    sequences = backend.post_json(f"{RUNS}/{RUN}/metric/get-batch/?record_density=1000", wanted)
    assert [(sequence["name"], sequence["context"]) for sequence in sequences] == [
        (one["name"], one["context"]) for one in wanted
    ]
    assert [list(zip(one["iters"], one["values"], strict=True)) for one in sequences] == [
        [(step, value) for step, value in LOSSES],
        [(step, 2 * value) for step, value in LOSSES[:30]],
        [(step, float(step)) for step in range(5)],
    ]


def test_terminal_lines_come_back(backend: StockApi) -> None:
    assert backend.get_tree(f"{RUNS}/{RUN}/logs/") == {(step,): line for step, line in enumerate(LINES)}


def test_log_records_come_back(backend: StockApi) -> None:
    tree = backend.get_tree(f"{RUNS}/{RUN}/log-records/")
    assert tree[("log_records_count",)] == 2
    assert (tree[(0, "message")], tree[(0, "log_level")], tree[(0, "timestamp")]) == ("started", "INFO", 1772366400.25)
    assert tree[(0, "args", "samples")] == 10
    assert (tree[(0, "logger_info", 0)], tree[(0, "logger_info", 1)]) == ("train.py", 7)
    assert (tree[(1, "message")], tree[(1, "log_level")]) == ("careful", "WARNING")


def test_search_finds_the_run_by_its_indexes(backend: StockApi) -> None:
    def found(query: str) -> set[object]:
        tree = backend.get_tree(f"{RUNS}/search/run/?q={query}&report_progress=false")
        return {path[0] for path in tree}

    assert found("run.hparams.lr%20%3D%3D%200.001") == {RUN}
    assert found("run.experiment%20%3D%3D%20%22digits%22") == {RUN}
    assert found("run.hparams.lr%20%3D%3D%200.5") == set()
    assert found("") == {RUN}, "the deleted run is gone"


def test_tags_and_experiments_count_their_runs(backend: StockApi) -> None:
    tags = {tag["name"]: tag["run_count"] for tag in backend.get_json("/api/v1/rest/tags/")}
    assert (tags["good"], tags["to-review"]) == (1, 0)
    experiments = {one["name"]: one["run_count"] for one in backend.get_json("/api/v1/rest/experiments/")}
    assert experiments["digits"] == 1


def test_we_go_on_with_what_it_wrote(backend: StockApi, engine: Engine) -> None:
    """It adds a tag, through the double's commit; our handler finds and removes it; it sees that."""
    directories = open_directories(engine)
    answer = backend.post_json(f"{RUNS}/{RUN}/tags/new/", {"tag_name": "from-the-api"})
    index = directories.indexes + pack_key("tag", "from-the-api", RUN)
    assert engine.read(lambda transaction: transaction.get(index).wait()) == b""
    assert "from-the-api" in [tag["name"] for tag in info(backend)["props"]["tags"]]
    apply(engine, directories, [envelope("remove_tag", {"tag_name": "from-the-api"})])
    assert engine.read(lambda transaction: transaction.get(index).wait()) is None
    assert answer["tag_id"] not in [tag["id"] for tag in info(backend)["props"]["tags"]]
