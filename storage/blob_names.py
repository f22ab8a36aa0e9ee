"""Which names may reach a blob store: a run's prefix, and the keys that an event names.

Deleting by prefix is the most dangerous thing this project does: an empty run id would be everybody's blobs. So the run
id is looked at where the event is read, where a cleanup is asked for, and again right before anything is listed.
"""

from __future__ import annotations

from typing import Final

from storage.errors import InvalidRecord

KEY_BYTES: Final = 1_024  # the longest key of S3, Azure and GCS
_WILDCARDS: Final = frozenset("*?")


class UnsafeName(InvalidRecord):
    """A run id or blob key that must never reach a blob store."""

    reason = "unsafe_name"


def run_prefix(run: str) -> str:
    """The prefix of all blobs of a run: its id and a slash.

    A dot within a name is allowed, a dot segment is not.

    Raises:
        UnsafeName: no prefix of one run: empty, ``.`` or ``..``, with a slash, control character or wildcard, not
            UTF-8, or so long that no key fits behind it.
    """
    if not run:
        msg = "the run id is empty: its prefix would be every run's"
        raise UnsafeName(msg)
    if run in (".", ".."):
        msg = f"the run id {run!r:.100} is a path segment that stands for another folder"
        raise UnsafeName(msg)
    for character in run:
        if character == "/" or character in _WILDCARDS or _is_control(character):
            msg = f"the run id {run!r:.100} has the character {character!r}, which no run's prefix has"
            raise UnsafeName(msg)
    if _size(run) + 1 >= KEY_BYTES:
        msg = f"the run id {run!r:.100} has {_size(run)} bytes, a key with its prefix has {KEY_BYTES} at most"
        raise UnsafeName(msg)
    return f"{run}/"


def check_key(key: str) -> str:
    """The key itself, if it may be a blob's.

    Raises:
        UnsafeName: it is empty, over-long, not UTF-8, or has a NUL character.
    """
    if not key or "\0" in key:
        msg = f"{key!r:.100} is no blob key: it is empty or has a NUL character"
        raise UnsafeName(msg)
    if _size(key) > KEY_BYTES:
        msg = f"the blob key {key!r:.100} has {_size(key)} bytes, a key has {KEY_BYTES} at most"
        raise UnsafeName(msg)
    return key


def is_foreign(run: str, key: str) -> bool:
    """Whether a key lies outside of its run's prefix, or may do so in a store that resolves dot segments."""
    return not key.startswith(run_prefix(run)) or not {".", ".."}.isdisjoint(key.split("/"))


def _is_control(character: str) -> bool:
    code = ord(character)
    return code < 0x20 or 0x7F <= code < 0xA0


def _size(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        msg = f"{text!r:.100} cannot be written as UTF-8: {error.reason}"
        raise UnsafeName(msg) from None
