"""Log lines: their form, and what is bound to them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import logging, sys, structlog
from structlog.contextvars import bound_contextvars
from tasks.logs import configure_logs
configure_logs("INFO", sys.argv[1])
with bound_contextvars(partition=3, run="r1"):
    structlog.get_logger("ours").info("said", run="r2", lane=1)
    logging.getLogger("theirs").warning("said %s", "too")
structlog.get_logger("ours").debug("not said")
logging.getLogger("celery.app.trace").info("not said")
try:
    1 / 0
except ZeroDivisionError:
    structlog.get_logger("ours").exception("broke")
"""


def say(form: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", SCRIPT, form], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


@pytest.mark.parametrize("form", ["json", "auto"])  # nobody looks at a pipe
def test_json_has_one_object_a_line_with_what_is_bound(form: str) -> None:
    first, second, third = (json.loads(line) for line in say(form))
    assert (first["event"], first["logger"], first["level"]) == ("said", "ours", "info")
    assert (first["partition"], first["run"], first["lane"]) == (3, "r2", 1)  # the line's own wins
    assert (second["event"], second["logger"], second["partition"], second["run"]) == ("said too", "theirs", 3, "r1")
    assert "ZeroDivisionError" in third["exception"]
    assert "partition" not in third


def test_console_is_for_people() -> None:
    lines = say("console")
    assert "said" in lines[0]
    assert "partition=3" in lines[0]
    assert not lines[0].startswith("{")
    assert "\x1b" not in "".join(lines)  # no colours where no terminal is
