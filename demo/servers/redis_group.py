"""Redis servers with replicas, sentinels, TLS and passwords, as processes on 127.0.0.1. Keeps nothing on disk."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, Final

import redis

from demo.servers.process import Process, free_port, wait_until
from demo.servers.redis import find_redis

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from demo.servers.certificates import Authority

MASTER: Final = "matyan"
_DOWN_MILLISECONDS: Final = 2_000
_LOCAL: Final = "127.0.0.1"


def missing_for_redis_group() -> str | None:
    """What is not here; None: all that is needed. The servers inside wheels know no TLS."""
    if shutil.which("redis-server") is None:
        return "no redis-server on the path: install Debian's redis-server"
    return None


class RedisNode(Process):
    """A Redis, or a sentinel.

    Args:
        folder: for its configuration and log.
        name: for messages, and of its files.
        directives: of its configuration, by name; one that is given more than once as a list.
        password: of its default user; empty: none.
        authority: signs its certificate; None: no TLS.
        sentinel: whether it is one.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        directives: Mapping[str, str | list[str]],
        *,
        password: str = "",
        authority: Authority | None = None,
        sentinel: bool = False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._password = password
        self._authority = authority
        self._file = folder / f"{name}.conf"
        given: dict[str, str | list[str]] = {"bind": _LOCAL, "port": str(self.port), "dir": str(folder)}
        if not sentinel:
            given |= {"save": '""', "appendonly": "no", "repl-diskless-sync-delay": "0"}
        if password:
            given |= {"requirepass": password} if sentinel else {"requirepass": password, "masterauth": password}
        if authority is not None:
            certificate, key = authority.sign(name)
            given |= {"port": "0", "tls-port": str(self.port), "tls-replication": "yes", "tls-auth-clients": "no"}
            given |= {"tls-cert-file": str(certificate), "tls-key-file": str(key)}
            given |= {"tls-ca-cert-file": str(authority.file)}
        lines = []
        for directive, found in (given | dict(directives)).items():
            lines += [f"{directive} {value}\n" for value in ([found] if isinstance(found, str) else found)]
        self._file.write_text("".join(lines))
        command = [str(find_redis()), str(self._file), *(["--sentinel"] if sentinel else [])]
        super().__init__(name, command, folder / f"{name}.log")

    def client(self, **options: Any) -> redis.Redis:
        """A client of it."""
        tls: dict[str, Any] = {}
        if self._authority is not None:  # its certificate may be for another host, on purpose
            tls = {"ssl": True, "ssl_ca_certs": str(self._authority.file), "ssl_check_hostname": False}
        given = {"socket_timeout": 5.0, "password": self._password or None, **tls, **options}
        return redis.Redis(_LOCAL, self.port, **given)

    def is_ready(self) -> bool:
        """Whether our own server, and not another at its port, answers."""
        try:
            with self.client(socket_timeout=1.0) as client:
                return bool(client.info("server")["process_id"] == self.pid)
        except redis.RedisError:
            return False


class RedisGroup:
    """A master, replicas, and three sentinels that know it as `MASTER`.

    Args:
        folder: for all their files.
        replicas: how many.
        password: of the servers; empty: none.
        sentinel_password: of the sentinels; empty: none.
        authority: signs the certificates of all of them; None: no TLS.
    """

    def __init__(
        self,
        folder: Path,
        *,
        replicas: int = 1,
        password: str = "",
        sentinel_password: str = "",
        authority: Authority | None = None,
    ) -> None:
        self.servers = [RedisNode(folder, "redis-0", {}, password=password, authority=authority)]
        of = {"replicaof": f"{_LOCAL} {self.servers[0].port}"}
        for number in range(1, replicas + 1):
            self.servers.append(RedisNode(folder, f"redis-{number}", of, password=password, authority=authority))
        watch: dict[str, str | list[str]] = {
            "sentinel": [
                f"monitor {MASTER} {_LOCAL} {self.servers[0].port} 2",
                f"down-after-milliseconds {MASTER} {_DOWN_MILLISECONDS}",
                f"failover-timeout {MASTER} 10000",
                *([f"auth-pass {MASTER} {password}"] if password else []),
                *([f"sentinel-pass {sentinel_password}"] if sentinel_password else []),
            ]
        }
        self.sentinels = [
            RedisNode(
                folder / f"sentinel-{number}",
                f"sentinel-{number}",
                watch,
                password=sentinel_password,
                authority=authority,
                sentinel=True,
            )
            for number in range(3)
        ]
        self._password, self._secure = password, authority
        self._sentinel_password = sentinel_password

    def settings(self) -> dict[str, str]:
        """What our programs connect to."""
        scheme, query = "sentinel", ""
        if self._secure is not None:
            scheme, query = "sentinels", f"?ssl_ca_certs={self._secure.file}"
        user = f":{self._password}@" if self._password else ""
        hosts = ",".join(f"{_LOCAL}:{sentinel.port}" for sentinel in self.sentinels)
        given = {"REDIS_URL": f"{scheme}://{user}{hosts}/0{query}", "REDIS_SENTINEL_MASTER": MASTER}
        return given | ({"REDIS_SENTINEL_PASSWORD": self._sentinel_password} if self._sentinel_password else {})

    def master(self) -> RedisNode:
        """The server that the first sentinel that answers calls the master.

        Raises:
            redis.RedisError: none answers.
        """
        error: Exception = redis.ConnectionError("there is no sentinel")
        for sentinel in self.sentinels:
            try:
                with sentinel.client() as client:
                    port = int(client.sentinel_get_master_addr_by_name(MASTER)[1])
            except redis.RedisError as failed:
                error = failed
                continue
            return next(server for server in self.servers if server.port == port)
        raise error

    def wait_whole(self, seconds: float = 60.0) -> None:
        """Wait until each sentinel knows the other two and all the replicas, and those are in step with the master.

        Raises:
            TimeoutError: that did not come to be.
        """

        def is_whole() -> bool:
            try:
                for sentinel in self.sentinels:
                    with sentinel.client() as client:
                        state = client.sentinel_masters()[MASTER]
                        if state["num-other-sentinels"] < len(self.sentinels) - 1:
                            return False
                        good = [each for each in client.sentinel_slaves(MASTER) if not each["is_sdown"]]
                        if len([each for each in good if each["master-link-status"] == "ok"]) < len(self.servers) - 1:
                            return False
            except redis.RedisError:
                return False
            return True

        wait_until(is_whole, "the sentinels know each other", seconds=seconds)

    def __enter__(self) -> Self:
        try:
            for node in (*self.servers, *self.sentinels):
                node.start()
            self.wait_whole()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End all of them. Ending twice is fine."""
        for node in (*self.sentinels, *self.servers):
            node.kill()
