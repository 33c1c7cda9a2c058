"""Offer the verbs that an app calls during a request. The exchange behind them opens on first use.

None of them awaits, and none raises into a request unless `strict` is set.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from .consent.policy import Decision
from .core import Core
from .errors import InvalidEvent
from .exchange import Exchange, Phase
from .head import RequestHead

SCOPE_KEY = "mp_asgi.tracker"
"""Where the tracker is in an ASGI scope and in a WSGI environ."""

Seed = tuple[Core, Callable[..., RequestHead], Any, Any, Any, Any]
"""What a door keeps of a request, in one tuple: the rules, how to read a head (with the rules'
reader), and the four values to read it from. None of them leads back to the scope.
"""

_OPEN = Phase.OPEN
_Values = ParamSpec("_Values")
_Answer = TypeVar("_Answer")


class _HasTracker(Protocol):
    _tracker: "Tracker"


_Owner = TypeVar("_Owner", bound=_HasTracker)


def _refuse(core: Core, error: Exception) -> None:
    """Count and log what a call did wrong; raise it only under `strict`."""
    if core.settings.strict:
        raise error
    reason = error.reason if isinstance(error, InvalidEvent) else "failed_call"
    core.sink.count("refused", 1, reason)
    detail = str(error) if isinstance(error, InvalidEvent) else type(error).__name__
    core.sink.warn(reason, f"refused a call ({reason}): {detail}")


def _guarded(
    verb: Callable[Concatenate[_Owner, _Values], _Answer],
) -> Callable[Concatenate[_Owner, _Values], _Answer | None]:
    @functools.wraps(verb)
    def call(self: _Owner, /, *args: _Values.args, **kwargs: _Values.kwargs) -> _Answer | None:
        try:
            return verb(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
            _refuse(self._tracker.core, error)
            return None

    return call


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
            _refuse(self.core, error)
            return None

    def track_pageview(self, properties: Mapping[str, Any] | None = None) -> str | None:
        """Track Mixpanel's page view event, `$mp_web_page_view`."""
        return self.track("$mp_web_page_view", properties)

    def register(self, properties: Mapping[str, Any]) -> None:
        """Put properties on every later event of this request; an event's own win."""
        try:
            (self.exchange or self._open()).register(properties)
        except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
            _refuse(self.core, error)

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
            _refuse(self.core, error)

    def reset(self, *, new_device: bool | None = None) -> None:
        """Leave the identity at logout.

        Args:
            new_device: Whether the visitor gets a new device ID. None: yes in simplified mode,
                no in original mode, where 500 IDs fill a cluster.
        """
        try:
            (self.exchange or self._open()).reset(new_device=new_device)
        except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
            _refuse(self.core, error)

    @property
    def device_id(self) -> str | None:
        """The anonymous ID. Reading it is a use: it is minted when consented, None otherwise."""
        visitor = (self.exchange or self._open()).visitor()
        return None if visitor is None else visitor.device_id

    @property
    def user_id(self) -> str | None:
        """The user, if known in this request and consented."""
        visitor = (self.exchange or self._open()).visitor()
        return None if visitor is None else visitor.user_id

    @property
    def distinct_id(self) -> str | None:
        """Mixpanel's ID of the next event's user; None without consent."""
        visitor = (self.exchange or self._open()).visitor()
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
            group_id: Which one.
        """
        return Group(self, str(key), str(group_id))

    def set_group(self, key: str, ids: object) -> None:
        """Count this request's later events, and the visitor's profile, to groups.

        Args:
            key: The group key of the project.
            ids: One group ID or a list of them.
        """
        group_ids = list(ids) if isinstance(ids, (list, tuple, set, frozenset)) else [ids]
        self.register({key: group_ids})
        self.people.set({key: group_ids})

    # --- consent ------------------------------------------------------------------------------

    @property
    def consent(self) -> "Consent":
        """What the visitor decided, and the acts that change it."""
        return Consent(self)

    @property
    def core(self) -> Core:
        """The rules of the process, for the doors."""
        return self._seed[0]

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
        return self._tracker.open().decision

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

    @_guarded
    def _grant(self, *, override_gpc: bool, trusted: bool) -> bool:
        return self._tracker.open().grant(overrides_gpc=override_gpc, is_trusted=trusted)

    @_guarded
    def _deny(self, *, trusted: bool) -> None:
        self._tracker.open().deny(is_trusted=trusted)

    def grant(self, *, override_gpc: bool = False, trusted: bool = False) -> bool:
        """Record that the visitor agreed. Return whether they are granted now.

        Does nothing in a cross-site request, and under GPC unless it is overridden.

        Args:
            override_gpc: The visitor was told that this overrides their browser's signal.
            trusted: The caller has its own check against cross-site requests.
        """
        return bool(self._grant(override_gpc=override_gpc, trusted=trusted))

    def deny(self, *, trusted: bool = False) -> None:
        """Record that the visitor refused: nothing of this request leaves, what waits is
        forgotten, the ID cookie is deleted.

        Args:
            trusted: The caller has its own check against cross-site requests.
        """
        self._deny(trusted=trusted)

    def withdraw(self, *, trusted: bool = False) -> None:
        """Record a withdrawal. The same act as `deny`."""
        self._deny(trusted=trusted)


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

    @_guarded
    def _update(self, operation: str, values: object) -> None:
        _check_values(operation, values)
        self._tracker.open().update_people(operation, values)


class Group:
    """Updates of a group's profile (Mixpanel docs: reference/group-set-property and following)."""

    __slots__ = ("_group", "_tracker")

    def __init__(self, tracker: Tracker, key: str, group_id: str) -> None:
        self._tracker = tracker
        self._group = (key, group_id)

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

    @_guarded
    def _update(self, operation: str, values: object) -> None:
        _check_values(operation, values)
        self._tracker.open().update_group(self._group, operation, values)


def _check_values(operation: str, values: object) -> None:
    if operation == "$delete":
        return
    if operation == "$unset":
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise InvalidEvent("invalid_update", "$unset takes a list of names.")
        return
    if not isinstance(values, Mapping):
        raise InvalidEvent("invalid_update", f"{operation} takes a mapping of properties.")
    for value in values.values():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if operation == "$add" and not is_number:
            raise InvalidEvent("invalid_update", "$add takes numbers.")
        if operation == "$union" and not isinstance(value, (list, tuple, set, frozenset)):
            raise InvalidEvent("invalid_update", "$union takes lists.")


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
