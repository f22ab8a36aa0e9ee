"""The headers of a message, as far as confluent-kafka can give them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from confluent_kafka import Message

    from storage.batch import Headers


def read_headers(message: Message) -> Headers | None:
    """The headers of a message that was read; None where they cannot be had. To be called once a message.

    Names are bytes to the broker, and clients that are not Python's may write any. Where one is not UTF-8,
    confluent-kafka raises, and what it answers to a second call must not be looked at.
    """
    try:
        headers: Any = message.headers()
    except (SystemError, UnicodeDecodeError):
        return None
    return tuple(headers) if headers else ()
