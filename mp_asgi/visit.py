"""Follow who the visitor of one request is, and why the ID cookie must be written.

RULES section 1. Everything here happens under a grant; the exchange asks first.
"""

from enum import IntEnum

from .adoption import Adopted
from .consent.policy import Decision
from .core import Core
from .events import OVERRIDE
from .head import RequestHead
from .identity import MAX_SKEW_SECONDS, IdentityMode, Origin, Visitor, make_owner_mark, mint
from .jar import Jar
from .settings import COOKIE_MAX_AGE

_SAID = frozenset({"own", "operator", OVERRIDE})
LOGIN_REFRESH_SECONDS = 60  # an app may identify on every request: one cookie a minute


class Write(IntEnum):
    """Why a cookie is written, the weakest reason first (RULES section 1, rule 7)."""

    NOTHING = 0
    LATE = 1
    PASSIVE = 2
    ACT = 3


def read_visitor(jar: Jar, core: Core, now: float) -> Visitor | None:
    """Answer who the ID cookie says this is, as far as that still counts."""
    visitor = None if jar.is_stopped else jar.visitor
    if visitor is None or not -MAX_SKEW_SECONDS <= now - visitor.issued <= COOKIE_MAX_AGE:
        return None
    if visitor.user_id is None:
        return visitor
    settings = core.settings
    is_login_fresh = -MAX_SKEW_SECONDS <= now - visitor.login_at <= settings.login_max_age
    if settings.identify_from is None and is_login_fresh:
        return visitor
    return visitor.without_user()


def recall_stop(jar: Jar, core: Core) -> None:
    """Let cookies of before a denial learn of it."""
    if jar.visitor is None or jar.is_stopped or not (core.stops.at or core.accounts):
        return
    if not jar.key:
        jar.key = core.keys.device_key(jar.visitor.device_id)
    if jar.key in core.stops.at:
        jar.stop(core.stops.withdrawn_at(jar.key))
    elif core.accounts is not None:
        standing = core.accounts.get(jar.key)
        if standing is not None and standing.denied_at is not None:
            # A signal or a manager may say otherwise later; what a person told us, or an operator
            # for them, holds until they do.
            is_said = standing.source in _SAID
            jar.stop(standing.denied_at if is_said else None)


def recognise(jar: Jar, core: Core, head: RequestHead, now: float) -> Decision:
    """Answer what the cookies alone lead to. A grant is remembered with who the visitor is."""
    if jar.decision is not None and now <= jar.decided_until:
        decision = jar.decision
    else:
        default = core.read_default(head, has_cookies=jar.has_own)
        is_lasting = core.defaults.constant is not None
        decision = jar.decide(core.policy, default, now, is_lasting=is_lasting)
    if not decision.is_granted or jar.decision is None or jar.has_unreadable:
        return decision
    known, until = read_visitor(jar, core, now), jar.decided_until
    if known is not None:
        until = min(until, known.issued + COOKIE_MAX_AGE)
    if known is not None and known.user_id is not None:
        until = min(until, known.login_at + core.settings.login_max_age)
    visitor = jar.visitor
    # What another host's faster clock wrote may begin to count at any moment.
    if visitor is None or max(visitor.issued, visitor.login_at) <= now:
        jar.remember(known, until)
    return decision


def find_adopted(core: Core, head: RequestHead) -> Adopted | None:
    """Answer the ID that a cookie of somebody else's names; None if none is to be gone on with."""
    return None if core.adopter is None else core.adopter.find(head.cookie)


