import pytest

from mp_asgi.accounts import FRESH_SECONDS, MAX_REMEMBERED, Accounts
from mp_asgi.events import ActState, Standing
from tests.support import NOW, FakeClock

DENIED = Standing(ActState.DENIED, NOW, NOW)


class Desk:
    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.clock = FakeClock()
        self.accounts = Accounts(self.asked.append, self.clock)


def test_who_is_not_known_is_asked_for_and_changes_nothing():
    desk = Desk()

    assert desk.accounts.get(b"user") is None
    assert desk.asked == [b"user"]


def test_what_was_learned_is_answered():
    desk = Desk()

    desk.accounts.learn({b"user": DENIED})

    assert desk.accounts.get(b"user") == DENIED


def test_a_subject_without_records_is_not_known_any_more():
    desk = Desk()
    desk.accounts.learn({b"user": DENIED})

    desk.accounts.learn({b"user": None, b"other": None})

    assert desk.accounts.get(b"user") is None


@pytest.mark.parametrize(
    ("seconds", "times"),
    [
        pytest.param(FRESH_SECONDS, 1, id="fresh"),
        pytest.param(FRESH_SECONDS + 1, 2, id="old"),
    ],
)
def test_an_old_answer_still_holds_and_is_asked_for_again(seconds, times):
    desk = Desk()
    desk.accounts.get(b"user")
    desk.accounts.learn({b"user": DENIED})
    desk.clock.advance(seconds)

    assert desk.accounts.get(b"user") == DENIED
    assert desk.asked == [b"user"] * times


def test_the_memory_is_bounded_and_forgets_the_oldest():
    desk = Desk()
    keys = [number.to_bytes(4) for number in range(MAX_REMEMBERED + 1)]

    for key in keys:
        desk.accounts.get(key)
        desk.accounts.learn({key: DENIED})
    answers = [desk.accounts.get(key) for key in (keys[1], keys[-1], keys[0])]

    assert answers == [DENIED, DENIED, None]
    assert desk.asked == [*keys, keys[0]]


def test_learning_again_of_somebody_known_forgets_nobody():
    desk = Desk()
    keys = [number.to_bytes(4) for number in range(MAX_REMEMBERED)]
    desk.accounts.learn(dict.fromkeys(keys, DENIED))

    desk.accounts.learn({keys[-1]: DENIED})

    assert desk.accounts.get(keys[0]) == DENIED
