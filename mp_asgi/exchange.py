"""Run one request and its response: what was tracked, under which decision, by whom.

Sans-IO: both doors drive the same object in the same order and decide nothing themselves.

    begin_response(connection)   the seam: late answers, final decision, cookies
    write_headers(status, …)     as often as the app starts a response
    end_response()               the body is complete: hand over what was tracked
    close(connection)            the app has returned or raised: nothing is left behind

The way of a consenting visitor who is known and tracks an event takes no lock and opens
neither `Hearing` nor `Visit`; those hold what an act or a late answer changes.
"""

import re
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any, Final

from .consent.hearing import Hearing
from .consent.policy import DISABLED, AppAnswer, Decision, Reason, State
from .consent.signals import Said, is_cross_site
from .core import Core, Handover
from .errors import InvalidEvent
from .head import RequestHead
from .identity import Anonymous, IdentityMode, Visitor, read_user_id
from .jar import EMPTY_JAR, Jar
from .late import ask_consent, ask_user
from .plan import Outcome, Planner
from .properties import MAX_STRING_BYTES, Properties, freeze
from .response import CookiePlan, Headers
from .visit import Visit, Write, read_visitor
from .wire import IDENTITY_EVENTS, MAX_PROPERTIES, Item, What

MAX_KNOWN_NAMES: Final = 1_000

# Looking a member up costs more than reading a global.
_EVENT: Final = What.EVENT
_UNSENDABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Phase(IntEnum):
    """How far a response is."""

    OPEN = 0
    STARTED = 1
    CLOSED = 2


_OPEN: Final = Phase.OPEN
_STARTED: Final = Phase.STARTED
_CLOSED: Final = Phase.CLOSED


