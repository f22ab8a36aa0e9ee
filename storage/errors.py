"""Every error the storage package raises, by what the caller does next.

StorageError
├── Retryable               nothing is wrong with the data: try again later
│   ├── StorageUnavailable      the store did not answer in time, or cannot be reached
│   ├── LockHeld                somebody else does this job, or has just done it
│   ├── LockLost                somebody else has taken the job over
│   └── SplitTransaction        the transaction cannot go through as it is: do less in one
│       ├── TransactionTooLarge     FoundationDB 2101: over 10,000,000 bytes
│       ├── TransactionTooOld       FoundationDB 1007: ran longer than five seconds
│       └── Contended               conflicted several times on end (1020)
├── Poison                  this record can never be applied: dead-letter it
│   ├── InvalidRecord           envelope or payload breaks the contract
│   ├── UnknownType             no such message type
│   ├── KeyTooLarge             FoundationDB 2102: key over 10,000 bytes
│   ├── ValueTooLarge           FoundationDB 2103: value over 100,000 bytes
│   ├── TooLargeAlone           the record alone is more than one transaction can take
│   ├── Bug                     a handler failed in a way it should not
│   └── KillsWorkers            workers died on this record
├── BlobError               a blob store did not do what it was asked
│   ├── BlobsAway               it did not answer, or asked for patience: try again later
│   └── BlobsRefused            it said no: a bucket that is not there, access denied
└── Fatal                   a person has to decide: stop and say what to do
    ├── BadStoreURL             the store's URL names nothing that can be opened
    ├── EngineMissing           the client library of that engine or blob store is not installed
    └── Refused                 what the store holds contradicts what we were asked to do
"""

from __future__ import annotations


class StorageError(Exception):
    """Base of all storage errors."""


class Retryable(StorageError):
    """Nothing is wrong with the data: try again later."""


class StorageUnavailable(Retryable):
    """The store did not answer in time, or cannot be reached."""


class LockHeld(Retryable):
    """Somebody else does this job, or has just done it."""


class LockLost(Retryable):
    """The job's lock ran out, and somebody else has taken the job over."""


class SplitTransaction(Retryable):
    """The transaction cannot go through as it is: do less in one."""


class TransactionTooLarge(SplitTransaction):
    """The transaction is over 10,000,000 bytes (FoundationDB error 2101)."""


class TransactionTooOld(SplitTransaction):
    """The transaction ran longer than the store allows (FoundationDB error 1007)."""


class Contended(SplitTransaction):
    """The transaction conflicted several times on end (FoundationDB error 1020)."""


class Poison(StorageError):
    """This record can never be applied. ``reason`` is its short, stable name for filters and metrics."""

    reason = "poison"


class InvalidRecord(Poison):
    """The envelope or the payload breaks the contract (CONTRACT 6 and 7.1)."""

    reason = "invalid"


class UnknownType(Poison):
    """There is no message type of this name."""

    reason = "unknown_type"


class KeyTooLarge(Poison):
    """A key would be over 10,000 bytes (FoundationDB error 2102)."""

    reason = "key_too_large"


class ValueTooLarge(Poison):
    """A value would be over 100,000 bytes (FoundationDB error 2103)."""

    reason = "value_too_large"


class Bug(Poison):
    """A handler failed in a way it should not. The record is kept with the traceback."""

    reason = "bug"


class KillsWorkers(Poison):
    """Workers died on this record."""

    reason = "kills_workers"


class TooLargeAlone(Poison):
    """The record alone is more than one transaction can take."""

    reason = "transaction_too_large"


class BlobError(StorageError):
    """A blob store did not do what it was asked."""


class BlobsAway(BlobError):
    """The blob store did not answer in time, cannot be reached, or asked for patience (SlowDown, 429, 503)."""


class BlobsRefused(BlobError):
    """The blob store said no; as long as nobody changes something there, it will again."""


class Fatal(StorageError):
    """A person has to decide: stop and say what to do."""


class BadStoreURL(Fatal):
    """The store's URL names nothing that can be opened."""


class EngineMissing(Fatal):
    """The client library of that engine or blob store is not installed."""


class Refused(Fatal):
    """What the store holds contradicts what we were asked to do."""
