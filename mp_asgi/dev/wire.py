"""Read what a request carries as messages, in every form Mixpanel accepts. Judges nothing."""

import base64
import binascii
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

GZIP_PATHS = frozenset({"/track", "/import"})  # the docs: /engage and /groups take no gzip


class UnreadableError(ValueError):
    """The body is not what its headers promise."""


class TooLargeError(ValueError):
    """The body, as sent or uncompressed, exceeds the limit."""


@dataclass(frozen=True, slots=True)
class WireRequest:
    """One request as it came over the wire.

    Attributes:
        path: Without a trailing slash.
        headers: Names in lower case; of a repeated header the last one.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def basic_credentials(self) -> tuple[str, str]:
        """User name and password of Basic authentication; empty without one."""
        scheme, _, encoded = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return "", ""
        try:
            decoded = base64.b64decode(encoded, validate=True).decode("utf-8")
        except ValueError:
            return "", ""
        username, _, password = decoded.partition(":")
        return username, password


@dataclass(frozen=True, slots=True)
class Call:
    """What a request asks for.

    Attributes:
        flags: `verbose`, `ip`, `strict` and so on, from the query and the form.
        messages: Decoded JSON values; nothing says yet that they are objects.
        is_form: Whether they came as `data=`, which decides the shape of some replies.
    """

    flags: Mapping[str, str]
    messages: tuple[Any, ...]
    is_form: bool


def parse_call(request: WireRequest, *, limit_bytes: int) -> Call:
    """Decode query, form and messages.

    Raises:
        TooLargeError: `limit_bytes` is exceeded, before or after unpacking.
        UnreadableError: The body cannot be decoded.
    """
    query = parse_flags(request.query)
    body = request.body
    if len(body) > limit_bytes:
        raise TooLargeError
    if request.headers.get("content-encoding", "").lower() == "gzip":
        # Which reply a gzip body on /engage gets is unknown: it reads as an empty one.
        body = _unpack(body, limit_bytes) if request.path in GZIP_PATHS else b""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/x-ndjson":
        lines = [line for line in body.split(b"\n") if line.strip()]
        return Call(query, tuple(_parse_json(_decode_utf8(line)) for line in lines), is_form=False)
    if media_type == "application/json" or body.lstrip()[:1] in (b"[", b"{"):
        text = _decode_utf8(body)
        return Call(query, _as_messages(_parse_json(text)) if text.strip() else (), is_form=False)
    # Forms and beacons (`sendBeacon` of a string is text/plain) read alike.
    form = parse_flags(body.decode("utf-8", "replace")) if request.method == "POST" else {}
    flags = {**query, **form}
    data = flags.get("data", "").strip()
    return Call(flags, _parse_data(data) if data else (), is_form=True)


def parse_flags(text: str) -> dict[str, str]:
    """Read urlencoded text; a repeated name keeps its last value."""
    return dict(parse_qsl(text, keep_blank_values=True, encoding="utf-8", errors="replace"))


def _unpack(body: bytes, limit_bytes: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)  # 31: a gzip header is expected
    try:
        unpacked = unpacker.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise UnreadableError from error
    if len(unpacked) > limit_bytes:
        raise TooLargeError
    if not unpacker.eof:
        raise UnreadableError
    return unpacked


def _parse_data(text: str) -> tuple[Any, ...]:
    if text[0] in "[{":
        return _as_messages(_parse_json(text))
    # A form turns "+" into a blank, and some clients write the URL-safe alphabet unpadded.
    standard = text.replace(" ", "+").replace("-", "+").replace("_", "/").rstrip("=")
    try:
        decoded = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnreadableError from error
    return _as_messages(_parse_json(_decode_cesu8(decoded)))


def _as_messages(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list) else (value,)


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_parse_float)
    except (ValueError, RecursionError) as error:
        raise UnreadableError from error


def _refuse_constant(name: str) -> Any:
    raise UnreadableError(f"{name} is no JSON")


def _parse_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):  # 1e400 is JSON, yet no number that anybody could write back
        raise UnreadableError(text)
    return number


def _decode_utf8(body: bytes) -> str:
    # A wrong byte becomes a lone surrogate, so that only its own record is refused.
    return body.decode("utf-8", "surrogateescape")


def _decode_cesu8(body: bytes) -> str:
    """Decode UTF-8, and the surrogate pairs that mixpanel-browser's base64 makes of emoji."""
    try:
        text = body.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return _decode_utf8(body)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
