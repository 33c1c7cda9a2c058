"""Read the cookies of one request: verified once, remembered by the whole Cookie header.

What a jar says is only what was signed; whether it still counts is asked with the time.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Final, TypeVar

from .consent.choice import Choice
from .consent.policy import ConsentPolicy, Decision, Default, Kind, Signals
from .consent.signals import NO_COOKIES, OwnCookies
from .cookies import MAX_SAME_NAME, CookieStyle, Scanner
from .identity import Visitor
from .readers import NO_MANAGERS, ManagersSaid, Reader, read_managers
from .signing import CookieSigner, Unsigned

SCRIPT_COOKIE: Final = "mp_choice"  # `mp_choice=denied` may be written by a page without a server
MAX_REMEMBERED: Final = 1_024  # jars by header, and as many by our cookies alone
MAX_REMEMBERED_BYTES: Final = 8_192

Found = tuple[tuple[str, bytes], ...]
"""Cookies of one request that somebody here reads, name and value, in the order they came."""

_Key = TypeVar("_Key")
_Memos = tuple["OrderedDict[_Key, Jar]", "OrderedDict[_Key, Jar]"]


class Jar:
    """What our cookies of one request say.

    Attributes:
        own: The consent cookies.
        managers: What the consent managers' cookies say.
        verified: Every ID that verified; a denial stops them all.
        visitor: The one ID that verified; None if none or if two differ.
        is_visitor_current: The newest key signed it.
        id_names: Names under which an ID cookie arrived, believed or not.
        has_unreadable: A cookie of ours did not verify.
        has_own: One of ours came, whatever it says.
        needs_care: One is unreadable, was signed by a key that is on its way out, or may not
            mirror the consent manager that is there.
        rests_until: Seconds since the epoch until which it needs none all the same.
        key: Keyed hash of the visitor's device ID, once a stop made it worth knowing.
        is_stopped: A denial has stopped the device: its ID is over.
        withdrawn_at: When the visitor chose so, seconds since the epoch; None if a signal did.
        decision: What these cookies alone lead to, if that is a grant.
        decided_until: Seconds since the epoch until which it holds.
        known: Who the ID cookie says this is, as far as that counts.
        holds_until: Seconds since the epoch until which `decision` and `known` hold both; 0 if
            they are to be asked for.
    """

    __slots__ = (
        "decided_until",
        "decision",
        "has_own",
        "has_unreadable",
        "holds_until",
        "id_names",
        "is_stopped",
        "is_visitor_current",
        "key",
        "known",
        "managers",
        "needs_care",
        "own",
        "rests_until",
        "verified",
        "visitor",
        "withdrawn_at",
    )

    def __init__(
        self,
        own: OwnCookies,
        verified: Sequence[Visitor] = (),
        *,
        is_visitor_current: bool = True,
        id_names: tuple[str, ...] = (),
        has_unreadable: bool = False,
        managers: ManagersSaid = NO_MANAGERS,
    ) -> None:
        self.own = own
        self.managers = managers
        self.verified = verified
        # Two that verify but differ: one of them was planted, and nobody knows which.
        self.visitor = verified[0] if len(verified) == 1 else None
        self.is_visitor_current = is_visitor_current
        self.id_names = id_names
        self.has_unreadable = has_unreadable
        self.has_own = bool(id_names) or own is not NO_COOKIES
        is_current = is_visitor_current and own.is_current
        self.needs_care = has_unreadable or not is_current or bool(managers.present)
        self.rests_until = 0.0
        self.decision: Decision | None = None
        self.decided_until = 0.0
        self.key = b""
        self.is_stopped = False
        self.withdrawn_at: float | None = None
        self.known: Visitor | None = None
        self.holds_until = 0.0

    def signals(self, default: Default) -> Signals:
        """Answer what these cookies alone say, to be decided about."""
        return Signals(
            self.own, managers=self.managers, withdrawn_at=self.withdrawn_at, default=default
        )

    def decide(
        self, policy: ConsentPolicy, default: Default, now: float, *, is_lasting: bool
    ) -> Decision:
        """Answer what these cookies alone lead to; a grant is remembered while it holds.

        Args:
            policy: The rules.
            default: What holds for a visitor who has not chosen.
            now: Seconds since the epoch.
            is_lasting: Whether the default is the same for every request.
        """
        decision = policy.decide(self.signals(default), now)
        # Not the empty jar: it is everybody's. Nor what another request may be told otherwise.
        is_known = self.own.choice is not None or self.visitor is not None
        if is_known and decision.is_granted and (is_lasting or decision.kind is Kind.EXPLICIT):
            # The time first: another thread may read in between.
            self.decided_until = self._holds_until(policy)
            self.decision = decision
        return decision

    def _holds_until(self, policy: ConsentPolicy) -> float:
        choice, until = self.own.choice, self.managers.until
        ends = [math.inf if until is None else until]
        if choice is not None:
            ends.append(choice.at + policy.max_age)
        return min(ends)

    def rest(self, until: float) -> None:
        """Learn that the mirror is as it should be until then; other cookies still need care."""
        if self.is_visitor_current and self.own.is_current and not self.has_unreadable:
            self.rests_until = until

    def stop(self, withdrawn_at: float | None) -> None:
        """Learn that a denial has stopped the device: its ID is over, and so is an older grant.

        Args:
            withdrawn_at: When the visitor chose so; None if only a signal did.
        """
        self.is_stopped = True
        self.withdrawn_at = withdrawn_at
        self.decision = None
        self.holds_until = 0.0

    def remember(self, known: Visitor | None, until: float) -> None:
        """Keep who this is, beside a decision that `decide` keeps; both hold until then."""
        # The time last: a thread that finds it finds the rest.
        self.known = known
        self.holds_until = until


EMPTY_JAR: Final = Jar(NO_COOKIES)


class JarReader:
    """Scan, verify and remember (DESIGN section 2).

    Args:
        id_style: How the ID cookie is written.
        consent_style: How the consent cookie is written.
        id_signer: Its signer.
        consent_signer: Its signer; another salt, so that neither passes for the other.
        readers: Of the consent managers' cookies.
        lock: Held while the memo changes.
    """

    def __init__(
        self,
        *,
        id_style: CookieStyle,
        consent_style: CookieStyle,
        id_signer: CookieSigner,
        consent_signer: CookieSigner,
        readers: Sequence[Reader],
        lock: AbstractContextManager[object],
    ) -> None:
        self._id_style = id_style
        self._consent_style = consent_style
        self._id_signer = id_signer
        self._consent_signer = consent_signer
        self._id_names = (f"__Host-{id_style.name}", id_style.name)
        self._consent_names = (f"__Host-{consent_style.name}", consent_style.name)
        self._readers = readers
        names = [*self._id_names, *self._consent_names, SCRIPT_COOKIE]
        self._own_names = frozenset(names)
        patterns = [name for reader in readers for name in reader.cookies]
        self._scanner = Scanner([*names, *patterns])
        # By is_secure: the same header may be believed on http and not on https.
        self._by_header: _Memos[bytes] = (OrderedDict(), OrderedDict())
        self._by_cookies: _Memos[Found] = (OrderedDict(), OrderedDict())
        self._lock = lock

    def read(self, header: bytes, *, is_secure: bool) -> Jar:
        """Answer what the Cookie header of a request says."""
        memo = self._by_header[is_secure]
        jar = memo.get(header)
        if jar is not None:
            return jar
        found = self._scanner.scan(header)
        if not found:
            return EMPTY_JAR
        # Other cookies change from page to page; ours rarely do.
        by_cookies = self._by_cookies[is_secure]
        jar = by_cookies.get(found)
        is_new = jar is None
        if jar is None:
            jar = self._open(found, is_secure=is_secure)
        # One valid cookie is easy to get; huge ones or a thousand names beside it would fill the
        # memory.
        if len(header) <= MAX_REMEMBERED_BYTES:
            if is_new:
                self._remember(by_cookies, found, jar)
            self._remember(memo, header, jar)
        return jar

    def _remember(self, memo: OrderedDict[_Key, Jar], key: _Key, jar: Jar) -> None:
        # Only what verified: a flood of forged cookies evicts nobody.
        if jar.visitor is None and jar.own.choice is None:
            return
        with self._lock:
            if len(memo) >= MAX_REMEMBERED:
                memo.popitem(last=False)  # a plain dict walks over all that it ever deleted
            memo[key] = jar

    def _open(self, found: Sequence[tuple[str, bytes]], *, is_secure: bool) -> Jar:
        wire_name = self._id_style.wire_name(is_secure=is_secure)
        tokens = [value for name, value in found if name == wire_name]
        verified, is_current = self._read_visitors(tokens)
        own = self._read_own(found, is_secure=is_secure)
        others = [item for item in found if item[0] not in self._own_names]
        return Jar(
            own,
            verified,
            is_visitor_current=is_current,
            id_names=tuple(dict.fromkeys(name for name, _ in found if name in self._id_names)),
            has_unreadable=own.is_unreadable or (bool(tokens) and len(verified) != 1),
            managers=read_managers(self._readers, others) if others else NO_MANAGERS,
        )

    def _read_visitors(self, tokens: Sequence[bytes]) -> tuple[Sequence[Visitor], bool]:
        # Enough copies of a planted one must not hide the visitor's own.
        if not tokens or not set(tokens[MAX_SAME_NAME:]) <= set(tokens[:MAX_SAME_NAME]):
            return (), True
        verified = _unsign_all(self._id_signer, tokens)
        visitors = [Visitor.parse(value) for value in {item.value for item in verified}]
        is_current = not verified or any(item.is_current for item in verified)
        return [item for item in visitors if item is not None], is_current

    def _read_own(self, found: Sequence[tuple[str, bytes]], *, is_secure: bool) -> OwnCookies:
        wire_name = self._consent_style.wire_name(is_secure=is_secure)
        tokens = [value for name, value in found if name == wire_name]
        others = [
            value for name, value in found if name in self._consent_names and name != wire_name
        ]
        is_denied_by_script = any(
            name == SCRIPT_COOKIE and value.strip(b'" ').lower() == b"denied"
            for name, value in found
        )
        if not tokens and not others:
            is_silent = not is_denied_by_script
            return NO_COOKIES if is_silent else OwnCookies(None, False, True, is_denied_by_script)
        choices = self._read_choices(tokens)
        # Under the name that we would not believe a grant from, a denial still counts.
        heard = [*choices, *self._read_choices(others)] if others else choices
        denials = [item for item in heard if not item[0].is_granted]
        if denials:
            choice, is_current = max(denials, key=lambda item: item[0].at)
            return OwnCookies(choice, False, is_current, is_denied_by_script)
        # Every copy must say so: one that is damaged may have been a denial.
        is_whole = len(choices) == len(tokens)
        if is_whole and len({choice for choice, _ in choices}) == 1:
            choice, is_current = choices[0]
            return OwnCookies(choice, False, is_current, is_denied_by_script)
        return OwnCookies(None, bool(tokens), True, is_denied_by_script)

    def _read_choices(self, tokens: Sequence[bytes]) -> list[tuple[Choice, bool]]:
        unsigned = _unsign_all(self._consent_signer, tokens)
        parsed = [(Choice.parse(item.value), item.is_current) for item in unsigned]
        return [(choice, is_current) for choice, is_current in parsed if choice is not None]


def _unsign_all(signer: CookieSigner, tokens: Sequence[bytes]) -> list[Unsigned]:
    unsigned = [signer.unsign(token) for token in tokens[:MAX_SAME_NAME]]
    return [item for item in unsigned if item is not None]