class Visit:
    """What changed about the visitor in one request.

    Attributes:
        visitor: Who it is now; None until somebody needs to know.
        write: Why the ID cookie must be written.
        is_unsaved: No response carries yet what is new: an ID, or whom it met.
        unmarked: The device ID that the browser knows without the mark of its first user, whom it
            met in this request; empty if there is none. Whoever is next might share it.
        is_alias_open: A device met its user in this request, who may yet turn out to sign up.
        is_minted: The browser's first device ID was minted in this request.
        user_id: Who `identify` named in this request, granted or not.
        is_new_user: That user signs up.
        is_identified: `identify` or `reset` was called: `identify_from` is not asked.
        left: Whom this request left behind; a denial stops them, too.
    """

    __slots__ = (
        "_adopted",
        "_carried",
        "_core",
        "_has_new_device",
        "_head",
        "_jar",
        "is_alias_open",
        "is_identified",
        "is_minted",
        "is_new_user",
        "is_unsaved",
        "left",
        "unmarked",
        "user_id",
        "visitor",
        "write",
    )

    def __init__(self, core: Core, head: RequestHead, jar: Jar, visitor: Visitor | None) -> None:
        self._core = core
        self._head = head
        self._jar = jar
        self._carried = jar.visitor.device_id if jar.visitor is not None else ""
        self._adopted = ""  # the browser knows this one, too, without a mark of ours
        self._has_new_device = False
        self.visitor = visitor
        self.write = Write.NOTHING
        self.is_unsaved = False
        self.unmarked = ""
        self.is_alias_open = False
        self.is_minted = False
        self.user_id: str | None = None
        self.is_new_user = False
        self.is_identified = False
        self.left: list[Visitor] = []

    def current(self) -> Visitor:
        """Answer who this is: as the cookie says, as another one does, or newly minted."""
        visitor = self.visitor
        if visitor is None:
            visitor = self.known() or self._find_adopted() or self._mint(Write.PASSIVE)
            self.visitor = visitor
        return visitor

    def adopt(self, adopted: Adopted) -> bool:
        """Go on with an ID that the browser keeps. Return whether the visitor has it now."""
        visitor = self.visitor or self.known()
        if visitor is not None and visitor.device_id == adopted.device_id:
            self.visitor = visitor
            return True
        if visitor is None:
            is_free = self._is_first_id()
        else:
            is_free = not visitor.owner_mark and visitor.origin is not Origin.SUCCESSOR
        if not is_free or not self._may_adopt(adopted):
            return False
        if visitor is not None:
            self.left.append(visitor)
        self.visitor = self._take(adopted)
        return True

    def known(self) -> Visitor | None:
        """Answer who this is without minting."""
        if self.visitor is not None or self._has_new_device:
            return self.visitor
        return read_visitor(self._jar, self._core, self._core.clock())

    def bind(self, user_id: str, write: Write) -> bool:
        """Make the user the visitor's. Return whether the device ID met its first user.

        A device that another user marked is left behind: A never meets U2.
        """
        visitor, now = self.current(), int(self._core.clock())
        self.left.append(visitor)
        if not visitor.is_owned_by(user_id):
            self._has_new_device = True
            visitor = self.visitor = self._mint(write)
        is_first = not visitor.owner_mark
        is_new_login = visitor.user_id != user_id or now - visitor.login_at >= LOGIN_REFRESH_SECONDS
        if is_first and visitor.device_id in {self._carried, self._adopted}:
            self.unmarked, self.is_unsaved = visitor.device_id, True
        keeps_user = self._core.settings.identify_from is None
        if is_first or (keeps_user and is_new_login):
            self.write = max(self.write, write)
        if is_first or is_new_login:
            self.visitor = visitor.with_user(user_id, now)
        return is_first

    def reset(self, *, new_device: bool | None, is_known: bool) -> None:
        """Forget the user; take a new device ID in simplified mode or where asked to.

        Args:
            new_device: None leaves it to the mode.
            is_known: False without a grant: the cookie stays, and only a grant later in this
                request starts anew.
        """
        is_simplified = self._core.mode is IdentityMode.SIMPLIFIED
        is_new = is_simplified if new_device is None else new_device
        visitor = self.known() if is_known else None
        if visitor is None and is_known and is_new:
            visitor = self._find_adopted()  # or the next request would go on with it
        if visitor is None:
            self._has_new_device = self._has_new_device or is_new
        elif is_new:
            self.renew(Write.ACT)
        else:
            self.left.append(visitor)
            self.visitor = visitor.without_user()
            self.write = Write.ACT

    def renew(self, write: Write) -> None:
        """Take a new device ID."""
        if (visitor := self.known()) is not None:
            self.left.append(visitor)
        self._has_new_device = True
        self.visitor = self._mint(write)

    def leave_unwritten(self) -> None:
        """Keep no new ID, where the app wants nothing to be tracked."""
        if self.is_unsaved and self.write is Write.PASSIVE:
            self.write = Write.NOTHING
            self.is_unsaved = False

    def save(self) -> None:
        """Note that a response carries the ID cookie as it is now."""
        self._carried = self.visitor.device_id if self.visitor is not None else ""
        self.is_unsaved, self.unmarked = False, ""

    def leave_open(self, visitor: Visitor) -> Visitor:
        """Answer a user without the device that no response may be able to mark as theirs."""
        if visitor.user_id is None or visitor.device_id != self.unmarked:
            return visitor
        return Visitor("", visitor.issued, user_id=visitor.user_id)

    def end(self, write: Write) -> None:
        """Be nobody any more; the ID is over if its cookie is to be deleted."""
        # Who is nobody already stays so for the reason of then.
        self.write = write if self.visitor is not None else max(self.write, write)
        self.visitor = None
        self._has_new_device = self._has_new_device or write is not Write.NOTHING
        self.is_unsaved = False

    def _find_adopted(self) -> Visitor | None:
        """Answer who this is by a cookie of somebody else's; never who was just left behind."""
        adopted = find_adopted(self._core, self._head) if self._is_first_id() else None
        if adopted is None or not self._may_adopt(adopted):
            return None
        return self._take(adopted)

    def _is_first_id(self) -> bool:
        """Whether this browser has had no ID of ours, as far as its cookies tell.

        Whoever had one may have met a user under the ID that the page still keeps: adopting that
        again would give it to whoever comes next, without its mark.
        """
        jar, choice = self._jar, self._jar.own.choice
        if self._has_new_device or jar.is_stopped or jar.id_names or jar.own.is_unreadable:
            return False
        # A choice made with us came with an ID, or ended one; so did a manager's denial.
        return choice is None or (bool(choice.mirrored) and choice.is_granted)

    def _may_adopt(self, adopted: Adopted) -> bool:
        """Whether no denial has ended that device: a later grant does not bring it back."""
        core = self._core
        key = core.keys.device_key(adopted.device_id)
        if key in core.stops.at:
            return False
        standing = core.accounts.get(key) if core.accounts is not None else None
        return standing is None or standing.denied_at is None

    def _take(self, adopted: Adopted) -> Visitor:
        self.write = max(self.write, Write.PASSIVE)
        self.is_unsaved = True
        self.is_minted = False
        self._adopted = adopted.device_id
        device, now = adopted.device_id, int(self._core.clock())
        mark = make_owner_mark(device, adopted.user_id) if adopted.user_id else b""
        return Visitor(device, now, mark, origin=adopted.origin)

    def _mint(self, write: Write) -> Visitor:
        self.write = max(self.write, write)
        origin = Origin.MINTED if self._is_first_id() else Origin.SUCCESSOR
        self.is_unsaved = True
        self.is_minted = origin is Origin.MINTED
        return mint(self._core.random_bytes, self._core.clock(), origin)
