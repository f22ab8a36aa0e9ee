"""create_run, finish_run, delete_run (CONTRACT 6.1, 6.5, 6.12)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from storage.encoding import pack_key, pack_time, span, unpack_value
from storage.handlers.run import Run, RunKeys, count_links, last_element, parse_client_time

if TYPE_CHECKING:
    from storage.engine import Transaction
    from storage.envelope import Envelope
    from storage.overlay import Draft

_STEP_KEYS: Final = 2_000  # index entries or links that one step of a large delete takes
_STEP_BYTES: Final = 500_000  # of their keys; a clear counts its key two or three times towards the 10,000,000


def create_run(run: Run, envelope: Envelope) -> None:
    """Write the run afresh, or with ``force_resume`` open one that is there again."""
    payload = envelope.payload
    if payload.get("force_resume") and run.exists():
        run.move_entry("active", run.get("active"), True)
        run.put("active", True)
        run.put("finalized_at", None)
        run.touch()
    else:
        run.create()
    started = parse_client_time(payload.get("client_datetime"))
    if started is not None:
        run.put("client_start_ts", started)
        run.touch()


def finish_run(run: Run, envelope: Envelope) -> None:
    """Mark the run as ended; its duration is known only where the client gave both times."""
    finished = parse_client_time(envelope.payload.get("client_datetime"))
    started = run.get("client_start_ts")
    duration = None
    if finished is not None and started is not None:
        duration = max(0.0, finished - started)
    created = run.get("created_at")
    run.move_entry("active", run.get("active"), False)
    run.put("active", False)
    run.put("finalized_at", run.time if duration is None else (created or 0.0) + duration)
    run.put("duration", duration)
    run.touch()


def delete_run(run: Run, clock: float) -> None:
    """Delete everything of the run, and leave a tombstone with the clock's time."""
    keys, draft = run.keys, run.draft
    indexes = keys.directories.indexes
    reverse = span(keys.reverse)
    for key, _ in draft.get_range(*reverse):
        draft.clear(indexes + key[len(keys.reverse) :])
    draft.clear_range(*reverse)
    _unlink_experiment(keys, draft)
    _unlink_tags(keys, draft, [key for key, _ in draft.get_range(*span(keys.tag_links))])
    draft.clear_range(*span(keys.data))
    draft.set(keys.tombstone, pack_time(clock))


def _unlink_experiment(keys: RunKeys, draft: Draft) -> None:
    uuid = unpack_value(draft.get(keys.experiment_link))
    if uuid is None:
        return
    system = keys.directories.system
    draft.clear(keys.experiment_link)
    draft.clear(system + pack_key("experiment_runs", uuid) + keys.packed)
    count_links(draft, system + pack_key("experiments", uuid), -1)


def _unlink_tags(keys: RunKeys, draft: Draft, links: list[bytes]) -> None:
    """Delete links of the run to its tags, with what points back.

    The tags are read together: one after the other, some thousands would take more than a transaction's five seconds.
    """
    system = keys.directories.system
    tags = [last_element(link, keys.tag_links) for link in links]
    for uuid in tags:
        draft.start_range(system + pack_key("tags", uuid))
    for link, uuid in zip(links, tags, strict=True):
        draft.clear(link)
        draft.clear(system + pack_key("tag_runs", uuid) + keys.packed)
        count_links(draft, system + pack_key("tags", uuid), -1)


def shrink_run(transaction: Transaction, keys: RunKeys, draft: Draft) -> bool:
    """Delete a part of a run's index entries or tag links; False when few are left.

    What is deleted here `delete_run` does not find any more; what it does besides is small whatever the run.
    """
    indexes = keys.directories.indexes
    some = _first_part(transaction, keys.reverse)
    if some:
        for key in some:
            transaction.clear(indexes + key[len(keys.reverse) :])
        transaction.clear_range(some[0], some[-1] + b"\x00")
        return True
    links = _first_part(transaction, keys.tag_links)
    _unlink_tags(keys, draft, links)
    return bool(links)


def _first_part(transaction: Transaction, prefix: bytes) -> list[bytes]:
    """The first keys below a prefix, as many as a step takes; none where all of them fit in one step."""
    keys: list[bytes] = []
    size = 0
    for key, _ in transaction.get_range(*span(prefix), limit=_STEP_KEYS).wait():
        keys.append(key)
        size += len(key)
        if len(keys) == _STEP_KEYS or size > _STEP_BYTES:
            return keys
    return []
