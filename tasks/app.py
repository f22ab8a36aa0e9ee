"""The Celery application, without its tasks: what the bridge needs to send, and workers to receive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery import Celery

from tasks.celeryconfig import configure

if TYPE_CHECKING:
    from tasks.settings import Settings


def make_app(settings: Settings) -> Celery:
    """A Celery application configured by our settings. Connects to nothing yet."""
    app = Celery("matyan")
    app.conf.update(configure(settings))
    return app
