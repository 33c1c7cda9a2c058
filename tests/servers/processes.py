"""Run minimal apps under real servers, each in a process of its own."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

EXIT_SECONDS = 30
GRANTED = {"X-MP-Consent": "granted"}
ASGI_APP = "tests.servers.apps.asgi:app"
WSGI_APP = "tests.servers.apps.wsgi:app"
GUNICORN = ["gunicorn", WSGI_APP, "--bind", "fd://{fd}", "--no-control-socket"]
COMMANDS = {
    "uvicorn": ["uvicorn", ASGI_APP, "--fd", "{fd}"],
    "hypercorn asyncio": ["hypercorn", ASGI_APP, "--bind", "fd://{fd}"],
    "hypercorn trio": [
        *("hypercorn", ASGI_APP, "--bind", "fd://{fd}"),
        *("--worker-class", "trio"),
    ],
    "gunicorn sync": GUNICORN,
    "gunicorn gthread": [*GUNICORN, "--threads", "4"],
    "gunicorn preload": [*GUNICORN, "--workers", "2", "--preload"],
    "waitress": ["tests.servers.apps.waitress", "{fd}"],
}
"""Modules with their arguments; all but waitress run lifespan or atexit at SIGTERM."""


@dataclass
class Server:
    """A server that runs."""

    url: str
    process: subprocess.Popen[str]

    def get(self, name: str, **headers: str) -> httpx.Response:
        """Let a consenting visitor track an event. A new connection each."""
        response = httpx.get(f"{self.url}/{name}", headers={**GRANTED, **headers}, timeout=10)
        return response.raise_for_status()

    def stop(self) -> None:
        """Send SIGTERM, and wait for the end."""
        self.process.terminate()
        self.process.wait(EXIT_SECONDS)


@contextmanager
def run_server(command: Sequence[str], **variables: str) -> Iterator[Server]:
    # The socket listens before the server is there: connections wait instead of failing.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = start(command, listener, **variables)
        try:
            yield Server(f"http://127.0.0.1:{listener.getsockname()[1]}", process)
        finally:
            process.terminate()
            process.communicate(timeout=EXIT_SECONDS)


def start(
    command: Sequence[str], listener: socket.socket, **variables: str
) -> subprocess.Popen[str]:
    fd = listener.fileno()
    words = [word.format(fd=fd) for word in command]
    environ = {"MIXPANEL_TOKEN": "t0ken", "MP_ASGI_SECRET_KEYS": "k" * 32, **variables}
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        env=os.environ | environ,
        pass_fds=[fd],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_to_its_end(command: Sequence[str], **variables: str) -> tuple[int, str]:
    """Start a server that stops by itself; answer its exit code and what it said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = start(command, listener, **variables)
        output, _ = process.communicate(timeout=EXIT_SECONDS)
    return process.returncode, output


def names(events: Sequence[Any]) -> list[str]:
    return [event["event"] for event in events]
