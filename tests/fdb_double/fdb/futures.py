"""Futures of the double. They are answered when they are made; what went wrong is raised when they are waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from .codes import FDBError


class Future:
    """An answer, or an error."""

    def __init__(self, answer: Any = None, error: FDBError | None = None) -> None:
        self._answer = answer
        self._error = error

    def wait(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._answer

    def is_ready(self) -> bool:
        return True

    def block_until_ready(self) -> None:
        pass

    def cancel(self) -> None:
        pass

    def on_ready(self, callback: Callable[[Future], None]) -> None:
        callback(self)


class Value(Future):
    """The value of a key: acts as the bytes, once it is looked at, as the client's does; see `present`."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return bytes

    @property
    def value(self) -> bytes | None:
        answer: bytes | None = Future.wait(self)
        return answer

    def wait(self) -> Value:
        _ = self.value
        return self

    def present(self) -> bool:
        return self.value is not None

    def as_foundationdb_key(self) -> bytes | None:
        return self.value

    def as_foundationdb_value(self) -> bytes | None:
        return self.value

    def __bytes__(self) -> bytes:
        value = self.value
        if value is None:
            msg = "the key has no value"
            raise TypeError(msg)
        return value

    def __eq__(self, other: object) -> bool:
        return self.value == (other.value if type(other) is Value else other)

    def __hash__(self) -> int:
        return hash(self.value)

    def __len__(self) -> int:
        return len(bytes(self))

    def __getitem__(self, index: Any) -> Any:
        return bytes(self)[index]

    def __add__(self, other: Any) -> bytes:
        return bytes(self) + bytes(other)

    def __radd__(self, other: Any) -> bytes:
        return bytes(other) + bytes(self)

    def __lt__(self, other: Any) -> bool:
        return bytes(self) < bytes(other)

    def __repr__(self) -> str:
        return repr(self.value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(bytes(self), name)
