"""Storage: keys, values and transactions of Matyan's data and of our own records. Knows neither Celery nor Kafka."""
