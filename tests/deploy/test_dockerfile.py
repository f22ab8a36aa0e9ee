"""The image as its Dockerfile says; no Docker engine runs here, so it is linted and read, and its wheel is built."""

import fnmatch
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.deploy.dockerfile import Stage, read_stages

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
PACKAGES = ("bridge", "matyan_celery", "storage", "tasks")


@pytest.fixture(scope="module")
def stages() -> list[Stage]:
    return read_stages(DOCKERFILE)[1]


@pytest.fixture(scope="module")
def runtime(stages: list[Stage]) -> Stage:
    """The last stage: the image itself."""
    return stages[-1]


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("no hadolint: its wheel exists for Linux on x86-64 only")
    done = subprocess.run([hadolint, "--no-color", str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


def test_each_image_has_a_version(stages: list[Stage]) -> None:
    assert [stage.name for stage in stages] == ["fdb", "build", "runtime"]
    for stage in stages:
        _, colon, tag = stage.image.partition(":")
        assert colon, f"{stage.image} has no tag"
        assert re.match(r"\d+\.\d+", tag), f"{stage.image}: a tag that says its version"


def test_the_client_library_is_of_the_python_packages_version(stages: list[Stage], runtime: Stage) -> None:
    pinned = re.search(r"^foundationdb==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert stages[0].image == f"foundationdb/foundationdb:{pinned[1]}"
    copied = [copy for copy in runtime.all("COPY") if copy.flags == {"from": "fdb"}]
    assert [copy.words for copy in copied] == [["/usr/lib/libfdb_c.so", "/usr/lib/libfdb_c.so"]]


def test_what_is_copied_exists_and_is_not_ignored(stages: list[Stage]) -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    kept = [line[1:] for line in ignored if line.startswith("!")]
    assert ignored[0] == "*"
    copied = set()
    for stage in stages:
        for copy in stage.all("COPY"):
            if "from" in copy.flags:
                assert copy.flags["from"] in {other.name for other in stages}
            else:
                copied |= {source.rstrip("/") for source in copy.words[:-1]}
    for source in copied:
        assert (ROOT / source).exists(), f"{source} is not there"
        assert any(fnmatch.fnmatch(source, pattern) for pattern in kept), f"{source} is ignored"
    assert set(kept) == copied, ".dockerignore keeps what is copied, and nothing else"
    assert set(PACKAGES) < copied


def test_dependencies_are_pinned(stages: list[Stage]) -> None:
    installs = [run.rest for stage in stages for run in stage.all("RUN") if "pip install" in run.rest]
    assert len(installs) == 1
    assert "--constraint constraints.txt" in installs[0]


def test_it_runs_as_nobody_of_importance(runtime: Stage) -> None:
    user, _, group = runtime.last("USER").rest.partition(":")
    assert int(user) > 0
    assert int(group) > 0
    names = [instruction.name for instruction in runtime.instructions]
    assert not {"RUN", "COPY", "ADD"} & set(names[names.index("USER") :]), "nothing is done as that user"


def test_signals_reach_the_program(runtime: Stage) -> None:
    assert runtime.last("STOPSIGNAL").words == ["SIGTERM"]
    assert runtime.last("ENTRYPOINT").is_exec
    assert runtime.last("ENTRYPOINT").words == ["/usr/bin/tini", "--"]
    assert runtime.last("CMD").is_exec
    assert any("--no-install-recommends tini" in run.rest for run in runtime.all("RUN"))
    assert "REMAP_SIGTERM=" not in DOCKERFILE.read_text()


def test_it_has_labels_and_a_health_check(runtime: Stage) -> None:
    labels = {label.partition("=")[0] for instruction in runtime.all("LABEL") for label in instruction.words}
    kinds = ("title", "description", "version", "revision", "licenses")
    assert labels == {f"org.opencontainers.image.{kind}" for kind in kinds}
    check = runtime.last("HEALTHCHECK")
    assert check.is_exec
    assert set(check.flags) == {"interval", "timeout", "start-period", "retries"}
    compile(check.words[-1], "HEALTHCHECK", "exec")


def test_the_wheel_holds_every_file_of_our_packages(tmp_path: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "-z", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode != 0:
        pytest.skip("no git checkout")
    files = {name for name in tracked.stdout.split("\0") if name and (ROOT / name).exists()}
    for name in ["pyproject.toml", "README.md", "LICENSE", *files]:
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "src" / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "-w", str(tmp_path), str(tmp_path / "src")], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    assert files
    assert files <= packed, f"not in the wheel, so not in the image: {sorted(files - packed)}"
