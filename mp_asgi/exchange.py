"""Run one request and its response: what was tracked, under which decision, by whom.

Sans-IO: both doors drive the same object in the same order and decide nothing themselves.

    begin_response(connection)   the seam: late answers, final decision, cookies
    write_headers(status, …)     as often as the app starts a response
    end_response()               the body is complete: hand over what was tracked
    close(connection)            the app has returned or raised: nothing is left behind

The way of a consenting visitor who is known and tracks an event takes no lock before the
hand-over and opens no `Case`; that holds what an act or a late answer changes.
"""

from collections.abc import Iterable, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Any, Final

from .accounts import Accounts
from .case import Case
from .consent.policy import DISABLED, AppAnswer, Decision, Kind, Reason, State
from .core import Core, Handover
from .errors import InvalidEvent
from .events import UNTOLD, Asked, Link
from .gate import group_by_grant, leave_out_stopped, with_visitor
from .head import RequestHead
from .identity import Anonymous, IdentityMode, Visitor, read_user_id
from .jar import EMPTY_JAR, Jar
from .properties import Properties, freeze
from .readers import Said
from .response import CookiePlan, Headers
from .visit import Write, read_visitor, recall_stop, recognise
from .wire import MAX_PROPERTIES, Item, What, check_name

# Looking a member up costs more than reading a global.
_EVENT: Final = What.EVENT


class Phase(IntEnum):
    """How far a response is."""

    OPEN = 0
    STARTED = 1
    CLOSED = 2


