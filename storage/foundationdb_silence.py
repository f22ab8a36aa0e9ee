"""Why a FoundationDB cluster does not answer, as far as its client knows: one sentence, in place of a bare time-out.

The client says of each server that it has tried whether it got a connection, and whether the other side speaks its
protocol (``fdb_database_get_client_status``). A client of another release line than the cluster connects, is never
answered, and gives no error: only this tells it from a cluster that is away.
"""

from __future__ import annotations

import ctypes
import json
import re
import time
from typing import Any, Final

LOCKED: Final = 1038
_PAUSE: Final = 0.05  # seconds between two looks whether the client has answered
_PROTOCOL: Final = re.compile(r"^0*fdb00b0(\d)(\d)", re.IGNORECASE)


def explain_silence(client: Any, database: Any, code: int, *, seconds: float) -> str:
    """What may be the matter, and what to do.

    Args:
        client: the package ``fdb``, or what stands for it.
        database: its database.
        code: of the error that a trivial read ended with.
        seconds: to wait at most for what the client says.
    """
    if code == LOCKED:
        return (
            "the database is locked, by an operator or by a restore under way: we go on by ourselves once it is "
            "unlocked (`fdbcli --exec status` tells)"
        )
    return describe_connections(_ask_client(database, seconds), own_version(client))


def describe_connections(status: bytes | None, own: str | None) -> str:
    """What the client's status says about its connections.

    Args:
        status: JSON of the client; None where it says nothing.
        own: the version that the client says it is of; None where it does not.
    """
    unknown = "is the cluster up, reachable, and of the client's release line?"
    try:
        connections = json.loads(status or b"{}").get("Connections") or []
        incompatible = [one for one in connections if one.get("Compatible") is False]
        connected = [one for one in connections if one.get("Status") == "connected"]
        addresses = ", ".join(str(one["Address"]) for one in connections)
    except (ValueError, AttributeError, KeyError, TypeError):
        return unknown
    if incompatible:
        return _explain_lines(incompatible[0], own)
    if connected:
        there = ", ".join(str(one["Address"]) for one in connected)
        return (
            f"connected to {there}, but the database gives no answer: are enough of the cluster's processes up, and is "
            "there space on their disks (`fdbcli --exec status` tells)?"
        )
    if addresses:
        return (
            f"no connection to {addresses}: is the cluster up, reachable, and is the cluster file that of its servers?"
        )
    return unknown


def own_version(client: Any) -> str | None:
    """The version of the client library, and its protocol, as ``7.3.80,...,fdb00b073000000``."""
    library = getattr(getattr(client, "impl", None), "_capi", None)
    ask = getattr(library, "fdb_get_client_version", None)
    if not isinstance(library, ctypes.CDLL) or ask is None:
        return None
    ask.restype = ctypes.c_char_p
    version = ask()
    return version.decode(errors="replace") if isinstance(version, bytes) else None


def _explain_lines(connection: dict[str, Any], own: str | None) -> str:
    cluster = release_line(str(connection.get("ProtocolVersion", "")))
    ours = release_line((own or "").rpartition(",")[2])
    our_name = f"our client library libfdb_c ({ours[0]}.{ours[1]})" if ours else "our client library libfdb_c"
    if cluster is None:
        what, install = f"is not of the release line of {our_name}", "'foundationdb-clients' of the cluster's line"
    else:
        name = f"{cluster[0]}.{cluster[1]}"
        words = "another than" if ours is None else "newer than" if cluster > ours else "older than"
        what = f"is of release line {name}, {words} {our_name}"
        install = f"'foundationdb-clients' {name}, and 'matyan-celery[fdb{cluster[0]}{cluster[1]}]' by pip"
    return f"the cluster at {connection['Address']} {what}: install {install}"


def release_line(protocol: str) -> tuple[int, int] | None:
    """The release line of a protocol version, ``fdb00b073000000`` for example; None for what is none."""
    found = _PROTOCOL.match(protocol.strip())
    return (int(found[1]), int(found[2])) if found else None


def _ask_client(database: Any, seconds: float) -> bytes | None:
    """The client's own status; None where its package cannot tell, or it does not in time."""
    try:
        future = database.get_client_status()
        deadline = time.monotonic() + seconds
        while not future.is_ready():
            if time.monotonic() > deadline:
                return None
            time.sleep(_PAUSE)
        value: bytes = future.value
    except Exception:  # noqa: BLE001 - asked in the middle of an error that has its own words; no answer is an answer
        return None
    return value
