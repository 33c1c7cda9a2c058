import pytest

from mp_asgi.delivery import choices as room
from mp_asgi.delivery.choices import MAX_WAITING, Choices
from mp_asgi.events import ActState, Link
from tests.support import NOW, make_act

GRANTED, DENIED, LIFTED, ERASED = ActState
LINK = Link("ada", "d-1", b"user", b"device", NOW)


@pytest.fixture
def choices():
    return Choices()


def add(choices, *items):
    return [choices.add(item) for item in items]


def test_everything_waits_in_its_order(choices):
    items = [make_act(GRANTED, key=b"a"), LINK, make_act(DENIED, key=b"b"), make_act(DENIED)]

    add(choices, *items)

    assert choices.first(9) == items
    assert choices.first(3) == items[:3]
    assert len(choices) == 4


def test_what_was_taken_is_gone_and_what_came_meanwhile_stays(choices):
    grant, denial = make_act(GRANTED, key=b"a"), make_act(DENIED, key=b"b")
    late = make_act(DENIED, key=b"c")
    add(choices, grant, denial)
    batch = choices.first(9)
    add(choices, late)

    choices.remove(batch)

    assert choices.first(9) == [late]


def test_a_change_of_mind_is_kept_whole(choices):
    acts = [make_act(DENIED), make_act(LIFTED, at=NOW + 1), make_act(DENIED, at=NOW + 2)]

    add(choices, *acts)

    assert choices.first(9) == acts


def test_a_key_is_talked_about_as_long_as_anything_of_it_waits(choices):
    add(choices, make_act(DENIED), make_act(GRANTED, at=NOW + 1))

    choices.remove(choices.first(1))
    is_talked_about = choices.is_about(b"user")
    choices.remove(choices.first(9))

    assert is_talked_about
    assert not choices.is_about(b"user")
    assert len(choices) == 0


def test_a_denial_is_never_given_up_for_the_grants_of_others(choices):
    add(choices, *(make_act(GRANTED, key=b"%d" % number) for number in range(MAX_WAITING)))
    denial = make_act(DENIED, key=b"user")

    assert add(choices, make_act(GRANTED, key=b"one more"), LINK, denial) == [False, False, True]

    assert choices.first(MAX_WAITING + 1)[-1] == denial


def test_denials_are_bounded_too(choices, monkeypatch):
    monkeypatch.setattr(room, "MAX_WAITING_DENIALS", 2)

    kept = add(choices, *(make_act(DENIED, key=b"%d" % number) for number in range(3)))

    assert kept == [True, True, False]


def test_a_place_is_past_when_everything_up_to_it_is_gone(choices):
    add(choices, make_act(GRANTED, key=b"a"), make_act(DENIED, key=b"b"))
    place = choices.last_place()
    add(choices, make_act(GRANTED, key=b"c"))

    choices.remove(choices.first(1))
    is_past_half = choices.is_past(place)
    choices.remove(choices.first(1))

    assert (is_past_half, choices.is_past(place)) == (False, True)
    assert Choices().is_past(Choices().last_place())
