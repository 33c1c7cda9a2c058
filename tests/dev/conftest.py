"""One stand-in for the tests of this folder, as empty as new for each of them."""

from collections.abc import Iterator

import httpx
import pytest

from mp_asgi.dev import StandIn, run_in_thread
from mp_asgi.dev.server import Address
from tests.dev.messages import NOW


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[StandIn, Address]]:
    standin = StandIn("T", clock=lambda: NOW)
    with run_in_thread(standin) as server:
        yield standin, server


@pytest.fixture
def standin(served: tuple[StandIn, Address]) -> StandIn:
    served[0].reset()
    return served[0]


@pytest.fixture
def address(served: tuple[StandIn, Address]) -> Address:
    return served[1]


@pytest.fixture
def client(standin: StandIn, served: tuple[StandIn, Address]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served[1].url, timeout=5) as client:
        yield client
