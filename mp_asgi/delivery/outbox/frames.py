"""Frame messages as the bytes of one column. Bodies stay as they are: they were rendered once."""

import struct
from collections.abc import Sequence
from typing import Final

from mp_asgi.events import Message

_LENGTHS: Final = struct.Struct("<III")  # of name, insert_id and body, before each message


def pack(messages: Sequence[Message]) -> bytes:
    """Answer messages as bytes, one behind the other."""
    parts: list[bytes] = []
    for message in messages:
        name, insert_id = encode(message.name), encode(message.insert_id)
        parts += (
            _LENGTHS.pack(len(name), len(insert_id), len(message.body)),
            name,
            insert_id,
            message.body,
        )
    return b"".join(parts)


def unpack(packed: bytes) -> tuple[Message, ...]:
    """Answer what was packed.

    Raises:
        struct.error, TypeError, ValueError: It was not.
    """
    messages = []
    end = 0
    while end < len(packed):
        name, insert_id, body = _LENGTHS.unpack_from(packed, end)
        ids = end + _LENGTHS.size + name
        bodies = ids + insert_id
        messages.append(
            Message(
                decode(packed[ids - name : ids]),
                packed[bodies : bodies + body],
                decode(packed[ids:bodies]),
            )
        )
        end = bodies + body
    if end != len(packed):
        raise ValueError("the last message is cut off")
    return tuple(messages)


def encode(text: str) -> bytes:
    """Answer text as bytes; a visitor's may hold half of a surrogate pair, which is no UTF-8."""
    return text.encode("utf-8", "surrogatepass")


def decode(text: bytes) -> str:
    """Answer what was encoded."""
    return text.decode("utf-8", "surrogatepass")
