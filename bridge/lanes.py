"""Which run a record belongs to, as far as the bridge needs to know, and which lane that run has.

The bridge reads no more of a record than that; a record that it cannot read is a dead letter wherever it goes.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from storage.batch import Record

_SUBJECTS: Final = ("run_id", "experiment_id", "tag_id", "project_id")
_HEAD: Final = 400  # bytes in which the stock producers have written the run id: type, run_id, timestamp come first


def find_run(record: Record) -> bytes:
    """The run id that orders an ingestion record, as UTF-8 bytes.

    It is the envelope's, since the envelope decides what is written; the Kafka key says the same for all stock
    producers, so a look whether the envelope's head agrees with the key is enough for them. Records without a
    readable run id are dead letters wherever they go: they are ordered by their key, or all together.
    """
    key, value = record.key, record.value
    if value is None:
        return key or b""
    if key and _is_stock_form(key, value):
        return key
    try:
        run = json.loads(value)["run_id"]
        return run.encode("utf-8", "surrogatepass") if isinstance(run, str) else key or b""
    except (ValueError, TypeError, KeyError, RecursionError):
        return key or b""


def find_subject(record: Record) -> bytes:
    """The id that orders a control event, as UTF-8 bytes: its payload's run, else its experiment, tag or project.

    The stock producers give control records no key; one without a readable id is ordered by its key all the same.
    """
    key, value = record.key, record.value
    if value is not None:
        try:
            payload = json.loads(value)["payload"]
            for field in _SUBJECTS:
                name = payload.get(field)
                if isinstance(name, str) and name:
                    return name.encode("utf-8", "surrogatepass")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            pass  # a dead letter
    return key or b""


def choose_lane(run: bytes, lanes: int) -> int:
    """The lane of a run: a stable hash (CRC-32), the same in every process and release."""
    return zlib.crc32(run) % lanes


def _is_stock_form(key: bytes, value: bytes) -> bool:
    """Whether an envelope says its run id where the stock producers say it, and only there, and it is the key."""
    if b'"' in key or b"\\" in key:
        return False
    return value.find(b'"run_id":"' + key + b'"', 0, _HEAD) >= 0 and value.count(b'"run_id"') == 1
