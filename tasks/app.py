"""The Celery application, without its tasks: what the bridge needs to send, and workers to receive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery import Celery

from tasks import redis_transport
from tasks.broker import check_files
from tasks.celeryconfig import configure

if TYPE_CHECKING:
    from tasks.settings import Settings


def make_app(settings: Settings) -> Celery:
    """A Celery application configured by our settings. Connects to nothing yet.

    Raises:
        WrongSettingError: a file that REDIS_URL names cannot be read.
    """
    check_files(settings.redis_address())
    redis_transport.register()
    app = Celery("matyan")
    app.conf.update(configure(settings))
    return app
