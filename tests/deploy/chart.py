"""The chart, rendered with our sets of values. ``python -m tests.deploy.chart`` writes the goldens anew."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path
from typing import Any, Final

import yaml

from tests.deploy.tools import CHART, HELM, KUBERNETES, find_go_program

HERE: Final = Path(__file__).parent
SETS: Final = sorted((HERE / "values_sets").glob("*.yaml"))
LEAST: Final = HERE / "values_sets" / "least.yaml"

Object = dict[str, Any]


def golden_of(values: Path) -> Path:
    """The file with what this set of values is rendered to."""
    return HERE / "goldens" / values.name


def run_helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run helm, whatever its exit code."""
    command = [find_go_program(HELM), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@functools.cache
def render(values: Path, *more: str, chart: Path = CHART) -> str:
    """What a release named ``release`` would be made of, as YAML.

    Args:
        values: a file of values.
        more: further values, as ``name=value``.
        chart: another than ours.

    Raises:
        ValueError: helm refuses; its words.
    """
    options = [option for value in more for option in ("--set", value)]
    done = run_helm(
        "template", "release", chart, "--namespace", "apps", "--kube-version", KUBERNETES, "--values", values, *options
    )
    if done.returncode != 0:
        raise ValueError(done.stderr)
    return done.stdout


def read_objects(rendered: str) -> dict[tuple[str, str], Object]:
    """The objects by kind and name.

    Raises:
        ValueError: there are two of one kind and name.
    """
    found: dict[tuple[str, str], Object] = {}
    for one in yaml.safe_load_all(rendered):
        if one is not None:
            key = one["kind"], one["metadata"]["name"]
            if key in found:
                msg = f"twice: {key}"
                raise ValueError(msg)
            found[key] = one
    return found


def main() -> None:
    """Write the goldens anew."""
    for values in SETS:
        golden_of(values).write_text(render(values))


if __name__ == "__main__":
    main()
