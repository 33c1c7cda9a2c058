"""Render what a visitor did as Mixpanel's JSON, in the worker, off the request path.

Shapes: reference/mixpanel.md sections 2.3, 2.5 and 3.
"""

import json
import re
from collections.abc import Callable, Iterable
from enum import IntEnum
from hashlib import blake2b
from typing import Any, Final

from ._version import __version__
from .errors import InvalidEvent
from .events import MAX_MESSAGE_BYTES, Endpoint, Entry, Message
from .identity import IdentityMode, Visitor
from .properties import MAX_STRING_BYTES, Properties, fit, fit_text

MAX_KNOWN_NAMES: Final = 1_000  # names that were checked before
MAX_PROPERTIES: Final = 243  # Mixpanel takes 254; the rest are those added below
ENTRY_MESSAGES: Final = 200  # cut larger hand-overs, so that batches fill well
ENTRY_BYTES: Final = 256_000

#: Names that only we write: a visitor's JSON that reaches `track()` must not become another
#: project's event, another user's, or an identity event.
RESERVED: Final = frozenset(
    {
        "token",
        "time",
        "distinct_id",
        "ip",
        "bucket",
        "$bucket",
        "$insert_id",
        "$device_id",
        "$user_id",
        "$distinct_id",
        "$token",
        "$ip",
        "$time",
        "$anon_id",
        "$identified_id",
        "$anon_distinct_id",
        "$had_persisted_distinct_id",
        "$distinct_ids",
        "$ignore",
        "$import",
        "mp_lib",
        "$lib_version",
        "$mp_asgi_consent",
        "$mp_asgi_consent_version",
    }
)
IDENTITY_EVENTS: Final = frozenset({"$identify", "$create_alias", "$merge"})

_NOT_REPEATABLE: Final = frozenset({"$add", "$append"})
_encode: Final[Callable[[Any], str]] = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=False, allow_nan=False
).encode


#: Control characters, line separators, what turns the reading direction, and lone surrogates.
_UNSENDABLE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


class What(IntEnum):
    """What an item of a buffer is."""

    EVENT = 0
    IDENTIFY = 1
    PEOPLE = 2
    GROUP = 3


Item = tuple[What, str, str, float, Visitor, Any, tuple[str, str] | None, int]
"""One call of the app as the request left it: what, name (an event's, or the operation of an
update), insert ID (empty for updates), seconds since the epoch, the visitor of that moment,
frozen properties or values, key and ID of a group, the request's epoch of consent. A plain
tuple: it is made on the hot path.
"""


def check_name(name: object, known_names: set[str]) -> None:
    """Check an event's name, and remember a good one.

    Args:
        name: What the app passed.
        known_names: Grows to at most `MAX_KNOWN_NAMES`.

    Raises:
        InvalidEvent: `invalid_name`, or `reserved_name` for identity events.
    """
    if not isinstance(name, str) or not name or _UNSENDABLE.search(name):
        raise InvalidEvent("invalid_name", "An event's name is text without control characters.")
    if name.strip().lower() in IDENTITY_EVENTS:
        raise InvalidEvent("reserved_name", f"{name} is sent by identify(), never by track().")
    if len(name.encode("utf-8")) > MAX_STRING_BYTES:
        raise InvalidEvent("invalid_name", f"A name has at most {MAX_STRING_BYTES} bytes.")
    if len(known_names) < MAX_KNOWN_NAMES:
        known_names.add(name)


class KeyMaker:
    """Hash IDs into the keys that `forget` finds waiting entries by.

    Keyed with the project token, not with the cookie keys: those rotate, and a stop must find
    what an older key filed.
    """

    def __init__(self, token: str) -> None:
        self._key = blake2b(token.encode("utf-8"), person=b"mp_asgi.outbox").digest()

    def device_key(self, device_id: str) -> bytes:
        """Answer the key of a device ID."""
        return self._hash(b"d", device_id)

    def user_key(self, user_id: str | None) -> bytes:
        """Answer the key of a user ID; empty for None."""
        return b"" if user_id is None else self._hash(b"u", user_id)

    def _hash(self, kind: bytes, value: str) -> bytes:
        return blake2b(kind + value.encode("utf-8"), key=self._key, digest_size=16).digest()


