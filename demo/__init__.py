"""The demo: `make demo` trains small models and sends what they log through Kafka, bridge and Celery into a store."""
