"""Processes that run jobs, for the tests of what lets them track."""

from typing import Any

from mp_asgi.jobs import JobTracker, track_for
from tests.doors import Act, World, call
from tests.support import FakeClock, RecordingSink, make_core

DAY = 86_400.0


class Desk:
    """A process that only runs jobs, with what it counts and hands over."""

    def __init__(self, **settings: Any) -> None:
        self.clock = FakeClock()
        self.sink = RecordingSink()
        self.core = make_core(self.clock, self.sink, **settings)

    def visitor(self, *, consent: Any, look_up: Any = None, **ids: Any) -> JobTracker:
        named = {"user_id": None, "device_id": None, **ids}
        return track_for(self.core, **named, consent=consent, look_up=look_up)

    def refused(self) -> dict[str, int]:
        return {reason: n for (name, reason), n in self.sink.counts.items() if name == "refused"}


def open_for(world: World, consent: Any = True, **ids: Any) -> JobTracker:
    """Answer a tracker for U1, or for whom the IDs name."""
    return world.analytics.visitor(**(ids or {"user_id": "U1"}), consent=consent)


def take_token(**options: Any) -> Act:
    """Note a token of the visitor."""
    return call(lambda tracker: tracker.to_token(**options))


def record(world: World) -> None:
    """Let what was chosen be in the ledger, and a second pass."""
    world.analytics._worker._home.recorder.settle()
    world.clock.advance(1)