class Renderer:
    """Turn the items of one hand-over into entries for the outbox.

    Args:
        token: Project token.
        mode: The project's ID merge.
        keys: Hashes the visitor's IDs.
        on_dropped: Called with a reason and a name for each item that cannot be sent.
    """

    def __init__(
        self,
        *,
        token: str,
        mode: IdentityMode,
        keys: KeyMaker,
        on_dropped: Callable[[str, str], None],
    ) -> None:
        self._token = token
        self._mode = mode
        self._keys = keys
        self._on_dropped = on_dropped

    def render(self, items: Iterable[Item], stamp: Properties) -> list[Entry]:
        """Render items in their order; one that fails is dropped and never spoils the others.

        Args:
            items: Each with a visitor.
            stamp: Properties that tell under which consent the events left.
        """
        piles: list[_Pile] = []
        open_piles: dict[Endpoint, _Pile] = {}
        for item in items:
            what, name, _, at, visitor, *_ = item
            try:
                endpoint, message = self._render_item(item, stamp)
            except InvalidEvent as error:
                self._on_dropped(error.reason, name)
                continue
            is_repeatable = name not in _NOT_REPEATABLE
            pile = open_piles.get(endpoint)
            if pile is None or not pile.takes(visitor, is_repeatable=is_repeatable):
                pile = _Pile(endpoint, visitor, is_repeatable=is_repeatable)
                open_piles[endpoint] = pile
                piles.append(pile)
            pile.add(message, at, is_identity=what is What.IDENTIFY)
        return [pile.to_entry(self._keys) for pile in piles]

    def _render_item(self, item: Item, stamp: Properties) -> tuple[Endpoint, Message]:
        what, name, insert_id, at, visitor, values, group, _ = item
        if what is What.EVENT:
            endpoint, body = Endpoint.EVENTS, self._render_event(item, stamp)
        elif what is What.IDENTIFY:
            endpoint, body = Endpoint.EVENTS, self._render_identify(item)
        elif what is What.PEOPLE:
            endpoint, body = Endpoint.PEOPLE, self._render_people(visitor, at)
            body[name] = fit(values)
        else:
            endpoint, body = Endpoint.GROUPS, self._render_group(group, at)
            body[name] = fit(values)
        encoded = _encode(body).encode("utf-8")
        if len(encoded) >= MAX_MESSAGE_BYTES:
            raise InvalidEvent("too_large", f"A message has at most {MAX_MESSAGE_BYTES} bytes.")
        return endpoint, Message(name, encoded, insert_id)

    def _render_event(self, item: Item, stamp: Properties) -> Properties:
        _, name, insert_id, at, visitor, values, *_ = item
        properties: Properties = {
            key: value for key, value in fit(values).items() if key not in RESERVED
        }
        properties |= stamp
        properties |= self._common(insert_id, at)
        properties["$device_id"] = visitor.device_id
        properties["distinct_id"] = visitor.distinct_id(self._mode)
        if visitor.user_id is not None:
            properties["$user_id"] = visitor.user_id
        return {"event": name, "properties": properties}

    def _render_identify(self, item: Item) -> Properties:
        # Original ID merge only: joins a UUID v4 to a user, retroactively.
        _, name, insert_id, at, visitor, *_ = item
        properties = self._common(insert_id, at)
        properties["$identified_id"] = visitor.user_id
        properties["$anon_id"] = visitor.device_id
        properties["distinct_id"] = visitor.user_id
        return {"event": name, "properties": properties}

    def _common(self, insert_id: str, at: float) -> Properties:
        return {
            "token": self._token,
            "time": int(at * 1000),
            "$insert_id": insert_id,
            "ip": 0,  # without it /import places the visitor in our data centre
            "mp_lib": "mp-asgi",
            "$lib_version": __version__,
        }

    def _render_people(self, visitor: Visitor, at: float) -> Properties:
        return {
            "$token": self._token,
            "$distinct_id": visitor.distinct_id(self._mode),
            "$ip": "0",  # leaves the profile's place as it is
            "$time": int(at),
        }

    def _render_group(self, group: tuple[str, str] | None, at: float) -> Properties:
        key, group_id = group or ("", "")
        return {
            "$token": self._token,
            "$group_key": fit_text(key),
            "$group_id": fit_text(group_id),
            "$time": int(at),
        }


class _Pile:
    """Messages of one visitor for one endpoint, on their way to an entry."""

    def __init__(self, endpoint: Endpoint, visitor: Visitor, *, is_repeatable: bool) -> None:
        self._endpoint = endpoint
        self._visitor = visitor
        self._is_repeatable = is_repeatable
        self._is_identity = False
        self._messages: list[Message] = []
        self._size = 0
        self._tracked_at = float("inf")

    def takes(self, visitor: Visitor, *, is_repeatable: bool) -> bool:
        return (
            visitor is self._visitor
            and is_repeatable is self._is_repeatable
            and len(self._messages) < ENTRY_MESSAGES
            and self._size < ENTRY_BYTES
        )

    def add(self, message: Message, at: float, *, is_identity: bool) -> None:
        self._messages.append(message)
        self._size += len(message.body)
        self._tracked_at = min(self._tracked_at, at)
        self._is_identity = self._is_identity or is_identity

    def to_entry(self, keys: KeyMaker) -> Entry:
        return Entry(
            endpoint=self._endpoint,
            messages=tuple(self._messages),
            device_key=keys.device_key(self._visitor.device_id),
            user_key=keys.user_key(self._visitor.user_id),
            tracked_at=self._tracked_at,
            is_repeatable=self._is_repeatable,
            is_identity=self._is_identity,
        )
