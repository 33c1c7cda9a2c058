"""Stand behind the official client: take its messages into our delivery, under consent.

In a request they are the visitor's if they name the visitor; whoever else they name is asked for.
What reference/mixpanel.md section 1.2 says of consumers holds: no `__len__`, no `__bool__`.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypedDict

from .consent.choice import StoredConsent
from .consent.policy import Reason
from .core import refuse
from .errors import InvalidEvent
from .exchange import Phase
from .identity import DEVICE_PREFIX, IdentityMode, read_id_text
from .jobs import NOBODY, Job, JobTracker, track_for
from .mandate import read_consent, trust_app
from .profiles import Group, People
from .tracker import Tracker
from .wire import IDENTITY_EVENTS, RESERVED, What

if TYPE_CHECKING:
    from .analytics import Analytics

_INSERT_ID: Final = re.compile(r"[A-Za-z0-9-]{1,36}")  # Mixpanel docs reference/import-events
_MILLISECONDS_FROM: Final = 1e11  # in seconds that is the year 5138, in milliseconds 1973

#: Where a request's visitor has said nothing, what the app knows of somebody counts for them. A
#: visitor who said no may be the very one whom a message names.
_UNSAID: Final = frozenset({Reason.NO_CHOICE, Reason.GRANT_EXPIRED, Reason.NOTICE_CHANGED})

_PEOPLE: Final[Mapping[str, Callable[[People, Any], None]]] = {
    "$set": People.set,
    "$set_once": People.set_once,
    "$add": People.increment,
    "$append": People.append,
    "$union": People.union,
    "$remove": People.remove,
    "$unset": People.unset,
    "$delete": lambda people, _: people.delete(),
}
_GROUPS: Final[Mapping[str, Callable[[Group, Any], None]]] = {
    "$set": Group.set,
    "$set_once": Group.set_once,
    "$union": Group.union,
    "$remove": Group.remove,
    "$unset": Group.unset,
    "$delete": lambda group, _: group.delete(),
}


class Consumer:
    """Give the official client our delivery: `Mixpanel(token, consumer=Consumer(analytics))`.

    Make it where the app is made, before its first request. It never blocks where a request runs,
    and never raises unless `strict` is set.

    Args:
        analytics: The middleware's.
        consent: Outside of a request, and for people who are not the visitor: True or a
            `StoredConsent` if the app knows that they agreed. None asks the ledger; without one,
            their messages are dropped and counted.

    Raises:
        InvalidEvent: `consent` is none of these.
    """

    def __init__(
        self, analytics: "Analytics", *, consent: bool | StoredConsent | None = None
    ) -> None:
        read_consent(consent)
        if analytics.requests is None:
            analytics.requests = ContextVar("mp_asgi.request", default=None)
        self._analytics = analytics
        self._requests = analytics.requests
        self._consent = consent

    def send(
        self, endpoint: str, json_message: str, api_key: object = None, api_secret: object = None
    ) -> None:
        """Take a message, as the official client makes it. Its `time` and `$insert_id` stay; what
        is older than `outbox_max_age` is dropped (`too_old`): `mp-asgi backfill` takes it.

        Args:
            endpoint: `events`, `people`, `groups` or `imports`.
            json_message: One object, or a list of them.
            api_key: Not needed, and not kept.
            api_secret: Likewise.
        """
        del api_key, api_secret
        core = self._analytics.core
        try:
            messages = json.loads(json_message)
        except (ValueError, RecursionError, TypeError):
            refuse(core, InvalidEvent("invalid_message", "A message is JSON."), "Consumer.send")
            return
        tracker = self._requests.get()
        for message in messages if isinstance(messages, list) else [messages]:
            self._take(tracker, endpoint, message)

    def create_alias(self, alias_id: object, original: object) -> None:
        """Make `alias_id` the alias of `original` (legacy ID merge), by our delivery.

        In the visitor's own request that is their sign-up; elsewhere `alias_id` is asked for.

        Args:
            alias_id: The user.
            original: The device ID that they had before.
        """
        self._take_alias(self._requests.get(), alias_id, original)

    def _take_alias(self, tracker: Tracker | None, alias_id: object, original: object) -> None:
        again = partial(self._take_alias, tracker, alias_id, original)
        try:
            if self._analytics.core.mode is not IdentityMode.LEGACY:
                _refuse_identity("Only the legacy ID merge knows aliases.")
            named = _Named(_read_name(alias_id), _read_name(original))
            self._create_alias(_Call(tracker, again), named)
        except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
            refuse(self._analytics.core, error, "alias")

    def _create_alias(self, call: "_Call", named: "_Named") -> None:
        tracker = call.tracker
        if tracker is not None and named.device_id in tracker.open().names():
            tracker.identify(named.user_id, new_user=True)
            return
        found = self._find(call, named)
        if isinstance(found, Tracker):
            _refuse_identity("A visitor's alias is of their own device.")
        elif found is not None:
            found.open().create_alias()

    # --- messages -----------------------------------------------------------------------------

    def _take(self, tracker: Tracker | None, endpoint: str, message: object) -> None:
        """Take a message now, or once it is certain whose request this is. Never raises."""
        call = _Call(tracker, partial(self._take, tracker, endpoint, message))
        try:
            fields = _read_fields(message)
            match endpoint:
                case "events" | "imports":
                    self._take_event(call, fields.get("event"), fields.get("properties"))
                case "people":
                    self._take_person(call, fields)
                case "groups":
                    self._take_group(call, fields)
                case _:
                    text = f"There is no endpoint {endpoint!r}."
                    refuse(self._analytics.core, InvalidEvent("invalid_message", text), "Consumer")
        except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
            refuse(self._analytics.core, error, "Consumer.send", _find_name(message))

    def _take_event(self, call: "_Call", name: Any, fields: object) -> None:
        properties = _read_fields(fields)
        self._check_token(properties.get("token"))
        if isinstance(name, str) and name.strip().lower() in IDENTITY_EVENTS:
            _refuse_identity("Who is who is the tracker's to say: identify().")
        found = self._find(call, _read_named(properties, self._analytics.core.mode))
        if found is not None:
            found.open().take_event(
                name,
                {key: value for key, value in properties.items() if key not in RESERVED},
                at=_read_time(properties.get("time"), self._analytics.core.clock()),
                insert_id=_read_insert_id(properties.get("$insert_id")),
                what=What.EVENT,
            )

    def _take_person(self, call: "_Call", fields: Mapping[str, Any]) -> None:
        self._check_token(fields.get("$token"))
        operations = _read_operations(fields, _PEOPLE)
        named = {"distinct_id": fields.get("$distinct_id")}
        found = self._find(call, _read_named(named, self._analytics.core.mode))
        if found is not None:
            for operation, values in operations.items():
                _PEOPLE[operation](found.people, values)

    def _take_group(self, call: "_Call", fields: Mapping[str, Any]) -> None:
        self._check_token(fields.get("$token"))
        operations = _read_operations(fields, _GROUPS)
        tracker = call.running() or self._track_for_nobody()
        group = tracker.group(fields.get("$group_key", ""), fields.get("$group_id"))
        for operation, values in operations.items():
            _GROUPS[operation](group, values)

    def _check_token(self, token: object) -> None:
        if token != self._analytics.settings.token:
            raise InvalidEvent("other_project", "The message is for a project with another token.")

    # --- people -------------------------------------------------------------------------------

    def _find(self, call: "_Call", named: "_Named") -> Tracker | JobTracker | None:
        """Answer who tracks for whom a message names; None if it must wait, or may not leave."""
        if call.tracker is None or call.is_after(named):
            if not named.distinct_id:
                raise InvalidEvent(
                    "no_person", "Outside of a request a message needs a distinct_id."
                )
            return self._analytics.visitor(**named.ids(), consent=self._consent)
        exchange = call.tracker.open()
        names = exchange.names()
        if not named.distinct_id or named.distinct_id in names:
            return call.tracker
        if self._analytics.core.has_late_answers and not exchange.is_settled:
            exchange.when_settled(call.again)  # the app may yet say that this is the visitor
            return None
        decision = exchange.decision
        if not decision.is_granted and decision.reason not in _UNSAID:
            self._analytics.core.sink.count("refused", 1, decision.reason.value)
            return None
        if named.device_id in names:
            named = named._replace(device_id="")  # theirs is nobody else's
        return track_for(self._analytics.core, **named.ids(), consent=self._consent)

    def _track_for_nobody(self) -> JobTracker:
        core = self._analytics.core
        mandate = trust_app(core, NOBODY, read_consent(self._consent), None)
        return JobTracker(core, Job(core, NOBODY, mandate))


class _Call(NamedTuple):
    """What the client did, and in whose request.

    Attributes:
        tracker: Of the request; None outside of one.
        again: Does it again.
    """

    tracker: Tracker | None
    again: Callable[[], None]

    def running(self) -> Tracker | None:
        """Answer the tracker, while its request runs: what it left running carries its context
        for ever.
        """
        is_over = self.tracker is None or self.tracker.phase is Phase.CLOSED
        return None if is_over else self.tracker

    def is_after(self, named: "_Named") -> bool:
        """Whether the request is over, and the message names somebody else than its visitor."""
        if self.tracker is None or self.running() is not None:
            return False
        return named.distinct_id not in self.tracker.open().names()


class _IDs(TypedDict):
    user_id: str | None
    device_id: str | None


class _Named(NamedTuple):
    """Whom a message names: texts, empty where it does not."""

    user_id: str
    device_id: str

    @property
    def distinct_id(self) -> str:
        return self.user_id or self.device_id

    def ids(self) -> "_IDs":
        return {"user_id": self.user_id or None, "device_id": self.device_id or None}


def _read_named(fields: Mapping[str, Any], mode: IdentityMode) -> _Named:
    """Answer whom a message names: by its distinct_id, else as simplified ID merge reads it."""
    name, user, device = map(_read_name, map(fields.get, ("distinct_id", "$user_id", "$device_id")))
    if name.startswith(DEVICE_PREFIX):
        return _Named(user, name)
    user = name or user
    # There a device's distinct_id has no prefix: what the device denied counts, too.
    is_either = mode is not IdentityMode.SIMPLIFIED and not device
    return _Named(user, user if is_either else device)


def _read_name(value: object) -> str:
    return "" if value is None else read_id_text(value, "distinct_id")


def _read_fields(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidEvent("invalid_message", "A message and its properties are objects.")
    return value


def _read_operations(fields: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    operations = {name: value for name, value in fields.items() if name in known}
    if not operations:
        raise InvalidEvent("invalid_update", f"An update has one of {', '.join(known)}.")
    return operations


def _read_time(value: object, now: float) -> float:
    """Answer seconds since the epoch: as given, in seconds or milliseconds, and never to come."""
    if value is None:
        return now
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InvalidEvent("invalid_time", "The time of an event is seconds since the epoch.")
    return min(now, value / 1_000 if value >= _MILLISECONDS_FROM else value)


def _read_insert_id(value: object) -> str:
    """Answer an insert ID that Mixpanel takes; another one becomes one, always the same."""
    text = _read_name(value)
    if not text or _INSERT_ID.fullmatch(text):
        return text
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _refuse_identity(why: str) -> None:
    raise InvalidEvent("identity_event", why)


def _find_name(message: object) -> object:
    return message.get("event") if isinstance(message, dict) else None
