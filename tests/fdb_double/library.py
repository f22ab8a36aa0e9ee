"""FoundationDB's C library played by the double, so that the real Python package runs above it.

What the package does with types, options, futures, waits and callbacks is then its own; transactions are the double's.
Futures are answered by the network thread, as in the library: whoever waits for one really blocks.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import itertools
import queue
import struct
import sys
import threading
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from tests.fdb_double import load_double, take_out

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT, RETRY_LIMIT, MAX_RETRY_DELAY, SIZE_LIMIT = 500, 501, 502, 503
NO_WRITE_CONFLICT = 30
ADD = 2
INVALID_OPTION, INVALID_OPTION_VALUE, NOT_SET, RELEASED = 2007, 2006, 2015, 1102

# Another program's code: while a thread is in there others run, so a signal may come at any call.
_FOREIGN = ctypes.CDLL(None).getppid

Answer = tuple[Any, int]  # what was asked for, or an error's code


class _Function:
    """One function of the library: its arguments are converted as ctypes would, then ``errcheck`` sees the result."""

    argtypes: list[Any] | None = None
    restype: Any = None
    errcheck: Any = None

    def __init__(self, body: Callable[..., Any]) -> None:
        self._body = body

    def __call__(self, *arguments: Any) -> Any:
        if self.argtypes is not None:
            assert len(arguments) == len(self.argtypes)
            for argument, kind in zip(arguments, self.argtypes, strict=True):
                kind.from_param(argument)  # raises where ctypes would
        _FOREIGN()
        plain = [argument.value if isinstance(argument, ctypes.c_void_p) else argument for argument in arguments]
        result = self._body(*plain)
        return result if self.errcheck is None else self.errcheck(result, self, arguments)


class _Future:
    """What was asked for.

    Args:
        ask: asks the double; called by the network thread.
    """

    def __init__(self, ask: Callable[[], Answer]) -> None:
        self.ask = ask
        self.answer: Answer = (None, 0)
        self.ready = False
        self.callback: Callable[[None], None] | None = None
        self.memory: list[Any] | None = []  # what pointers that were handed out point to

    def fill(self, write: Callable[[Any], None]) -> int:
        """Hand the answer to the caller's variables; the error's code otherwise."""
        if not self.ready:
            return NOT_SET
        if self.memory is None:
            return RELEASED
        value, code = self.answer
        if not code:
            write(value)
        return code

    def keep(self, data: bytes) -> Any:
        """A pointer to a copy of some bytes that lives as long as the future."""
        assert self.memory is not None
        copy = ctypes.create_string_buffer(data, max(len(data), 1))
        self.memory.append(copy)
        return ctypes.cast(copy, ctypes.POINTER(ctypes.c_byte))


class Library:
    """The library. ``hold`` keeps its answers back until ``release``; ``waited_for`` says that somebody waits."""

    def __init__(self) -> None:
        self._impl = load_double().impl
        self._things: dict[int, Any] = {}
        self._handles = itertools.count(1)
        self._answered: queue.SimpleQueue[_Future | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._open = threading.Event()
        self._open.set()
        self._functions: dict[str, _Function] = {}
        self.waited_for = threading.Event()

    def __getattr__(self, name: str) -> _Function:
        if not name.startswith("fdb_"):
            raise AttributeError(name)
        if name not in self._functions:
            body = getattr(type(self), "_" + name.removeprefix("fdb_"), None)
            self._functions[name] = _Function(functools.partial(body, self)) if body else _Unplayed(name)
        return self._functions[name]

    def hold(self) -> None:
        """Answer nothing from now on."""
        self.waited_for.clear()
        self._open.clear()

    def release(self) -> None:
        """Answer all that was asked for, and whatever will be."""
        self._open.set()

    def _keep(self, thing: Any) -> int:
        handle = next(self._handles)
        self._things[handle] = thing
        return handle

    def _promise(self, ask: Callable[[], Any]) -> int:
        """A future for what the double answers now."""
        answer = self._answer(ask)
        return self._send(lambda: answer)

    def _send(self, ask: Callable[[], Answer]) -> int:
        """A future for what the double answers when the network thread comes to ask it."""
        future = _Future(ask)
        self._answered.put(future)
        return self._keep(future)

    def _answer(self, ask: Callable[[], Any]) -> Answer:
        try:
            return ask().wait(), 0
        except self._impl.FDBError as error:
            return None, error.code

    # -- process -----------------------------------------------------------------------------------------------------

    def _select_api_version_impl(self, version: int, header: int) -> int:
        return 0 if version == header == 730 else 2203

    def _get_error(self, code: int) -> bytes:
        description: bytes = self._impl.FDBError(code).description
        return description

    def _setup_network(self) -> int:
        return 0

    def _run_network(self) -> int:
        while True:
            future = self._answered.get()
            if future is None:
                return 0
            self._open.wait()
            future.answer = future.ask()
            with self._lock:
                future.ready = True
                callback, future.callback = future.callback, None
            if callback is not None:
                callback(None)

    def _stop_network(self) -> int:
        self._open.set()
        self._answered.put(None)
        return 0

    # -- futures -----------------------------------------------------------------------------------------------------

    def _future_is_ready(self, handle: int) -> int:
        return int(self._things[handle].ready)

    def _future_set_callback(self, handle: int, callback: Any, parameter: None) -> int:
        future = self._things[handle]
        with self._lock:
            if not future.ready:
                future.callback = callback
                self.waited_for.set()
                return 0
        callback(None)
        return 0

    def _future_destroy(self, handle: int) -> None:
        del self._things[handle]

    def _future_release_memory(self, handle: int) -> None:
        self._things[handle].memory = None

    def _future_get_error(self, handle: int) -> int:
        future: _Future = self._things[handle]
        return future.fill(lambda _: None)

    def _future_get_int64(self, handle: int, number: Any) -> int:
        future: _Future = self._things[handle]
        return future.fill(lambda value: setattr(number._obj, "value", value))

    def _future_get_value(self, handle: int, present: Any, value: Any, length: Any) -> int:
        future: _Future = self._things[handle]

        def write(answer: Any) -> None:
            data = answer.value
            present._obj.value = int(data is not None)
            if data is not None:
                value._obj.contents = future.keep(data).contents
                length._obj.value = len(data)

        return future.fill(write)

    def _future_get_keyvalue_array(self, handle: int, pairs: Any, count: Any, more: Any) -> int:
        future: _Future = self._things[handle]

        def write(answer: Any) -> None:
            rows, is_more = answer
            row_type = pairs._obj._type_
            rows_type: Any = row_type * max(len(rows), 1)
            array = rows_type(*((future.keep(k), len(k), future.keep(v), len(v)) for k, v in rows))
            assert future.memory is not None
            future.memory.append(array)
            pairs._obj.contents = array[0]
            count._obj.value, more._obj.value = len(rows), int(is_more)

        return future.fill(write)

    # -- databases and transactions ----------------------------------------------------------------------------------

    def _create_database(self, cluster_file: bytes | None, made: Any) -> int:
        try:
            database = self._impl.open(None if cluster_file is None else cluster_file.decode())
        except self._impl.FDBError as error:
            return int(error.code)
        made._obj.value = self._keep(database)
        return 0

    def _database_create_transaction(self, handle: int, made: Any) -> int:
        made._obj.value = self._keep(self._things[handle].create_transaction())
        return 0

    def _database_destroy(self, handle: int) -> None:
        del self._things[handle]

    def _transaction_destroy(self, handle: int) -> None:
        del self._things[handle]

    def _transaction_set_option(self, handle: int, option: int, value: bytes | None, length: int) -> int:
        options = self._things[handle].options
        if option == NO_WRITE_CONFLICT:
            return 0
        setters = {
            TIMEOUT: options.set_timeout,
            RETRY_LIMIT: options.set_retry_limit,
            MAX_RETRY_DELAY: options.set_max_retry_delay,
            SIZE_LIMIT: options.set_size_limit,
        }
        if option not in setters:
            return INVALID_OPTION
        if value is None or length != 8 or len(value) != 8:
            return INVALID_OPTION_VALUE
        setters[option](struct.unpack("<q", value)[0])
        return 0

    def _reader(self, handle: int, snapshot: int) -> Any:
        transaction = self._things[handle]
        return transaction.snapshot if snapshot else transaction

    def _transaction_get_read_version(self, handle: int) -> int:
        return self._promise(self._things[handle].get_read_version)

    def _transaction_get(self, handle: int, key: bytes, length: int, snapshot: int) -> int:
        return self._promise(lambda: self._reader(handle, snapshot).get(key[:length]))

    def _transaction_get_range(
        self,
        handle: int,
        begin: bytes,
        begin_length: int,
        begin_or_equal: int,
        begin_offset: int,
        end: bytes,
        end_length: int,
        end_or_equal: int,
        end_offset: int,
        limit: int,
        target_bytes: int,
        mode: int,
        iteration: int,
        snapshot: int,
        reverse: int,
    ) -> int:
        selector = self._impl.KeySelector
        first = selector(begin[:begin_length], bool(begin_or_equal), begin_offset).boundary()
        last = selector(end[:end_length], bool(end_or_equal), end_offset).boundary()
        assert iteration >= 1
        reader = self._reader(handle, snapshot)
        return self._promise(lambda: reader.page(first, last, limit, bool(reverse), mode))

    def _transaction_set(self, handle: int, key: bytes, key_length: int, value: bytes, value_length: int) -> None:
        self._things[handle].set(key[:key_length], value[:value_length])

    def _transaction_clear(self, handle: int, key: bytes, length: int) -> None:
        self._things[handle].clear(key[:length])

    def _transaction_clear_range(
        self, handle: int, begin: bytes, begin_length: int, end: bytes, end_length: int
    ) -> None:
        self._things[handle].clear_range(begin[:begin_length], end[:end_length])

    def _transaction_atomic_op(
        self, handle: int, key: bytes, key_length: int, value: bytes, value_length: int, operation: int
    ) -> None:
        assert operation == ADD
        self._things[handle].add(key[:key_length], value[:value_length])

    def _transaction_add_conflict_range(
        self, handle: int, begin: bytes, begin_length: int, end: bytes, end_length: int, kind: int
    ) -> int:
        if kind == 0:
            self._things[handle].add_read_conflict_range(begin[:begin_length], end[:end_length])
        return 0

    def _transaction_commit(self, handle: int) -> int:
        # On its way, and not to be taken back, as soon as it is asked for; done some time later, even if nobody waits.
        commit = self._things[handle].commit
        return self._send(lambda: self._answer(commit))

    def _transaction_on_error(self, handle: int, code: int) -> int:
        return self._promise(lambda: self._things[handle].on_error(code))


class _Unplayed(_Function):
    """A function that nobody needs here: the package sets its types and never calls it."""

    def __init__(self, name: str) -> None:
        def refuse(*_: Any) -> Any:
            msg = f"the double does not play {name}"
            raise NotImplementedError(msg)

        super().__init__(refuse)


@functools.cache
def load_binding() -> tuple[Any, Library]:
    """The real package ``fdb``, API version selected, above the double; and what plays the library below it.

    ``import fdb`` gives what it gave before.
    """
    library = Library()
    before = take_out()
    try:
        with patch("ctypes.CDLL", lambda name: library):
            binding = importlib.import_module("fdb")
            binding.api_version(730)
    finally:
        take_out()
        sys.modules.update(before)
    return binding, library
