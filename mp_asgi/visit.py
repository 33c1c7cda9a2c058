"""Follow who the visitor of one request is, and why the ID cookie must be written.

RULES section 1. Everything here happens under a grant; the exchange asks first.
"""

from enum import IntEnum

from .consent.policy import Decision
from .core import Core
from .events import OVERRIDE
from .head import RequestHead
from .identity import MAX_SKEW_SECONDS, IdentityMode, Visitor, mint
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


class Visit:
    """What changed about the visitor in one request.

    Attributes:
        visitor: Who it is now; None until somebody needs to know.
        write: Why the ID cookie must be written.
        is_unsaved: An ID was minted that no response carries yet.
        is_mark_unsaved: A device that the browser knows met its first user, and no response
            carries the mark yet: without it, the next user would share the device.
        user_id: Who `identify` named in this request, granted or not.
        is_identified: `identify` or `reset` was called: `identify_from` is not asked.
        left: Whom this request left behind; a denial stops them, too.
    """

    __slots__ = (
        "_core",
        "_has_new_device",
        "_jar",
        "is_identified",
        "is_mark_unsaved",
        "is_unsaved",
        "left",
        "user_id",
        "visitor",
        "write",
    )

    def __init__(self, core: Core, jar: Jar, visitor: Visitor | None) -> None:
        self._core = core
        self._jar = jar
        self._has_new_device = False
        self.visitor = visitor
        self.write = Write.NOTHING
        self.is_unsaved = False
        self.is_mark_unsaved = False
        self.user_id: str | None = None
        self.is_identified = False
        self.left: list[Visitor] = []

    def current(self) -> Visitor:
        """Answer who this is: as the cookie says, or newly minted."""
        visitor = self.visitor
        if visitor is None:
            visitor = self.visitor = self.known() or self._mint(Write.PASSIVE)
        return visitor

    def known(self) -> Visitor | None:
        """Answer who this is without minting."""
        if self.visitor is not None or self._has_new_device:
            return self.visitor
        return read_visitor(self._jar, self._core, self._core.clock())

    def bind(self, user_id: str, write: Write) -> bool:
        """Make the user the visitor's. Return whether the device ID met its first user.

        A device that another user marked is left behind: A never meets U2.
        """
        visitor = self.current()
        self.left.append(visitor)
        if not visitor.is_owned_by(user_id):
            visitor = self.visitor = self._mint(write)
        now = int(self._core.clock())
        is_first = not visitor.owner_mark
        is_new_login = visitor.user_id != user_id or now - visitor.login_at >= LOGIN_REFRESH_SECONDS
        known = self._jar.visitor
        if is_first and known is not None and visitor.device_id == known.device_id:
            self.is_mark_unsaved = True
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

    def save(self) -> None:
        """Note that a response carries the ID cookie as it is now."""
        self.is_unsaved = self.is_mark_unsaved = False

    def leave_unmarked(self) -> Visitor:
        """Take a device of its own for a user whose mark no response could carry."""
        old = self.current()
        self.renew(Write.NOTHING)
        self.is_mark_unsaved = False
        new = self.current()
        if old.user_id is not None:
            new = self.visitor = new.with_user(old.user_id, old.login_at)
        return new

    def end(self, write: Write) -> None:
        """Be nobody any more; the ID is over if its cookie is to be deleted."""
        # Who is nobody already stays so for the reason of then.
        self.write = write if self.visitor is not None else max(self.write, write)
        self.visitor = None
        self._has_new_device = self._has_new_device or write is not Write.NOTHING
        self.is_unsaved = self.is_mark_unsaved = False

    def _mint(self, write: Write) -> Visitor:
        self.write = max(self.write, write)
        self.is_unsaved = True
        return mint(self._core.random_bytes, self._core.clock())
