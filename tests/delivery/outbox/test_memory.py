import pytest

from mp_asgi.delivery.outbox import memory
from mp_asgi.delivery.outbox.base import Outbox, Refusal
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from mp_asgi.events import Endpoint
from mp_asgi.settings import Settings
from tests.delivery.outbox.contract import OutboxContract, make_alias, take
from tests.support import NOW, make_entry, make_settings


class TestMemoryOutbox(OutboxContract):
    def make(self, settings: Settings) -> Outbox:
        return MemoryOutbox(settings)

    def test_a_clock_that_was_ahead_keeps_nothing_else_from_expiring(self, outbox):
        outbox.put([make_entry("future")], NOW + 3650 * 86_400)
        outbox.put([make_entry("a"), make_entry("b")], NOW)

        assert outbox.expire(NOW + 86_401) == 2
        assert outbox.stats().depth == 1

    def test_the_oldest_dead_letters_are_given_up_and_counted(self, monkeypatch):
        monkeypatch.setattr(memory, "MAX_DEAD_LETTERS", 3)
        outbox = self.open()
        many = [f"n{number}" for number in range(memory.MAX_DEAD_LETTERS + 1)]
        outbox.put([make_entry(*many)], NOW)
        (leased,) = take(outbox)

        outbox.bury(leased.id, [Refusal(index, "expired", "") for index in range(len(many))], NOW)

        assert len(outbox.dead()) == memory.MAX_DEAD_LETTERS
        assert outbox.dead()[0].message.name == "n1"
        assert outbox.stats().totals["letters_lost", ""] == 1

    def test_dead_letters_stay_bounded_after_an_erase(self, monkeypatch):
        monkeypatch.setattr(memory, "MAX_DEAD_LETTERS", 3)
        outbox = self.open()
        many = [f"n{number}" for number in range(memory.MAX_DEAD_LETTERS + 1)]
        outbox.erase([b"device"], NOW - 1)
        outbox.put([make_entry(*many)], NOW)
        (leased,) = take(outbox)

        outbox.bury(leased.id, [Refusal(index, "expired", "") for index in range(len(many))], NOW)

        assert len(outbox.dead()) == memory.MAX_DEAD_LETTERS

    def test_the_oldest_stop_marks_are_given_up_but_not_what_they_stopped(self, outbox):
        outbox.forget([b"first"], NOW - 9)
        outbox.forget([b"%d" % number for number in range(memory.MAX_STOP_MARKS)], NOW)

        assert outbox.put([make_entry("a", device=b"first", at=NOW - 9)], NOW).stopped == 1
        assert outbox.put([make_entry("a", device=b"other", at=NOW - 9)], NOW).stopped == 1
        assert outbox.put([make_entry("a", device=b"first", at=NOW - 8)], NOW).stored == 1
        assert outbox.put([make_entry("a", device=b"0", at=NOW - 8)], NOW).stopped == 1

    def test_a_stop_mark_that_is_renewed_is_young_again(self, outbox):
        outbox.forget([b"%d" % number for number in range(memory.MAX_STOP_MARKS)], NOW)
        outbox.forget([b"0"], NOW)

        outbox.forget([b"another"], NOW)

        assert outbox.put([make_entry("a", device=b"0")], NOW).stopped == 1

    def test_what_is_gone_leaves_nothing_behind(self, outbox):
        outbox.put([make_entry("a", "b", user=b"user"), make_entry("c"), make_alias("d", "e")], NOW)
        outbox.split(take(outbox)[0].id)
        outbox.split(take(outbox, endpoint=Endpoint.ALIASES)[0].id)

        for endpoint in Endpoint:
            outbox.ack([item.id for item in take(outbox, NOW + 60, endpoint=endpoint)])

        assert (outbox._by_key, outbox._aliases) == ({}, {})

    @pytest.mark.parametrize("depth", [10, 20_000])
    def test_a_split_of_the_first_entry_moves_no_others(self, outbox, depth):
        outbox = MemoryOutbox(make_settings())
        outbox.put([make_entry("a", "b")] + [make_entry("c")] * depth, NOW)

        outbox.split(0)

        assert [item.id for item in take(outbox, max_messages=3)] == [0, 1, 2]
