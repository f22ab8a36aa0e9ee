"""The Celery app, its settings, queues and tasks. Knows neither Kafka consumers nor key bytes."""
