"""The fault runs count truly: what is lost or doubled is never counted as delivered."""

import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults.certificates import Authority
from benchmarks.faults.tally import Tally, Tracked, count
from mp_asgi.dev import StandIn, run_in_thread


def event(number: int, insert_id: str = "a", *, time: int = 1) -> dict[str, Any]:
    properties = {"number": number, "time": time, "$device_id": "d", "$insert_id": insert_id}
    return {"event": "Counted", "properties": properties}


def add(number: int) -> dict[str, Any]:
    return {"$distinct_id": f"user-{number}", "$add": {"count": 1}}


@pytest.mark.parametrize(
    ("events", "people", "dead", "expected"),
    [
        pytest.param([event(0)], [add(7)], [], Tally(2, 2, 0, 0, 0, 0, 0), id="all arrived"),
        pytest.param([], [], [], Tally(2, 0, 0, 2, 0, 0, 0), id="all lost"),
        pytest.param(
            [event(0), event(0)], [add(7)], [], Tally(2, 2, 0, 0, 1, 0, 0), id="the same twice"
        ),
        pytest.param(
            [event(0, "a"), event(0, "b")],
            [add(7)],
            [],
            Tally(2, 2, 0, 0, 0, 1, 0),
            id="another insert ID",
        ),
        pytest.param(
            [event(0), event(0, time=2)],
            [add(7)],
            [],
            Tally(2, 2, 0, 0, 0, 1, 0),
            id="another time",
        ),
        pytest.param(
            [event(0)], [add(7), add(7)], [], Tally(2, 2, 0, 0, 0, 0, 1), id="an add twice"
        ),
        pytest.param([], [], [event(0), add(7)], Tally(2, 0, 2, 0, 0, 0, 0), id="all dead letters"),
        pytest.param(
            [event(0)],
            [add(7)],
            [add(7)],
            Tally(2, 2, 0, 0, 0, 0, 0),
            id="arrived, and a dead letter",
        ),
        pytest.param(
            [event(9)], [add(9)], [], Tally(2, 0, 0, 2, 0, 0, 0), id="arrived, but never told"
        ),
    ],
)
def test_what_was_tracked_is_delivered_dead_or_lost(
    events: Sequence[Any], people: Sequence[Any], dead: Sequence[Any], expected: Tally
) -> None:
    assert count(Tracked({0}, {7}), events, people, dead) == expected


def read(url: str, authority: Path) -> int:
    context = ssl.create_default_context(cafile=str(authority))
    with urllib.request.urlopen(f"{url}/_mp/events", timeout=5, context=context) as answer:
        return int(answer.status)


def test_a_stand_in_speaks_tls_and_only_who_trusts_its_authority_listens(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")

    with run_in_thread(StandIn(), certificate=ours.certify("standin")) as server:
        assert server.url.startswith("https://")
        assert read(server.url, ours.path) == 200
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            read(server.url, theirs.path)
