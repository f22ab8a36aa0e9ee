"""Markdown tables, and the strings that stand under attributes in the source as their description."""

from __future__ import annotations

import ast
import inspect
import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NOTE = "<!-- Written by `make docs` from the code; do not edit. -->"


def make_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    lines = [_line(heads), _line(["---"] * len(heads))]
    return lines + [_line([cell.replace("|", "\\|").replace("\n", " ") for cell in row]) for row in rows]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def read_descriptions(described: type) -> dict[str, str]:
    """The strings under the attributes of a class, on one line each."""
    tree = ast.parse(inspect.getsource(described))
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    found = {}
    for before, after in itertools.pairwise(body):
        if (
            isinstance(before, ast.AnnAssign)
            and isinstance(before.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            found[before.target.id] = " ".join(after.value.value.split()).replace("``", "`")
    return found
