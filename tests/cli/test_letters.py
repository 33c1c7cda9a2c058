import pytest

from mp_asgi.cli.letters import Letters
from tests.support import NOW


class Counted:
    """An outbox that counts how many letters are read."""

    def __init__(self, outbox):
        self.read = 0
        self._outbox = outbox

    def dead(self, after, limit):
        letters = self._outbox.dead(after, limit)
        self.read += len(letters)
        return letters


@pytest.fixture
def counted(depot):
    return Counted(depot.outbox)


def look(letters, depot):
    letters.read()
    return letters.of(depot.outbox.stats().dead)


def test_each_is_known_by_reason_and_time(depot, counted):
    depot.bury("A")
    depot.bury("B", reason="expired", at=NOW + 1)

    assert look(Letters(counted), depot) == [("rejected", NOW), ("expired", NOW + 1)]


def test_each_is_read_once(depot, counted):
    letters = Letters(counted)
    depot.bury("A", "B")
    look(letters, depot)
    look(letters, depot)
    depot.bury("C")

    assert len(look(letters, depot)) == 3
    assert counted.read == 3


def test_what_was_given_up_is_not_known_any_more_and_the_rest_not_read_again(depot, counted):
    letters = Letters(counted)
    depot.bury("A", "B", "C", "D")
    look(letters, depot)

    depot.outbox.purge([1])

    assert len(look(letters, depot)) == 3
    assert counted.read == 5


@pytest.mark.parametrize("ids", [[2], [1, 3], [1, 2, 3]], ids=["middle", "ends", "all"])
def test_what_was_purged_is_not_known_any_more(depot, counted, ids):
    letters = Letters(counted)
    depot.bury("A", "B", "C", reason="expired")
    look(letters, depot)

    depot.outbox.purge(ids)

    assert len(look(letters, depot)) == 3 - len(ids)


def test_what_dies_between_reading_and_counting_is_known_the_next_time(depot, counted):
    letters = Letters(counted)
    depot.bury("A")
    letters.read()
    depot.bury("B")

    assert len(letters.of(depot.outbox.stats().dead)) == 1
    assert len(look(letters, depot)) == 2
