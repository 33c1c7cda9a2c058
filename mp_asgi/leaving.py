"""Say what of a request leaves at its hand-over, and as whose. Under the lock of the process.

The last look: another request may have denied meanwhile, and no response may have carried the mark
of who met whom.
"""

from collections.abc import Sequence
from typing import Final

from .accounts import Accounts
from .case import Case
from .consent.policy import Reason
from .core import Core
from .events import Link
from .gate import leave_out_stopped, with_visitor
from .head import RequestHead
from .jar import Jar
from .visit import Visit, Write
from .wire import IDENTITY, Item, What

_OF_ACTS: Final = frozenset({What.IDENTIFY, What.ALIAS, What.FIRST_TOUCH})


def leave_out_excluded(core: Core, case: Case | None, items: Sequence[Item]) -> list[Item]:
    """Leave out all but who met whom: that is sent once, when the cookie gets the mark."""
    visit = case.visit if case is not None else None
    is_marked = visit is not None and visit.write is not Write.NOTHING
    kept = [item for item in items if is_marked and item[0] in _OF_ACTS]
    if number := len(items) - len(kept):
        core.sink.count("refused", number, "excluded")
    return kept


def leave_out_unmarked(visit: Visit, items: Sequence[Item]) -> list[Item]:
    """Leave the device out of what the user did: the browser's got no mark.

    Whoever logs in there next would share it, and Mixpanel would merge two people for good (RULES
    section 1, rule 2). What joins the two waits for a response that can say so.
    """
    kept = [
        item for item in items if item[0] not in IDENTITY or item[4].device_id != visit.unmarked
    ]
    # One for all that a visitor did: what is another's begins another entry.
    visitors = {visitor: visit.leave_open(visitor) for visitor in {item[4] for item in kept}}
    return [with_visitor(item, visitors[item[4]]) for item in kept]


def leave_unnamed(core: Core, head: RequestHead, items: Sequence[Item]) -> list[Item]:
    """Leave out who it was, where this request only counts: a call takes no lock, and one that a
    grant overtook may have met the visitor of that grant.
    """
    visitor = core.daily.visitor(head, core.clock())
    return [with_visitor(item, visitor) for item in items]


def leave_out_withdrawn(
    core: Core, head: RequestHead, jar: Jar, case: Case | None, items: Sequence[Item]
) -> list[Item]:
    """Leave out what another request's denial has ended."""
    left = () if case is None or case.visit is None else case.visit.left
    has_acted = case is not None and case.has_acted
    browser = () if has_acted else (*jar.verified, *left)
    # A stop that is forgotten may have been this browser's: what began before it ends here.
    is_over = bool(browser) and head.started <= core.stops.forgotten_until

    def stopped_at(device_id: str) -> float:
        is_known = jar.visitor is not None and jar.visitor.device_id == device_id
        key = jar.key if is_known and jar.key else core.keys.device_key(device_id)
        return core.stops.at.get(key, 0.0)

    kept = [] if is_over else leave_out_stopped(items, browser, head.started, stopped_at)
    if number := len(items) - len(kept):
        core.sink.count("refused", number, Reason.WITHDRAWN.value)
    return kept


def tell_links(core: Core, accounts: Accounts, items: Sequence[Item]) -> None:
    """Tell the ledger which devices a user was on, for an erasure: what left, left as both."""
    for visitor in {item[4] for item in items}:
        device_id, user_id = visitor.device_id, visitor.user_id
        if user_id is None or not device_id:
            continue
        user_key, device_key = core.keys.user_key(user_id), core.keys.device_key(device_id)
        origin = visitor.origin.value
        if accounts.meet(user_key, device_key + origin.encode()):
            core.sink.record(Link(user_id, device_id, user_key, device_key, core.clock(), origin))
