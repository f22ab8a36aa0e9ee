"""The one reader of Redis URLs: what a URL says, or in a sentence what is wrong with it, never with the password.

Pure: nothing is connected to, and no file is looked at. What Celery makes of it: `tasks.broker`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, NoReturn
from urllib.parse import unquote_to_bytes

from storage.masking import HIDDEN

_ESCAPE: Final = "in a password write % / ? # @ : ; , and a blank as %25 %2F %3F %23 %40 %3A %3B %2C %20"
_SWITCH: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_UNREADABLE: Final = re.compile(r"""[\s\x00-\x1f\x7f'"]""")
_HOST: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+)")
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ANOTHER: Final = re.compile(r"[;,](?=[a-z+]+://)")


class Kind(StrEnum):
    """How Redis is reached."""

    SERVER = "server"
    SOCKET = "socket"
    SENTINEL = "sentinel"


class Verify(StrEnum):
    """What is asked of the server's certificate; ``optional`` verifies it too, as Python's TLS clients do."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    NONE = "none"


class Node(NamedTuple):
    """A host and its port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class TLS:
    """How the server is verified, and who we are.

    Attributes:
        verify: what is asked of its certificate.
        check_hostname: whether the certificate must be for the host that we connect to.
        ca_file: the authorities that may have signed it, beside the system's; empty: the system's alone.
        ca_folder: a folder of them.
        certificate: file of our own certificate; empty: none.
        key: file of its key; empty: it stands in the certificate's file.
        key_password: opens the key.
    """

    verify: Verify = Verify.REQUIRED
    check_hostname: bool = True
    ca_file: str = ""
    ca_folder: str = ""
    certificate: str = ""
    key: str = ""
    key_password: str = ""

    @property
    def files(self) -> dict[str, str]:
        """The files and folders that must be readable, by the parameter that names them."""
        named = {
            "ssl_ca_certs": self.ca_file,
            "ssl_ca_path": self.ca_folder,
            "ssl_certfile": self.certificate,
            "ssl_keyfile": self.key,
        }
        return {name: path for name, path in named.items() if path}


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where Redis is, and what we show it.

    Attributes:
        kind: how it is reached.
        nodes: the server, or the sentinels.
        path: the socket's path.
        database: number of the database.
        user: empty: the default user.
        password: of the servers; empty: none. The sentinels' own is a setting.
        tls: None: plain.
        credential_provider: a class of redis-py's kind that gives user and password, as ``module:Class``.
    """

    kind: Kind
    nodes: tuple[Node, ...] = ()
    path: str = ""
    database: int = 0
    user: str = ""
    password: str = ""
    tls: TLS | None = None
    credential_provider: str = ""

    def __str__(self) -> str:
        """For people: without the password; nor is a user shown who has none, since that may be a password too."""
        who = f"{self.user}:{HIDDEN}@" if self.password else f"{HIDDEN}@" if self.user else ""
        if self.kind is Kind.SOCKET:
            return f"unix://{who}{self.path}?db={self.database}"
        scheme = {Kind.SERVER: "redis", Kind.SENTINEL: "sentinel"}[self.kind] + ("s" if self.tls else "")
        return f"{scheme}://{who}{','.join(map(str, self.nodes))}/{self.database}"

    def __repr__(self) -> str:
        return f"<RedisAddress {self}>"


_SCHEMES: Final = {  # kind, TLS, the port where none is given
    "redis": (Kind.SERVER, False, 6379),
    "rediss": (Kind.SERVER, True, 6379),
    "unix": (Kind.SOCKET, False, 0),
    "redis+socket": (Kind.SOCKET, False, 0),
    "sentinel": (Kind.SENTINEL, False, 26379),
    "sentinels": (Kind.SENTINEL, True, 26379),
}
_DATABASE: Final = ("db", "virtual_host")
_TLS: Final = "ssl_"
_PARAMETERS: Final = (
    *_DATABASE,
    "credential_provider",
    "ssl_cert_reqs",
    "ssl_check_hostname",
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_password",
)


class _Pieces(NamedTuple):
    """A URL cut up, nothing of it decoded yet."""

    scheme: str
    user_info: str | None
    hosts: str
    path: str
    query: str


def read_redis_url(url: str) -> RedisAddress:
    """What a URL says.

    Args:
        url: ``redis://[[user]:password@]host[:port][/database]``, ``rediss://`` with TLS, ``unix:///path`` (or
            ``redis+socket:///path``), ``sentinel://host:port,host:port/database`` (or, as Celery has it,
            ``sentinel://host:port;sentinel://host:port``), ``sentinels://`` with TLS; parameters after a ``?``.

    Raises:
        ValueError: a sentence that says what is wrong, and holds nothing that could be secret.
    """
    if _UNREADABLE.search(url):
        _refuse(f"a blank, a line break or a quote stands in it: take it away ({_ESCAPE})")
    pieces = _join([_cut(part) for part in _ANOTHER.split(url)])
    kind, secure, port = _SCHEMES[pieces.scheme]
    nodes = () if kind is Kind.SOCKET else _read_nodes(pieces.hosts, kind, port)
    user, password = _read_user(pieces.user_info)
    given = _read_query(pieces.query)
    named = {name: value for name, value in given.items() if name.startswith(_TLS)}
    if kind is Kind.SOCKET and named:
        _refuse(f"a socket has no TLS: take {', '.join(named)} away")
    return RedisAddress(
        kind=kind,
        nodes=nodes,
        path=_read_socket(pieces) if kind is Kind.SOCKET else "",
        database=_read_database("" if kind is Kind.SOCKET else pieces.path, given),
        user=user,
        password=password,
        tls=_read_tls(named) if secure or named else None,
        credential_provider=given.get("credential_provider", ""),
    )


def _refuse(sentence: str) -> NoReturn:
    raise ValueError(sentence)


def _cut(part: str) -> _Pieces:
    scheme, found, rest = part.partition("://")
    scheme = scheme.lower()
    if not found or scheme not in _SCHEMES:
        _refuse(f"use a URL that starts with one of {', '.join(f'{name}://' for name in _SCHEMES)}")
    before, _, query = rest.partition("?")
    authority, slash, path = before.partition("/")
    if "#" in rest or "@" in path + query or _BAD_ESCAPE.search(rest):
        _refuse(f"a # stands in it, an @ behind its host, or a % that escapes nothing: {_ESCAPE}")
    user_info, at, hosts = authority.rpartition("@")
    if "@" in user_info and _SCHEMES[scheme][0] is Kind.SENTINEL:
        _refuse(f"user and password stand once, before the first of the sentinels' hosts; {_ESCAPE}")
    return _Pieces(scheme, user_info if at else None, hosts, slash + path, query)


def _join(parts: list[_Pieces]) -> _Pieces:
    """The URLs of several sentinels as one."""
    if len(parts) == 1:
        return parts[0]
    if {_SCHEMES[part.scheme][0] for part in parts} != {Kind.SENTINEL}:
        _refuse(
            "several URLs are for sentinels alone, since our programs must all use one Redis: for failover use "
            "sentinel://"
        )
    agreed = []
    for what, given in (
        ("schemes", {part.scheme for part in parts}),
        ("users or passwords", {part.user_info for part in parts} - {None}),
        ("databases", {part.path for part in parts} - {"", "/"}),
        ("parameters", {part.query for part in parts} - {""}),
    ):
        if len(given) > 1:
            _refuse(f"its URLs have different {what}: write them once")
        agreed.append(next(iter(given), ""))
    scheme, user_info, path, query = agreed
    return _Pieces(scheme or "", user_info or None, ",".join(part.hosts for part in parts), path or "", query or "")


def _decode(text: str) -> str:
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        _refuse(f"what is escaped in it is not UTF-8: {_ESCAPE}")


def _read_user(user_info: str | None) -> tuple[str, str]:
    user, _, password = (user_info or "").partition(":")
    return _decode(user), _decode(password)


def _read_nodes(hosts: str, kind: Kind, port: int) -> tuple[Node, ...]:
    several = re.split("[,;]", hosts)
    if len(several) > 1 and kind is not Kind.SENTINEL:
        _refuse(f"several hosts are for sentinel:// alone (Celery knows no Redis Cluster); {_ESCAPE}")
    return tuple(dict.fromkeys(_read_node(host, port) for host in several))


def _read_node(text: str, port: int) -> Node:
    if not text or text.startswith(":"):
        _refuse("the host is missing: write, for example, redis://localhost:6379/0")
    found = _HOST.match(text)
    if found is None:
        _refuse("its host cannot be read: an IPv6 address stands in brackets, as in redis://[::1]:6379/0")
    rest = text[found.end() :]
    number = rest.removeprefix(":")
    if rest and (not rest.startswith(":") or not _NUMBER.fullmatch(number) or not 0 < int(number) < 65_536):
        _refuse(f"what stands where the port should is no number from 1 to 65535; {_ESCAPE}")
    return Node(found.group(1) or _decode(found.group(2)), int(number) if number else port)


def _read_socket(pieces: _Pieces) -> str:
    path = _decode(pieces.path)
    if pieces.hosts or len(path) < 2:
        _refuse("a socket's URL has three slashes and a path: unix:///run/redis/redis.sock?db=0")
    return path


def _read_database(path: str, given: dict[str, str]) -> int:
    numbers = {text for text in (path.strip("/"), *(given.get(name, "") for name in _DATABASE)) if text}
    if len(numbers) > 1:
        _refuse("it names two databases: name one")
    number = next(iter(numbers), "0")
    if not _NUMBER.fullmatch(number):
        _refuse(f"what follows the host is the database's number, as in redis://localhost:6379/0; {_ESCAPE}")
    return int(number)


def _read_query(query: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for parameter in query.split("&") if query else ():
        name, found, value = parameter.partition("=")
        if name not in _PARAMETERS:
            which = f" {name}" if name.isidentifier() and found else ""
            _refuse(f"its parameter{which} is not known: known are {', '.join(_PARAMETERS)}")
        if not found or not value:
            _refuse(f"its parameter {name} has no value: give it one, or take it away")
        if name in given:
            _refuse(f"its parameter {name} is given twice")
        given[name] = _decode(value)
    return given


def _read_tls(named: dict[str, str]) -> TLS:
    verify = named.get("ssl_cert_reqs", Verify.REQUIRED).lower().removeprefix("cert_")
    if verify not in list(Verify):
        _refuse(f"ssl_cert_reqs is one of {', '.join(Verify)}")
    check = _SWITCH.get(named.get("ssl_check_hostname", "true").lower())
    if check is None:
        _refuse("ssl_check_hostname is true or false")
    if "ssl_certfile" not in named and ("ssl_keyfile" in named or "ssl_password" in named):
        _refuse("ssl_keyfile and ssl_password go with ssl_certfile, our own certificate: name its file too")
    return TLS(
        verify=Verify(verify),
        check_hostname=check,
        ca_file=named.get("ssl_ca_certs", ""),
        ca_folder=named.get("ssl_ca_path", ""),
        certificate=named.get("ssl_certfile", ""),
        key=named.get("ssl_keyfile", ""),
        key_password=named.get("ssl_password", ""),
    )
