import pytest

from mp_asgi.delivery.outbox import memory
from mp_asgi.delivery.outbox.base import Outbox
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from mp_asgi.events import Endpoint
from mp_asgi.settings import Settings
from tests.delivery.outbox.contract import OutboxContract, make_alias, take
from tests.support import NOW, make_entry, make_settings


class TestMemoryOutbox(OutboxContract):
    def make(self, settings: Settings) -> Outbox:
        return MemoryOutbox(settings)

    def test_a_stop_mark_that_is_renewed_is_young_again(self, outbox):
        outbox.forget([b"%d" % number for number in range(memory.MAX_STOP_MARKS)], NOW, NOW)
        outbox.forget([b"0"], NOW, NOW)

        outbox.forget([b"another"], NOW, NOW)

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
