"""What some servers do beside serving: they preload, recycle, reload, and refuse to start."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mp_asgi.dev import Fault, StandIn, run_in_thread
from mp_asgi.dev.server import Address
from tests.servers.processes import (
    GUNICORN,
    HYPERCORN,
    SERVERS,
    START_SECONDS,
    UVICORN,
    Kind,
    names,
    run_server,
    run_to_its_end,
)
from tests.servers.trials import Ground
from tests.support import wait_for

AT_ONCE = {"MP_ASGI_FLUSH_INTERVAL": "0.05", "MP_ASGI_CLOSE_TIMEOUT": "0.1"}
AT_THE_END = {"MP_ASGI_FLUSH_INTERVAL": "3600"}


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


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, id=name) for name, kind in SERVERS.items() if kind.ends]
)
def test_a_server_that_is_told_to_stop_delivers_what_waits(
    kind: Kind, standin: StandIn, api_host: str
) -> None:
    with run_server(kind.words, MIXPANEL_API_HOST=api_host, **AT_THE_END) as server:
        server.meet(kind.workers)
        server.get("Waits")
        assert standin.events == []

        server.stop()

    assert names(standin.events) == ["Waits"]


def test_a_reloader_loses_nothing_that_waits(
    standin: StandIn, api_host: str, tmp_path: Path
) -> None:
    ground = Ground(tmp_path, standin, api_host)
    standin.misbehave(Fault.HANG, None)
    source = tmp_path / "watched" / "source.py"
    source.parent.mkdir()
    source.touch()
    words = [*UVICORN, "--reload", "--reload-dir", str(source.parent)]
    with run_server(words, **ground.variables) as server:
        first = server.ask("Before")
        changed = iter(range(1, 1_000_000))
        asked = ["Before"]

        def is_reloaded() -> bool:
            now = source.stat().st_mtime + next(changed)
            os.utime(source, (now, now))
            asked.append(f"While-{len(asked)}")
            return server.ask(asked[-1]) != first

        wait_for(is_reloaded, START_SECONDS)
        server.stop()
    ground.finish(asked)

    assert sorted(names(standin.events)) == sorted(asked)


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
    with run_server(SERVERS["gunicorn preload"].words, **variables) as server:
        server.meet(2)
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


@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_bad_settings_stop_hypercorn_with_one_message(library: str) -> None:
    # Its exit code is 0 all the same.
    _, output = run_to_its_end([*HYPERCORN, "--worker-class", library], **BAD)

    # On trio it draws an exception group.
    assert len(MESSAGE.findall(output.replace("|", " "))) == 1


def test_bad_settings_stop_uvicorn_with_one_message() -> None:
    code, output = run_to_its_end(UVICORN, **BAD)

    assert code == 3
    assert len(MESSAGE.findall(output)) == 1
    assert "Application startup failed. Exiting." in output
    assert "Traceback" not in output
