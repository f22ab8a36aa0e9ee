"""The outbox keeps events, in order, until they are removed, and leaves Matyan's directories alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.store import Store, assemble_store
from tests.conformance.vectors import dump
from tests.engines import open_kind


@pytest.fixture(params=["sqlite", "double"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with assemble_store(open_kind(str(request.param), tmp_path, timeout=5.0)) as opened:
        yield opened


def test_events_wait_in_order_until_they_are_removed(store: Store) -> None:
    engine, outbox = store.engine, store.outbox
    empty = dump(store)
    put = [
        engine.transact(lambda transaction: outbox.put(transaction, f"run-{number}", b"{}", float(number)))  # noqa: B023
        for number in (3, 1, 2, 10)
    ]
    assert [event.run for event in outbox.each(engine, page=2)] == ["run-1", "run-2", "run-3", "run-10"]
    assert set(outbox.each(engine)) == set(put)
    assert outbox.count(engine) == 4
    for _ in range(2):  # a removal may be tried again
        engine.transact(lambda transaction: outbox.remove(transaction, put[:2]))
    assert [event.run for event in outbox.each(engine)] == ["run-2", "run-10"]
    assert dump(store) == empty


def test_an_event_goes_with_its_transaction(store: Store) -> None:
    class Change(Exception):
        pass

    def work(transaction: object) -> None:
        store.outbox.put(transaction, "run", b"{}", 1.0)  # type: ignore[arg-type]
        raise Change

    with pytest.raises(Change):
        store.engine.transact(work)
    assert store.outbox.count(store.engine) == 0
