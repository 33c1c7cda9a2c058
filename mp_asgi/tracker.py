"""Offer the verbs that an app calls during a request. The exchange behind them opens on first use.

None of them awaits, and none raises into a request unless `strict` is set.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from .consent.policy import Decision, Reason, State
from .core import Core, refuse
from .errors import InvalidEvent
from .events import Asked, Notice
from .exchange import Exchange, LateSeam, Phase
from .head import RequestHead
from .identity import Visitor
from .profiles import Group, People, read_groups
from .sharing import find_browser_ids
from .tokens import make_token
from .wire import PAGE_VIEW

SCOPE_KEY = "mp_asgi.tracker"
"""Where the tracker is in an ASGI scope and in a WSGI environ."""

Seed = tuple[Core, Callable[..., RequestHead], Any, Any, Any, Any]
"""What a door keeps of a request, in one tuple: the rules, how to read a head (with the rules'
reader), and the four values to read it from. None of them leads back to the scope.
"""

_OPEN = Phase.OPEN
_NO_DECISION: Final = Decision(State.UNKNOWN, Reason.UNREADABLE, "process")
_SOURCE: Final = re.compile(r"(cmp:[A-Za-z0-9_-]{1,64})?")


class Tracker:
    """Track what the visitor of this request does.

    Found in `scope["mp_asgi.tracker"]`, `environ["mp_asgi.tracker"]`,
    `request.state.mixpanel`, or by `get_tracker`. It knows who the visitor is, so no verb takes
    a `distinct_id`; it knows what they consented to, so no call needs to ask.
    """

    __slots__ = ("_seed", "exchange", "late_seam", "phase")

    def __init__(self, seed: Seed) -> None:
        self._seed = seed
        self.exchange: Exchange | None = None
        self.phase = _OPEN
        # What an exchange needs that opens after the start. The doors leave it at the start, where
        # the app is to be asked, and take it away at the end: it leads back to the scope.
        self.late_seam: LateSeam | None = None

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
            refuse(self.core, error, "track", event_name)
            return None

    def track_pageview(self, properties: Mapping[str, Any] | None = None) -> str | None:
        """Track Mixpanel's page view event, `$mp_web_page_view`, with the page's address."""
        return self.track(PAGE_VIEW, properties)

    def register(self, properties: Mapping[str, Any]) -> None:
        """Put properties on every later event of this request; an event's own win."""
        try:
            (self.exchange or self._open()).register(properties)
        except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
            refuse(self.core, error, "register")

    # --- identity -----------------------------------------------------------------------------

    def identify(self, user_id: object, *, new_user: bool = False) -> None:
        """Bind the visitor to a user at login or sign-up (RULES section 1, rules 2 and 5).

        A device that belongs to another user gets a new device ID first, so that two people
        never merge. Without a grant this lasts for the request only.

        Args:
            user_id: The database ID: text, a number or a UUID. Not an e-mail address.
            new_user: Whether this is a sign-up. Only the legacy ID merge needs to know: then, once,
                the user's alias is created.
        """
        try:
            (self.exchange or self._open()).identify(user_id, is_new=new_user)
        except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
            refuse(self.core, error, "identify")

    def reset(self, *, new_device: bool | None = None) -> None:
        """Leave the identity at logout.

        Args:
            new_device: Whether the visitor gets a new device ID. None: yes in simplified mode,
                no in original and legacy mode, where 500 IDs fill a cluster.
        """
        try:
            (self.exchange or self._open()).reset(new_device=new_device)
        except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
            refuse(self.core, error, "reset")

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
    def people(self) -> People:
        """Update the visitor's profile. Waits within the request until the user is known."""
        return People(self)

    def group(self, key: str, group_id: object) -> Group:
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
            groups = read_groups(key, ids)
        except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
            refuse(self.core, error, "set_group")
            return
        self.register(groups)
        self.people.set(groups)

    # --- elsewhere ----------------------------------------------------------------------------

    def to_token(self, max_age: float | str = 86_400.0) -> str:
        """Answer who the visitor is and what they agreed to, signed, for a job.

        `tracker_from_token` reads it, in any process with the same keys and project. It names
        the user of this moment: call it after `identify`. It is signed, not sealed: whoever has
        it can read the user ID.

        Args:
            max_age: Seconds that it counts, or text with a unit (`"30m"`); less if the grant ends
                before, and at most `outbox_max_age`.

        Returns:
            Text for a job's arguments; empty without a grant, and where visitors are only counted.
        """
        try:
            exchange = self.exchange or self._open()
            with self.core.lock:  # a denial in another thread comes before the token or after it
                visitor, kind = exchange.visitor(), exchange.decision.kind
                if visitor is None or kind is None:
                    return ""
                # A device that has just met its user may yet have to stay another's.
                visitor = exchange.leave_open(visitor)
                return make_token(self.core, visitor, kind, exchange.granted_at(), max_age)
        except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
            refuse(self.core, error, "to_token")
            return ""

    # --- consent ------------------------------------------------------------------------------

    @property
    def bootstrap(self) -> dict[str, str]:
        """What mixpanel-browser should begin with in this page: `distinct_id` and `$device_id`.

        For a template, as `loaded: m => m.register({{ bootstrap | tojson }})`; empty without
        consent. A use, as reading `device_id` is; and the response becomes private, because two
        visitors with one ID are one person to Mixpanel.
        """
        try:
            visitor = self.open().tell_page()
        except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
            refuse(self.core, error, "reading who it is")
            visitor = None
        return {} if visitor is None else find_browser_ids(visitor, self.core.mode)

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
            refuse(self.core, error, "reading who it is")
            return None

    def open(self) -> Exchange:
        """Answer the exchange, opening it where the app has not used the tracker yet."""
        return self.exchange or self._open()

    def _open(self) -> Exchange:
        core, read_head, started, scheme, client, headers = self._seed
        with core.lock:  # two threads of one request never open two
            if self.exchange is None:
                head = read_head(core.heads, started, scheme, client, headers)
                self.exchange = Exchange(core, head, self.phase, self.late_seam)
            return self.exchange


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
            refuse(self._tracker.core, error, "reading consent")
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
            refuse(self._tracker.core, error, "consent.grant")
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
            refuse(self._tracker.core, error, "consent.deny")

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
        refuse(self._tracker.core, InvalidEvent("invalid_notice", message), "consent")
        kept = notice if is_notice else None
        return Asked(kept, source if is_source else "")  # type: ignore[arg-type]  # likewise


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
