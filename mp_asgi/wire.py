"""Render what a visitor did as Mixpanel's JSON, in the worker, off the request path.

Shapes: reference/mixpanel.md sections 2.3, 2.5 and 3.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from ._version import __version__
from .errors import InvalidEvent
from .events import MAX_MESSAGE_BYTES, Endpoint, Entry, Message
from .identity import IdentityMode, Origin, Visitor
from .properties import MAX_STRING_BYTES, Properties, fit, fit_text, freeze

MAX_KNOWN_NAMES: Final = 1_000  # names that were checked before
MAX_PROPERTIES: Final = 243  # Mixpanel takes 254; the rest are those added below
ENTRY_MESSAGES: Final = 200  # cut larger hand-overs, so that batches fill well
ENTRY_BYTES: Final = 256_000
ENTRY_SECONDS: Final = 60.0  # a stop ends whole entries: what is much newer must not go with it

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
PAGE_VIEW: Final = "$mp_web_page_view"

#: mixpanel-browser names itself; what else a page says of these is overwritten.
_RESERVED_IN_PAGES: Final = RESERVED - {"mp_lib", "$lib_version"}
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
    ALIAS = 4
    """`$create_alias` of the legacy ID merge."""
    BROWSER_EVENT = 5
    """An event that mixpanel-browser sent through our route: it brings its own context."""
    FIRST_TOUCH = 6
    """How the device was first found, for the profile of the user that it met."""


Item = tuple[What, str, str, float, Visitor, Any, tuple[str, str] | None, int]
"""One call of the app as the request left it: what, name (an event's, or the operation of an
update), insert ID (empty for updates), seconds since the epoch, the visitor of that moment,
frozen properties or values, key and ID of a group, the request's epoch of consent. A plain
tuple: it is made on the hot path.
"""


IDENTITY: Final = frozenset({What.IDENTIFY, What.ALIAS})  # never dropped when full
_ENDPOINTS: Final[Mapping[What, Endpoint]] = {
    What.EVENT: Endpoint.EVENTS,
    What.BROWSER_EVENT: Endpoint.EVENTS,
    What.IDENTIFY: Endpoint.EVENTS,
    What.ALIAS: Endpoint.ALIASES,
    What.PEOPLE: Endpoint.PEOPLE,
    What.FIRST_TOUCH: Endpoint.PEOPLE,
    What.GROUP: Endpoint.GROUPS,
}


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


def freeze_event(properties: Mapping[str, Any]) -> Properties:
    """Copy an event's properties.

    Raises:
        InvalidEvent: `too_many_properties`, or as `freeze` does.
    """
    if len(properties) > MAX_PROPERTIES:
        text = f"An event has at most {MAX_PROPERTIES} properties."
        raise InvalidEvent("too_many_properties", text)
    return freeze(properties)


class KeyMaker:
    """Hash IDs into the keys that `forget` finds waiting entries by.

    Keyed with the project token, not with the cookie keys: those rotate, and a stop must find
    what an older key filed.
    """

    def __init__(self, token: str) -> None:
        self._key = blake2b(token.encode("utf-8"), person=b"mp_asgi.outbox").digest()

    def device_key(self, device_id: str) -> bytes:
        """Answer the key of a device ID; empty where a job knows none."""
        return self._hash(b"d", device_id) if device_id else b""

    def user_key(self, user_id: str | None) -> bytes:
        """Answer the key of a user ID; empty for None."""
        return b"" if user_id is None else self._hash(b"u", user_id)

    def _hash(self, kind: bytes, value: str) -> bytes:
        return blake2b(kind + value.encode("utf-8"), key=self._key, digest_size=16).digest()


class Surroundings(NamedTuple):
    """What is added to the messages of one hand-over.

    Attributes:
        stamp: Properties that tell under which consent the events left.
        properties: What the request says of every event.
        page_properties: What it says of page views.
        address: What Mixpanel may place the visitor by; empty for nothing.
        promised_at: Seconds since the epoch of a job's grant; None in a request.
    """

    stamp: Properties
    properties: Properties
    page_properties: Properties
    address: str = ""
    promised_at: float | None = None


NOTHING_AROUND: Final = Surroundings({}, {}, {})
BeforeSend = Callable[[Properties], object]


class Renderer:
    """Turn the items of one hand-over into entries for the outbox.

    Args:
        token: Project token.
        mode: The project's ID merge.
        keys: Hashes the visitor's IDs.
        before_send: The app's own look at each event; None without one.
        on_dropped: Called with what is wrong and a name for each item that cannot be sent.
    """

    def __init__(
        self,
        *,
        token: str,
        mode: IdentityMode,
        keys: KeyMaker,
        before_send: BeforeSend | None = None,
        on_dropped: Callable[[InvalidEvent, str], None],
    ) -> None:
        self._token = token
        self._mode = mode
        self._keys = keys
        self._before_send = before_send
        self._on_dropped = on_dropped

    def render(self, items: Iterable[Item], around: Surroundings) -> list[Entry]:
        """Render items, cut into entries of one visitor and one endpoint each.

        Args:
            items: In the order of the calls, each with a visitor.
            around: What is added to them.
        """
        piles: list[_Pile] = []
        open_piles: dict[Endpoint, _Pile] = {}
        for item in items:
            what, name, _, at, visitor, *_ = item
            try:
                endpoint, message = self._render_item(item, around)
            except InvalidEvent as error:
                self._on_dropped(error, name)
                continue
            is_repeatable = name not in _NOT_REPEATABLE
            tracked_at = at if around.promised_at is None else min(at, around.promised_at)
            pile = open_piles.get(endpoint)
            if pile is None or not pile.takes(visitor, tracked_at, is_repeatable=is_repeatable):
                pile = _Pile(endpoint, visitor, is_repeatable=is_repeatable)
                open_piles[endpoint] = pile
                piles.append(pile)
            pile.add(message, tracked_at, is_identity=what in IDENTITY)
            if what is What.ALIAS:
                open_piles.clear()  # what comes after it must wait for it
        return [pile.to_entry(self._keys) for pile in piles]

    def _render_item(self, item: Item, around: Surroundings) -> tuple[Endpoint, Message]:
        what, name, insert_id, *_ = item
        endpoint = _ENDPOINTS[what]
        match what:
            case What.EVENT:
                body = self._hook(self._render_event(item, around))
            case What.BROWSER_EVENT:
                body = self._hook(self._render_browser_event(item, around))
            case What.IDENTIFY:
                body = self._render_identify(item, around)
            case What.ALIAS:
                body = self._render_alias(item, around)
            case What.GROUP:
                body = self._render_group(item)
            case _:
                body = self._render_people(item, around)
        encoded = _encode(body).encode("utf-8")
        if len(encoded) >= MAX_MESSAGE_BYTES:
            raise InvalidEvent("too_large", f"A message has at most {MAX_MESSAGE_BYTES} bytes.")
        return endpoint, Message(name, encoded, insert_id)

    # --- events -------------------------------------------------------------------------------

    def _render_event(self, item: Item, around: Surroundings) -> Properties:
        _, name, insert_id, at, visitor, values, *_ = item
        own = {key: value for key, value in fit(values).items() if key not in RESERVED}
        given = around.properties
        if name == PAGE_VIEW:
            given = given | around.page_properties
        # What the app says of its event wins, and it has room first.
        room = MAX_PROPERTIES - len(own)
        properties = dict([item for item in given.items() if item[0] not in own][:room])
        properties |= own
        properties |= around.stamp
        properties |= self._common(insert_id, at, around)
        properties |= self._identity(visitor)
        return {"event": name, "properties": properties}

    def _render_browser_event(self, item: Item, around: Surroundings) -> Properties:
        """Render what a page tracked: its context is its own, its identity is ours."""
        _, name, insert_id, at, visitor, values, *_ = item
        properties = self._common(insert_id, at, around)
        properties |= {
            key: value for key, value in fit(values).items() if key not in _RESERVED_IN_PAGES
        }
        properties |= around.stamp
        properties |= self._identity(visitor)
        return {"event": name, "properties": properties}

    def _identity(self, visitor: Visitor) -> Properties:
        properties: Properties = {"distinct_id": visitor.distinct_id(self._mode)}
        if visitor.device_id:
            properties["$device_id"] = visitor.device_id
        if visitor.user_id is not None:
            properties["$user_id"] = visitor.user_id
        if visitor.origin is Origin.PERSISTED:
            properties["$had_persisted_distinct_id"] = True
        return properties

    def _render_identify(self, item: Item, around: Surroundings) -> Properties:
        # Original ID merge only: joins a device to a user, retroactively.
        _, name, insert_id, at, visitor, *_ = item
        properties = self._common(insert_id, at, around)
        properties["$identified_id"] = visitor.user_id
        properties["$anon_id"] = visitor.anonymous_id(self._mode)
        properties["distinct_id"] = visitor.user_id
        return {"event": name, "properties": properties}

    def _render_alias(self, item: Item, around: Surroundings) -> Properties:
        # Legacy ID merge only: from here on the user's events are the device's.
        _, name, insert_id, at, visitor, *_ = item
        properties = self._common(insert_id, at, around)
        del properties["time"]  # /track drops in silence what is older than 5 days
        properties["distinct_id"] = visitor.anonymous_id(self._mode)
        properties["alias"] = visitor.user_id
        return {"event": name, "properties": properties}

    def _common(self, insert_id: str, at: float, around: Surroundings) -> Properties:
        return {
            "token": self._token,
            "time": int(at * 1000),
            "$insert_id": insert_id,
            # Without it /import places the visitor in our data centre.
            "ip": around.address or 0,
            "mp_lib": "mp-asgi",
            "$lib_version": __version__,
        }

    def _hook(self, body: Properties) -> Properties:
        """Let the app look at an event. What tells whose it is, and that it is one, stays; the
        address may be made coarser or go.

        Raises:
            InvalidEvent: `before_send` if the app drops it, `before_send_failed` if it fails: what
                was to be taken out may still be in.
        """
        if self._before_send is None:
            return body
        name, properties = body["event"], body["properties"]
        ours = {key: value for key, value in properties.items() if key in RESERVED}
        left = _look(self._before_send, body)
        address = left.get("ip")
        if not (ours["ip"] and isinstance(address, str) and address):
            address = 0  # where none may leave, none is put in
        kept = {key: value for key, value in left.items() if key not in RESERVED}
        if len(kept) > MAX_PROPERTIES:
            text = f"before_send answered {len(kept)} properties, of at most {MAX_PROPERTIES}."
            raise InvalidEvent("before_send_failed", text)
        return {"event": name, "properties": kept | ours | {"ip": address}}

    # --- profiles -----------------------------------------------------------------------------

    def _render_people(self, item: Item, around: Surroundings) -> Properties:
        what, operation, _, at, visitor, values, *_ = item
        return {
            "$token": self._token,
            "$distinct_id": visitor.distinct_id(self._mode),
            "$ip": around.address or "0",  # "0" leaves the profile's place as it is
            "$time": int(at),
            operation: fit(json.loads(values) if what is What.FIRST_TOUCH else values),
        }

    def _render_group(self, item: Item) -> Properties:
        _, operation, _, at, _, values, group, _ = item
        key, group_id = group or ("", "")
        return {
            "$token": self._token,
            "$group_key": fit_text(key),
            "$group_id": fit_text(group_id),
            "$time": int(at),
            operation: fit(values),
        }


def _look(before_send: BeforeSend, body: Properties) -> Properties:
    """Answer the properties that the app leaves of an event.

    Raises:
        InvalidEvent: As `Renderer._hook` does; its text names types, no values.
    """
    answer: Any = None
    try:
        answer = before_send(body)
        left: Properties | None = None if answer is None else fit(freeze(answer["properties"]))
    except BaseException as error:  # whatever it is, it ends this event and not the thread
        why = type(error).__name__
        text = f"before_send raised {why}."
        if answer is not None:
            why = str(error) if isinstance(error, InvalidEvent) else why
            text = f"before_send answered a {type(answer).__name__} that is no event ({why})."
        raise InvalidEvent("before_send_failed", text) from error
    if left is None:
        raise InvalidEvent("before_send", "before_send dropped it.")
    return left


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
        self._newest_at = float("-inf")

    def takes(self, visitor: Visitor, at: float, *, is_repeatable: bool) -> bool:
        return (
            visitor is self._visitor
            and is_repeatable is self._is_repeatable
            and len(self._messages) < ENTRY_MESSAGES
            and self._size < ENTRY_BYTES
            and max(at, self._newest_at) - min(at, self._tracked_at) <= ENTRY_SECONDS
        )

    def add(self, message: Message, at: float, *, is_identity: bool) -> None:
        self._messages.append(message)
        self._size += len(message.body)
        self._tracked_at = min(self._tracked_at, at)
        self._newest_at = max(self._newest_at, at)
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
