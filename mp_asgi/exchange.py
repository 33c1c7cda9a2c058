"""Run one request and its response: what was tracked, under which decision, by whom.

Sans-IO: both doors drive the same object in the same order and decide nothing themselves.

    begin_response(connection, place)   the seam: late answers, final decision, cookies
    write_headers(status, …)            as often as the app starts a response
    end_response()                      the body is complete: hand over what was tracked
    close(connection, place)            the app has returned or raised: nothing is left behind;
                                        the place is not asked for again

The way of a consenting visitor who is known and tracks an event takes no lock before the
hand-over and opens no `Case`; that holds what an act or a late answer changes.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from typing import Any, Final

from .adoption import Adopted
from .buffer import Buffer
from .case import Case
from .consent.policy import DISABLED, AppAnswer, Decision, Default, Kind, Reason, State
from .context import RequestContext
from .core import Core, Handover
from .events import UNTOLD, Asked
from .grounds import read_granted_at
from .head import RequestHead
from .identity import (
    ANONYMOUS,
    DEVICE_PREFIX,
    Anonymous,
    IdentityMode,
    Visitor,
    read_user_id,
)
from .jar import EMPTY_JAR, Jar
from .leaving import (
    leave_out_excluded,
    leave_out_unmarked,
    leave_out_withdrawn,
    leave_unnamed,
    tell_links,
)
from .meeting import fill_first_touch, items_of_meeting, late_alias
from .place import RawPlace, normalise_path
from .properties import Properties, freeze
from .readers import Said
from .response import CookiePlan, Headers
from .visit import Write, find_adopted, read_visitor, recall_stop, recognise
from .wire import Item, What, check_name, freeze_event

# Looking a member up costs more than reading a global.
_EVENT: Final = What.EVENT


class Phase(IntEnum):
    """How far a response is."""

    OPEN = 0
    STARTED = 1
    CLOSED = 2


_OPEN: Final = Phase.OPEN
_STARTED: Final = Phase.STARTED
_CLOSED: Final = Phase.CLOSED

LateSeam = Callable[["Exchange"], object]
"""Calls `begin_response` as the door would."""


class Exchange:
    """One request and its response. Its methods may be called from any of its threads.

    Attributes:
        decision: As it stands now.
        is_settled: The seam has run: the decision is final, late answers are in.
        is_at_mount: Our own endpoints answer, outside of the app's sessions.

    Args:
        core: The rules of the process.
        head: What the request says of itself.
        phase: How far its response is already.
        late_seam: Begins the response for an exchange that opens after its start; None where
            nobody is to be asked. Kept until it is needed, at most until `close`.
    """

    __slots__ = (
        "_buffer",
        "_case",
        "_context",
        "_core",
        "_head",
        "_is_excluded",
        "_is_personal",
        "_is_secure",
        "_jar",
        "_late_seam",
        "_late_user",
        "_phase",
        "_plan",
        "_registered",
        "_visitor",
        "_waiting",
        "decision",
        "is_at_mount",
        "is_settled",
    )

    def __init__(
        self, core: Core, head: RequestHead, phase: Phase, late_seam: LateSeam | None = None
    ) -> None:
        self._core = core
        self._head = head
        self._phase = phase
        self._late_seam = late_seam
        self._buffer = Buffer(core.sink)
        self._context: RequestContext | None = None
        self._is_excluded = self._is_personal = False
        self.is_settled = self.is_at_mount = False
        self._waiting: tuple[Callable[[], None], ...] = ()
        self._visitor: Visitor | None = None
        self._late_user = ""  # whom `identify_from` named
        self._case: Case | None = None
        self._plan: CookiePlan | None = None
        self._registered: Properties | None = None
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

    @property
    def head(self) -> RequestHead:
        """What the request says of itself."""
        return self._head

    def known_device_id(self) -> str:
        """Answer the device ID that a cookie of ours brought; empty without one."""
        visitor = self._jar.visitor
        return "" if visitor is None else visitor.device_id

    def may_take(self) -> bool:
        """The first gate: what comes without a grant, now or once the app has answered, is dropped
        at once, and counted.
        """
        if self._is_tracking():
            return True
        self._core.sink.count("refused", 1, self.decision.reason.value)
        return False

    def has_tracked(self, name: str) -> bool:
        """Whether an event of this name waits for the end of the request."""
        return any(item[1] == name for item in self._buffer.items)

    def take_back(self, insert_id: str) -> None:
        """Drop an event that still waits for the end of the request: it did not come about."""
        with self._core.lock:
            items = self._buffer.items
            before = items[:]  # another thread may be appending
            items[: len(before)] = [item for item in before if item[2] != insert_id]

    def tell_page(self) -> Visitor | None:
        """Answer who this is for the response's body, which no cache may keep then."""
        visitor = self.visitor()
        self._is_personal = self._is_personal or visitor is not None
        return visitor

    def leave_open(self, visitor: Visitor) -> Visitor:
        """Answer the visitor without a device that no response may be able to mark as theirs."""
        case = self._case
        visit = None if case is None else case.visit
        return visitor if visit is None else visit.leave_open(visitor)

    def when_settled(self, then: Callable[[], None]) -> None:
        """Call back once it is certain who this is and what they agreed to; at once if it is."""
        with self._core.lock:
            is_settled = self.is_settled
            if not is_settled:
                self._waiting = (*self._waiting, then)
        if is_settled:
            then()
        elif self._phase is _STARTED:
            self._settle_late()

    def names(self) -> frozenset[str]:
        """Answer what the visitor may be called, granted or not; nobody is minted for it."""
        with self._core.lock:
            case = self._case
            visit = None if case is None else case.visit
            visitors = [*self._jar.verified]
            if self._visitor is not None:
                visitors.append(self._visitor)
            users = {visitor.user_id for visitor in visitors} | {self._late_user}
            if visit is not None:
                users.add(visit.user_id)
            devices = {visitor.device_id for visitor in visitors}
            if (adopted := find_adopted(self._core, self._head)) is not None:
                devices.add(adopted.device_id)
        names = {*devices, *(DEVICE_PREFIX + device for device in devices), *filter(None, users)}
        return frozenset(names - {"", DEVICE_PREFIX})

    def granted_at(self) -> float | None:
        """Answer when the visitor agreed, in seconds since the epoch; None if nobody can tell."""
        hearing = None if self._case is None else self._case.hearing
        signals = self._jar.signals(Default.OPT_IN) if hearing is None else hearing.signals
        return read_granted_at(self.decision.reason, signals)

    def not_granted_until(self) -> float:
        """Answer until when the visitor had certainly not agreed, by what our cookie still says
        of them, in seconds since the epoch; 0 if it holds no denial.
        """
        own = self._jar.own.choice
        # Its time is cut to the second it was made in.
        return 0.0 if own is None or own.is_granted else own.at + 1.0

    # --- what the app does --------------------------------------------------------------------

    def track(self, name: str, properties: Mapping[str, Any] | None) -> str | None:
        """Buffer an event. Return its insert ID, or None where consent forbids it.

        Raises:
            InvalidEvent: The event cannot be sent.
        """
        # The epoch first: what a denial overtakes from here on is of an ended one.
        core, epoch = self._core, self._buffer.epoch
        if not self.decision.is_granted and not self.may_take():
            return None
        if name not in core.known_names:
            check_name(name, core.known_names)
        if self._registered is not None:
            properties = {**self._registered, **(properties or {})}
        frozen = freeze_event(properties) if properties else {}
        insert_id = core.random_bytes(16).hex()
        visitor = self._visitor or self._who()
        self._buffer.items.append(
            (_EVENT, name, insert_id, core.clock(), visitor, frozen, None, epoch)
        )
        if self._phase is not _OPEN:
            self._follow()
        return insert_id

    def take_event(
        self,
        name: str,
        properties: Mapping[str, Any],
        *,
        at: float,
        insert_id: str,
        what: What = What.BROWSER_EVENT,
    ) -> bool:
        """Buffer an event that somebody else made; whose it is, is the visitor's matter. Return
        whether consent allows it.

        Args:
            name: As for `track`.
            properties: Names that only we write are left out when it is rendered.
            at: Seconds since the epoch, not in the future.
            insert_id: Minted if empty.
            what: `BROWSER_EVENT` brings its own context, `EVENT` gets the request's.

        Raises:
            InvalidEvent: The event cannot be sent.
        """
        if not self.decision.is_granted and not self.may_take():
            return False
        if self.decision.kind is Kind.COOKIELESS and what is What.BROWSER_EVENT:
            # A page's event brings its own address, click IDs and more.
            self._core.sink.count("refused", 1, Reason.COOKIELESS.value)
            return False
        check_name(name, self._core.known_names)
        frozen = freeze_event(properties)
        with self._core.lock:
            insert_id = insert_id or self._core.random_bytes(16).hex()
            epoch, visitor = self._buffer.epoch, self._who()
            self._buffer.items.append((what, name, insert_id, at, visitor, frozen, None, epoch))
        self._follow_started()
        return True

    def take_identify(self, anonymous_id: str, user_id: str, *, at: float, insert_id: str) -> bool:
        """Buffer a page's `$identify`, if it says of this visitor what we say ourselves (RULES
        section 2, rule 5). Return whether it does.
        """
        if not self.may_take():
            return False
        visitor = self.visitor()
        is_true = (
            visitor is not None
            and self._core.mode is IdentityMode.ORIGINAL
            and visitor.user_id == user_id
            and anonymous_id.removeprefix(DEVICE_PREFIX) == visitor.device_id
        )
        if visitor is None or not is_true:
            self._core.sink.count("refused", 1, "identity_event")
            return False
        with self._core.lock:
            epoch = self._buffer.epoch
            insert_id = insert_id or self._core.random_bytes(16).hex()
            item: Item = (What.IDENTIFY, "$identify", insert_id, at, visitor, None, None, epoch)
            self._buffer.items.append(item)
        self._follow_started()
        return True

    def update_people(self, operation: str, values: object) -> bool:
        """Buffer a profile update. Return whether consent allows it.

        Raises:
            InvalidEvent: The values cannot be sent.
        """
        return self._update(What.PEOPLE, operation, values)

    def update_group(self, group: tuple[str, str], operation: str, values: object) -> bool:
        """Buffer a group update. Return whether consent allows it.

        Raises:
            InvalidEvent: The values cannot be sent.
        """
        return self._update(What.GROUP, operation, values, group)

    def _update(
        self, what: What, operation: str, values: object, group: tuple[str, str] | None = None
    ) -> bool:
        if not self.may_take():
            return False
        if self.decision.kind is Kind.COOKIELESS:
            self._core.sink.count("refused", 1, Reason.COOKIELESS.value)
            return False
        frozen = freeze({"": values})[""]
        with self._core.lock:
            visitor, now, epoch = self._who(), self._core.clock(), self._buffer.epoch
            item: Item = (what, operation, "", now, visitor, frozen, group, epoch)
            if what is What.PEOPLE and visitor.user_id is None:
                self._buffer.hold(item)
            else:
                self._buffer.items.append(item)
        self._follow_started()
        return True

    def register(self, properties: Mapping[str, Any]) -> None:
        """Put properties on every later event of this request.

        Raises:
            InvalidEvent: A value cannot be sent.
        """
        frozen = freeze(properties)
        with self._core.lock:
            self._registered = {**(self._registered or {}), **frozen}

    def identify(self, user_id: object, *, is_new: bool = False) -> None:
        """Bind the user to the visitor; without a grant, for this request only.

        Raises:
            InvalidEvent: `forbidden_id`.
        """
        user = read_user_id(user_id)
        with self._core.lock:
            case = self._open_case()
            case.identify(user, is_new=is_new)
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

    def adopt(self, adopted: Adopted) -> bool:
        """Go on with an ID that the browser keeps elsewhere. Return whether the visitor has it now.

        Not without a grant, and never where a user owns the device ID of ours (RULES section 1).
        """
        with self._core.lock:
            if not self.decision.is_granted or self.decision.kind is Kind.COOKIELESS:
                return False
            case = self._open_case()
            is_adopted = case.open_visit().adopt(adopted)
            self._visitor = case.visitor = case.open_visit().visitor
            return is_adopted

    def reset(self, *, new_device: bool | None) -> None:
        """Forget the user; take a new device ID in simplified mode, or where asked to."""
        with self._core.lock:
            self._buffer.drop_held()
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
                self._buffer.drop(Reason.NO_CHOICE)
                self._buffer.drop_held()
            elif case.decision.kind is not self.decision.kind:
                self._buffer.end_epoch(self.decision)
            self.decision = case.decision
            self._visitor = case.keep_visitor()
            user = case.open_visit().user_id
            if user is not None:
                self._bind(case, user, Write.ACT)
            case.file_grant(user)
        self._follow_started()
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
            self._buffer.drop(Reason.DENIED_NOW)
            self._buffer.drop_held()
            case.stop()
            case.open_visit().end(Write.ACT)
            self._visitor = None

    # --- what the doors drive -----------------------------------------------------------------

    def begin_response(self, connection: object, place: RawPlace) -> bool:
        """Settle everything that was open. Return whether there are headers to write."""
        if self._context is None:
            self._look_around(place)
        if not self.is_settled:
            self._settle(connection)
            self._call_back()
        if self._phase is _OPEN:
            self._phase = _STARTED
            if self._case is not None or self._is_care_due():
                with self._core.lock:
                    self._plan = self._plan_cookies()
            if self._is_personal:
                self._plan = self._plan or CookiePlan()
                self._plan.is_personal = True
        has_headers = self._plan is not None and bool(self._plan)
        if not has_headers and self._core.hands_over_early:
            self._hand_over_early()
        return has_headers

    def write_headers(
        self, status: int | None, headers: Iterable[tuple[bytes, bytes]]
    ) -> Headers | None:
        """Answer a copy of the headers with our cookies; None where they must stay as they are."""
        plan, case = self._plan, self._case
        written = plan.write(status, headers) if plan else None
        has_id = written is not None and plan is not None and plan.has_id
        if has_id and case is not None and case.visit is not None:
            case.visit.save()
        if self._core.hands_over_early:
            self._hand_over_early()
        return written

    def end_response(self) -> None:
        """Hand over what was tracked: the body is complete."""
        if self.is_settled and self._buffer.is_waiting:
            self._hand_over()

    @property
    def has_begun(self) -> bool:
        """Whether a door has said which page this is, and need not read it again."""
        return self._context is not None

    def close(self, connection: object, place: RawPlace | None) -> None:
        """Finish: the app has returned or raised. Later calls are handed over as they come.

        Args:
            connection: ASGI scope or WSGI environ.
            place: None where the response has begun.
        """
        if place is not None:
            self._look_around(place)
        if not self.is_settled:
            self._settle(connection)
            self._call_back()
        self._phase = _CLOSED
        self._late_seam = None  # it leads to the connection, and that to us
        if self._buffer.is_waiting:
            self._hand_over()
        elif self._case is not None:
            self._case.give_up_unsaved()

    def _call_back(self) -> None:
        """Go on with what waited for the seam, without the lock: it opens what it needs."""
        waiting, self._waiting = self._waiting, ()
        for then in waiting:
            then()

    def _plan_cookies(self) -> CookiePlan | None:
        case = self._open_case()
        if self._is_excluded and case.visit is not None:
            case.visit.leave_unwritten()
        return case.plan(self._context)

    def _look_around(self, place: RawPlace) -> None:
        """Learn where all this happens, once somebody knows."""
        self._context = context = RequestContext(self._head, place, self._is_secure)
        excluded = self._core.excluded
        if excluded is not None:
            path = normalise_path(context.place.path)
            self._is_excluded = excluded.fullmatch(path) is not None

    def _is_care_due(self) -> bool:
        jar = self._jar
        if jar.needs_care and self._core.clock() >= jar.rests_until:
            return True
        return self._core.settings.share_id and self._head.is_navigation()

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

    def _is_identifying(self) -> bool:
        """Whether IDs count: who is only counted today has none (RULES section 2, rule 1)."""
        return self.decision.kind is not Kind.COOKIELESS and self._is_tracking()

    def _may_act(self, case: Case, *, is_trusted: bool) -> bool:
        if not case.may_act(is_trusted=is_trusted):
            return False
        if self._phase is not _OPEN:
            self._core.sink.count("unpersisted")
        return True

    def _follow_started(self) -> None:
        if self._phase is _OPEN:
            return
        # The app may yet name whose a profile is that waits for its user.
        is_unnamed = self._phase is _STARTED and not self.is_settled and self._buffer.is_waiting
        if self._buffer.items or is_unnamed:
            self._follow()

    def _follow(self) -> None:
        """Hand over at once what is tracked after the response has started. Never under the lock:
        the app may be asked.
        """
        is_late = self._phase is _STARTED and not self.is_settled
        if not self.is_settled:
            self._settle_late()
        if self.is_settled:
            self._hand_over(keeps_held=is_late)

    def _settle_late(self) -> None:
        """Settle an exchange that was opened after the response's start, once that matters."""
        if self._phase is _CLOSED:
            self._settle_without_connection()
            self._call_back()
            return
        with self._core.lock:
            begin, self._late_seam = self._late_seam, None
        if begin is not None:  # else another call is asking, and hands over
            begin(self)

    def _adopt(self, decision: Decision) -> None:
        """Follow what a late answer, or another user, has made of the decision."""
        before, self.decision = self.decision, decision
        if not (before.is_granted and decision.is_granted) or before.kind is decision.kind:
            return
        # A stored answer was there before the events; what was tracked under it stays under it.
        if before.kind is not Kind.OPT_OUT_DEFAULT:
            self._buffer.end_epoch(before)
        if decision.kind is Kind.COOKIELESS:
            self._buffer.drop_held()
            self._open_case().end_visit()
            self._visitor = None

    def _hand_over_early(self) -> None:
        """Hand over before the response starts: whoever gets an answer finds it kept."""
        if self._buffer.items:
            self._hand_over(keeps_held=True)

    def _hand_over(self, *, keeps_held: bool = False) -> None:
        """The last gate of a request: a withdrawal while the body streamed still wins."""
        core, buffer = self._core, self._buffer
        # `with` and nothing cheaper: a signal's handler may raise between `acquire` and `try`.
        with core.lock:
            if not keeps_held:
                buffer.drop_held()
            items = self._choose(buffer.take())
            if buffer.epoch or not self.decision.is_granted:
                for decision, kept in buffer.group(items, self.decision):
                    is_unnamed = decision.kind is Kind.COOKIELESS
                    self._accept(
                        decision, leave_unnamed(core, self._head, kept) if is_unnamed else kept
                    )
            elif items:
                self._accept(self.decision, items)
            if self._case is not None and self._phase is _CLOSED:
                self._case.give_up_unsaved()

    def _choose(self, items: list[Item]) -> list[Item]:
        """Answer what of the items leaves, and as whose."""
        core, case = self._core, self._case
        if self._is_excluded:
            items = leave_out_excluded(core, case, items)
        if core.stops.at:
            items = leave_out_withdrawn(core, self._head, self._jar, case, items)
        if case is None or case.visit is None:
            return items
        items = fill_first_touch(items, core, self._context)
        return leave_out_unmarked(case.visit, items) if case.visit.unmarked else items

    def _accept(self, decision: Decision, items: list[Item]) -> None:
        core = self._core
        core.sink.accept(Handover(decision, items, self._context))
        if core.accounts is not None:
            tell_links(core, core.accounts, items)

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
                self._buffer.drop(self.decision.reason)
            else:
                self._buffer.end_epoch(before)  # what the account allowed was allowed
            self._buffer.drop_held()
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
        before, visit = self._who(), case.open_visit()
        is_minted = visit.is_minted
        is_first = case.bind(user_id, write)
        self._visitor = visitor = case.current()
        is_known = visitor.device_id == before.device_id
        if is_first:
            self._buffer.items[:0] = items_of_meeting(
                self._core,
                visitor,
                self._buffer.epoch,
                first_touch=before.first_touch if is_known else "",
                is_minted=is_minted and is_known,
                is_new_user=visit.is_new_user,
            )
        elif visit.is_alias_open and visit.is_new_user:
            # Only now the app says that the user, whom the device has just met, signs up.
            self._buffer.items[:0] = late_alias(self._core, visitor, self._buffer.epoch)
        if is_first or visit.is_new_user:
            visit.is_alias_open = not visit.is_new_user
        self._buffer.release_held(visitor)

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
                user = self._ask_user(case, connection)
            with core.lock:  # a denial in another thread may have come between
                if answer is not None:
                    case.hear_app(answer)
                if isinstance(user, str) and core.accounts is not None:
                    case.hear_account(user)
                self._adopt(case.decision)
        with core.lock:
            self.is_settled = True
            self._late_user = user if isinstance(user, str) else ""
            if not self.decision.is_granted:
                self._settle_refusal(user if isinstance(user, str) else None)
            elif user is not None:
                self._fill_late_user(user)

    def _needs_user(self, case: Case, answer: AppAnswer | None) -> bool:
        """Whether it matters who this is: for what was tracked, or for what must stop."""
        is_denied = answer is not None and answer.said is Said.DENIED
        return (
            self._core.accounts is not None
            or self._visitor is not None
            or bool(self._waiting)
            or (is_denied and bool(self._jar.verified))
            or case.is_stopping()
        )

    def _ask_user(self, case: Case, connection: object) -> str | Anonymous | None:
        user = case.ask_user(connection)
        # At the mount nobody has opened the app's session: that it holds nobody tells nothing.
        return None if self.is_at_mount and user is ANONYMOUS else user

    def _settle_refusal(self, user: str | None) -> None:
        self._buffer.drop(self.decision.reason, self._buffer.still_allowed(self.decision))
        self._buffer.drop_held()
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

    def _fill_late_user(self, user: str | Anonymous) -> None:
        """Let `identify_from` name the visitor of everything that this request tracked."""
        # Whoever waits asks who it is. Who is only counted stays unnamed.
        visitor = self.visitor() if self._waiting else self._visitor
        if visitor is None:
            return
        case = self._open_case()
        if not isinstance(user, str):
            case.leave_user()
            self._visitor = case.visitor
        elif visitor.user_id != user or not visitor.owner_mark:
            self._bind(case, user, Write.LATE)
        self._buffer.name(self._who())
        if isinstance(user, str) and case.has_acted:
            case.file_grant(user)
