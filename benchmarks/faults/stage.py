"""Set up a run: a stand-in, a state directory, processes that track; and take all of it down."""

import contextlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3

from mp_asgi.dev import StandIn, run_in_thread
from mp_asgi.dev.server import Address

from .tally import Tally, Tracked, count

TOKEN = "t0ken"
ANSWER_SECONDS = 120.0
EXIT_SECONDS = 30.0
FINISH_SECONDS = 300.0  # a lease that nobody ends takes 120 s to run out
# A new connection each: a kept one would always lead to the same worker.
HEADERS = {"X-MP-Consent": "granted", "Connection": "close"}


class Producer:
    """A process that tracks what it is told (`producer.py`)."""

    def __init__(self, environ: Mapping[str, str], log: Path) -> None:
        with log.open("ab") as messages:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.faults.producer"],
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=messages,
            )
        self.read()

    def tell(self, verb: str, **values: Any) -> None:
        """Send an order, and do not wait for what it answers."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": verb, **values}).encode() + b"\n")
        self.process.stdin.flush()

    def ask(self, verb: str, **values: Any) -> Any:
        """Send an order, and answer what it answers."""
        self.tell(verb, **values)
        return self.read()

    def read(self, seconds: float = ANSWER_SECONDS + FINISH_SECONDS) -> Any:
        """Answer the next line.

        Raises:
            TimeoutError: None came.
            EOFError: The process has ended.
        """
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                raise TimeoutError("The producer does not answer.")
        line = self.process.stdout.readline()
        if not line:
            raise EOFError("The producer has ended.")
        return json.loads(line)

    def end(self, how: signal.Signals | None = None) -> None:
        """Let the process end, by a signal if one is named, and wait for it."""
        if how is not None:
            self.process.send_signal(how)
        else:
            self.tell("exit")
        self.process.wait(EXIT_SECONDS)

    def rest(self) -> bytes:
        """Answer what an ended process had written and nobody has read."""
        assert self.process.stdout is not None
        return self.process.stdout.read()


class Site:
    """A server process with an app that tracks (`app.py`)."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.process = process
        self._url = url
        self._pool = urllib3.PoolManager(maxsize=8, retries=False)

    def track(self, first: int, number: int = 1, *, seconds: float = ANSWER_SECONDS) -> int:
        """Let a consenting visitor track; answer the process that did, once it has answered."""
        url = f"{self._url}/?first={first}&count={number}"
        response = self._pool.request("GET", url, headers=HEADERS, timeout=seconds)
        assert response.status == 200
        return int(response.data)

    def track_each(self, numbers: range, threads: int = 4) -> set[int]:
        """Answer the processes that served a request for each number."""
        with ThreadPoolExecutor(threads) as pool:
            return set(pool.map(self.track, numbers))

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(EXIT_SECONDS)


