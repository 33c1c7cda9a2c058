from mp_asgi.delivery.intake import Intake
from mp_asgi.events import Stop
from tests.support import NOW


def test_a_mark_stands_behind_what_was_submitted_and_wakes_the_storer():
    intake: Intake[str] = Intake()
    intake.items.append(("item", 3))

    mark = intake.mark()

    assert intake.take() == [("item", 3), (mark, 0)]
    assert intake.wake.is_set()


def test_what_is_taken_waits_still():
    intake: Intake[str] = Intake()
    intake.items.extend([("a", 1), ("b", 2)])

    intake.take()

    assert (intake.waiting(), intake.has_items()) == (3, False)


def test_a_stop_is_an_item_and_a_mark_is_none():
    intake: Intake[str] = Intake()
    intake.mark()
    before = intake.has_items()

    intake.items.append((Stop([b"device"], NOW), 0))

    assert (before, intake.has_items(), intake.waiting()) == (False, True, 0)


def test_what_a_storer_takes_while_somebody_counts_is_not_missed():
    class Raced(Intake[str]):
        """Its storer's turn comes whenever somebody has looked what it has in hand."""

        @property
        def in_hand(self) -> int:
            seen, self._hand = self._hand, self._hand + sum(count for _, count in self.items)
            self.items.clear()
            return seen

        @in_hand.setter
        def in_hand(self, count: int) -> None:
            self._hand = count

    intake = Raced()
    intake.items.append(("item", 3))

    assert intake.waiting() >= 3


def test_counting_survives_an_append_in_between():
    class Restless:
        """Changes while it is read, the first time."""

        is_quiet = False

        def __iter__(self):
            if not self.is_quiet:
                self.is_quiet = True
                raise RuntimeError("deque mutated during iteration")
            return iter([("item", 3)])

    intake: Intake[str] = Intake()
    intake.items = Restless()

    assert intake.waiting() == 3


def test_what_is_left_at_the_end_is_in_nobodys_hand():
    intake: Intake[str] = Intake()
    intake.items.append(("a", 1))

    taken = intake.take_left(0.0)

    assert taken == ([("a", 1)], 0)
    assert (intake.waiting(), intake.storing.locked()) == (0, False)


def test_what_a_storer_that_hangs_has_in_hand_is_told_at_the_end():
    intake: Intake[str] = Intake()
    intake.items.append(("hangs", 3))

    with intake.storing:
        intake.take()
        intake.items.append(("left", 1))
        taken = intake.take_left(0.01)
        is_still_held = intake.storing.locked()

    assert taken == ([("left", 1)], 3)
    assert is_still_held
