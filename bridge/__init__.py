"""The bridge: Kafka to run-hashed Celery queues, with epochs and cursors. Does not know what a message means."""
