"""Play the machine of `deliveries.py` over a real Redis."""

import uuid

from hypothesis.stateful import run_state_machine_as_test

from mp_asgi.delivery.outbox.base import Outbox
from mp_asgi.delivery.outbox.redis import RedisOutbox
from tests.machine.deliveries import Deliveries, effort
from tests.redis_server import RedisServer, server, shared_server

__all__ = ["server", "shared_server"]


class RedisDeliveries(Deliveries):
    """Two processes with one server; who starts connects anew."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.project = uuid.uuid4().hex
        self.opened: list[RedisOutbox] = []
        super().__init__()

    def open_outbox(self) -> Outbox:
        outbox = RedisOutbox(self.url, self.settings, self.project)
        self.opened.append(outbox)
        return outbox

    def teardown(self):
        super().teardown()
        for outbox in self.opened:
            outbox.close()


def test_what_is_shared_by_redis_keeps_every_promise(shared_server: RedisServer):
    def start() -> RedisDeliveries:
        return RedisDeliveries(shared_server.url)

    run_state_machine_as_test(start, settings=effort(25))
