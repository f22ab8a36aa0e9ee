"""Settings of Redis, Celery's broker."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tasks.settings.kinds import RedisURL, Secret, Section
from tasks.settings.redis_url import Kind, RedisAddress, read_redis_url


class RedisSettings(Section):
    """Where Redis is, its sentinels, and what in it is ours."""

    redis_url: Annotated[RedisURL, Secret.URL] = "redis://localhost:6379/0"
    """Celery's broker: ``redis://[user:password@]host:port/database``; ``rediss://`` for TLS, ``sentinel://`` and
    ``sentinels://`` for sentinels (``sentinel://a:26379,b:26379,c:26379/0``), ``unix:///path?db=0``. TLS verifies the
    server by the system's authorities, or by ``?ssl_ca_certs=/path``; ``?ssl_cert_reqs=none`` switches that off."""
    redis_sentinel_master: str = ""
    """The name by which the sentinels know the master; needed with ``sentinel://``."""
    redis_sentinel_username: Annotated[str, Secret.SHOWN] = ""
    """Who we are to the sentinels themselves; user and password in REDIS_URL are for the servers."""
    redis_sentinel_password: Annotated[str, Secret.HIDDEN] = ""
    """The sentinels' own password. Empty: they ask for none."""
    redis_sentinel_tls: bool = True
    """Whether the sentinels are spoken to by TLS where the servers are, by the same parameters of REDIS_URL."""

    redis_key_prefix: Annotated[str, Field(pattern="^[A-Za-z0-9._:/-]*$", max_length=100)] = ""
    """Stands before each key and channel of ours, ``matyan-a:`` for example, so that several installations can share a
    database. All programs of an installation must have the same; a change needs a drain, as that of INGEST_QUEUES."""
    queue_prefix: Annotated[str, Field(pattern="^[A-Za-z0-9._:-]*$", max_length=100)] = ""
    """Stands before the names of our queues, ``a.`` for example, and so in Flower, ``status`` and ``--queues``; before
    what Celery names beside them too. With it several installations can share a database whose keys must not change."""

    def redis_address(self) -> RedisAddress:
        """What REDIS_URL says."""
        return read_redis_url(self.redis_url)


def find_wrong_sentinels(settings: RedisSettings) -> list[str]:
    """One sentence for each setting of the sentinels that is missing, or that does nothing."""
    if settings.redis_address().kind is Kind.SENTINEL:
        if settings.redis_sentinel_master:
            return []
        return ["REDIS_SENTINEL_MASTER is empty: name the master (each sentinel lists its own by SENTINEL MASTERS)"]
    given = {
        "REDIS_SENTINEL_MASTER": settings.redis_sentinel_master,
        "REDIS_SENTINEL_USERNAME": settings.redis_sentinel_username,
        "REDIS_SENTINEL_PASSWORD": settings.redis_sentinel_password,
    }
    return [
        f"{name} does nothing, since REDIS_URL names no sentinels: take it away, or use sentinel://"
        for name, value in given.items()
        if value
    ]
