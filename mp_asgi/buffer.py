"""Hold what one request tracked, and under which of its grants each of it may leave.

A denial ends an epoch: what was tracked in an ended one leaves only under a grant that still
counts. Everything but appending happens under the lock of the process.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from .consent.policy import Decision, Reason, State
from .core import Sink
from .gate import group_by_grant, with_visitor
from .identity import Visitor
from .wire import Item

NO_GRANTS: Final[Mapping[int, Decision]] = MappingProxyType({})


class Buffer:
    """What one request tracked and has not handed over yet.

    Args:
        sink: Where is counted what is dropped.

    Attributes:
        items: Whoever tracks appends, without a lock: a list's append is atomic.
        epoch: Of what is tracked now. Whoever tracks reads it before anything else, so that what
            a denial overtakes is of an ended epoch.
    """

    __slots__ = ("_grants", "_held", "_sink", "epoch", "items")

    def __init__(self, sink: Sink) -> None:
        self.items: list[Item] = []
        self.epoch = 0
        self._sink = sink
        self._grants: Mapping[int, Decision] = NO_GRANTS  # of earlier epochs that still count
        self._held: list[Item] | None = None  # profile updates that wait for a user

    @property
    def is_waiting(self) -> bool:
        """Whether there is something to hand over or to give up."""
        return bool(self.items) or self._held is not None

    # --- profile updates of nobody yet --------------------------------------------------------

    def hold(self, item: Item) -> None:
        """Keep a profile update until the user is known: Mixpanel carries none over."""
        self._held = [*(self._held or ()), item]

    def release_held(self, visitor: Visitor) -> None:
        """Let the user have the profile updates that waited for them."""
        held, self._held = self._held or (), None
        self.items += [with_visitor(item, visitor) for item in held]

    def drop_held(self) -> None:
        """Give up, and count, what waited for a user who did not come."""
        if self._held:
            self._sink.count("refused", len(self._held), "anonymous_profile")
        self._held = None

    # --- epochs -------------------------------------------------------------------------------

    def end_epoch(self, decision: Decision) -> None:
        """Let what was tracked so far leave under the grant of its time: a default is no explicit
        grant, and who was only counted stays unnamed.
        """
        self._grants = {**self._grants, self.epoch: decision}
        self.epoch += 1

    def still_allowed(self, decision: Decision) -> Mapping[int, Decision]:
        """Answer the grants of earlier epochs: a denial ends them all, not knowing ends none."""
        return NO_GRANTS if decision.state is State.DENIED else self._grants

    def drop(self, reason: Reason, allowed: Mapping[int, Decision] = NO_GRANTS) -> None:
        """Drop what was tracked, all but what an earlier epoch's grant still allows."""
        self.epoch += 1
        self._grants = allowed
        items = self.items[:]
        kept = [item for item in items if item[-1] in allowed]
        # In place: another thread may be appending, and what it appends is of an ended epoch.
        self.items[: len(items)] = kept
        if number := len(items) - len(kept):
            self._sink.count("refused", number, reason.value)

    # --- who it was ---------------------------------------------------------------------------

    def name(self, visitor: Visitor) -> None:
        """Make everything the visitor's."""
        for index, item in enumerate(self.items):
            self.items[index] = with_visitor(item, visitor)

    # --- handing over -------------------------------------------------------------------------

    def take(self) -> list[Item]:
        """Answer what is there now, and keep it no longer."""
        # Only what is there: another thread may append meanwhile, and follows itself.
        items = self.items[:]
        del self.items[: len(items)]
        return items

    def group(self, items: Sequence[Item], decision: Decision) -> list[tuple[Decision, list[Item]]]:
        """Answer what was taken under each grant that still holds; the rest is dropped."""
        grants = {**self.still_allowed(decision), self.epoch: decision}
        groups = group_by_grant(items, grants)
        if number := len(items) - sum(len(group) for _, group in groups):
            self._sink.count("refused", number, decision.reason.value)
        return groups
