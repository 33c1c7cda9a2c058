import pytest

from mp_asgi.consent.policy import Decision, Kind, Reason, State
from mp_asgi.gate import group_by_grant, leave_out_stopped, with_visitor
from mp_asgi.identity import Visitor
from mp_asgi.wire import What
from tests.support import NOW

A, B = Visitor("a", int(NOW)), Visitor("b", int(NOW))
GRANTED = Decision(State.GRANTED, Reason.COOKIE_GRANTED, "cookie", Kind.EXPLICIT)
DENIED = Decision(State.DENIED, Reason.COOKIE_DENIED, "cookie")


def item(name, visitor=A, epoch=0):
    return (What.EVENT, name, "id", NOW, visitor, {}, None, epoch)


def names(items):
    return [item[1] for item in items]


def stops(**at):
    return lambda device_id: at.get(device_id, 0.0)


@pytest.mark.parametrize(
    ("browser", "stopped_at", "kept"),
    [
        pytest.param([A], stops(), ["one", "two"], id="nobody-denied"),
        pytest.param([A], stops(a=NOW + 1), [], id="denied-meanwhile"),
        pytest.param([B], stops(b=NOW + 1), [], id="left-behind-and-denied-meanwhile"),
        pytest.param([B], stops(b=NOW), ["one"], id="denied-before-it-began"),
        pytest.param([], stops(a=NOW - 1), ["two"], id="a-device-that-is-over"),
        pytest.param([], stops(c=NOW + 1), ["one", "two"], id="somebody-else"),
    ],
)
def test_a_denial_elsewhere_ends_what_began_before_it(browser, stopped_at, kept):
    items = [item("one", A), item("two", B)]

    assert names(leave_out_stopped(items, browser, NOW, stopped_at)) == kept


def test_each_epoch_goes_with_its_own_grant_and_ended_ones_stay():
    items = [item("ended", epoch=0), item("default", epoch=1), item("chosen", epoch=2)]
    default = Decision(State.GRANTED, Reason.OPT_OUT_DEFAULT, "policy", Kind.OPT_OUT_DEFAULT)

    groups = group_by_grant(items, {1: default, 2: GRANTED})

    assert [(decision, names(group)) for decision, group in groups] == [
        (default, ["default"]),
        (GRANTED, ["chosen"]),
    ]


def test_nothing_goes_with_a_denial():
    assert group_by_grant([item("one")], {0: DENIED}) == []


def test_a_grant_without_items_is_no_group():
    assert group_by_grant([item("one", epoch=1)], {0: GRANTED}) == []


def test_an_item_changes_nothing_but_whose_it_is():
    assert with_visitor(item("one", A, 3), B) == item("one", B, 3)
