"""An office for the commands about people, on a stand-in and a ledger of its own."""

from collections.abc import Iterator

import pytest

from mp_asgi.dev import StandIn, run_in_thread
from mp_asgi.dev.server import Address
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
