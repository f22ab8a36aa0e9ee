"""The page of Celery's tasks."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

from matyan_celery.reference.tables import NOTE, make_table
from tasks.job_list import JOBS
from tasks.settings import Settings, setting_names

if TYPE_CHECKING:
    from collections.abc import Mapping

_OURS: Final = "matyan."
_INTRODUCTION: Final = """\
What the workers run. People need none of it: the bridge, beat and the commands send these. A task that comes twice, or
is lost, does no harm: what is to be done stands in Kafka or in the store, and both are looked at again.

Queues: batches of the ingestion topic go to `ingest.00`, `ingest.01`, ... (one a lane, modulo `INGEST_QUEUES`), those
of the control topic to `control.00`, ... (modulo `CONTROL_QUEUES`), cleanups and cascades to `cleanup`, all else to
`jobs`.
"""


def write_tasks() -> str:
    """The page, by a process of its own: tasks are registered once a process, and read the settings."""
    command = [sys.executable, "-m", "matyan_celery.reference.tasks"]
    environment = {name: value for name, value in os.environ.items() if name.upper() not in setting_names(Settings)}
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def _make_page() -> str:
    from tasks.celery import app

    registered: Mapping[str, Any] = app.tasks
    ours = sorted(name for name in registered if name.startswith(_OURS))
    about = {job.task: f"Beat's job `{job.name}` (`{job.setting}`): {job.about}." for job in JOBS.values()}
    rows = [
        (f"`{name}`", _arguments(registered[name].run), about.get(name) or _about(registered[name])) for name in ours
    ]
    return "\n".join([NOTE, "# Tasks", "", _INTRODUCTION, *make_table(("name", "arguments", "what it does"), rows), ""])


def _arguments(function: Any) -> str:
    parameters = inspect.signature(function).parameters.values()
    return ", ".join(f"`{parameter}`".replace("'", "") for parameter in parameters if parameter.name != "self")


def _about(task: Any) -> str:
    return (inspect.getdoc(task.run) or "").partition("\n\n")[0].replace("\n", " ")


if __name__ == "__main__":
    print(_make_page(), end="")
