"""Run minimal apps under real servers, each in a process of its own."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.support import wait_for

START_SECONDS = 30
EXIT_SECONDS = 30
GRANTED = {"X-MP-Consent": "granted"}
TOKEN = "t0ken"
ASGI_APP = "tests.servers.apps.asgi:app"
WSGI_APP = "tests.servers.apps.wsgi:app"
BRIDGES = "tests.servers.apps.bridged"
UVICORN = ["uvicorn", ASGI_APP, "--fd", "{fd}"]
HYPERCORN = ["hypercorn", ASGI_APP, "--bind", "fd://{fd}"]
GRANIAN = ["granian", "--host", "127.0.0.1", "--port", "{port}", "--interface"]
GUNICORN_WITH = ["--bind", "fd://{fd}", "--no-control-socket"]
GUNICORN = ["gunicorn", WSGI_APP, *GUNICORN_WITH]
GUNICORN_ASGI = ["gunicorn", ASGI_APP, *GUNICORN_WITH]
WAITRESS = ["tests.servers.apps.waitress", "{fd}"]
UWSGI = [
    *("uwsgi", "--http-socket", "fd://{fd}", "--module", WSGI_APP, "--need-app"),
    # It closes the connection after each answer, and does not say so by itself.
    *("--die-on-term", "--virtualenv", sys.prefix, "--add-header", "Connection: close"),
]


@dataclass(frozen=True)
class Kind:
    """How to start a server, and what it does.

    Attributes:
        words: Module, or the program uwsgi, with arguments. `{fd}` is a socket that listens,
            `{port}` the number of a free one.
        ends: What it runs in its serving processes at SIGTERM, whatever they are doing then.
        workers: How many processes serve.
        delivers: Whether these send; else another process has to.
        needs: A module that the command names, beside its own.
        may_hang: Whether it may hang at SIGTERM by itself. It is killed then.
    """

    words: Sequence[str]
    ends: frozenset[str]
    workers: int = 1
    delivers: bool = True
    needs: str = ""
    may_hang: bool = False

    @property
    def problem(self) -> str:
        """Why it cannot be started here; empty if it can."""
        if self.words[0] == "uwsgi":
            return "" if program("uwsgi").exists() else "uWSGI is not installed beside Python"
        missing = [name for name in (self.words[0], self.needs) if name and not find_spec(name)]
        return f"{missing[0]} is not installed" if missing else ""


LIFESPAN, ATEXIT = frozenset({"lifespan"}), frozenset({"atexit"})
NOTHING: frozenset[str] = frozenset()
SERVERS = {
    "uvicorn": Kind(UVICORN, LIFESPAN),
    "uvicorn, no grace": Kind([*UVICORN, "--timeout-graceful-shutdown", "0"], LIFESPAN),
    "uvicorn, 2 workers": Kind([*UVICORN, "--workers", "2"], LIFESPAN, workers=2),
    "hypercorn asyncio": Kind(HYPERCORN, LIFESPAN | ATEXIT),
    "hypercorn trio": Kind([*HYPERCORN, "--worker-class", "trio"], LIFESPAN | ATEXIT),
    "daphne": Kind(["daphne", "--fd", "{fd}", ASGI_APP], ATEXIT),
    "granian asgi": Kind([*GRANIAN, "asgi", ASGI_APP], LIFESPAN),
    "granian asgi, 2 workers": Kind(
        [*GRANIAN, "asgi", ASGI_APP, "--workers", "2"], LIFESPAN, workers=2
    ),
    "granian wsgi": Kind([*GRANIAN, "wsgi", WSGI_APP], NOTHING),
    "gunicorn sync": Kind(GUNICORN, ATEXIT),
    "gunicorn gthread": Kind([*GUNICORN, "--threads", "4"], ATEXIT),
    "gunicorn gevent": Kind([*GUNICORN, "-k", "gevent"], ATEXIT, needs="gevent"),
    "gunicorn preload": Kind([*GUNICORN, "--workers", "2", "--preload"], ATEXIT, workers=2),
    "gunicorn recycling": Kind(
        [*GUNICORN, "--workers", "2", "--max-requests", "20"], ATEXIT, workers=2
    ),
    "gunicorn asgi": Kind([*GUNICORN_ASGI, "-k", "asgi"], LIFESPAN | ATEXIT),
    "gunicorn uvicorn": Kind(
        [*GUNICORN_ASGI, "-k", "uvicorn_worker.UvicornWorker"], LIFESPAN, needs="uvicorn_worker"
    ),
    "waitress": Kind([*WAITRESS, "tests.servers.apps.wsgi", "app"], NOTHING),
    "cheroot": Kind(["cheroot", WSGI_APP, "--bind", "127.0.0.1:{port}"], NOTHING),
    "eventlet": Kind(["tests.servers.apps.greened", "{fd}"], NOTHING, needs="eventlet"),
    # Under load it runs nothing; at rest it runs atexit. Without a master its signal handler calls
    # exit(), also from within malloc: about 1 of 200 hangs.
    "uwsgi": Kind([*UWSGI, "--enable-threads"], NOTHING, may_hang=True),
    "uwsgi, 2 workers": Kind(
        [*UWSGI, "--enable-threads", "--master", "--processes", "2"], NOTHING, workers=2
    ),
    "uwsgi without options": Kind(UWSGI, NOTHING, may_hang=True),
    "a2wsgi, asgi on waitress": Kind([*WAITRESS, BRIDGES, "asgi_in_wsgi"], NOTHING),
    "a2wsgi, wsgi on uvicorn": Kind(
        ["uvicorn", f"{BRIDGES}:wsgi_in_asgi", "--fd", "{fd}"], NOTHING, needs="a2wsgi"
    ),
}


@dataclass
class Server:
    """A server that runs."""

    url: str
    process: subprocess.Popen[str]
    output: "Output"

    def get(self, name: str, **headers: str) -> httpx.Response:
        """Let a consenting visitor track an event. A new connection each."""
        response = httpx.get(f"{self.url}/{name}", headers={**GRANTED, **headers}, timeout=10)
        return response.raise_for_status()

    def meet(self, workers: int) -> None:
        """Wait until so many processes serve; granian hangs, and gunicorn waits for 30 s, if
        SIGTERM finds one that starts.
        """
        met: set[int] = set()

        def have_met() -> bool:
            with ThreadPoolExecutor(8) as pool:
                met.update(pool.map(partial(self.ask, consent=""), ["Nobody"] * 8))
            return len(met) >= workers

        if workers > 1:
            wait_for(have_met, START_SECONDS)

    def ask(self, name: str, consent: str = "granted") -> int:
        """Do the same as `get` at less cost; answer the process that served.

        Raises:
            OSError: No answer came, or not all of it.
            http.client.HTTPException: The same.
        """
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
        with contextlib.closing(connection):
            headers = {"X-MP-Consent": consent, "Connection": "close"}
            connection.request("GET", f"/{name}", headers=headers)
            response = connection.getresponse()
            body = httpx.Response(response.status, content=response.read())
        if response.status != 200:
            raise http.client.HTTPException(response.status)
        return int(body.json()["pid"])

    def stop(self, how: signal.Signals = signal.SIGTERM, *, may_hang: bool = False) -> int:
        """Send a signal and wait for the end of all its processes. Answer the exit code.

        SIGKILL is sent to all of them, SIGTERM to the one that was started; what may hang, and
        does, is killed.
        """
        if how is signal.SIGKILL:
            os.killpg(self.process.pid, how)
        else:
            self.process.send_signal(how)
        try:
            code = self.process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            if not may_hang:
                raise
            return self.stop(signal.SIGKILL)
        self.output.wait()
        return code


class Output:
    """What processes say. It ends with the last of them."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.text = ""
        self._process = process
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def wait(self) -> str:
        self._thread.join(EXIT_SECONDS)
        assert not self._thread.is_alive(), "a process outlives its server"
        return self.text

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.text += line


