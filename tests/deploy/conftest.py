"""Real servers for the tests of this folder that start programs: those of the integration tests."""

from tests.integration.conftest import (
    _no_leaks,
    control_topic,
    group,
    kafka,
    kafka_server,
    make_topic,
    programs,
    redis,
    redis_server,
    s3,
    s3_server,
    settings,
    topic,
)

__all__ = [
    "_no_leaks",
    "control_topic",
    "group",
    "kafka",
    "kafka_server",
    "make_topic",
    "programs",
    "redis",
    "redis_server",
    "s3",
    "s3_server",
    "settings",
    "topic",
]
