"""compose.yaml as Docker Compose's own library reads it; no engine runs here. What it starts: test_command_lines.py."""

import json
import re
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

from demo.servers.process import Process, free_port, wait_until
from demo.servers.redis_group import RedisNode, missing_for_redis_group
from tasks.celeryconfig import cleanup_limit
from tasks.settings import Settings
from tests.deploy.dockerfile import read_stages
from tests.deploy.tools import ROOT, find_compose_reader

pytestmark = pytest.mark.timeout(900)  # tools may have to be built first

Services = dict[str, dict[str, Any]]
OURS = ("bridge", "worker", "cleaner", "jobs", "beat", "flower", "wait", "s3-init")
# Names of Matyan's own compose file, dev/docker-compose.yml; its two workers are what ours stand for.
STOCK = {"fdb-coordinator", "fdb-init", "kafka", "kafka-init", "rustfs-init", "rustfs", "backend", "frontier", "ui"}
SENTINEL = {"redis-replica", "sentinel-1", "sentinel-2", "sentinel-3"}


@pytest.fixture(scope="module")
def services() -> Services:
    return dict(read_compose(ROOT / "compose.yaml")["services"])


def read_compose(path: Path) -> dict[str, Any]:
    done = subprocess.run([find_compose_reader(), path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def read_seconds(duration: str) -> float:
    """Seconds of Go's text for a duration, as ``1m30s``."""
    found = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", duration)
    assert found is not None, duration
    return timedelta(minutes=int(found[1] or 0), seconds=int(found[2] or 0)).total_seconds()


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ("services: {a: {image: x, healthcheck: {interval: 5q}}}", "unknown unit"),
        ("services: {a: {image: x, depends_on: [b]}}", "undefined service"),
        ("services: {a: {imagee: x}}", "imagee"),
    ],
)
def test_the_reader_refuses_what_is_wrong(wrong: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(wrong)
    command = [find_compose_reader(), tmp_path / "compose.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert what in done.stderr


def test_services_have_the_stock_names(services: Services) -> None:
    assert set(services) >= STOCK
    assert set(services) - STOCK == {*OURS, *SENTINEL, "redis", "prometheus", "grafana"}
    assert not {"ingestion-worker", "control-worker"} & set(services)


def test_profiles(services: Services) -> None:
    profiles = {name: service.get("profiles", []) for name, service in services.items()}
    assert {name for name, names in profiles.items() if names == ["observability"]} == {"prometheus", "grafana"}
    assert {name for name, names in profiles.items() if names == ["sentinel"]} == SENTINEL
    assert {name for name, names in profiles.items() if names == ["matyan"]} == {"backend", "frontier", "ui"}
    for name, service in services.items():
        for needed in service.get("depends_on") or {}:
            assert set(profiles[needed]) <= set(profiles[name]), f"{name} needs {needed}, which may not be there"


@pytest.mark.skipif(missing_for_redis_group() is not None, reason=str(missing_for_redis_group()))
def test_the_sentinels_watch_the_redis(services: Services, tmp_path: Path) -> None:
    """Their script, run here: names, port and folder are what differs."""
    script = str(services["sentinel-1"]["command"][2]).replace("$$", "$")
    assert services["sentinel-1"]["command"] == services["sentinel-2"]["command"] == services["sentinel-3"]["command"]
    port = free_port()
    with RedisNode(tmp_path, "redis", {}) as node:
        here = script.replace("monitor matyan redis 6379", f"monitor matyan 127.0.0.1 {node.port}")
        here = here.replace("/tmp/sentinel.conf", str(tmp_path / "sentinel.conf")).strip() + f" --port {port}"
        assert here.count(str(tmp_path)) == 2
        with (
            Process("sentinel", ["sh", "-c", here], tmp_path / "sentinel.log", folder=tmp_path),
            Redis(port=port) as client,
        ):
            wait_until(lambda: bool(ask_for_master(client)), "the sentinel knows its master", seconds=60)
            state = ask_for_master(client)
            assert (state["port"], state["quorum"], state["down-after-milliseconds"]) == (node.port, 2, 5_000)


def ask_for_master(client: Redis) -> dict[str, Any]:
    """What a sentinel knows of its master; empty while it does not answer."""
    try:
        answer: Any = client.sentinel_masters()
    except RedisError:
        return {}
    return dict(answer.get("matyan", {}))


def test_each_image_has_a_version(services: Services) -> None:
    for name, service in services.items():
        tag = service["image"].rpartition(":")[2]
        assert re.match(r"v?\d+\.\d+", tag), f"{name}: {service['image']}"
    client = read_stages(ROOT / "Dockerfile")[1][0].image
    assert services["fdb-coordinator"]["image"] == services["fdb-init"]["image"] == client


def test_topics(services: Services) -> None:
    script = services["kafka-init"]["command"][0]
    assert "create data-ingestion 6 && create control-events 1" in script
    checked = subprocess.run(["bash", "-n", "-c", script.replace("$$", "$")], capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("name", OURS)
def test_ours_run_as_the_image_promises(services: Services, name: str) -> None:
    service = services[name]
    assert service["image"].startswith("matyan-celery:")
    assert service["build"]["context"] == str(ROOT)
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert service["entrypoint"] is None, "the image's tini is process 1"
    assert all(volume["read_only"] for volume in service["volumes"])
    assert "metrics_port" not in map(str.lower, service["environment"]), "the image's health check knows 9090"


def test_ours_wait_for_what_they_need(services: Services) -> None:
    for name in ("bridge", "worker", "cleaner", "jobs", "beat", "flower"):
        assert services[name]["depends_on"]["wait"]["condition"] == "service_completed_successfully"
        assert services[name]["restart"] == "unless-stopped"
    needed = services["wait"]["depends_on"]
    assert {"fdb-init", "kafka-init", "redis", "s3-init"} == set(needed)


def test_they_get_the_time_to_end(services: Services) -> None:
    defaults = Settings.model_construct()
    assert read_seconds(services["bridge"]["stop_grace_period"]) >= defaults.drain_seconds + 20
    assert read_seconds(services["worker"]["stop_grace_period"]) > defaults.task_time_limit_seconds + 10
    assert read_seconds(services["cleaner"]["stop_grace_period"]) > cleanup_limit(defaults) + 10


def test_settings_exist(services: Services) -> None:
    for name in OURS:
        foreign = {key for key in services[name]["environment"] if key.lower() not in Settings.model_fields}
        assert foreign <= {"FLOWER_BASIC_AUTH"}, f"{name}: {foreign}"


def test_files_that_are_mounted_exist(services: Services) -> None:
    bound = [
        volume["source"]
        for service in services.values()
        for volume in service.get("volumes", [])
        if volume["type"] == "bind"
    ]
    assert len(bound) == 4
    for source in bound:
        assert Path(source).exists(), source


def test_ports_are_open_to_this_machine_only(services: Services) -> None:
    for name, service in services.items():
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", f"{name}: {port}"
