"""Read historical events, one JSON object a line: what each says, and which are stored together.

Pure: lines in, entries out. A line is an event as Mixpanel's export writes it, or a message as
`mp-asgi dead export` does. That its person agreed is for who calls to know.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from .errors import InvalidEvent, MixpanelASGIError
from .events import MAX_MESSAGE_BYTES, Endpoint, Entry, Message
from .identity import DEVICE_PREFIX, FORBIDDEN_IDS, read_id_text
from .properties import MAX_STRING_BYTES
from .wire import IDENTITY_EVENTS, KeyMaker

#: Where portions end depends on the file alone: a run that goes on must find the same ends.
PORTION_LINES: Final = 100
PORTION_BYTES: Final = 1_000_000
MAX_EVENT_PROPERTIES: Final = 254  # "less than 255", Mixpanel docs reference/import-events
EARLIEST: Final = 31_536_000.0  # 1971-01-01, Mixpanel docs reference/import-events

NEVER: Final = 0.0
"""When something was tracked that says no time: before every stop of its person."""
EXTRA: Final = "mp_asgi"
"""Key under which `mp-asgi dead export` says why a message was buried; not sent again."""

_INSERT_ID: Final = re.compile(r"[A-Za-z0-9-]{1,36}")  # Mixpanel docs reference/import-events
_UNSENT: Final = ("$ignore", "bucket", "$bucket")  # reference/mixpanel.md section 2.3
_ALIAS: Final = "$create_alias"
_OPERATIONS: Final = frozenset(
    {"$set", "$set_once", "$add", "$append", "$union", "$remove", "$unset", "$delete"}
)
_NOT_REPEATABLE: Final = frozenset({"$add", "$append"})
_encode: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode

Fields = dict[str, Any]


class BadLine(MixpanelASGIError):
    """A line cannot be sent as it is. The message says why, and quotes no property."""


@dataclass(frozen=True, slots=True)
class Portion:
    """Lines that are stored together, or not at all.

    Attributes:
        entries: Of the good lines, in order.
        last_line: Number of the last line, from 1.
        problems: What is wrong with the others, by line number.
    """

    entries: tuple[Entry, ...]
    last_line: int
    problems: Mapping[int, str]

    @property
    def size_bytes(self) -> int:
        """Bytes of the entries."""
        return sum(entry.size_bytes for entry in self.entries)


class LineReader:
    """Make entries of lines.

    Args:
        token: Of the project that they go to, whichever they come from.
        now: Seconds since the epoch; nothing may be later.
    """

    def __init__(self, token: str, now: float) -> None:
        self._token = token
        self._keys = KeyMaker(token)
        self._now = now

    def read(self, line: bytes) -> Entry:
        """Answer what goes into the outbox for a line.

        The same line always makes the same message, so that Mixpanel counts it once.

        Raises:
            BadLine: It cannot be sent.
        """
        fields = _parse(line)
        if "event" in fields:
            return self._read_event(fields, line)
        return self._read_update(fields)

    def _read_event(self, fields: Fields, line: bytes) -> Entry:
        name, given = fields["event"], fields.get("properties")
        if not isinstance(name, str) or not name or len(_to_bytes(name)) > MAX_STRING_BYTES:
            raise BadLine(f"'event' is no text of 1 to {MAX_STRING_BYTES} bytes")
        if not isinstance(given, dict):
            raise BadLine("'properties' is no object")
        insert_id = _read_insert_id(given.get("$insert_id"), line)
        # Without `ip` Mixpanel would place everybody in this data centre.
        added = {"token": self._token, "$insert_id": insert_id, "ip": 0}
        properties = {key: value for key, value in given.items() if key not in _UNSENT} | added
        is_alias = name == _ALIAS
        if is_alias:
            properties.pop("time", None)  # /track drops in silence what is older than 5 days
        if len(properties) > MAX_EVENT_PROPERTIES:
            raise BadLine(f"it has over {MAX_EVENT_PROPERTIES} properties")
        return Entry(
            Endpoint.ALIASES if is_alias else Endpoint.EVENTS,
            (_make_message(name, {"event": name, "properties": properties}, insert_id),),
            *self._find_person(given, "distinct_id"),
            NEVER if is_alias else self._read_time(given, "time"),
            is_identity=name in IDENTITY_EVENTS,
        )

    def _read_update(self, fields: Fields) -> Entry:
        operations = _OPERATIONS.intersection(fields)
        if len(operations) != 1:
            raise BadLine("it is neither an event nor a profile update with one operation")
        (operation,) = operations
        is_group = "$group_key" in fields
        body = fields | {"$token": self._token} | ({} if is_group else {"$ip": "0"})
        body.pop(EXTRA, None)
        return Entry(
            Endpoint.GROUPS if is_group else Endpoint.PEOPLE,
            (_make_message(operation, body),),
            *((b"", b"") if is_group else self._find_person(fields, "$distinct_id")),
            self._read_time(fields, "$time") if "$time" in fields else NEVER,
            is_repeatable=operation not in _NOT_REPEATABLE,
        )

    def _read_time(self, fields: Fields, name: str) -> float:
        value = fields.get(name)
        if isinstance(value, (int, float)):
            for unit in (1, 1000):
                if EARLIEST * unit <= value <= self._now * unit:
                    return value / unit
        raise BadLine(f"'{name}' is no time from 1971 to now, in seconds or milliseconds")

    def _find_person(self, fields: Fields, name: str) -> tuple[bytes, bytes]:
        """Answer the keys under which the ledger and the stop marks know whom a line is about."""
        distinct_id = _read_id(fields, name)
        device_id, user_id = _read_id(fields, "$device_id"), _read_id(fields, "$user_id")
        if not (distinct_id or device_id or user_id):
            raise BadLine(f"it names nobody: no '{name}'")
        bare_id = distinct_id.removeprefix(DEVICE_PREFIX)
        # In projects with the Original ID merge a device is named without the prefix.
        device_id = device_id.removeprefix(DEVICE_PREFIX) or bare_id
        if bare_id == distinct_id:
            user_id = user_id or distinct_id
        return self._keys.device_key(device_id), self._keys.user_key(user_id or None)


def read_portions(lines: Iterable[bytes], read: Callable[[bytes], Entry]) -> Iterator[Portion]:
    """Cut lines into portions. Blank lines are passed over.

    Args:
        lines: In order.
        read: Answers the entry of a line, or raises `BadLine`.
    """
    entries: list[Entry] = []
    problems: dict[int, str] = {}
    count = size = number = 0
    for number, line in enumerate(lines, 1):
        count, size = count + 1, size + len(line)
        if stripped := line.strip():
            try:
                entries.append(read(stripped))
            except BadLine as error:
                problems[number] = str(error)
        if count >= PORTION_LINES or size >= PORTION_BYTES:
            yield Portion(tuple(entries), number, problems)
            entries, problems = [], {}
            count = size = 0
    if count:
        yield Portion(tuple(entries), number, problems)


def _parse(line: bytes) -> Fields:
    try:
        fields = json.loads(line.removeprefix(b"\xef\xbb\xbf"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadLine("it is no JSON") from error
    if not isinstance(fields, dict):
        raise BadLine("it is no JSON object")
    return fields


def _refuse_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are Python's, not JSON's


def _read_id(fields: Fields, name: str) -> str:
    """Answer an ID, empty where there is none."""
    value = fields.get(name)
    if value is None or value == "":
        return ""
    try:
        text = read_id_text(value, name)
    except InvalidEvent as error:
        raise BadLine(f"'{name}' is no text") from error
    if text.strip().lower() in FORBIDDEN_IDS or len(_to_bytes(text)) > MAX_STRING_BYTES:
        raise BadLine(f"'{name}' is an ID that Mixpanel refuses")
    return text


def _read_insert_id(value: object, line: bytes) -> str:
    """Answer the dedupe key; of the line itself where Mixpanel would take none from it."""
    is_usable = (
        isinstance(value, str)
        and _INSERT_ID.fullmatch(value)
        and value.lower() not in FORBIDDEN_IDS
    )
    return str(value) if is_usable else sha256(line).hexdigest()[:32]


def _make_message(name: str, body: Fields, insert_id: str = "") -> Message:
    try:
        encoded = _to_bytes(_encode(body))
    except (ValueError, RecursionError) as error:  # 1e999 is read as infinity
        raise BadLine("it has no JSON form") from error
    if len(encoded) >= MAX_MESSAGE_BYTES:
        raise BadLine(f"it has over {MAX_MESSAGE_BYTES} bytes")
    return Message(name, encoded, insert_id)


def _to_bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadLine("it holds half a character") from error