class Exchange:
    """One request and its response. Its methods may be called from any of its threads.

    Attributes:
        decision: As it stands now.
        is_settled: The seam has run: the decision is final, late answers are in.
    """

    __slots__ = (
        "_core",
        "_epoch",
        "_head",
        "_hearing",
        "_held_updates",
        "_is_secure",
        "_items",
        "_jar",
        "_phase",
        "_plan",
        "_registered",
        "_visit",
        "_visitor",
        "decision",
        "is_settled",
    )

    def __init__(self, core: Core, head: RequestHead, phase: Phase) -> None:
        self._core = core
        self._head = head
        self._phase = phase
        self._items: list[Item] = []
        self._epoch = 0  # a denial ends one; what was tracked in an ended one never leaves
        self.is_settled = False
        self._visitor: Visitor | None = None
        self._visit: Visit | None = None
        self._hearing: Hearing | None = None
        self._plan: CookiePlan | None = None
        self._registered: Properties | None = None
        self._held_updates: list[Item] | None = None  # profile updates that wait for a user
        self._is_secure = is_secure = core.schemes.is_secure(head)
        if not core.settings.enabled:
            self._jar: Jar = EMPTY_JAR
            self.decision: Decision = DISABLED
            return
        self._jar = jar = core.jars.read(head.cookie, is_secure=is_secure)
        if head.signals is None:
            self.decision = jar.decide(core.policy, core.clock())
        else:
            self.decision = self._hear().decision
        if jar.has_unreadable:
            core.sink.count("cookie_invalid")

    # --- what the app reads -------------------------------------------------------------------

    def visitor(self) -> Visitor | None:
        """Answer who this is, minting an ID where there is none; None without a grant."""
        return self._who() if self.decision.is_granted else None

    # --- what the app does --------------------------------------------------------------------

    def track(self, name: str, properties: Mapping[str, Any] | None) -> str | None:
        """Buffer an event. Return its insert ID, or None where consent forbids it.

        Raises:
            InvalidEvent: The event cannot be sent.
        """
        core, epoch = self._core, self._epoch
        if not self.decision.is_granted and not self._may_hold():
            return None
        if name not in core.known_names:
            _check_name(name, core.known_names)
        if self._registered is not None:
            properties = {**self._registered, **(properties or {})}
        frozen = freeze(properties) if properties else {}
        if len(frozen) > MAX_PROPERTIES:
            raise InvalidEvent(
                "too_many_properties", f"An event has at most {MAX_PROPERTIES} properties."
            )
        insert_id = core.random_bytes(16).hex()
        visitor = self._visitor or self._who()
        self._items.append((_EVENT, name, insert_id, core.clock(), visitor, frozen, None, epoch))
        if self._phase:
            self._follow()
        return insert_id

    def update_people(self, operation: str, values: object) -> bool:
        """Buffer a profile update. Return whether consent allows it.

        Raises:
            InvalidEvent: The values cannot be sent.
        """
        if not self.decision.is_granted and not self._may_hold():
            return False
        frozen = freeze({"": values})[""]
        with self._core.lock:
            visitor, now = self._who(), self._core.clock()
            item: Item = (What.PEOPLE, operation, "", now, visitor, frozen, None, self._epoch)
            if visitor.user_id is None:
                # Mixpanel does not carry an anonymous profile over: wait for who it is.
                self._held_updates = [*(self._held_updates or ()), item]
            else:
                self._buffer(item)
        return True

    def update_group(self, group: tuple[str, str], operation: str, values: object) -> bool:
        """Buffer a group update. Return whether consent allows it.

        Raises:
            InvalidEvent: The values cannot be sent.
        """
        if not self.decision.is_granted and not self._may_hold():
            return False
        frozen = freeze({"": values})[""]
        with self._core.lock:
            now = self._core.clock()
            visitor, epoch = self._who(), self._epoch
            self._buffer((What.GROUP, operation, "", now, visitor, frozen, group, epoch))
        return True

    def register(self, properties: Mapping[str, Any]) -> None:
        """Put properties on every later event of this request.

        Raises:
            InvalidEvent: A value cannot be sent.
        """
        frozen = freeze(properties)
        with self._core.lock:
            self._registered = {**(self._registered or {}), **frozen}

    def identify(self, user_id: object) -> None:
        """Bind the user to the visitor; without a grant, for this request only.

        Raises:
            InvalidEvent: `forbidden_id`.
        """
        user = read_user_id(user_id)
        with self._core.lock:
            visit = self._open_visit()
            visit.is_identified = True
            visit.user_id = user
            if self._is_tracking():
                self._bind(user, Write.ACT)

    def reset(self, *, new_device: bool | None) -> None:
        """Forget the user; take a new device ID in simplified mode, or where asked to."""
        with self._core.lock:
            visit = self._open_visit()
            visit.is_identified = True
            visit.user_id = None
            self._drop_held_updates()
            visit.reset(new_device=new_device, is_known=self._is_tracking())
            self._visitor = visit.visitor

    def grant(self, *, overrides_gpc: bool, is_trusted: bool) -> bool:
        """Record a grant. Return whether the visitor is granted now."""
        with self._core.lock:
            was_granted = self.decision.is_granted
            hearing = self._hear()
            if not hearing.may_grant(overrides_gpc=overrides_gpc):
                self._core.sink.count("refused", 1, "grant_without_override")
                return was_granted
            if not self._may_act(is_trusted=is_trusted):
                return was_granted
            hearing.record(is_granted=True, now=self._core.clock())
            if not was_granted:
                # What came before the grant came without one.
                self._drop_items(Reason.NO_CHOICE)
                self._drop_held_updates()
            self.decision = hearing.decision
            # At once, so that the next page's parallel requests share one ID.
            visit = self._open_visit()
            self._visitor = visit.current()
            if visit.is_unsaved:
                visit.write = Write.ACT
            if visit.user_id is not None:
                self._bind(visit.user_id, Write.ACT)
            return True

    def deny(self, *, is_trusted: bool) -> None:
        """Record a denial: drop what this request tracked, forget what waits, delete the ID."""
        with self._core.lock:
            if not self._may_act(is_trusted=is_trusted):
                return
            hearing = self._hear()
            hearing.record(is_granted=False, now=self._core.clock())
            self.decision = hearing.decision
            self._drop_items(Reason.DENIED_NOW)
            self._drop_held_updates()
            self._stop(None)
            self._open_visit().end(Write.ACT)
            self._visitor = None

    # --- what the doors drive -----------------------------------------------------------------

    def begin_response(self, connection: object) -> bool:
        """Settle everything that was open. Return whether there are cookies to write."""
        if not self.is_settled:
            self._settle(connection)
        if self._phase is _OPEN:
            self._phase = _STARTED
            if self._visit is not None or self._hearing is not None or self._jar.needs_care:
                self._plan = self._make_plan()
        return self._plan is not None and bool(self._plan)

    def write_headers(
        self, status: int | None, headers: Iterable[tuple[bytes, bytes]]
    ) -> Headers | None:
        """Answer a copy of the headers with our cookies; None where they must stay as they are."""
        written = self._plan.write(status, headers) if self._plan else None
        if written is not None and self._visit is not None:
            self._visit.is_unsaved = False
        return written

    def end_response(self) -> None:
        """Hand over what was tracked: the body is complete."""
        if self.is_settled and (self._items or self._held_updates):
            self._hand_over()

    def close(self, connection: object) -> None:
        """Finish: the app has returned or raised. Later calls are handed over as they come."""
        if not self.is_settled:
            self._settle(connection)
        self._phase = _CLOSED
        if self._items or self._visit is not None:
            self._hand_over()

    # --- gates and buffer ---------------------------------------------------------------------

    def _is_tracking(self) -> bool:
        """Whether calls count: under a grant, or while the app's own answer is still to come.

        Then the seam drops everything again unless that answer is a grant.
        """
        decision = self.decision
        if decision.is_granted:
            return True
        is_answer_due = self._core.settings.consent_from is not None and not self.is_settled
        return is_answer_due and decision.state is State.UNKNOWN

    def _may_hold(self) -> bool:
        """The first gate: what is tracked without a grant is dropped at once, and counted."""
        if self._is_tracking():
            return True
        self._core.sink.count("refused", 1, self.decision.reason.value)
        return False

    def _may_act(self, *, is_trusted: bool) -> bool:
        if not self._core.settings.enabled:
            return False
        if not is_trusted and is_cross_site(self._head.header):
            self._core.sink.count("cross_site")
            return False
        if self._phase:
            self._core.sink.count("unpersisted")
        return True

    def _buffer(self, item: Item) -> None:
        self._items.append(item)
        if self._phase:
            self._follow()

    def _follow(self) -> None:
        """Hand over at once what is tracked after the response has started."""
        if self.is_settled:
            self._hand_over()
        elif self._phase is _CLOSED:
            self._settle_without_connection()
            self._hand_over()

    def _drop_items(self, reason: Reason) -> None:
        self._epoch += 1
        # In place: another thread may be appending, and what it appends is of an ended epoch.
        number = len(self._items)
        del self._items[:number]
        if number:
            self._core.sink.count("refused", number, reason.value)

    def _drop_held_updates(self) -> None:
        if self._held_updates:
            self._core.sink.count("refused", len(self._held_updates), "anonymous_profile")
            self._held_updates = None

    def _hand_over(self) -> None:
        """The last gate of a request: a withdrawal while the body streamed still wins."""
        with self._core.lock:
            if self._held_updates is not None:
                self._drop_held_updates()
            # Only what is there now: another thread may append meanwhile, and follows itself.
            items = self._items[:]
            del self._items[: len(items)]
            decision = self.decision
            if self._epoch or not decision.is_granted:
                items = self._drop_ended(items)
            if items:
                self._core.sink.accept(Handover(decision, items))
            visit = self._visit
            if visit is not None and visit.is_unsaved and self._phase is _CLOSED:
                visit.is_unsaved = False
                self._core.sink.count("unpersisted")

    def _drop_ended(self, items: list[Item]) -> list[Item]:
        """Answer what was tracked under the grant that still holds."""
        decision, epoch = self.decision, self._epoch
        kept = [item for item in items if item[-1] == epoch] if decision.is_granted else []
        if len(items) > len(kept):
            self._core.sink.count("refused", len(items) - len(kept), decision.reason.value)
        return kept

    # --- identity -----------------------------------------------------------------------------

    def _who(self) -> Visitor:
        """Answer the visitor, minting where there is none: only where calls count."""
        if self._visitor is None and self._visit is None:
            self._visitor = read_visitor(self._jar, self._core, self._core.clock())
        if self._visitor is None:
            with self._core.lock:  # two threads of one request never mint two IDs
                self._visitor = self._open_visit().current()
        return self._visitor

    def _open_visit(self) -> Visit:
        if self._visit is None:
            self._visit = Visit(self._core, self._jar, self._visitor)
        return self._visit

    def _bind(self, user_id: str, write: Write) -> None:
        visit = self._open_visit()
        is_first = visit.bind(user_id, write)
        self._visitor = visitor = visit.current()
        if is_first and self._core.mode is IdentityMode.ORIGINAL:
            insert_id = self._core.random_bytes(16).hex()
            now = self._core.clock()
            epoch = self._epoch
            self._buffer((What.IDENTIFY, "$identify", insert_id, now, visitor, None, None, epoch))
        held, self._held_updates = self._held_updates or (), None
        for item in held:
            self._buffer(_with_visitor(item, visitor))

    def _stop(self, late_user: str | None) -> None:
        """Forget this device's and this user's waiting events (RULES section 2, rule 3)."""
        keys = self._core.keys
        visitors = [item for item in (self._jar.visitor, self._visitor) if item is not None]
        users = {late_user, *(item.user_id for item in visitors)}
        if self._visit is not None:
            users.add(self._visit.user_id)
        found = {keys.device_key(item.device_id) for item in visitors}
        found |= {keys.user_key(user) for user in users if user is not None}
        if found:
            self._core.sink.stop(sorted(found), self._core.clock())

    # --- the seam -----------------------------------------------------------------------------

    def _hear(self) -> Hearing:
        if self._hearing is None:
            core = self._core
            self._hearing = Hearing(
                core.settings,
                core.policy,
                self._head,
                own=self._jar.own,
                consent_header=core.heads.consent_header,
                now=core.clock(),
            )
        return self._hearing

    def _settle(self, connection: object) -> None:
        """Hear the app's late answers, then do what follows from the final decision."""
        if self._core.has_late_answers and self._core.settings.enabled:
            self._ask_consent(connection)
        elif self.decision.is_granted:
            self.is_settled = True
            return
        if self.decision.is_granted:
            user = self._ask_user(connection) if self._visitor is not None else None
            with self._core.lock:
                self.is_settled = True
                self._fill_late_user(user)
            return
        is_denied = self.decision.state is State.DENIED and self.decision is not DISABLED
        has_acted = self._hearing is not None and self._hearing.act is not None
        is_stopping = is_denied and (has_acted or self._jar.visitor is not None)
        user = self._ask_user(connection) if is_stopping else None
        with self._core.lock:
            self.is_settled = True
            self._drop_items(self.decision.reason)
            self._drop_held_updates()
            if is_stopping:
                self._stop(user if isinstance(user, str) else None)
            self._end_visit(has_acted=has_acted)

    def _settle_without_connection(self) -> None:
        """Whoever comes after the end finds nobody to ask: an unread answer may be a denial."""
        self.is_settled = True
        if self._core.settings.consent_from is not None and self._core.settings.enabled:
            hearing = self._hear()
            hearing.hear_app(AppAnswer(Said.UNREADABLE), self._core.clock())
            self.decision = hearing.decision

    def _ask_consent(self, connection: object) -> None:
        consent_from = self._core.settings.consent_from
        hearing = self._hearing
        # A choice made in this request is newer, and a denial needs no second opinion.
        has_acted = hearing is not None and hearing.act is not None
        if consent_from is None or has_acted or self.decision.state is State.DENIED:
            return
        answer = ask_consent(consent_from, connection, self._core.sink)
        hearing = self._hear()
        hearing.hear_app(answer, self._core.clock())
        self.decision = hearing.decision

    def _ask_user(self, connection: object) -> str | Anonymous | None:
        identify_from = self._core.settings.identify_from
        is_asked = self._visit is None or not self._visit.is_identified
        if identify_from is None or not is_asked:
            return None
        return ask_user(identify_from, connection, self._core.sink)

    def _fill_late_user(self, user: str | Anonymous | None) -> None:
        """Let `identify_from` name the visitor of everything that this request tracked."""
        visitor = self._visitor
        if user is None or visitor is None:
            return
        if isinstance(user, str):
            if visitor.user_id != user or not visitor.owner_mark:
                self._bind(user, Write.LATE)
        elif visitor.owner_mark and self._core.mode is IdentityMode.SIMPLIFIED:
            visit = self._open_visit()
            visit.renew(Write.LATE)
            self._visitor = visit.visitor
        who = self._who()
        for index, item in enumerate(self._items):
            self._items[index] = _with_visitor(item, who)

    def _end_visit(self, *, has_acted: bool) -> None:
        decision = self.decision
        is_over = decision.state is State.DENIED or decision.is_stale
        is_deleted = is_over and bool(self._jar.id_names)
        self._visitor = None
        if self._visit is not None or is_deleted:
            write = Write.PASSIVE if is_deleted else Write.NOTHING
            self._open_visit().end(Write.ACT if has_acted else write)

    def _make_plan(self) -> CookiePlan | None:
        visit, hearing = self._visit, self._hearing
        write = visit.write if visit is not None else Write.NOTHING
        act = hearing.act if hearing is not None and hearing.is_recorded else None
        if act is None and write is Write.NOTHING and not self._jar.needs_care:
            return None
        planner = Planner(self._core, self._head, self._jar, is_secure=self._is_secure)
        return planner.make(Outcome(self.decision, act, self._visitor, write))


def _with_visitor(item: Item, visitor: Visitor) -> Item:
    what, name, insert_id, at, _, values, group, epoch = item
    return what, name, insert_id, at, visitor, values, group, epoch


def _check_name(name: object, known_names: set[str]) -> None:
    if not isinstance(name, str) or not name or _UNSENDABLE.search(name):
        raise InvalidEvent("invalid_name", "An event's name is text without control characters.")
    if name in IDENTITY_EVENTS:
        raise InvalidEvent("reserved_name", f"{name} is sent by identify(), never by track().")
    if len(name.encode("utf-8")) > MAX_STRING_BYTES:
        raise InvalidEvent("invalid_name", f"A name has at most {MAX_STRING_BYTES} bytes.")
    if len(known_names) < MAX_KNOWN_NAMES:
        known_names.add(name)
