"""Take what mixpanel-browser sent as the visitor's own, message by message.

Behind the seam: by then it is certain who that is, and what they agreed to.
Nothing a page says of who it is counts: the exchange writes every identity itself. What cannot be
taken is counted with its reason and spoils nothing beside it (RULES section 2, rule 5).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from mp_asgi.core import Core
from mp_asgi.errors import InvalidEvent
from mp_asgi.exchange import Exchange
from mp_asgi.identity import FORBIDDEN_IDS, read_id_text
from mp_asgi.place import normalise_path
from mp_asgi.profiles import check_values, read_group_id, read_group_key
from mp_asgi.properties import fit_text
from mp_asgi.wire import RESERVED

MAX_LATENCY_SECONDS: Final = 5.0  # between sending and reading; more than that is a wrong clock
MAX_BEHIND_SECONDS: Final = 86_400.0  # of a wrong clock; a page that says more tells no time
# A header's grant, or an undated manager's, tells no time: what came before it must be left out all
# the same. The SDK sends within seconds and tries again within 10 minutes.
MAX_UNDATED_SECONDS: Final = 3_600.0

_FIRST_TIME: Final = 31_536_000.0  # 1971: /import refuses what is older
_FIRST_MILLISECONDS: Final = 100_000_000_000.0  # as seconds, the year 5138
_LAST_TIME: Final = 1e30  # whatever is in the future is now; an integer may be beyond any float
_INSERT_ID: Final = re.compile(r"[A-Za-z0-9-]{1,36}")  # Mixpanel docs reference/import-events
_IDENTIFY: Final = "$identify"
_GROUP_OPERATIONS: Final = ("$set", "$set_once", "$union", "$remove", "$unset", "$delete")
_OPERATIONS: Final = (*_GROUP_OPERATIONS, "$add", "$append")
_PATH: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*([^?#]*)")  # RFC 3986, appendix B

_Update = Callable[[str, object], bool]


class Intake:
    """Take the messages of one request.

    Args:
        exchange: Of the request; its seam has run.
        core: The rules of the process.
        sent_at: When the page sent them, by its own clock, in seconds since the epoch.

    Attributes:
        refused: Why the last message that could not be taken was not; empty if only consent, which
            the exchange knows, was missing.
    """

    def __init__(self, exchange: Exchange, core: Core, sent_at: float | None) -> None:
        self._exchange = exchange
        self._core = core
        self._now = core.clock()
        self._behind = _read_behind(self._now, sent_at)
        granted_at = exchange.granted_at()
        if granted_at is None:
            # What was before a denial that our cookie still holds was not agreed to either.
            granted_at = max(self._now - MAX_UNDATED_SECONDS, exchange.not_granted_until())
        self._since = granted_at
        self.refused = ""

    def take_events(self, messages: Sequence[Any]) -> int:
        """Take events. Return how many were taken."""
        return self._take_all(self._take_event, messages)

    def take_updates(self, messages: Sequence[Any]) -> int:
        """Take updates of the visitor's profile. Return how many operations were taken."""
        return self._take_all(self._take_update, messages)

    def take_group_updates(self, messages: Sequence[Any]) -> int:
        """Take updates of groups, if the site wants it. Return how many operations were taken."""
        return self._take_all(self._take_group_update, messages)

    def _take_all(self, take: Callable[[Any], int], messages: Sequence[Any]) -> int:
        return sum(self._attempt(take, message) for message in messages)

    def _attempt(self, take: Callable[[Any], int], message: Any) -> int:
        try:
            return take(message)
        except InvalidEvent as error:
            self._core.sink.count("refused", 1, error.reason)
            self.refused = error.reason
            return 0

    # --- events -------------------------------------------------------------------------------

    def _take_event(self, message: Any) -> bool:
        event = _read_object(message)
        properties = _read_object(event.get("properties", {}))
        self._check_project(properties.get("token"))
        self._check_page(properties.get("$current_url"))
        at = self._read_time(properties)
        insert_id = _read_insert_id(properties.get("$insert_id"))
        name: Any = event.get("event")
        if isinstance(name, str):
            name = fit_text(name)
        if name == _IDENTIFY:
            self.refused = "identity_event"  # the exchange counts it, if so
            anonymous_id, user_id = _read_identified(properties)
            return self._exchange.take_identify(anonymous_id, user_id, at=at, insert_id=insert_id)
        # There, what is no name is refused, and so are the other identity events.
        return self._exchange.take_event(name, properties, at=at, insert_id=insert_id)

    def _read_time(self, properties: Mapping[str, Any]) -> float:
        """Answer when an event happened, never in the future.

        Raises:
            InvalidEvent: `invalid_time`, or `before_grant`: the visitor had not agreed then.
        """
        if "time" not in properties:
            return self._now  # up to 2.11 the SDK sends at once, and says no time
        time = _read_seconds(properties["time"])
        # By our clock. What a page kept from before the grant was never agreed to.
        happened = time + self._behind
        if happened < self._since:
            raise InvalidEvent("before_grant", "The visitor had not agreed yet.")
        return time if time <= self._now else min(happened, self._now)

    def _check_project(self, token: object) -> None:
        if token is not None and token != self._core.settings.token:
            raise InvalidEvent("other_project", "It is meant for another Mixpanel project.")

    def _check_page(self, url: object) -> None:
        excluded = self._core.excluded
        if excluded is None or not isinstance(url, str):
            return
        found = _PATH.match(url)
        if found is not None and excluded.fullmatch(normalise_path(found[1] or "/")):
            raise InvalidEvent("excluded", "Nothing is tracked on that page.")

    # --- profiles -----------------------------------------------------------------------------

    def _take_update(self, message: Any) -> int:
        visitor = self._exchange.visitor()
        if visitor is not None and visitor.user_id is None:
            raise InvalidEvent("anonymous_profile", "Nobody is logged in, and nobody will be.")
        return self._take_operations(message, _OPERATIONS, self._exchange.update_people)

    def _take_group_update(self, message: Any) -> int:
        if not self._core.settings.first_party_groups:
            raise InvalidEvent("group_update", "Pages do not update groups on this site.")
        update = _read_object(message)
        key = read_group_key(update.get("$group_key"))
        group = key, read_group_id(update.get("$group_id"))

        def update_group(operation: str, values: object) -> bool:
            return self._exchange.update_group(group, operation, values)

        return self._take_operations(update, _GROUP_OPERATIONS, update_group)

    def _take_operations(self, message: Any, operations: Sequence[str], send: _Update) -> int:
        """Take each operation that an object holds: Mixpanel allows one, pages send several."""
        update = _read_object(message)
        self._check_project(update.get("$token"))
        found = [operation for operation in update if operation in operations]
        if not found:
            raise InvalidEvent("invalid_update", "There is no operation that is known.")

        def take(operation: str) -> bool:
            values = "" if operation == "$delete" else update[operation]
            check_values(operation, values)
            return send(operation, _leave_out_reserved(values))

        return self._take_all(take, found)