NO_GRANTS: Final[Mapping[int, Decision]] = MappingProxyType({})
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
        "_case",
        "_core",
        "_epoch",
        "_grants",
        "_head",
        "_held_updates",
        "_is_secure",
        "_items",
        "_jar",
        "_phase",
        "_plan",
        "_registered",
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
        self._grants: dict[int, Decision] | None = None  # of earlier epochs that still count
        self.is_settled = False
        self._visitor: Visitor | None = None
        self._case: Case | None = None
        self._plan: CookiePlan | None = None
        self._registered: Properties | None = None
        self._held_updates: list[Item] | None = None  # profile updates that wait for a user
        self._is_secure = is_secure = core.schemes.is_secure(head)
        self._jar: Jar = EMPTY_JAR
        if not core.settings.enabled:
            self.decision: Decision = DISABLED
            return
        self._jar = jar = core.jars.read(head.cookie, is_secure=is_secure)
        decision, stops = jar.decision, core.stops.at
        is_news = stops and not jar.is_stopped and (not jar.key or jar.key in stops)
        if (
            decision is None
            or head.signals is not None
            or is_news
            or core.accounts is not None
            or core.clock() > jar.holds_until
        ):
            self._decide()
        else:
            self.decision = decision
            if not core.has_late_answers:  # those ask who it is only where somebody needs to know
                self._visitor = jar.known
        if phase is not _OPEN and not core.has_late_answers:
            self._settle(None)  # there is nobody to wait for

    def _decide(self) -> None:
        """Answer the first decision where none is remembered that still holds."""
        core, jar = self._core, self._jar
        if jar.has_unreadable:
            core.sink.count("cookie_invalid")
        self.decision = DISABLED  # until there is a better one
        recall_stop(jar, core)
        if self._head.signals is None:
            self.decision = recognise(jar, core, self._head, core.clock())
        else:
            case = self._open_case()
            self.decision = case.decision = case.hear().decision
        if core.accounts is not None and (self.decision.is_granted or core.has_account_grants):
            visitor = read_visitor(jar, core, core.clock())
            if visitor is not None and visitor.user_id is not None:
                self._hear_account(self._open_case(), visitor.user_id)

    # --- what the app reads -------------------------------------------------------------------

    def visitor(self) -> Visitor | None:
        """Answer who this is, minting an ID where there is none; None without a grant."""
        is_known = self.decision.is_granted and self.decision.kind is not Kind.COOKIELESS
        return self._who() if is_known else None

    # --- what the app does --------------------------------------------------------------------

    def track(self, name: str, properties: Mapping[str, Any] | None) -> str | None:
        """Buffer an event. Return its insert ID, or None where consent forbids it.

        Raises:
            InvalidEvent: The event cannot be sent.
        """
        # The epoch first: what a denial overtakes from here on is of an ended one.
        core, epoch = self._core, self._epoch
        if not self.decision.is_granted and not self._may_hold():
            return None
        if name not in core.known_names:
            check_name(name, core.known_names)
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
        if self._phase is not _OPEN:
            self._follow()
        return insert_id

    def update_people(self, operation: str, values: object) -> bool:
        """Buffer a profile update. Return whether consent allows it.

        Raises:
            InvalidEvent: The values cannot be sent.
        """
        if not self._may_update():
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
        if not self._may_update():
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
            case = self._open_case()
            case.identify(user)
            if self.decision.reason is Reason.ACCOUNT_DENIED:
                self._hear_account(case, None)  # that was somebody else's
            # Bound on the device's own grant first: the cookie must name who is here, also where
            # their account lets nothing leave, or they would be taken for who was before.
            is_bound = self._is_identifying()
            if is_bound:
                self._bind(case, user, Write.ACT)
            self._hear_account(case, user)
            if self._is_identifying() and not is_bound:
                self._bind(case, user, Write.ACT)
            if case.has_acted and self.decision.is_granted:
                case.file_grant(user)
            self._follow_started()

    def reset(self, *, new_device: bool | None) -> None:
        """Forget the user; take a new device ID in simplified mode, or where asked to."""
        with self._core.lock:
            self._drop_held_updates()
            case, was_granted = self._open_case(), self.decision.is_granted
            # First: what the user's account denied is no reason to keep their name in the cookie.
            self._hear_account(case, None)
            case.reset(new_device=new_device, is_known=self._is_identifying())
            self._visitor = case.visitor
            if was_granted and not self.decision.is_granted:
                case.open_visit().end(Write.ACT)  # only the account allowed the ID

    def grant(self, *, overrides_gpc: bool, is_trusted: bool, asked: Asked = UNTOLD) -> bool:
        """Record a grant. Return whether the visitor is granted now."""
        with self._core.lock:
            was_granted = self.decision.is_granted
            case = self._open_case()
            if not case.may_grant(overrides_gpc=overrides_gpc):
                return was_granted
            if not self._may_act(case, is_trusted=is_trusted):
                return was_granted
            case.record(is_granted=True, asked=asked)
            if not self.decision.is_granted:
                # What came before the grant came without one.
                self._drop_items(Reason.NO_CHOICE)
                self._drop_held_updates()
            elif case.decision.kind is not self.decision.kind:
                self._end_epoch(self.decision)
            self.decision = case.decision
            self._visitor = case.keep_visitor()
            user = case.open_visit().user_id
            if user is not None:
                self._bind(case, user, Write.ACT)
                self._follow_started()
            case.file_grant(user)
            return True

    def deny(self, *, is_trusted: bool, asked: Asked = UNTOLD) -> None:
        """Record a denial: drop what this request tracked, forget what waits, delete the ID."""
        with self._core.lock:
            case = self._open_case()
            if not self._may_act(case, is_trusted=is_trusted):
                return
            case.record(is_granted=False, asked=asked)
            case.stop_counting()
            self.decision = case.decision
            self._drop_items(Reason.DENIED_NOW)
            self._drop_held_updates()
            case.stop()
            case.open_visit().end(Write.ACT)
            self._visitor = None

    # --- what the doors drive -----------------------------------------------------------------

    def begin_response(self, connection: object) -> bool:
        """Settle everything that was open. Return whether there are cookies to write."""
        if not self.is_settled:
            self._settle(connection)
        if self._phase is _OPEN:
            self._phase = _STARTED
            if self._case is not None or self._is_care_due():
                with self._core.lock:
                    self._plan = self._open_case().plan(is_secure=self._is_secure)
        return self._plan is not None and bool(self._plan)

    def write_headers(
        self, status: int | None, headers: Iterable[tuple[bytes, bytes]]
    ) -> Headers | None:
        """Answer a copy of the headers with our cookies; None where they must stay as they are."""
        plan, case = self._plan, self._case
        written = plan.write(status, headers) if plan else None
        has_id = written is not None and plan is not None and plan.has_id
        if has_id and case is not None and case.visit is not None:
            case.visit.save()
        return written

    def end_response(self) -> None:
        """Hand over what was tracked: the body is complete."""
        if self.is_settled and (self._items or self._held_updates is not None):
            self._hand_over()

    def close(self, connection: object) -> None:
        """Finish: the app has returned or raised. Later calls are handed over as they come."""
        if not self.is_settled:
            self._settle(connection)
        self._phase = _CLOSED
        if self._items or self._held_updates is not None:
            self._hand_over()
        elif self._case is not None:
            self._case.give_up_unsaved()

    def _is_care_due(self) -> bool:
        jar = self._jar
        return jar.needs_care and self._core.clock() >= jar.rests_until

    # --- gates and buffer ---------------------------------------------------------------------

    def _is_tracking(self) -> bool:
        """Whether calls count: under a grant, or while the app's own answer is still to come.

        Then the seam drops everything again unless that answer is a grant.
        """
        decision = self.decision
        if decision.is_granted:
            return True
        is_answer_due = self._core.has_late_consent and not self.is_settled
        return is_answer_due and decision.state is State.UNKNOWN

    def _may_hold(self) -> bool:
        """The first gate: what is tracked without a grant is dropped at once, and counted."""
        if self._is_tracking():
            return True
        self._core.sink.count("refused", 1, self.decision.reason.value)
        return False

    def _is_identifying(self) -> bool:
        """Whether IDs count: who is only counted today has none (RULES section 2, rule 1)."""
        return self.decision.kind is not Kind.COOKIELESS and self._is_tracking()

    def _may_update(self) -> bool:
        """Whether a profile may be updated; without a grant or an ID it is counted."""
        if not self.decision.is_granted and not self._may_hold():
            return False
        if self.decision.kind is Kind.COOKIELESS:
            self._core.sink.count("refused", 1, Reason.COOKIELESS.value)
            return False
        return True

    def _may_act(self, case: Case, *, is_trusted: bool) -> bool:
        if not case.may_act(is_trusted=is_trusted):
            return False
        if self._phase is not _OPEN:
            self._core.sink.count("unpersisted")
        return True

    def _buffer(self, item: Item) -> None:
        self._items.append(item)
        self._follow_started()

    def _follow_started(self) -> None:
        if self._phase is not _OPEN and self._items:
            self._follow()

    def _follow(self) -> None:
        """Hand over at once what is tracked after the response has started."""
        if self.is_settled:
            self._hand_over()
        elif self._phase is _CLOSED:
            self._settle_without_connection()
            self._hand_over()

    def _adopt(self, decision: Decision) -> None:
        """Follow what a late answer, or another user, has made of the decision."""
        before, self.decision = self.decision, decision
        if not (before.is_granted and decision.is_granted) or before.kind is decision.kind:
            return
        # A stored answer was there before the events; what was tracked under it stays under it.
        if before.kind is not Kind.OPT_OUT_DEFAULT:
            self._end_epoch(before)
        if decision.kind is Kind.COOKIELESS:
            self._drop_held_updates()
            self._open_case().end_visit()
            self._visitor = None

    def _drop_items(self, reason: Reason, allowed: Mapping[int, Decision] = NO_GRANTS) -> None:
        """Drop what was tracked, all but what an earlier epoch's grant still allows."""
        self._epoch += 1
        self._grants = dict(allowed)
        items = self._items[:]
        kept = [item for item in items if item[-1] in allowed]
        # In place: another thread may be appending, and what it appends is of an ended epoch.
        self._items[: len(items)] = kept
        if number := len(items) - len(kept):
            self._core.sink.count("refused", number, reason.value)

    def _still_allowed(self) -> Mapping[int, Decision]:
        """Answer the grants of earlier epochs: a denial ends them all, not knowing ends none."""
        return NO_GRANTS if self.decision.state is State.DENIED else self._grants or NO_GRANTS

    def _end_epoch(self, decision: Decision) -> None:
        """Let what was tracked so far leave under the grant of its time: a default is no explicit
        grant, and who was only counted stays unnamed.
        """
        self._grants = {**(self._grants or {}), self._epoch: decision}
        self._epoch += 1

    def _drop_held_updates(self) -> None:
        if self._held_updates:
            self._core.sink.count("refused", len(self._held_updates), "anonymous_profile")
            self._held_updates = None

    def _hand_over(self) -> None:
        """The last gate of a request: a withdrawal while the body streamed still wins."""
        core = self._core
        core.lock.acquire()  # `with` costs twice as much, and this is every tracking request's
        try:
            if self._held_updates is not None:
                self._drop_held_updates()
            # Only what is there now: another thread may append meanwhile, and follows itself.
            items = self._items[:]
            del self._items[: len(items)]
            if core.stops.at:
                items = self._drop_stopped(items)
            case = self._case
            if case is not None and case.visit is not None and case.visit.is_mark_unsaved:
                items = self._move_unmarked(case, items)
            if self._epoch or not self.decision.is_granted:
                self._hand_over_by_epoch(items)
            elif items:
                self._accept(self.decision, items)
            if self._case is not None and self._phase is _CLOSED:
                self._case.give_up_unsaved()
        finally:
            core.lock.release()

    def _accept(self, decision: Decision, items: list[Item]) -> None:
        self._core.sink.accept(Handover(decision, items))
        if self._core.accounts is not None:
            for visitor in {item[4] for item in items}:
                self._link(self._core.accounts, visitor)

    def _link(self, accounts: Accounts, visitor: Visitor) -> None:
        """Tell the ledger which device a user was on, for an erasure: what left, left as both."""
        core, user_id = self._core, visitor.user_id
        if user_id is None:
            return
        user_key, device_key = core.keys.user_key(user_id), core.keys.device_key(visitor.device_id)
        if accounts.meet(user_key, device_key):
            core.sink.record(Link(user_id, visitor.device_id, user_key, device_key, core.clock()))

    def _move_unmarked(self, case: Case, items: list[Item]) -> list[Item]:
        """Give the user's items a device of their own: the browser's got no mark.

        Without one, whoever logs in there next would share the device, and Mixpanel would merge
        two people for good (RULES section 1, rule 2).
        """
        old = case.current().device_id
        self._visitor = new = case.leave_unmarked()
        return [
            with_visitor(item, new)
            if item[4].device_id == old and item[4].user_id is not None
            else item
            for item in items
        ]

    def _drop_stopped(self, items: list[Item]) -> list[Item]:
        """Leave out what another request's denial has ended."""
        case = self._case
        browser: list[Visitor] = []
        if case is None or not case.has_acted:
            browser += self._jar.verified
            if case is not None and case.visit is not None:
                browser += case.visit.left
        started, stops = self._head.started, self._core.stops
        # A stop that is forgotten may have been this browser's: what began before it ends here.
        is_over = bool(browser) and started <= stops.forgotten_until
        kept = [] if is_over else leave_out_stopped(items, browser, started, self._stopped_at)
        if len(items) > len(kept):
            number = len(items) - len(kept)
            self._core.sink.count("refused", number, Reason.WITHDRAWN.value)
        return kept

    def _stopped_at(self, device_id: str) -> float:
        jar, core = self._jar, self._core
        is_known = jar.visitor is not None and jar.visitor.device_id == device_id
        key = jar.key if is_known and jar.key else core.keys.device_key(device_id)
        return core.stops.at.get(key, 0.0)

    def _hand_over_by_epoch(self, items: list[Item]) -> None:
        """Hand over what was tracked under a grant that still holds; the rest is dropped."""
        sink, number = self._core.sink, len(items)
        grants = {**self._still_allowed(), self._epoch: self.decision}
        for decision, kept in group_by_grant(items, grants):
            number -= len(kept)
            self._accept(decision, kept)
        if number:
            sink.count("refused", number, self.decision.reason.value)

    # --- who it is ----------------------------------------------------------------------------

    def _open_case(self) -> Case:
        """Answer the case, knowing who it is now. Under the lock.

        From its opening on, the case's decision is the one to follow.
        """
        case = self._case
        if case is None:
            case = self._case = Case(self._core, self._head, self._jar, self.decision)
        case.visitor = self._visitor
        return case

    def _hear_account(self, case: Case, user_id: str | None) -> None:
        """Follow what the ledger says of the user who is here now. Under the lock."""
        if self._core.accounts is None:
            return
        before = self.decision
        case.hear_account(user_id)
        self._adopt(case.decision)
        if before.is_granted and not self.decision.is_granted:
            if self.decision.state is State.DENIED or before.kind is Kind.COOKIELESS:
                self._drop_items(self.decision.reason)
            else:
                self._end_epoch(before)  # what the account allowed was allowed
            self._drop_held_updates()
            case.end_visit()
            self._visitor = None

    def _who(self) -> Visitor:
        """Answer the visitor, minting where there is none: only where calls count."""
        with self._core.lock:  # two threads of one request never mint two IDs
            if self.decision.kind is Kind.COOKIELESS:
                return self._core.daily.visitor(self._head, self._core.clock())
            if self._visitor is None and (self._case is None or self._case.visit is None):
                self._visitor = read_visitor(self._jar, self._core, self._core.clock())
            if self._visitor is None:
                self._visitor = self._open_case().current()
            return self._visitor

    def _bind(self, case: Case, user_id: str, write: Write) -> None:
        is_first = case.bind(user_id, write)
        self._visitor = visitor = case.current()
        if is_first and self._core.mode is IdentityMode.ORIGINAL:
            insert_id = self._core.random_bytes(16).hex()
            now = self._core.clock()
            epoch = self._epoch
            self._items.append(
                (What.IDENTIFY, "$identify", insert_id, now, visitor, None, None, epoch)
            )
        held, self._held_updates = self._held_updates or (), None
        self._items += [with_visitor(item, visitor) for item in held]

    # --- the seam -----------------------------------------------------------------------------

    def _settle(self, connection: object) -> None:
        """Hear the app's late answers, then do what follows from the final decision."""
        core = self._core
        if self.decision.is_granted and not core.has_late_answers:
            self.is_settled = True
            return
        with core.lock:
            case = self._open_case()
        # The app's code runs without the lock.
        user = None
        if core.has_late_answers:
            answer = case.ask_consent(connection)
            if self._needs_user(case, answer):
                user = case.ask_user(connection)
            with core.lock:  # a denial in another thread may have come between
                if answer is not None:
                    case.hear_app(answer)
                if isinstance(user, str) and core.accounts is not None:
                    case.hear_account(user)
                self._adopt(case.decision)
        with core.lock:
            self.is_settled = True
            if not self.decision.is_granted:
                self._settle_refusal(user if isinstance(user, str) else None)
            elif user is not None and self._visitor is not None:
                self._fill_late_user(user, self._visitor)

    def _needs_user(self, case: Case, answer: AppAnswer | None) -> bool:
        """Whether it matters who this is: for what was tracked, or for what must stop."""
        is_denied = answer is not None and answer.said is Said.DENIED
        return (
            self._core.accounts is not None
            or self._visitor is not None
            or (is_denied and bool(self._jar.verified))
            or case.is_stopping()
        )

    def _settle_refusal(self, user: str | None) -> None:
        self._drop_items(self.decision.reason, self._still_allowed())
        self._drop_held_updates()
        case = self._open_case()
        case.stop_counting()
        if case.is_stopping():
            case.stop(user)
        elif self.decision.reason is Reason.GPC:
            case.file_signal(user)
        case.end_visit()
        self._visitor = None

    def _settle_without_connection(self) -> None:
        """Whoever comes after the end finds nobody to ask: an unread answer may be a denial."""
        with self._core.lock:
            self.is_settled = True
            case = self._open_case()
            case.hear_nobody()
            self.decision = case.decision

    def _fill_late_user(self, user: str | Anonymous, visitor: Visitor) -> None:
        """Let `identify_from` name the visitor of everything that this request tracked."""
        case = self._open_case()
        if not isinstance(user, str):
            case.leave_user()
            self._visitor = case.visitor
        elif visitor.user_id != user or not visitor.owner_mark:
            self._bind(case, user, Write.LATE)
        who = self._who()
        for index, item in enumerate(self._items):
            self._items[index] = with_visitor(item, who)
        if isinstance(user, str) and case.has_acted:
            case.file_grant(user)
