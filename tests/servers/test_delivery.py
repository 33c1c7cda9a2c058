"""Real servers deliver each event once, and nobody's answer waits for Mixpanel."""

import re
from collections.abc import Iterator

import pytest

from mp_asgi.dev import Fault, StandIn, run_in_thread
from mp_asgi.dev.server import Address
from tests.servers.processes import (
    COMMANDS,
    GUNICORN,
    Server,
    names,
    run_server,
    run_to_its_end,
)

AT_ONCE = {"MP_ASGI_FLUSH_INTERVAL": "0.05", "MP_ASGI_CLOSE_TIMEOUT": "0.1"}
AT_THE_END = {"MP_ASGI_FLUSH_INTERVAL": "3600"}
ALL = pytest.mark.parametrize("name", COMMANDS)


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[StandIn, Address]]:
    standin = StandIn("t0ken")
    with run_in_thread(standin) as address:
        yield standin, address


@pytest.fixture
def standin(served: tuple[StandIn, Address]) -> Iterator[StandIn]:
    standin, _ = served
    standin.reset()
    yield standin
    assert standin.rejected == []
    assert standin.duplicates() == {}


@pytest.fixture(scope="module")
def api_host(served: tuple[StandIn, Address]) -> str:
    return served[1].url


@pytest.fixture(scope="module", params=COMMANDS)
def server(request: pytest.FixtureRequest, api_host: str) -> Iterator[Server]:
    with run_server(COMMANDS[request.param], MIXPANEL_API_HOST=api_host, **AT_ONCE) as server:
        yield server


def test_each_event_arrives_once_and_says_whose_it_is(server: Server, standin: StandIn) -> None:
    first = server.get("First")
    cookie = first.headers["set-cookie"].partition(";")[0]
    server.get("Second", Cookie=cookie)

    one, two = standin.wait_for(2)
    assert sorted(names([one, two])) == ["First", "Second"]
    assert one["properties"]["$device_id"] == two["properties"]["$device_id"]
    assert one["properties"]["$device_id"] in cookie


def test_the_cookie_is_set_once_and_the_apps_header_kept(server: Server, standin: StandIn) -> None:
    first = server.get("First")
    cookie, *attributes = first.headers["set-cookie"].split("; ")
    again = server.get("Second", Cookie=cookie)

    assert cookie.startswith("mp_id=")
    assert sorted(attributes) == ["HttpOnly", "Max-Age=34128000", "Path=/", "SameSite=Lax"]
    assert (first.headers["x-kept"], first.headers["vary"]) == ("1", "Cookie")
    assert "set-cookie" not in again.headers
    standin.wait_for(2)


@ALL
def test_answers_do_not_wait_for_a_mixpanel_that_hangs(
    name: str, standin: StandIn, api_host: str
) -> None:
    standin.misbehave(Fault.SLOW, times=None, seconds=60)
    with run_server(COMMANDS[name], MIXPANEL_API_HOST=api_host, **AT_ONCE) as server:
        server.get("First")
        standin.wait_for(lambda standin: standin.requests != [])
        answers = [server.get("Later") for _ in range(3)]

    # Had an answer waited for its delivery, it had waited behind the first one, for a minute.
    assert [answer.status_code for answer in answers] == [200] * 3
    assert standin.events[0]["event"] == "First"


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "waitress"])
def test_a_server_that_is_told_to_stop_delivers_what_waits(
    name: str, standin: StandIn, api_host: str
) -> None:
    with run_server(COMMANDS[name], MIXPANEL_API_HOST=api_host, **AT_THE_END) as server:
        server.get("Waits")
        assert standin.events == []

        server.stop()

    assert names(standin.events) == ["Waits"]


def test_a_worker_starts_its_threads_at_its_first_event(standin: StandIn, api_host: str) -> None:
    command = [*GUNICORN, "--preload"]
    with run_server(command, MIXPANEL_API_HOST=api_host, **AT_ONCE) as server:
        before, after = (server.get(name).json() for name in ("First", "Second"))

        assert before["pid"] == after["pid"] != server.process.pid
        assert [thread for thread in before["threads"] if thread.startswith("mp-asgi")] == []
        assert {"mp-asgi-storer", "mp-asgi-sender"} < set(after["threads"])
        assert sorted(names(standin.wait_for(2))) == ["First", "Second"]


def test_what_waits_at_the_fork_is_sent_once_by_the_parent(standin: StandIn, api_host: str) -> None:
    variables = {**AT_THE_END, "TRACK_AT_IMPORT": "Imported", "MIXPANEL_API_HOST": api_host}
    with run_server(COMMANDS["gunicorn preload"], **variables) as server:
        server.get("Served")
        server.stop()

    assert sorted(names(standin.events)) == ["Imported", "Served"]


BAD = {"MIXPANEL_TOKEN": "", "MP_ASGI_BATCH_SIZE": "5k", "MP_ASGI_FLUSH_INTERVALL": "1"}
MESSAGE = re.compile(
    r"mp-asgi cannot start with these settings:"
    r"\s+- MP_ASGI_BATCH_SIZE is '5k'\. [^\n]*"
    r"\s+- MP_ASGI_FLUSH_INTERVALL is no setting\. Did you mean MP_ASGI_FLUSH_INTERVAL\?"
    r"\s+- MIXPANEL_TOKEN is not set\. "
)


@pytest.mark.parametrize(
    ("options", "times"),
    # Without --preload gunicorn itself says it twice: as a traceback, and once more.
    [([], 2), (["--preload"], 1)],
    ids=["workers", "preload"],
)
def test_bad_settings_stop_gunicorn_with_one_message(options: list[str], times: int) -> None:
    code, output = run_to_its_end([*GUNICORN, *options], **BAD)

    assert code != 0
    assert len(MESSAGE.findall(output)) == times


@pytest.mark.parametrize("name", ["hypercorn asyncio", "hypercorn trio"])
def test_bad_settings_stop_hypercorn_with_one_message(name: str) -> None:
    # Its exit code is 0 all the same.
    _, output = run_to_its_end(COMMANDS[name], **BAD)

    # On trio it draws an exception group.
    assert len(MESSAGE.findall(output.replace("|", " "))) == 1


def test_bad_settings_stop_uvicorn_with_one_message() -> None:
    code, output = run_to_its_end(COMMANDS["uvicorn"], **BAD)

    assert code == 3
    assert len(MESSAGE.findall(output)) == 1
    assert "Application startup failed. Exiting." in output
    assert "Traceback" not in output