@contextmanager
def run_server(words: Sequence[str], **variables: str) -> Iterator[Server]:
    # The socket listens before the server is there: connections wait instead of failing.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # Servers that are given a socket do not do it; without it an answer waits for 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port = listener.getsockname()[1]
        needs_port = any("{port}" in word for word in words)
        if needs_port:
            listener.close()
        # Whoever has the socket keeps it alive: after the start that must be the server alone.
        process = start(words, None if needs_port else listener, port, **variables)
    server = Server(f"http://127.0.0.1:{port}", process, Output(process))
    try:
        if needs_port:
            wait_for_port(process, port)
        yield server
    finally:
        end(server)


def end(server: Server) -> None:
    """Ask a server to end, and see to it that all of its processes do."""
    if server.process.poll() is None:
        server.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(EXIT_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait(EXIT_SECONDS)
    server.output.wait()


def start(
    words: Sequence[str], listener: socket.socket | None, port: int, **variables: str
) -> subprocess.Popen[str]:
    descriptors = [] if listener is None else [listener.fileno()]
    fd = "".join(map(str, descriptors))
    module, *options = (word.format(fd=fd, port=port) for word in words)
    runner = [str(program(module))] if module == "uwsgi" else [sys.executable, "-m", module]
    return subprocess.Popen(
        [*runner, *options],
        env=os.environ | environ(**variables),
        pass_fds=descriptors,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def environ(**variables: str) -> dict[str, str]:
    return {"MIXPANEL_TOKEN": TOKEN, "MP_ASGI_SECRET_KEYS": "k" * 32, **variables}


def program(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def wait_for_port(process: subprocess.Popen[str], port: int) -> None:
    def is_open() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    wait_for(lambda: process.poll() is not None or is_open(), START_SECONDS)


def run_to_its_end(words: Sequence[str], **variables: str) -> tuple[int, str]:
    """Start a server that stops by itself; answer its exit code and what it said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = start(words, listener, listener.getsockname()[1], **variables)
        output, _ = process.communicate(timeout=EXIT_SECONDS)
    return process.returncode, output


def names(events: Sequence[Any]) -> list[str]:
    return [event["event"] for event in events]
