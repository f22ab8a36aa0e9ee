"""Batches into Celery's queues. Blocking calls, for the thread that talks to Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from storage.masking import mask_url
from tasks.redis_answers import explain
from tasks.tracing import batch_span

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery import Celery
    from kombu import Connection, Producer

    from bridge.route import Route
    from storage.batch import Batch


class RedisAway(Exception):
    """Redis did not take a batch, or may have taken it: send it again later (a duplicate is harmless)."""


class Publisher:
    """Sends batches with one kept connection and producer.

    Args:
        app: the Celery application; its tasks are not needed.
        route: queue names and task.
    """

    def __init__(self, app: Celery, route: Route) -> None:
        self._app = app
        self._route = route
        self._connection: Connection | None = None
        self._producer: Producer | None = None

    def send(self, batch: Batch, parents: Iterable[str] = ()) -> None:
        """Enqueue a batch in its lane's queue.

        Args:
            batch: what to send.
            parents: the traces of its records.

        Raises:
            RedisAway: it may not have got there.
        """
        try:
            if self._producer is None:
                self._connection = self._app.connection_for_write()
                self._producer = self._app.amqp.Producer(self._connection, auto_declare=False)
            options = self._route.options(batch)
            with batch_span(batch, self._route.task, parents):
                self._app.send_task(self._route.task, producer=self._producer, retry=False, **options)
        except (OperationalError, RedisError, OSError) as error:
            self.close()
            raise RedisAway(mask_url(explain(error))) from error

    def is_empty(self, queue: str) -> bool:
        """Whether nothing waits in a queue (what a worker holds is not counted).

        Raises:
            RedisAway: no answer.
        """
        try:
            if self._connection is None:
                self._connection = self._app.connection_for_write()
            client: Any = self._connection.default_channel.client
            return int(client.llen(queue)) == 0
        except (OperationalError, RedisError, OSError) as error:
            self.close()
            raise RedisAway(mask_url(explain(error))) from error

    def close(self) -> None:
        """Close the connection; the next call opens another. Closing twice is fine."""
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            connection.release()
