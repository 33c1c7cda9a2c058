import pytest

from mp_asgi.buffer import Buffer
from mp_asgi.consent.policy import Decision, Kind, Reason, State
from mp_asgi.identity import Visitor
from mp_asgi.wire import What
from tests.support import NOW, RecordingSink

NOBODY = Visitor("A", int(NOW))
U1 = NOBODY.with_user("U1", int(NOW))
GRANTED = Decision(State.GRANTED, Reason.GRANTED_NOW, "now", Kind.EXPLICIT)
BY_DEFAULT = Decision(State.GRANTED, Reason.OPT_OUT_DEFAULT, "policy", Kind.OPT_OUT_DEFAULT)
DENIED = Decision(State.DENIED, Reason.DENIED_NOW, "now")
UNKNOWN = Decision(State.UNKNOWN, Reason.NO_CHOICE, "policy")


class Desk:
    """A buffer and what it counts."""

    def __init__(self):
        self.sink = RecordingSink()
        self.buffer = Buffer(self.sink)

    def track(self, *names, epoch=None):
        for name in names:
            self.buffer.items.append(make(name, self.buffer.epoch if epoch is None else epoch))

    def refused(self):
        return {reason: number for (_, reason), number in self.sink.counts.items()}


def make(name, epoch=0, visitor=NOBODY):
    return (What.EVENT, name, "i" * 32, NOW, visitor, {}, None, epoch)


def names(items):
    return [item[1] for item in items]


# --- profile updates of nobody yet ----------------------------------------------------------------


def test_what_waits_for_a_user_becomes_theirs_behind_what_was_tracked():
    desk = Desk()
    desk.buffer.hold(make("$set"))
    desk.buffer.hold(make("$add"))
    desk.track("Seen")

    desk.buffer.release_held(U1)

    told = [(item[1], item[4].user_id) for item in desk.buffer.take()]
    assert told == [("Seen", None), ("$set", "U1"), ("$add", "U1")]
    assert desk.refused() == {}


def test_what_waits_for_a_user_is_released_once():
    desk = Desk()
    desk.buffer.hold(make("$set"))
    desk.buffer.release_held(U1)

    desk.buffer.release_held(U1)

    assert names(desk.buffer.take()) == ["$set"]


def test_what_waited_for_a_user_in_vain_is_counted_once():
    desk = Desk()
    desk.buffer.hold(make("$set"))
    desk.buffer.hold(make("$add"))

    desk.buffer.drop_held()
    desk.buffer.drop_held()
    desk.buffer.release_held(U1)

    assert desk.refused() == {"anonymous_profile": 2}
    assert desk.buffer.take() == []


def test_a_buffer_waits_for_its_items_and_for_users():
    desk = Desk()
    empty = desk.buffer.is_waiting
    desk.buffer.hold(make("$set"))
    holding = desk.buffer.is_waiting
    desk.buffer.drop_held()
    given_up = desk.buffer.is_waiting
    desk.track("Seen")

    assert (empty, holding, given_up, desk.buffer.is_waiting) == (False, True, False, True)


# --- epochs ---------------------------------------------------------------------------------------


def test_each_epoch_leaves_under_its_own_grant():
    desk = Desk()
    desk.track("Before")
    desk.buffer.end_epoch(BY_DEFAULT)
    desk.track("After")

    groups = desk.buffer.group(desk.buffer.take(), GRANTED)

    assert [(decision, names(items)) for decision, items in groups] == [
        (BY_DEFAULT, ["Before"]),
        (GRANTED, ["After"]),
    ]
    assert desk.refused() == {}


def test_every_ended_epoch_is_remembered():
    desk = Desk()
    desk.track("First")
    desk.buffer.end_epoch(BY_DEFAULT)
    desk.track("Second")
    desk.buffer.end_epoch(GRANTED)

    groups = desk.buffer.group(desk.buffer.take(), UNKNOWN)

    assert [names(items) for _, items in groups] == [["First"], ["Second"]]


@pytest.mark.parametrize(
    ("decision", "left", "refused"),
    [
        pytest.param(DENIED, [], {"denied-now": 2}, id="a-denial-ends-every-grant"),
        pytest.param(UNKNOWN, ["Before"], {"no-choice": 1}, id="not-knowing-ends-none"),
    ],
)
def test_without_a_grant_only_an_earlier_one_lets_something_leave(decision, left, refused):
    desk = Desk()
    desk.track("Before")
    desk.buffer.end_epoch(BY_DEFAULT)
    desk.track("After")

    groups = desk.buffer.group(desk.buffer.take(), decision)

    assert [name for _, items in groups for name in names(items)] == left
    assert desk.refused() == refused


def test_what_is_dropped_is_counted_and_ends_the_epoch():
    desk = Desk()
    desk.track("One", "Two")

    desk.buffer.drop(Reason.DENIED_NOW)

    assert (desk.buffer.take(), desk.buffer.epoch) == ([], 1)
    assert desk.refused() == {"denied-now": 2}


def test_dropping_nothing_counts_nothing():
    desk = Desk()

    desk.buffer.drop(Reason.DENIED_NOW)

    assert desk.refused() == {}


def test_a_drop_spares_what_an_earlier_grant_allows():
    desk = Desk()
    desk.track("Before")
    desk.buffer.end_epoch(BY_DEFAULT)
    desk.track("After")

    desk.buffer.drop(Reason.NO_CHOICE, desk.buffer.still_allowed(UNKNOWN))

    assert names(desk.buffer.items) == ["Before"]
    assert desk.refused() == {"no-choice": 1}
    [(decision, _)] = desk.buffer.group(desk.buffer.take(), UNKNOWN)
    assert decision is BY_DEFAULT


def test_a_drop_forgets_the_grants_that_it_was_not_given():
    desk = Desk()
    desk.track("Before")
    desk.buffer.end_epoch(BY_DEFAULT)
    desk.buffer.drop(Reason.DENIED_NOW)
    desk.track("Late", epoch=0)

    assert desk.buffer.group(desk.buffer.take(), GRANTED) == []
    assert desk.refused() == {"denied-now": 1, "granted-now": 1}


def test_what_a_denial_overtakes_in_another_thread_is_of_an_ended_epoch():
    desk = Desk()
    epoch = desk.buffer.epoch
    desk.buffer.drop(Reason.DENIED_NOW)

    desk.track("Overtaken", epoch=epoch)

    assert desk.buffer.group(desk.buffer.take(), DENIED) == []
    assert desk.refused() == {"denied-now": 1}


# --- who it was, and handing over -----------------------------------------------------------------


def test_everything_becomes_the_named_visitors():
    desk = Desk()
    desk.track("One", "Two")

    desk.buffer.name(U1)

    assert [item[4] for item in desk.buffer.take()] == [U1, U1]


def test_what_is_taken_is_there_no_longer():
    desk = Desk()
    desk.track("One")
    taken = desk.buffer.take()
    desk.track("Two")

    assert (names(taken), names(desk.buffer.take())) == (["One"], ["Two"])


def test_whoever_appends_keeps_the_list_that_it_knows():
    desk = Desk()
    items = desk.buffer.items
    desk.track("One")
    desk.buffer.drop(Reason.DENIED_NOW)
    desk.track("Two")
    desk.buffer.take()

    assert desk.buffer.items is items
