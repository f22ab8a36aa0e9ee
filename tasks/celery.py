"""What ``celery -A tasks worker`` loads: the application with its tasks. The settings are read here, once."""

from __future__ import annotations

import sys
from typing import Any

from celery.signals import (
    beat_init,
    setup_logging,
    worker_init,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
)

from storage.errors import EngineMissing
from storage.meaning import CONTROL, INGEST
from tasks.app import make_app
from tasks.batches import register_route
from tasks.beat import BeatWatch
from tasks.blob_stores import OpenedBlobs, check_library
from tasks.cascade import register_cascade
from tasks.cleanup import register_cleanup
from tasks.follow_ups import FollowUps
from tasks.job_runner import JobRunner
from tasks.jobs import register_jobs
from tasks.logs import configure_logs
from tasks.meter import Meter
from tasks.metrics import STORE_RETRIES
from tasks.opened import OpenedStore
from tasks.outbox import OutboxPublisher
from tasks.outbox_task import register_outbox
from tasks.queues import CONTROL_TASK, INGEST_TASK
from tasks.redis_refusals import REFUSALS
from tasks.requeue_tasks import register_requeues
from tasks.schedule import make_schedule, schedule_file
from tasks.settings import WrongSettingError, load_settings
from tasks.tracing import connect_signals
from tasks.worker import HeartbeatStep, WorkerWatch

try:
    settings = load_settings()
    app = make_app(settings)
except WrongSettingError as error:
    sys.exit(str(error))

app.conf.update(beat_schedule=make_schedule(settings), beat_schedule_filename=schedule_file(settings))
meter = Meter()
opened = OpenedStore(settings, retried=lambda: meter.count(STORE_RETRIES))
blobs = OpenedBlobs(settings)
publisher = OutboxPublisher(settings)
follow_ups = FollowUps(app, opened, publisher)
ingest = register_route(app, opened, meter, INGEST_TASK, INGEST, follow_ups.do)
control = register_route(app, opened, meter, CONTROL_TASK, CONTROL, follow_ups.do)
cleanup = register_cleanup(app, opened, blobs, meter, settings)
publish_outbox = register_outbox(app, opened, publisher)
cascade = register_cascade(app, opened, settings)
runner = JobRunner(settings, app, store=opened.store, blobs=blobs.blobs, publisher=publisher)
jobs = register_jobs(app, runner)
register_requeues(app, opened, settings)

if settings.tracing:
    connect_signals()
beat_init.connect(BeatWatch(settings, opened, meter).begin, weak=False)
watch = WorkerWatch(settings, opened, meter)
app.steps["worker"].add(HeartbeatStep)
worker_init.connect(watch.begin, weak=False)
worker_ready.connect(watch.become_ready, weak=False)
worker_process_init.connect(watch.begin_child, weak=False)
worker_process_shutdown.connect(watch.end_child, weak=False)
worker_shutdown.connect(watch.end, weak=False)


@setup_logging.connect(weak=False)
def _log(**_: Any) -> None:
    REFUSALS.aloud = True
    configure_logs(settings.log_level, settings.log_format, traced=settings.tracing)


@worker_init.connect(weak=False)
def _look(**_: Any) -> None:
    try:
        check_library(settings)
        publisher.check()
    except (EngineMissing, WrongSettingError) as error:
        sys.exit(str(error))


@worker_process_shutdown.connect(weak=False)
@worker_shutdown.connect(weak=False)
def _close(**_: Any) -> None:
    publisher.close()
    blobs.close()
    opened.close()
