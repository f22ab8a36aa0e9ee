"""Real servers for the tests of this folder that start programs: those of the integration tests."""

from tests.integration.conftest import _no_leaks, kafka_server, redis_server, s3_server

__all__ = ["_no_leaks", "kafka_server", "redis_server", "s3_server"]
