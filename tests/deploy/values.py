"""The chart's values with their comments, and the table of them in helm/README.md.

``python -m tests.deploy.values`` writes the table anew; a test compares it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.deploy.tools import CHART

_BEGIN: Final = "<!-- values: begin, written by python -m tests.deploy.values -->"
_END: Final = "<!-- values: end -->"


@dataclass(frozen=True)
class Value:
    """One value that can be set.

    Attributes:
        name: its path, with dots.
        default: what it is if it is not given.
        comment: what stands above it in values.yaml; empty if nothing does.
    """

    name: str
    default: Any
    comment: str


def read_values(text: str) -> list[Value]:
    """All values, and those groups of them that have a comment of their own (default None), in order.

    A key is a group where a comment follows it: that of its first value. All below a key that is none is its default.
    """
    defaults = yaml.safe_load(text)
    lines = [line for line in text.splitlines() if line.strip()]
    found: list[Value] = []
    path: list[str] = []
    leaf: int | None = None  # the indentation of the value that we are in
    comment: list[str] = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        depth = len(line) - len(line.lstrip())
        if leaf is not None and depth > leaf:
            continue
        leaf = None
        if line == "---":  # what stands above it is of the whole file
            comment = []
            continue
        if line.lstrip().startswith("#"):
            comment.append(line.lstrip().removeprefix("#").strip())
            continue
        name = line.lstrip().partition(":")[0]
        path = [*path[: depth // 2], name]
        is_group = line.endswith(":") and following.lstrip().startswith("#")
        if comment or not is_group:
            default = None if is_group else _look_up(defaults, path)
            found.append(Value(".".join(path), default, " ".join(comment)))
        leaf = None if is_group else depth
        comment = []
    return found


def render_table(values: list[Value]) -> str:
    """The table of README.md."""
    lines = ["| value | default | meaning |", "| --- | --- | --- |"]
    for value in values:
        default = "" if value.default is None else f"`{json.dumps(value.default)}`"
        lines.append(f"| `{value.name}` | {default} | {value.comment} |".replace("  ", " "))
    return "\n".join(lines)


def replace_table(readme: str, table: str) -> str:
    """The README with this table in the place of its own.

    Raises:
        ValueError: it has no place for it.
    """
    before, begin, rest = readme.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        msg = f"no {_BEGIN} and {_END}"
        raise ValueError(msg)
    return f"{before}{_BEGIN}\n{table}\n{_END}{after}"


def _look_up(values: Any, path: list[str]) -> Any:
    for name in path:
        values = values[name]
    return values


def main() -> None:
    """Write the table anew."""
    readme: Path = CHART / "README.md"
    table = render_table(read_values((CHART / "values.yaml").read_text()))
    readme.write_text(replace_table(readme.read_text(), table))


if __name__ == "__main__":
    main()
