"""Kinds of trouble with a Redis that is there and refuses, made on a real one and ended again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Final

import redis

from demo.servers.process import free_port, wait_until
from demo.servers.redis import RedisServer

USER: Final = "default"


@contextmanager
def read_only(server: RedisServer) -> Iterator[None]:
    """A failover: it is a replica from now on (of a master that is away), and then the master again."""
    with server.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", free_port())
        yield
        client.execute_command("REPLICAOF", "NO", "ONE")


@contextmanager
def master_down(server: RedisServer) -> Iterator[None]:
    """A replica that says nothing of what it has while its master is away."""
    with server.client() as client:
        client.config_set("replica-serve-stale-data", "no")
        with read_only(server):
            yield
        client.config_set("replica-serve-stale-data", "yes")


@contextmanager
def cannot_save(server: RedisServer) -> Iterator[None]:
    """Its folder is gone, and a save has failed."""
    with server.client() as client:
        client.config_set("save", "3600 1")
        for path in server.data.iterdir():
            path.unlink()
        server.data.rmdir()
        client.bgsave()
        wait_until(
            lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "the save has failed", seconds=30
        )
        yield
        client.config_set("save", "")


@contextmanager
def out_of_memory(server: RedisServer) -> Iterator[None]:
    """It may hold less than it does, and throws nothing away."""
    with server.client() as client:
        client.config_set("maxmemory", 1)
        yield
        client.config_set("maxmemory", 0)


@contextmanager
def other_password(server: RedisServer) -> Iterator[None]:
    """Its password is another one, and whoever was connected is not any more."""
    with server.client() as client:
        client.config_set("requirepass", f"not-{server.password}")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")
        yield
        client.config_set("requirepass", server.password)


@contextmanager
def no_rights(server: RedisServer) -> Iterator[None]:
    """Our user may not do any more what it could."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", USER, "-@write")
        yield
        client.execute_command("ACL", "SETUSER", USER, "+@all")


@contextmanager
def too_many_clients(server: RedisServer) -> Iterator[None]:
    """It takes no more clients than the one that is us."""
    with server.client() as client:
        client.config_set("maxclients", 1)
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")
        yield
        client.config_set("maxclients", 10_000)


@contextmanager
def busy(server: RedisServer) -> Iterator[None]:
    """A script runs for longer than it should."""

    def run() -> None:
        with server.client(timeout=None) as client, suppress(redis.ResponseError):
            client.eval("while true do end", 0)

    with server.client() as client:
        client.config_set("lua-time-limit", 100)
        thread = Thread(target=run)
        thread.start()
        try:
            time.sleep(0.2)
            yield
        finally:
            client.script_kill()
            thread.join()


TROUBLES: Final = {
    "READONLY": read_only,
    "MASTERDOWN": master_down,
    "MISCONF": cannot_save,
    "OOM": out_of_memory,
    "WRONGPASS": other_password,
    "NOPERM": no_rights,
    "MAXCLIENTS": too_many_clients,
    "BUSY": busy,
}
