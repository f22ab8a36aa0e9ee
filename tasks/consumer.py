"""Celery's consumer, which says that it lives also while it waits for Redis: its loop does not turn then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.worker.consumer import Consumer

if TYPE_CHECKING:
    from tasks.worker import WorkerWatch


class WatchedConsumer(Consumer):  # type: ignore[misc] # Celery has no types
    """Tells `tasks.worker.WorkerWatch` when the connection to Redis goes and comes."""

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, trying again as often as the settings say."""
        watch: WorkerWatch = self.controller.matyan_watch
        watch.disconnected()
        ensure = conn.ensure_connection

        def ensure_alive(*args: Any, callback: Any, **options: Any) -> Any:
            def between_tries() -> None:
                watch.turn()
                callback()

            return ensure(*args, callback=between_tries, **options)

        conn.ensure_connection = ensure_alive
        connected = super().ensure_connected(conn)
        watch.connected()
        return connected
