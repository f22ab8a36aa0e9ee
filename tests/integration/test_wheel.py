"""The wheel holds the whole product: built from the sources and installed into an empty environment, it works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = [name.removesuffix("*") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]]
BESIDE = ("LICENSE", "README.md", "pyproject.toml")


def run(folder: Path, *command: str | Path) -> str:
    """What a program prints, started in an empty folder with no settings of ours."""
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources: setuptools leaves its folders beside them."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, sources / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in BESIDE:
        shutil.copy(ROOT / name, sources)
    run(folder, sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, sources)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, which finds what it depends on in ours (to install all that again takes long)."""
    folder = tmp_path_factory.mktemp("environment")
    run(folder, sys.executable, "-m", "venv", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    run(folder, python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel)
    site = run(folder, python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "venv" / "bin"


def test_every_module_comes_from_the_wheel(environment: Path, tmp_path: Path) -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.stem not in {"__init__", "__main__"}
    ]
    assert "storage.handlers.run" in modules
    script = "import importlib, sys; [print(importlib.import_module(name).__file__) for name in sys.argv[1:]]"
    files = run(tmp_path, environment / "python", "-c", script, *modules).splitlines()
    assert len(files) == len(modules)
    assert [file for file in files if not file.startswith(str(environment.parent))] == []


def test_its_programs_start(environment: Path, tmp_path: Path) -> None:
    assert "Matyan's Kafka workers as Celery tasks" in run(tmp_path, environment / "matyan-celery", "--help")
    report = run(tmp_path, environment / "python", "-m", "celery", "-A", "tasks", "report")
    assert "task_acks_late: True" in report
    record = '{"topic": "t", "partition": 0, "offset": 0, "timestamp_ms": 0, "key": null, "value": "no JSON"}\n'
    (tmp_path / "one.jsonl").write_text(record)
    assert "1 records" in run(tmp_path, environment / "matyan-celery", "replay", "one.jsonl")


def test_it_carries_types_and_the_licence(environment: Path, wheel: Path, tmp_path: Path) -> None:
    names = run(tmp_path, environment / "python", "-m", "zipfile", "-l", str(wheel))
    for package in PACKAGES:
        assert f"{package}/py.typed" in names
    assert "LICENSE" in names
    assert "tests/" not in names
    assert "demo/" not in names
