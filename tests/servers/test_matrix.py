"""What holds on every server: answers wait for nobody, and what was answered for is not lost."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mp_asgi.dev import StandIn, run_in_thread
from mp_asgi.dev.server import Address
from tests.servers.processes import SERVERS, TOKEN, Kind, Server, names, run_server
from tests.servers.trials import (
    HURRIED,
    STRICT,
    Ground,
    Trial,
    hang_and_terminate,
    kill,
    terminate_under_load,
)

# An answer that waits for Mixpanel waits for half a minute.
ANSWER_SECONDS = 5.0


def choose(*, delivers: bool = False, workers: int = 1) -> list[object]:
    """Answer the servers to try, with the reason where one cannot be started here."""
    return [
        pytest.param(
            kind, id=name, marks=pytest.mark.skipif(bool(kind.problem), reason=kind.problem)
        )
        for name, kind in SERVERS.items()
        if kind.workers >= workers and (kind.delivers or not delivers)
    ]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[StandIn, Address]]:
    standin = StandIn(TOKEN)
    with run_in_thread(standin) as address:
        yield standin, address


@pytest.fixture
def standin(served: tuple[StandIn, Address]) -> Iterator[StandIn]:
    standin, _ = served
    standin.reset()
    yield standin
    assert standin.rejected == []


@pytest.fixture
def ground(served: tuple[StandIn, Address], standin: StandIn, tmp_path: Path) -> Ground:
    return Ground(tmp_path, standin, served[1].url)


@pytest.fixture(scope="module", params=choose(delivers=True))
def server(
    request: pytest.FixtureRequest,
    served: tuple[StandIn, Address],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    state = str(tmp_path_factory.mktemp("state"))
    variables = {"MIXPANEL_API_HOST": served[1].url, "MP_ASGI_STATE_DIRECTORY": state, **HURRIED}
    with run_server(request.param.words, **variables) as server:
        yield server


def test_each_event_arrives_once_and_says_whose_it_is(server: Server, standin: StandIn) -> None:
    cookie = server.get("First").headers.get_list("set-cookie")[-1].partition(";")[0]
    server.get("Second", Cookie=cookie)

    one, two = standin.wait_for(2)
    assert sorted(names([one, two])) == ["First", "Second"]
    assert one["properties"]["$device_id"] == two["properties"]["$device_id"]
    assert one["properties"]["$device_id"] in cookie
    assert standin.duplicates() == {}


def test_our_cookie_is_set_once_beside_the_apps_own(server: Server, standin: StandIn) -> None:
    first = server.get("First")
    *others, ours = first.headers.get_list("set-cookie")
    cookie, *attributes = ours.split("; ")
    again = server.get("Second", Cookie=cookie)

    assert others == again.headers.get_list("set-cookie") == ["cart=3; Path=/", "theme=dark"]
    assert cookie.startswith("mp_id=")
    assert sorted(attributes) == ["HttpOnly", "Max-Age=34128000", "Path=/", "SameSite=Lax"]
    assert (first.headers["x-kept"], first.headers["vary"]) == ("1", "Cookie")
    standin.wait_for(2)


@pytest.mark.parametrize("kind", choose())
def test_a_mixpanel_that_hangs_delays_no_answer_and_loses_nothing_at_sigterm(
    kind: Kind, ground: Ground
) -> None:
    trial = hang_and_terminate(ground, kind)

    assert max(trial.waits.values()) < ANSWER_SECONDS
    assert sorted(trial.arrived) == sorted(trial.answered)
    assert trial.ends >= kind.ends


@pytest.mark.parametrize("kind", choose())
def test_a_strict_server_that_is_killed_after_an_answer_has_lost_nothing(
    kind: Kind, ground: Ground
) -> None:
    trial = kill(ground, kind)

    assert_kept(trial)


@pytest.mark.parametrize("kind", choose())
def test_sigterm_under_load_loses_nothing(kind: Kind, ground: Ground) -> None:
    trial = terminate_under_load(ground, kind)

    assert_kept(trial)
    # Who ends without a word has no time to note what Mixpanel took: it comes again.
    assert trial.repeated == [] or not kind.ends


@pytest.mark.parametrize("kind", choose())
def test_sigterm_under_load_loses_nothing_of_a_strict_server(kind: Kind, ground: Ground) -> None:
    trial = terminate_under_load(ground, kind, **STRICT)

    assert_kept(trial)


@pytest.mark.parametrize("kind", choose(workers=2))
def test_every_worker_delivers(kind: Kind, ground: Ground, standin: StandIn) -> None:
    with run_server(kind.words, **ground.variables) as server, ThreadPoolExecutor(8) as pool:
        asked = [f"Load-{number}" for number in range(40)]
        answers = [answer.json() for answer in pool.map(server.get, asked)]
        standin.wait_for(len(asked), timeout=10.0)

    senders = {answer["pid"] for answer in answers if "mp-asgi-sender" in answer["threads"]}
    assert len({answer["pid"] for answer in answers}) >= kind.workers
    assert len(senders) >= kind.workers
    assert sorted(names(standin.events)) == sorted(asked)


def assert_kept(trial: Trial) -> None:
    """Each event that was answered for arrived, and counts once."""
    assert trial.lost == set()
    assert trial.doubled == []
