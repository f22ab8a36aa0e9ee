"""What ``celery -A tasks worker`` loads: the application with its tasks. The settings are read here, once."""

from __future__ import annotations

import sys
from typing import Any

from celery.signals import setup_logging, worker_process_shutdown, worker_shutdown

from tasks.app import make_app
from tasks.ingest import register
from tasks.logs import configure_logs
from tasks.opened import OpenedStore
from tasks.requeue_tasks import register_requeues
from tasks.settings import WrongSettingError, load_settings

try:
    settings = load_settings()
except WrongSettingError as error:
    sys.exit(str(error))

app = make_app(settings)
opened = OpenedStore(settings)
ingest = register(app, opened)
register_requeues(app, opened, settings)


@setup_logging.connect(weak=False)
def _log(**_: Any) -> None:
    configure_logs(settings.log_level)


@worker_process_shutdown.connect(weak=False)
@worker_shutdown.connect(weak=False)
def _close_store(**_: Any) -> None:
    opened.close()
