"""What ``celery -A tasks worker`` loads: the application with its tasks. The settings are read here, once."""

from __future__ import annotations

import sys
from typing import Any

from celery.signals import setup_logging, worker_process_shutdown, worker_shutdown

from storage.meaning import CONTROL, INGEST
from tasks.app import make_app
from tasks.batches import register_route
from tasks.blob_stores import OpenedBlobs
from tasks.cascade import register_cascade
from tasks.cleanup import register_cleanup
from tasks.follow_ups import FollowUps
from tasks.job_runner import JobRunner
from tasks.jobs import register_jobs
from tasks.logs import configure_logs
from tasks.opened import OpenedStore
from tasks.outbox import OutboxPublisher
from tasks.outbox_task import register_outbox
from tasks.queues import CONTROL_TASK, INGEST_TASK
from tasks.schedule import configure_beat
from tasks.settings import WrongSettingError, load_settings

try:
    settings = load_settings()
except WrongSettingError as error:
    sys.exit(str(error))

app = make_app(settings)
app.conf.update(configure_beat(settings))
opened = OpenedStore(settings)
blobs = OpenedBlobs(settings)
publisher = OutboxPublisher(settings)
follow_ups = FollowUps(app, opened, publisher)
ingest = register_route(app, opened, INGEST_TASK, INGEST, follow_ups.do)
control = register_route(app, opened, CONTROL_TASK, CONTROL, follow_ups.do)
cleanup = register_cleanup(app, opened, blobs, settings)
publish_outbox = register_outbox(app, opened, publisher)
cascade = register_cascade(app, opened, settings)
runner = JobRunner(settings, app, store=opened.store, blobs=blobs.blobs, publisher=publisher)
jobs = register_jobs(app, runner)


@setup_logging.connect(weak=False)
def _log(**_: Any) -> None:
    configure_logs(settings.log_level)


@worker_process_shutdown.connect(weak=False)
@worker_shutdown.connect(weak=False)
def _close(**_: Any) -> None:
    publisher.close()
    blobs.close()
    opened.close()
