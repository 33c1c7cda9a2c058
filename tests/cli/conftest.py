"""An office for the commands about people, on a stand-in and a ledger of its own; and a depot for
those about the outbox.
"""

from collections.abc import Iterator

import pytest
from redis import Redis

from mp_asgi.dev import StandIn, run_in_thread
from mp_asgi.dev.server import Address
from tests.cli.depot import Depot
from tests.cli.people import LEDGER_KEY, OAUTH, TOKEN, Office
from tests.support import FakeClock


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[StandIn, Address, FakeClock]]:
    clock = FakeClock()
    standin = StandIn(TOKEN, clock=clock, oauth_token=OAUTH)
    with run_in_thread(standin) as server:
        yield standin, server, clock


@pytest.fixture
def office(served, tmp_path, monkeypatch, capsys) -> Iterator[Office]:
    standin, server, clock = served
    standin.reset()
    monkeypatch.setenv("MIXPANEL_TOKEN", TOKEN)
    monkeypatch.setenv("MIXPANEL_OAUTH_TOKEN", OAUTH)
    monkeypatch.setenv("MIXPANEL_API_HOST", server.url)
    monkeypatch.setenv("MP_ASGI_SECRET_KEYS", "k" * 32)
    monkeypatch.setenv("MP_ASGI_LEDGER", str(tmp_path / "ledger.db"))
    monkeypatch.setenv("MP_ASGI_LEDGER_KEYS", LEDGER_KEY)
    office = Office(standin, clock, tmp_path, capsys)
    office.fill()
    yield office
    office.ledger.close()


@pytest.fixture
def without_ledger(office, monkeypatch) -> None:
    monkeypatch.delenv("MP_ASGI_LEDGER")
    monkeypatch.delenv("MP_ASGI_LEDGER_KEYS")


@pytest.fixture(scope="module")
def mixpanel() -> Iterator[tuple[StandIn, Address]]:
    standin = StandIn(TOKEN)
    with run_in_thread(standin) as server:
        yield standin, server


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory) -> Iterator[str]:
    from tests.redis_server import RedisServer

    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def depot(request, mixpanel, tmp_path, monkeypatch, capsys) -> Iterator[Depot]:
    standin, server = mixpanel
    standin.reset()
    if getattr(request, "param", "sqlite") == "redis":
        url = request.getfixturevalue("redis_url")
        Redis.from_url(url).flushall()
        monkeypatch.setenv("MP_ASGI_OUTBOX", url)
    monkeypatch.setenv("MIXPANEL_TOKEN", TOKEN)
    monkeypatch.setenv("MIXPANEL_API_HOST", server.url)
    monkeypatch.setenv("MP_ASGI_SECRET_KEYS", "k" * 32)
    monkeypatch.setenv("MP_ASGI_CLOSE_TIMEOUT", "0.5")
    depot = Depot(standin, tmp_path, capsys)
    yield depot
    depot.outbox.close()
