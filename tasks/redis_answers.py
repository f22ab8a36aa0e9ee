"""What Redis says when it is there and will not: which of it passes by itself, and which a person must mend.

Both are waited out by everything that talks to Redis (`tasks.redis_transport` makes them errors of the connection,
which Celery and kombu outlast): nothing is lost meanwhile, since the store's cursors and ledgers know what is to be
done. The difference is for people: what does not pass is said with what to do.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from redis.exceptions import RedisError


class Answer(NamedTuple):
    """One kind of refusal.

    Attributes:
        passes: whether it ends by itself.
        meaning: what is the matter, after "Redis ...".
        remedy: what a person does; where it passes, what to look at if it does not.
    """

    passes: bool
    meaning: str
    remedy: str


_CLUSTER: Final = "Redis Cluster is not supported: let REDIS_URL name a single server or one with replicas"

ANSWERS: Final[dict[str, Answer]] = {
    "READONLY": Answer(True, "is a replica and takes no writes", "if it stays so, let REDIS_URL lead to the master"),
    "UNBLOCKED": Answer(True, "has just become a replica", "if it stays so, let REDIS_URL lead to the master"),
    "LOADING": Answer(True, "is still reading its data from disk", "if it does not end, look at Redis' log"),
    "MASTERDOWN": Answer(True, "is a replica that has lost its master", "if it stays so, look at the master"),
    "NOREPLICAS": Answer(True, "has fewer good replicas than it must have to take writes", "look at the replicas"),
    "BUSY": Answer(True, "is busy with a script", "if it does not end, send SCRIPT KILL, and find out whose it is"),
    "MAXCLIENTS": Answer(True, "has as many clients as it takes", "if it stays so, raise maxclients"),
    "TRYAGAIN": Answer(True, "is moving keys between nodes", _CLUSTER),
    "CLUSTERDOWN": Answer(False, "is a node of a cluster that is down", _CLUSTER),
    "MOVED": Answer(False, "is a node of a cluster", _CLUSTER),
    "ASK": Answer(False, "is a node of a cluster", _CLUSTER),
    "CROSSSLOT": Answer(False, "is a node of a cluster", _CLUSTER),
    "MISCONF": Answer(
        False,
        "cannot save its data to disk and so takes no writes",
        "give its disk room or its folder the rights to write, then BGSAVE; its log says why",
    ),
    "OOM": Answer(
        False, "is out of memory", "raise maxmemory, or find out who fills it: we hold one batch a lane there"
    ),
    "NOAUTH": Answer(False, "wants a password that REDIS_URL does not have", "put it into REDIS_URL (or its file)"),
    "WRONGPASS": Answer(False, "does not take the user or password in REDIS_URL", "correct REDIS_URL (or its file)"),
    "NOPERM": Answer(
        False, "does not let this user do that", "give the user its rights: docs/how-to/deploy.md has the commands"
    ),
    "DENIED": Answer(
        False,
        "is in protected mode and takes no connections from other machines",
        "set a password, or its bind address",
    ),
    "WRONGTYPE": Answer(
        False,
        "holds something else under a key of ours",
        "give each program a database or a prefix of its own, and delete the foreign key",
    ),
}
_UNKNOWN: Final = Answer(False, "refuses", "look at Redis and its log")
_GENERIC: Final = ("ERR", "EXECABORT")
_WORD: Final = re.compile(r"[A-Z]{2,}\b")
_INSIDE: Final = re.compile(rf"\b({'|'.join(ANSWERS)})\b")


def find_code(error: RedisError) -> str | None:
    """The word by which Redis names its refusal.

    Returns:
        ``ERR`` where it has no better one; None where this is no answer of Redis', but no connection, or none in time.
    """
    text = str(error)
    code = getattr(error, "status_code", None)
    if code is None:
        word = _WORD.match(text)
        code = word.group() if word else None
    if "max number of clients" in text:
        return "MAXCLIENTS"
    if code in _GENERIC:  # a script's or transaction's: the reason stands inside
        inside = _INSIDE.search(text)
        return inside.group() if inside else "ERR"
    return code


def find_answer(code: str) -> Answer:
    """What is known of a kind of refusal."""
    return ANSWERS.get(code, _UNKNOWN)


class Refusal(NamedTuple):
    """What Redis said.

    Attributes:
        code: the kind.
        text: its own words.
        answer: what is known of the kind.
    """

    code: str
    text: str
    answer: Answer


def find_refusal(error: BaseException) -> Refusal | None:
    """The refusal that an error is, or was made of; None: Redis did not answer at all, or it is something else."""
    cause: BaseException | None = error
    while cause is not None:
        code = find_code(cause) if isinstance(cause, RedisError) else None
        if code is not None:
            return Refusal(code, show_text(code, cause), find_answer(code))
        cause = cause.__cause__ or cause.__context__
    return None


def explain(error: BaseException) -> str:
    """What an error of Redis', or one that was made of it, says to people, with what to do."""
    refusal = find_refusal(error)
    if refusal is None:
        return f"Redis does not answer ({error}): look at REDIS_URL"
    return f"Redis {refusal.answer.meaning} ({refusal.text}): {refusal.answer.remedy}"


def show_text(code: str, error: BaseException) -> str:
    """Redis' own words, with their code, which redis-py cuts off where it knows it."""
    text = str(error)
    return text if code in text or code in ("ERR", "MAXCLIENTS") else f"{code} {text}"