class Stage:
    """Where one run plays.

    Args:
        directory: Empty; holds the state of the run's processes and their messages.
        standin: Mixpanel.
        scale: 1 for a thousand events.
        variables: Of the environment of all processes, beside our own.

    Attributes:
        events: Numbers that the app was told are taken.
        adds: The same of `$add`s.
        notes: What the run found out beside the counts.
    """

    def __init__(
        self, directory: Path, standin: StandIn, *, scale: float, variables: Mapping[str, str]
    ) -> None:
        self.directory = directory
        self.standin = standin
        self.scale = scale
        self.variables = dict(variables)
        self.events: set[int] = set()
        self.adds: set[int] = set()
        self.notes: list[str] = []
        self.log = directory / "messages.log"
        self._dead: list[Mapping[str, Any]] = []
        self._cleanup = contextlib.ExitStack()
        (directory / "state").mkdir()

    @property
    def number(self) -> int:
        """How many events this run tracks."""
        return round(1_000 * self.scale)

    def environ(self, **variables: str) -> dict[str, str]:
        """Answer the environment of a process of this run."""
        ours = {
            "MIXPANEL_TOKEN": TOKEN,
            "MP_ASGI_SECRET_KEYS": "k" * 32,
            "MP_ASGI_FLUSH_INTERVAL": "0.2",
            "MP_ASGI_STATE_DIRECTORY": str(self.directory / "state"),
        }
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MP_ASGI_", "MIXPANEL_"))
        }
        return {**inherited, **ours, **self.variables, **variables}

    def own_state(self, name: str) -> dict[str, str]:
        """Answer what gives a process files of its own, as on a host of its own."""
        state = self.directory / name
        state.mkdir(exist_ok=True)
        return {"MP_ASGI_STATE_DIRECTORY": str(state)}

    def serve_mixpanel(self, port: int = 0, certificate: Path | None = None) -> Address:
        """Start the stand-in, and tell it to the processes that start from now on."""
        address = self._cleanup.enter_context(
            run_in_thread(self.standin, port, certificate=certificate)
        )
        self.variables["MIXPANEL_API_HOST"] = address.url
        return address

    def start_producer(self, **variables: str) -> Producer:
        """Start a process that tracks what it is told."""
        producer = Producer(self.environ(**variables), self.log)
        self.own(producer.process)
        return producer

    @contextmanager
    def site(self, *command: str, **variables: str) -> Iterator[Site]:
        """Run a server; `{fd}` in its command is the socket that it serves."""
        with socket.create_server(("127.0.0.1", 0)) as listener, self.log.open("ab") as messages:
            fd = listener.fileno()
            process = subprocess.Popen(
                [sys.executable, "-m", *(word.format(fd=fd) for word in command)],
                env=self.environ(**variables),
                pass_fds=[fd],
                stdout=messages,
                stderr=messages,
            )
            try:
                yield Site(process, f"http://127.0.0.1:{listener.getsockname()[1]}")
            finally:
                _kill(process)

    def track(self, producer: Producer, number: int | None = None, **options: Any) -> None:
        """Let a producer track that many events more."""
        first = max(self.events, default=-1) + 1
        count = self.number - len(self.events) if number is None else number
        self.events.update(producer.ask("track", first=first, count=count, **options))

    def add(self, producer: Producer, number: int | None = None, **options: Any) -> None:
        """Let a producer increment that many people more."""
        first = max(self.adds, default=-1) + 1
        count = round(100 * self.scale) if number is None else number
        self.adds.update(producer.ask("add", first=first, count=count, **options))

    def expect(self, numbers: range) -> None:
        """Take note that the app was told that these events are taken."""
        self.events.update(numbers)

    def finish(self, producer: Producer | None = None) -> Mapping[str, Any]:
        """Let a process go on, as whoever runs the site would, until nothing waits.

        Returns:
            What that process counted.
        """
        producer = producer or self.start_producer()
        report = producer.ask("finish", seconds=FINISH_SECONDS)
        self._dead = [message for message, _ in report["dead"]]
        if report["waiting"]:
            self.notes.append(f"{report['waiting']} still wait")
        if report["dropped"]:
            self.notes.append(f"dropped {report['dropped']}")
        producer.end()
        return report

    def tally(self) -> Tally:
        """Answer what became of everything."""
        tracked = Tracked(self.events, self.adds)
        return count(tracked, self.standin.events, self.standin.people, self._dead)

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        """Do something after so many seconds."""
        timer = threading.Timer(seconds, act)
        self._cleanup.callback(timer.cancel)
        timer.start()

    def wait_until(self, holds: Callable[[], bool], seconds: float = ANSWER_SECONDS) -> None:
        """Wait for a condition.

        Raises:
            TimeoutError: It did not come to hold.
        """
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{holds} did not come to hold in {seconds} s.")
            time.sleep(0.02)

    def own(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a process when the run is over, if it still runs."""
        self._cleanup.callback(_kill, process)

    def on_close(self, act: Callable[[], object]) -> None:
        """Do something when the run is over, before what was set up earlier is taken down."""
        self._cleanup.callback(act)

    def close(self) -> None:
        """Take everything down."""
        self._cleanup.close()


@contextmanager
def open_stage(standin: StandIn, scale: float, variables: Mapping[str, str]) -> Iterator[Stage]:
    """Set up a stage in a directory of its own; it stays if the run fails."""
    directory = Path(tempfile.mkdtemp(prefix="mp-asgi-run-"))
    stage = Stage(directory, standin, scale=scale, variables=variables)
    with contextlib.closing(stage):
        yield stage
    shutil.rmtree(directory)


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(EXIT_SECONDS)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def words(command: str) -> Sequence[str]:
    """Split a command at its blanks."""
    return command.split()
