"""Decide which items of a request may leave: the last look before the hand-over. Pure.

A denial wins over everything that it meets here, wherever it was made.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from .consent.policy import Decision
from .identity import Visitor
from .wire import Item


def leave_out_stopped(
    items: Sequence[Item],
    browser: Iterable[Visitor],
    started: float,
    stopped_at: Callable[[str], float],
) -> list[Item]:
    """Answer the items of devices that no denial has stopped.

    Args:
        items: What a request tracked.
        browser: Whom the request knows its browser by. If another request denied one of them
            meanwhile, nothing leaves: a socket or a slow request may have begun before that, and
            a new ID would be no excuse.
        started: Seconds since the epoch when the request began.
        stopped_at: Answers when a device ID was stopped; 0 if it was not.
    """
    if any(stopped_at(visitor.device_id) > started for visitor in browser):
        return []
    stopped = {device for device in {item[4].device_id for item in items} if stopped_at(device)}
    return [item for item in items if item[4].device_id not in stopped]


def group_by_grant(
    items: Sequence[Item], grants: Mapping[int, Decision]
) -> list[tuple[Decision, list[Item]]]:
    """Answer what was tracked under each grant that still holds; no other epoch is among them."""
    groups = [
        (decision, [item for item in items if item[-1] == epoch])
        for epoch, decision in grants.items()
        if decision.is_granted
    ]
    return [(decision, group) for decision, group in groups if group]


def with_visitor(item: Item, visitor: Visitor) -> Item:
    """Answer the item as somebody else's."""
    what, name, insert_id, at, _, values, group, epoch = item
    return what, name, insert_id, at, visitor, values, group, epoch
