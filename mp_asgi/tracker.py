"""Offer the verbs that an app calls during a request. The exchange behind them opens on first use.

None of them awaits, and none raises into a request unless `strict` is set.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from .consent.policy import Decision, Reason, State
from .core import Core
from .errors import InvalidEvent
from .events import Asked, Notice
from .exchange import Exchange, Phase
from .head import RequestHead
from .identity import Visitor, read_id_text

SCOPE_KEY = "mp_asgi.tracker"
"""Where the tracker is in an ASGI scope and in a WSGI environ."""

Seed = tuple[Core, Callable[..., RequestHead], Any, Any, Any, Any]
"""What a door keeps of a request, in one tuple: the rules, how to read a head (with the rules'
reader), and the four values to read it from. None of them leads back to the scope.
"""

_OPEN = Phase.OPEN
_NO_DECISION: Final = Decision(State.UNKNOWN, Reason.UNREADABLE, "process")
_NO_GROUPS: Final = frozenset(
    {"", "null", "none", "nil", "<nil>", "undefined", "[]", "{}", '""', "[object object]"}
)
_SOURCE: Final = re.compile(r"(cmp:[A-Za-z0-9_-]{1,64})?")
_SHOWN_NAME: Final = 100  # characters of an event's name in a log line


def _refuse(core: Core, error: Exception, verb: str, name: object = None) -> None:
    """Count and log what a call did wrong; raise it only under `strict`."""
    if core.settings.strict:
        raise error
    reason = error.reason if isinstance(error, InvalidEvent) else "failed_call"
    core.sink.count("refused", 1, reason)
    detail = str(error) if isinstance(error, InvalidEvent) else type(error).__name__
    shown = f"({str.__str__(name)[:_SHOWN_NAME]!r})" if isinstance(name, str) else ""
    core.sink.warn(f"{reason} {verb}", f"refused {verb}{shown} ({reason}): {detail}")


class Tracker:
    """Track what the visitor of this request does.

    Found in `scope["mp_asgi.tracker"]`, `environ["mp_asgi.tracker"]`,
    `request.state.mixpanel`, or by `get_tracker`. It knows who the visitor is, so no verb takes
    a `distinct_id`; it knows what they consented to, so no call needs to ask.
    """

    __slots__ = ("_seed", "exchange", "phase")

    def __init__(self, seed: Seed) -> None:
        self._seed = seed
        self.exchange: Exchange | None = None
        self.phase = _OPEN

    # --- events -------------------------------------------------------------------------------

    def track(self, event_name: str, properties: Mapping[str, Any] | None = None) -> str | None:
        """Track an event of this request's visitor.

        The event keeps the visitor, the time and the properties of this moment, and leaves
        after the response.

        Args:
            event_name: At most 255 bytes.
            properties: At most 243, copied at once; what has no JSON form refuses the event.

        Returns:
            The event's `$insert_id`, or None where consent or Mixpanel's rules refuse it.
        """
        try:
            return (self.exchange or self._open()).track(event_name, properties)
        except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
            _refuse(self.core, error, "track", event_name)
            return None

    def track_pageview(self, properties: Mapping[str, Any] | None = None) -> str | None:
        """Track Mixpanel's page view event, `$mp_web_page_view`."""
        return self.track("$mp_web_page_view", properties)

    def register(self, properties: Mapping[str, Any]) -> None:
        """Put properties on every later event of this request; an event's own win."""
        try:
            (self.exchange or self._open()).register(properties)
        except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
            _refuse(self.core, error, "register")

    # --- identity -----------------------------------------------------------------------------

    def identify(self, user_id: object, *, new_user: bool = False) -> None:
        """Bind the visitor to a user at login or sign-up (RULES section 1, rules 2 and 5).

        A device that belongs to another user gets a new device ID first, so that two people
        never merge. Without a grant this lasts for the request only.

        Args:
            user_id: The database ID: text, a number or a UUID. Not an e-mail address.
            new_user: Whether this is a sign-up. Only the legacy ID merge needs to know.
        """
        del new_user
        try:
            (self.exchange or self._open()).identify(user_id)
        except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
            _refuse(self.core, error, "identify")

    def reset(self, *, new_device: bool | None = None) -> None:
        """Leave the identity at logout.

        Args:
            new_device: Whether the visitor gets a new device ID. None: yes in simplified mode,
                no in original mode, where 500 IDs fill a cluster.
        """
        try:
            (self.exchange or self._open()).reset(new_device=new_device)
        except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
            _refuse(self.core, error, "reset")

    @property
    def device_id(self) -> str | None:
        """The anonymous ID. Reading it is a use: it is minted when consented, None otherwise."""
        visitor = self._visitor()
        return None if visitor is None else visitor.device_id

    @property
    def user_id(self) -> str | None:
        """The user, if known in this request and consented."""
        visitor = self._visitor()
        return None if visitor is None else visitor.user_id

    @property
    def distinct_id(self) -> str | None:
        """Mixpanel's ID of the next event's user; None without consent."""
        visitor = self._visitor()
        return None if visitor is None else visitor.distinct_id(self.core.mode)

    # --- profiles and groups ------------------------------------------------------------------

    @property
    def people(self) -> "People":
        """Update the visitor's profile. Waits within the request until the user is known."""
        return People(self)

    def group(self, key: str, group_id: object) -> "Group":
        """Update the profile of a group.

        Args:
            key: The group key of the project, for example `company`.
            group_id: Which one: text, a number or a UUID.
        """
        return Group(self, key, group_id)

    def set_group(self, key: str, ids: object) -> None:
        """Count this request's later events, and the visitor's profile, to groups.

        Args:
            key: The group key of the project.
            ids: One group ID or a list of them: text, numbers or UUIDs.
        """
        try:
            groups = {_read_group_key(key): _read_group_ids(ids)}
        except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
            _refuse(self.core, error, "set_group")
            return
        self.register(groups)
        self.people.set(groups)

    # --- consent ------------------------------------------------------------------------------

    @property
    def consent(self) -> "Consent":
        """What the visitor decided, and the acts that change it."""
        return Consent(self)

    @property
    def core(self) -> Core:
        """The rules of the process, for the doors."""
        return self._seed[0]

    def _visitor(self) -> Visitor | None:
        try:
            return (self.exchange or self._open()).visitor()
        except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
            _refuse(self.core, error, "reading who it is")
            return None

    def open(self) -> Exchange:
        """Answer the exchange, opening it where the app has not used the tracker yet."""
        return self.exchange or self._open()

    def _open(self) -> Exchange:
        core, read_head, started, scheme, client, headers = self._seed
        core.lock.acquire()  # two threads of one request never open two; `with` costs twice as much
        try:
            if self.exchange is None:
                head = read_head(core.heads, started, scheme, client, headers)
                self.exchange = Exchange(core, head, self.phase)
            return self.exchange
        finally:
            core.lock.release()


