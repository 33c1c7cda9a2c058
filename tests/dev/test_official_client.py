"""The official client, unchanged, takes the stand-in for Mixpanel."""

import time
from collections.abc import Callable, Iterator

import pytest
from mixpanel import Consumer, Mixpanel, MixpanelException

from mp_asgi.dev import StandIn, run_in_thread


@pytest.fixture
def official() -> Iterator[tuple[Mixpanel, StandIn]]:
    standin = StandIn("T")
    with run_in_thread(standin) as server:
        paths = {"events": "track", "people": "engage", "groups": "groups", "import": "import"}
        consumer = Consumer(**{f"{name}_url": f"{server.url}/{p}" for name, p in paths.items()})
        yield Mixpanel("T", consumer=consumer), standin
        consumer._session.close()


@pytest.mark.parametrize(
    ("call", "view"),
    [
        pytest.param(lambda mp: mp.track("U", "Ordered ☕", {"n": 1}), "events", id="track"),
        pytest.param(
            lambda mp: mp.import_data("k", "U", "A", time.time(), api_secret="T"),
            "events",
            id="import_data",
        ),
        pytest.param(lambda mp: mp.people_set("U", {"a": 1}), "people", id="people_set"),
        pytest.param(lambda mp: mp.people_increment("U", {"a": 1}), "people", id="increment"),
        pytest.param(lambda mp: mp.people_delete("U"), "people", id="people_delete"),
        pytest.param(lambda mp: mp.people_clear_charges("U"), "people", id="clear_charges"),
        pytest.param(lambda mp: mp.group_set("k", "g", {"a": 1}), "groups", id="group_set"),
    ],
)
def test_the_official_client_is_accepted(
    official: tuple[Mixpanel, StandIn], call: Callable[[Mixpanel], None], view: str
) -> None:
    client, standin = official

    call(client)

    assert len(getattr(standin, view)) == 1
    assert standin.rejected == []


def test_the_official_client_reads_our_errors(official: tuple[Mixpanel, StandIn]) -> None:
    client, _ = official

    with pytest.raises(MixpanelException, match="Mixpanel error: token, missing or empty"):
        client.track("U", "A", {"token": ""})
