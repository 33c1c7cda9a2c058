"""One stand-in whose time passes only where somebody waits, and Mixpanel's API in front of it."""

from collections.abc import Callable, Iterator

import pytest

from mp_asgi.dev import StandIn, run_in_thread
from mp_asgi.dev.server import Address
from mp_asgi.erasure.mixpanel import PrivacyAPI
from mp_asgi.erasure.pace import Pace
from tests.erasure.support import TOKEN
from tests.support import FakeClock, make_settings

OAUTH = "0auth-secret"


@pytest.fixture(scope="module")
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="module")
def served(clock: FakeClock) -> Iterator[tuple[StandIn, Address]]:
    standin = StandIn(TOKEN, clock=clock, oauth_token=OAUTH)
    with run_in_thread(standin) as server:
        yield standin, server


@pytest.fixture
def standin(served: tuple[StandIn, Address]) -> StandIn:
    served[0].reset()
    return served[0]


@pytest.fixture
def make_api(
    standin: StandIn, served: tuple[StandIn, Address], clock: FakeClock
) -> Callable[..., PrivacyAPI]:
    def make(**settings: str) -> PrivacyAPI:
        values = {"token": TOKEN, "oauth_token": OAUTH, "api_host": served[1].url, **settings}
        return PrivacyAPI(make_settings(**values), Pace(clock, clock.advance, lambda: 0.0))

    return make


@pytest.fixture
def api(make_api: Callable[..., PrivacyAPI]) -> PrivacyAPI:
    return make_api()