class Consent:
    """The visitor's consent, as this request sees it."""

    __slots__ = ("_tracker",)

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    @property
    def decision(self) -> Decision:
        """The whole decision."""
        try:
            return self._tracker.open().decision
        except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
            _refuse(self._tracker.core, error, "reading consent")
            return _NO_DECISION

    @property
    def state(self) -> str:
        """`granted`, `denied` or `unknown`."""
        return self.decision.state.value

    @property
    def reason(self) -> str:
        """Why, as one word, such as `cookie-granted`, `sec-gpc` or `no-choice`."""
        return self.decision.reason.value

    @property
    def needs_prompt(self) -> bool:
        """Whether the visitor should be asked."""
        return self.decision.needs_prompt

    def grant(
        self,
        *,
        override_gpc: bool = False,
        trusted: bool = False,
        notice: Notice | None = None,
        source: str = "",
    ) -> bool:
        """Record that the visitor agreed. Return whether they are granted now.

        Does nothing in a cross-site request, and under GPC unless it is overridden.

        Args:
            override_gpc: The visitor was told that this overrides their browser's signal.
            trusted: The caller has its own check against cross-site requests.
            notice: What the visitor saw, for the ledger.
            source: Who asked them, for the ledger, such as `cmp:NAME`; empty for the app itself.
        """
        try:
            exchange = self._tracker.open()
            asked = self._read_asked(notice, source)
            return exchange.grant(overrides_gpc=override_gpc, is_trusted=trusted, asked=asked)
        except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
            _refuse(self._tracker.core, error, "consent.grant")
            return False

    def deny(
        self, *, trusted: bool = False, notice: Notice | None = None, source: str = ""
    ) -> None:
        """Record that the visitor refused: nothing of this request leaves, what waits is
        forgotten, the ID cookie is deleted.

        Args:
            trusted: The caller has its own check against cross-site requests.
            notice: What the visitor saw, for the ledger.
            source: Who asked them, for the ledger, such as `cmp:NAME`; empty for the app itself.
        """
        try:
            asked = self._read_asked(notice, source)
            self._tracker.open().deny(is_trusted=trusted, asked=asked)
        except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
            _refuse(self._tracker.core, error, "consent.deny")

    def withdraw(
        self, *, trusted: bool = False, notice: Notice | None = None, source: str = ""
    ) -> None:
        """Record a withdrawal. The same act as `deny`."""
        self.deny(trusted=trusted, notice=notice, source=source)

    def _read_asked(self, notice: object, source: object) -> Asked:
        """Answer what can be recorded of how a visitor was asked: their choice counts anyway."""
        is_notice = isinstance(notice, Notice) and all(isinstance(text, str) for text in notice)
        is_source = isinstance(source, str) and _SOURCE.fullmatch(source) is not None
        if (is_notice or notice is None) and is_source:
            return Asked(notice, source)  # type: ignore[arg-type]  # checked in the two lines above
        message = "A notice is an mp_asgi.Notice of two texts, and a source is cmp:NAME."
        _refuse(self._tracker.core, InvalidEvent("invalid_notice", message), "consent")
        kept = notice if is_notice else None
        return Asked(kept, source if is_source else "")  # type: ignore[arg-type]  # likewise


