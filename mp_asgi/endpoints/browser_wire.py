"""Decode what mixpanel-browser sends, in every form that it has sent it in. Judges no message.

A form or a beacon (`text/plain`) with `data=`, a query with it, or JSON by itself; within `data`,
JSON or base64 of it (reference/mixpanel.md section 4.4). The media type tells nothing more.
"""

import binascii
import json
import re
from base64 import b64decode
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from .message import Request

MAX_BATCH_BYTES: Final = 262_144  # fifty events, the SDK's batch, of 4 kB each in base64
MAX_MESSAGES: Final = 2_000  # a request, Mixpanel docs reference/track-event; the SDK sends 50

_MAX_FIELDS: Final = 64
_MAX_DETOURS: Final = 16_384  # escapes, or surrogates: each takes a third of a microsecond
_SURROGATE: Final = b"\xed"  # the first byte of one, and of some Korean syllables
_ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
_TOO_MANY_DIGITS: Final = b"0" * 1_000  # int() takes quadratic time; JavaScript writes 21 at most
_MILLISECONDS: Final = re.compile(rb"[0-9]{1,15}")
_JSON_STARTS: Final = (b"[", b"{")
_STANDARD: Final = bytes.maketrans(b"-_ ", b"+/+")  # the URL's alphabet; a form's blank was a plus


class Unreadable(ValueError):
    """There is no JSON object, and no list, where the messages should be."""


class TooLarge(ValueError):
    """There is more than one request may hold; the message says how much that is."""


class Flags(NamedTuple):
    """What the query says beside the messages.

    Attributes:
        is_verbose: The answer is read as JSON.
        sent_at: When it was sent, by the browser's clock, in seconds since the epoch; None if the
            page does not say.
    """

    is_verbose: bool = False
    sent_at: float | None = None


def read_flags(query: bytes) -> Flags:
    """Read a raw query."""
    sent_at = _find_field(query, b"_")
    is_time = _MILLISECONDS.fullmatch(sent_at) is not None
    return Flags(_find_field(query, b"verbose") == b"1", int(sent_at) / 1000 if is_time else None)


def read_messages(request: Request) -> Sequence[Any]:
    """Answer the messages of a request: JSON values that nobody has looked at.

    Raises:
        TooLarge: They are too many, or too long.
        Unreadable: There are none, or they cannot be decoded.
    """
    if len(request.body) > MAX_BATCH_BYTES:
        raise TooLarge(f"At most {MAX_BATCH_BYTES} bytes at once.")
    messages = _parse_json(_find_payload(request))
    if len(messages) > MAX_MESSAGES:
        raise TooLarge(f"At most {MAX_MESSAGES} messages at once.")
    return messages


def _find_payload(request: Request) -> bytes:
    if request.method == "GET":
        payload = _unquote(_find_field(request.query, b"data"))
    else:
        payload = request.body.strip()
        if not payload.startswith(_JSON_STARTS):
            payload = _unquote(_find_field(payload, b"data"))
    payload = payload.strip()
    return payload if payload.startswith(_JSON_STARTS) else _decode_base64(payload)


def _check_detours(payload: bytes, sign: bytes) -> None:
    if payload.count(sign) > _MAX_DETOURS:
        raise TooLarge(f"At most {_MAX_DETOURS} escaped characters at once.")


def _parse_json(payload: bytes) -> Sequence[Any]:
    _check_detours(payload, _SURROGATE)
    if _TOO_MANY_DIGITS in payload.translate(_ZEROS):
        raise Unreadable
    try:
        value = json.loads(_decode_text(payload))
    except (ValueError, RecursionError) as error:
        raise Unreadable from error
    if not isinstance(value, (dict, list)):
        raise Unreadable
    return value if isinstance(value, list) else [value]


def _find_field(fields: bytes, name: bytes) -> bytes:
    for field in fields.split(b"&", _MAX_FIELDS):
        found, _, value = field.partition(b"=")
        if found == name:
            return value
    return b""


def _unquote(value: bytes) -> bytes:
    _check_detours(value, b"%")
    return unquote_to_bytes(value.replace(b"+", b" "))


def _decode_base64(payload: bytes) -> bytes:
    standard = payload.translate(_STANDARD).rstrip(b"=")
    try:
        return b64decode(standard + b"=" * (-len(standard) % 4))
    except binascii.Error as error:
        raise Unreadable from error


def _decode_text(payload: bytes) -> str:
    """Decode UTF-8, with the halves that the SDK's base64 makes of an emoji (CESU-8) put together.

    A half alone, which its cut at 255 characters leaves, stays one until the event is rendered.
    """
    text = payload.decode("utf-8", "surrogatepass")
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
