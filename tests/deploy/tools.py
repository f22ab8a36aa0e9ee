"""Tools of others that the tests of this folder run: built or found once, or the reason why a test is skipped."""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import json
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from demo.servers.cache import cache_folder, made_once, run_tool
from demo.servers.go_programs import build_program
from demo.servers.process import DidNotStart

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "helm"
HELM: Final = "helm.sh/helm/v3/cmd/helm@v3.22.0"
KUBECONFORM: Final = "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0"
KUBERNETES: Final = "1.34.0"  # whose schemas the rendered objects are held to
_KINDS: Final = {
    "_definitions",
    "configmap",
    "deployment",
    "horizontalpodautoscaler",
    "networkpolicy",
    "poddisruptionbudget",
    "secret",
    "service",
    "serviceaccount",
}


@functools.cache
def find_go_program(module: str) -> Path:
    """A program of a Go module, from the cache or built; the test is skipped where there is no Go.

    Raises:
        DidNotStart: it cannot be built although there is a Go.
    """
    try:
        return build_program(module)
    except DidNotStart as error:
        if shutil.which("go") is None:
            pytest.skip(f"no Go to build {module} with")
        raise error from None


@functools.cache
def find_compose_reader() -> Path:
    """The program beside this file that reads compose files by Docker Compose's own library."""
    source = Path(__file__).parent / "compose"

    def build(fresh: Path) -> None:
        if shutil.which("go") is None:
            pytest.skip("no Go to build the reader of compose files with")
        fresh.mkdir()
        command = ["go", "build", "-o", str(fresh / "compose"), "."]
        run_tool(command, "the reader of compose files", folder=source, environment={"GOFLAGS": ""})

    return made_once(_folder_of("compose-reader", source), _runs_compose, build) / "compose"


def _runs_compose(folder: Path) -> bool:
    """Whether the reader of compose files is whole: it refuses a file that is not there."""
    try:
        command = [folder / "compose", folder / "absent.yaml"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 1
    except OSError:  # not built, or no program
        return False


@functools.cache
def find_model_checker() -> Path:
    """A folder with validate.mjs and the npm packages that it needs, which hold models of custom resources."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} to check custom resources with")
    source = Path(__file__).parent / "models"

    def fetch(fresh: Path) -> None:
        shutil.copytree(source, fresh)
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
        run_tool(command, "models of custom resources", folder=fresh)
        (fresh / "complete").touch()

    return made_once(_folder_of("kubernetes-models", source), _has_models, fetch)


def _has_models(folder: Path) -> bool:
    return (folder / "complete").exists() and (folder / "node_modules").is_dir()


def _folder_of(name: str, source: Path) -> Path:
    """Where the cache keeps what is made from the files of ``source``, as they are now."""
    content = b"".join(path.read_bytes() for path in sorted(source.iterdir()))
    return cache_folder() / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}"


def find_program(name: str, package: str) -> Path:
    """A program on the path; the test is skipped where it is not there."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}: apt-get install {package}")
    return Path(found)


def copy_schemas(folder: Path) -> str:
    """Kubernetes' schemas in the form that kubeconform reads, from the package that carries them.

    Returns:
        what kubeconform takes as a schema location.
    """
    package = Path(str(importlib.resources.files("kubernetes_validate")))
    shipped = package / "kubernetes-json-schema" / f"v{KUBERNETES}-local-strict"
    for path in (shipped / "_definitions.json", *shipped.glob("*-v*.json")):
        if path.stem.partition("-")[0] in _KINDS:
            schema = json.loads(path.read_text())
            del schema["$id"]  # else its references lead to the web
            (folder / path.name).write_text(json.dumps(schema).replace("/api/_definitions.json", "_definitions.json"))
    return f"{folder}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"