class People:
    """Updates of the visitor's profile (Mixpanel docs: reference/profile-set and following)."""

    __slots__ = ("_tracker",)

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def set(self, properties: Mapping[str, Any]) -> None:
        """Set properties."""
        self._update("$set", properties)

    def set_once(self, properties: Mapping[str, Any]) -> None:
        """Set properties that are not set yet."""
        self._update("$set_once", properties)

    def increment(self, properties: Mapping[str, float]) -> None:
        """Add numbers. Not repeated when Mixpanel's answer is lost."""
        self._update("$add", properties)

    def append(self, properties: Mapping[str, Any]) -> None:
        """Append one value to each list. Not repeated when Mixpanel's answer is lost."""
        self._update("$append", properties)

    def union(self, properties: Mapping[str, Sequence[Any]]) -> None:
        """Add values to lists where they are missing."""
        self._update("$union", properties)

    def remove(self, properties: Mapping[str, Any]) -> None:
        """Remove a value from each list."""
        self._update("$remove", properties)

    def unset(self, names: Sequence[str]) -> None:
        """Remove properties."""
        self._update("$unset", names)

    def delete(self) -> None:
        """Delete the profile; the events stay."""
        self._update("$delete", "")

    def _update(self, operation: str, values: object) -> None:
        try:
            _check_values(operation, values)
            self._tracker.open().update_people(operation, values)
        except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
            _refuse(self._tracker.core, error, f"people {operation}")


class Group:
    """Updates of a group's profile (Mixpanel docs: reference/group-set-property and following)."""

    __slots__ = ("_group_id", "_key", "_tracker")

    def __init__(self, tracker: Tracker, key: str, group_id: object) -> None:
        self._tracker = tracker
        self._key = key
        self._group_id = group_id

    def set(self, properties: Mapping[str, Any]) -> None:
        """Set properties."""
        self._update("$set", properties)

    def set_once(self, properties: Mapping[str, Any]) -> None:
        """Set properties that are not set yet."""
        self._update("$set_once", properties)

    def union(self, properties: Mapping[str, Sequence[Any]]) -> None:
        """Add values to lists where they are missing."""
        self._update("$union", properties)

    def remove(self, properties: Mapping[str, Any]) -> None:
        """Remove a value from each list."""
        self._update("$remove", properties)

    def unset(self, names: Sequence[str]) -> None:
        """Remove properties."""
        self._update("$unset", names)

    def delete(self) -> None:
        """Delete the group's profile."""
        self._update("$delete", "")

    def _update(self, operation: str, values: object) -> None:
        try:
            group = _read_group_key(self._key), _read_group_id(self._group_id)
            _check_values(operation, values)
            self._tracker.open().update_group(group, operation, values)
        except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
            _refuse(self._tracker.core, error, f"group {operation}")


def _check_values(operation: str, values: object) -> None:
    if operation == "$delete":
        return
    if operation == "$unset":
        _check_names(values)
        return
    if not isinstance(values, Mapping):
        raise InvalidEvent("invalid_update", f"{operation} takes a mapping of properties.")
    for value in values.values():
        if operation == "$add" and not _is_addable(value):
            raise InvalidEvent("invalid_update", "$add takes finite numbers.")
        if operation == "$union" and not isinstance(value, (list, tuple, set, frozenset)):
            raise InvalidEvent("invalid_update", "$union takes lists.")


def _check_names(values: object) -> None:
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        raise InvalidEvent("invalid_update", "$unset takes a list of names.")
    if not all(isinstance(name, str) for name in values):
        raise InvalidEvent("invalid_update", "$unset takes names that are text.")


def _is_addable(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _read_group_key(key: object) -> str:
    if not isinstance(key, str) or not key.strip():
        raise InvalidEvent("invalid_update", "A group key is text, and not empty.")
    return str.__str__(key)


def _read_group_ids(ids: object) -> list[str]:
    if not isinstance(ids, (list, tuple, set, frozenset)):
        return [_read_group_id(ids)]
    texts = [_read_group_id(item) for item in ids]
    return texts if isinstance(ids, (list, tuple)) else sorted(texts)


def _read_group_id(group_id: object) -> str:
    """Answer a group ID as it is sent. More is allowed than to a user ID: 0 and "NA" are groups."""
    text = read_id_text(group_id, "group ID")
    if text.strip().lower() in _NO_GROUPS:
        raise InvalidEvent("forbidden_id", "This group ID names no group.")
    return text


def get_tracker(connection: Any) -> Tracker:
    """Answer the tracker of a request.

    Args:
        connection: A request (Starlette, FastAPI, Flask, Django, …), an ASGI scope or a WSGI
            environ.

    Raises:
        LookupError: No middleware of ours serves this request.
    """
    for place in (
        connection,
        getattr(connection, "scope", None),
        getattr(connection, "environ", None),
    ):
        if isinstance(place, Mapping) and isinstance(tracker := place.get(SCOPE_KEY), Tracker):
            return tracker
    raise LookupError(
        "This request has no tracker. Add mp_asgi.MixpanelMiddleware (ASGI) or "
        "mp_asgi.MixpanelWSGIMiddleware (WSGI) around the app."
    )
