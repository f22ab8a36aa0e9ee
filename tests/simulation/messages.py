"""What messages mean in the simulation: a record's identity goes to its run's log, and some records are trouble."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from storage.application import Application, Applier, Outcome
from storage.directories import Directories
from storage.errors import Poison, UnknownType
from storage.ledger import Ledger
from tests.simulation.store import Crash, Identity, SimTransaction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage.engine import Transaction
    from storage.envelope import Envelope

DIRECTORIES = Directories(runs=b"runs/", indexes=b"indexes/", system=b"system/", bridge=b"bridge/")


class LogApplier(Applier):
    """Appends identities; a delete_run is so much work that it may have to be done in steps."""

    def __init__(self) -> None:
        super().__init__(DIRECTORIES)

    def begin(self, transaction: Transaction, items: Sequence[Envelope | Poison]) -> Application:
        return _LogApplication(self, transaction, items)

    def shrink(self, transaction: Transaction, envelope: Envelope) -> bool:
        if envelope.type != "delete_run":
            return False
        key, left = _work_left(transaction, envelope)
        if left <= 1:
            return False
        transaction.set(key, str(left - 1).encode())
        return True


class _LogApplication(Application):
    def __init__(self, applier: LogApplier, transaction: Transaction, items: Sequence[Envelope | Poison]) -> None:
        super().__init__(applier, transaction, ())
        self._transaction = cast("SimTransaction", transaction)
        self._given = items

    def finish(self) -> list[Outcome]:
        return [self._do(item) for item in self._given]

    def _do(self, item: Envelope | Poison) -> Outcome:
        if isinstance(item, Poison):
            return Outcome("dead", item)
        if item.type == "killer":
            raise Crash
        if item.type == "bug":
            msg = "a handler's bug"
            raise RuntimeError(msg)
        if item.type == "unknown":
            return Outcome("dead", UnknownType("unknown"))
        transaction = self._transaction
        payload = item.payload
        if item.type == "delete_run":
            key, left = _work_left(transaction, item)
            transaction.weight += left
            transaction.clear(key)
        transaction.append(item.run_id, Identity(payload["life"], payload["partition"], payload["offset"]))
        return Outcome("applied")


def _work_left(transaction: Transaction, envelope: Envelope) -> tuple[bytes, int]:
    payload: dict[str, Any] = envelope.payload
    key = b"runs/" + f"{envelope.run_id}/{payload['life']}/{payload['offset']}".encode()
    value = transaction.get(key).wait()
    return key, int(payload["work"] if value is None else value)


class CachedLedger(Ledger):
    """The real ledger; packing and unpacking of keys are remembered, which is most of a simulation's time."""

    def __init__(self) -> None:
        super().__init__(DIRECTORIES.bridge)

    def key(self, *elements: Any) -> bytes:
        return _pack_key(elements)

    def elements(self, key: bytes) -> tuple[Any, ...]:
        return _unpack_key(key)


_PLAIN = Ledger(DIRECTORIES.bridge)


@lru_cache(maxsize=20_000)
def _pack_key(elements: tuple[Any, ...]) -> bytes:
    return _PLAIN.key(*elements)


@lru_cache(maxsize=20_000)
def _unpack_key(key: bytes) -> tuple[Any, ...]:
    return _PLAIN.elements(key)