def _read_behind(now: float, sent_at: float | None) -> float:
    """Answer by how many seconds the browser's clock is behind ours; 0 if it may be right."""
    behind = 0.0 if sent_at is None else now - sent_at
    is_told = abs(behind) <= MAX_BEHIND_SECONDS and not 0 <= behind <= MAX_LATENCY_SECONDS
    return behind if is_told else 0.0


def _read_object(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidEvent("invalid_message", "A message is a JSON object.")
    return value


def _read_seconds(value: object) -> float:
    # Neither NaN nor what is beyond any float lies between these.
    if not isinstance(value, (int, float)) or not _FIRST_TIME <= value <= _LAST_TIME:
        raise InvalidEvent("invalid_time", "A time is in seconds or milliseconds since 1970.")
    return value / 1000 if value >= _FIRST_MILLISECONDS else float(value)


def _leave_out_reserved(values: Any) -> object:
    """Leave out what only we write: a profile with another's `$distinct_id` in it misleads."""
    if isinstance(values, dict):
        return {name: value for name, value in values.items() if name not in RESERVED}
    return [name for name in values if name not in RESERVED] if values else values


def _read_insert_id(value: object) -> str:
    """Answer it if Mixpanel would take it, else nothing: then one is minted."""
    if not isinstance(value, str) or not _INSERT_ID.fullmatch(value):
        return ""
    return "" if value.lower() in FORBIDDEN_IDS else value


def _read_identified(properties: Mapping[str, Any]) -> tuple[str, str]:
    """Answer whom an identity event joins, as the SDK or as Mixpanel's reference spells it."""
    anonymous_id = properties.get("$anon_distinct_id", properties.get("$anon_id"))
    user_id = properties.get("$identified_id", properties.get("distinct_id"))
    return read_id_text(anonymous_id, "device ID"), read_id_text(user_id, "user ID")
