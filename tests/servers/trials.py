"""Try what a server does to events: Mixpanel hangs, SIGTERM and kill -9 come at bad moments."""

import http.client
import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from mp_asgi import Analytics, Settings
from mp_asgi.delivery.pump import LEASE_SECONDS
from mp_asgi.dev import Fault, StandIn
from tests.servers.processes import GRANTED, Kind, Server, environ, names, run_server

STRICT = {"MP_ASGI_DURABILITY": "strict"}
# What hangs must not make the end of each server last.
HURRIED = {"MP_ASGI_FLUSH_INTERVAL": "0.05", "MP_ASGI_CLOSE_TIMEOUT": "0.2"}
THREADS = 8
REQUESTS = 800  # at most; a server that goes down ends them before
STOP_AFTER = 100  # requests that are answered
KILLED_AFTER = 20  # the same
DELIVERY_SECONDS = 5.0


@dataclass(frozen=True)
class Trial:
    """What came of it.

    Attributes:
        answered: Events whose requests got their whole answer.
        arrived: Events that Mixpanel kept, once another process had delivered what was left.
        keys: The `$insert_id` of each of these.
        code: The server's exit code.
        seconds: How long its end took.
        ends: What ran in it at its end.
        waits: Seconds until an answer, by the kind of request.
    """

    answered: Sequence[str]
    arrived: Sequence[str]
    keys: Sequence[tuple[str, str]]
    code: int
    seconds: float
    ends: frozenset[str]
    waits: Mapping[str, float]

    @property
    def lost(self) -> set[str]:
        return set(self.answered) - set(self.arrived)

    @property
    def doubled(self) -> list[str]:
        """Events that Mixpanel counts twice: they came under two keys."""
        counts = Counter(name for name, _ in set(self.keys))
        return [name for name, count in counts.items() if count > 1]

    @property
    def repeated(self) -> list[str]:
        """Events that came again under the same key, which Mixpanel counts once."""
        counts = Counter(self.keys)
        return [name for (name, _), count in counts.items() if count > 1]


class Ground:
    """Where one trial takes place.

    Args:
        directory: Empty.
        standin: Mixpanel, which has got nothing yet.
        api_host: Where it is.
    """

    def __init__(self, directory: Path, standin: StandIn, api_host: str) -> None:
        self.standin = standin
        self._notes = directory / "ends"
        state = {"MP_ASGI_STATE_DIRECTORY": str(directory / "state"), "MIXPANEL_API_HOST": api_host}
        self.variables = {**state, "NOTE_ENDS": str(self._notes), **HURRIED}

    def finish(self, answered: Sequence[str]) -> None:
        """Let another process deliver what is left, two minutes later: no lease holds it back."""
        settings = Settings.from_env(environ(**self.variables))
        later = partial(_later, LEASE_SECONDS + 1)
        self.standin.behave()
        with closing(Analytics(settings, clock=later)) as analytics:
            analytics.start()
            deadline = time.monotonic() + DELIVERY_SECONDS
            while time.monotonic() < deadline:
                analytics.flush(DELIVERY_SECONDS)
                if self.standin.records.wait_until(partial(self._has, answered), 0.1):
                    break

    def ends(self) -> frozenset[str]:
        return frozenset(self._notes.read_text().split() if self._notes.exists() else ())

    def _has(self, answered: Sequence[str]) -> bool:
        return set(answered) <= set(names(self.standin.events))


def hang_and_terminate(ground: Ground, kind: Kind) -> Trial:
    """Let Mixpanel hang and go on asking; SIGTERM follows the last answer at once."""
    ground.standin.misbehave(Fault.HANG, None)
    with run_server(kind.words, **ground.variables) as server:
        server.meet(kind.workers)
        with httpx.Client(base_url=server.url, headers=GRANTED, timeout=60) as client:
            client.get("/First").raise_for_status()
            if kind.delivers:
                ground.standin.wait_for(lambda standin: standin.requests != [])
            waits = {
                "sized": _time(client, "/Sized?sized"),
                "streamed": _time(client, "/Streamed"),
                "next": _time(client, "/Next"),
            }
        answered = ["First", "Sized", "Streamed", "Next"]
        began = time.monotonic()
        code = server.stop(may_hang=kind.may_hang)
    return _conclude(ground, answered, code, time.monotonic() - began, waits=waits)


def kill(ground: Ground, kind: Kind) -> Trial:
    """Kill a strict server in the moment after an answer."""
    variables = {**ground.variables, **STRICT}
    with run_server(kind.words, **variables) as server:
        answered = [f"Kill-{number}" for number in range(KILLED_AFTER)]
        for name in answered:
            server.ask(name)
        began = time.monotonic()
        code = server.stop(signal.SIGKILL)
    return _conclude(ground, answered, code, time.monotonic() - began)


def terminate_under_load(ground: Ground, kind: Kind, **variables: str) -> Trial:
    """Send SIGTERM while eight threads ask."""
    with run_server(kind.words, **ground.variables, **variables) as server:
        server.meet(kind.workers)
        crowd = Crowd(server)
        crowd.ask_once("First")
        if kind.delivers:
            ground.standin.wait_for(1)  # the outbox is open
        with ThreadPoolExecutor(THREADS) as pool:
            asking = [pool.submit(crowd.ask, first) for first in range(THREADS)]
            assert crowd.is_warm.wait(DELIVERY_SECONDS), server.output.text
            began = time.monotonic()
            code = server.stop(may_hang=kind.may_hang)
            seconds = time.monotonic() - began
            for future in asking:
                future.result()
    return _conclude(ground, crowd.answered, code, seconds)


class Crowd:
    """Visitors who ask one after the other, until nobody answers.

    Attributes:
        answered: Events whose requests were answered.
        is_warm: Set once there are enough answers.
    """

    def __init__(self, server: Server) -> None:
        self.answered: list[str] = []
        self.is_warm = threading.Event()
        self._server = server

    def ask(self, first: int) -> None:
        for number in range(first, REQUESTS, THREADS):
            try:
                self.ask_once(f"Load-{number}")
            except (OSError, http.client.HTTPException):
                return
            if len(self.answered) >= STOP_AFTER:
                self.is_warm.set()

    def ask_once(self, name: str) -> None:
        self._server.ask(name)
        self.answered.append(name)


def _conclude(
    ground: Ground,
    answered: Sequence[str],
    code: int,
    seconds: float,
    *,
    waits: Mapping[str, float] | None = None,
) -> Trial:
    ground.finish(answered)
    events = ground.standin.events
    return Trial(
        answered=answered,
        arrived=names(events),
        keys=[(event["event"], event["properties"]["$insert_id"]) for event in events],
        code=code,
        seconds=seconds,
        ends=ground.ends(),
        waits=waits or {},
    )


def _time(client: httpx.Client, path: str) -> float:
    began = time.monotonic()
    client.get(path).raise_for_status()
    return time.monotonic() - began


def _later(seconds: float) -> float:
    return time.time() + seconds
