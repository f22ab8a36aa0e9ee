"""Celery's consumer, which outlasts a Redis that is away or refuses, and says that it lives meanwhile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

from tasks.celeryconfig import RECONNECT

if TYPE_CHECKING:
    from tasks.worker import WorkerWatch

_PAUSE: Final = 1.0  # seconds between two looks at a Redis that refuses
_SOON: Final = 5.0  # seconds: a connection that ended before was refused something that we did not look at


class WatchedConsumer(Consumer):  # type: ignore[misc] # Celery has no types
    """Tells `tasks.worker.WorkerWatch` when the connection to Redis goes and comes."""

    _connected_at = float("-inf")

    def ensure_connected(self, conn: Any) -> Any:
        """Connect to a Redis that takes writes, trying again for as long as it takes.

        A server that has become a replica, or cannot save to disk, keeps its connections and answers what only reads:
        Celery alone would connect to it and fail, several times a second.
        """
        watch: WorkerWatch = self.controller.matyan_watch
        watch.connects()
        ensure = conn.ensure_connection

        def turn() -> None:
            watch.turn()
            maybe_shutdown()

        def ensure_alive(errback: Any, tries: Any, **options: Any) -> Any:
            def failed(error: Exception, interval: float) -> None:
                watch.disconnected(error)
                errback(error, interval)

            return ensure(failed, tries, **{**options, **RECONNECT, "callback": turn})

        conn.ensure_connection = ensure_alive
        if time.monotonic() - self._connected_at < _SOON:
            turn()
            time.sleep(_PAUSE)
        while True:
            connected = super().ensure_connected(conn)
            try:
                with connected.channel() as channel:
                    channel.settle()
            except connected.connection_errors as error:
                watch.disconnected(error)
                connected.collect()  # another connection may lead to another server
                turn()
                time.sleep(_PAUSE)
            else:
                watch.connected()
                self._connected_at = time.monotonic()
                return connected
