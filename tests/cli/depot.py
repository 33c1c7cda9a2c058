"""What the tests of commands about the outbox share: an outbox on this host, and a quick clock."""

import argparse
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mp_asgi import Analytics
from mp_asgi.backfill import LineReader
from mp_asgi.cli import backfill, dead, drain, status, tail
from mp_asgi.cli.people import Time
from mp_asgi.delivery.counters import Counters
from mp_asgi.delivery.outbox.base import Outbox, Refusal, Ticket
from mp_asgi.delivery.outbox.factory import make_outbox, open_outbox
from mp_asgi.delivery.outbox.location import find_location
from mp_asgi.delivery.outbox.sqlite import SQLiteOutbox
from mp_asgi.dev import StandIn
from mp_asgi.errors import OutboxUnavailable
from mp_asgi.events import Endpoint, Entry
from mp_asgi.settings import Settings
from tests.support import NOW, TIMEOUT, FakeClock, make_entry, wait_for

BASIS = ("--basis", "ticket 17")
on_both_storages = pytest.mark.parametrize("depot", ["sqlite", "redis"], indirect=True)


def make_line(event: str = "Old", **properties: Any) -> str:
    """Answer a line of a file that can be imported."""
    given = {"time": 1_700_000_000, "distinct_id": "U1-secret"} | properties
    return json.dumps({"event": event, "properties": given})


def start(
    *arguments: str, stdout: Any = subprocess.PIPE, stderr: Any = subprocess.PIPE
) -> "subprocess.Popen[str]":
    """Run a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "mp_asgi", *arguments],
        stdout=stdout,
        stderr=stderr,
        text=True,
        env=os.environ,
    )


@contextmanager
def signal_when(is_true: Callable[[], object]) -> Iterator[None]:
    """Send this process SIGTERM once something holds."""

    def send() -> None:
        wait_for(is_true)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=send)
    thread.start()
    yield
    thread.join(TIMEOUT)


class Broken:
    """An outbox whose storage does not answer while it is away, if only to some calls."""

    def __init__(self, outbox: Outbox, *names: str) -> None:
        self.is_away = True
        self._outbox = outbox
        self._names = names

    def __getattr__(self, name: str) -> Any:
        is_meant = name in self._names or not self._names
        if self.is_away and is_meant and name not in {"close", "is_shared", "is_durable"}:
            raise OutboxUnavailable("it is away")
        return getattr(self._outbox, name)


class Depot:
    """Where somebody calls the commands; waiting runs what was planned, then ends with Ctrl-C.

    Attributes:
        plans: What happens during each wait of `status --watch` and `tail`.
    """

    def __init__(self, standin: StandIn, path: Path, capsys: Any) -> None:
        self.standin = standin
        self.path = path
        self.capsys = capsys
        self.clock = FakeClock()
        self.plans: list[Callable[[], object]] = []
        self.settings = Settings.from_env()
        self.outbox = open_outbox(self.settings)
        self.outbox.stats()  # makes the file

    def put(self, *names: str, at: float = NOW) -> None:
        """Let events wait that were put at a time."""
        self.outbox.put([make_entry(name) for name in names], at)

    def leave_journal(self, *names: str) -> None:
        """Track events in a process that stores nothing and ends."""
        settings = replace(self.settings, durability="strict")
        analytics = Analytics(settings, outbox=lambda: Broken(self.outbox, "put"))
        for name in names:
            analytics.visitor(user_id="U1", consent=True).track(name)
        analytics.close(0.0)
        analytics._worker._hooks.close()  # as after a kill: nothing runs at its end

    def spool(self, count: int, at: float | None = None) -> None:
        """Let events wait in the spool of this host, which Mixpanel takes: Redis is away."""
        settings = replace(self.settings, outbox="redis://127.0.0.1:1")
        outbox = make_outbox(settings, Counters())
        put_at = time.time() if at is None else at
        # What was tracked long ago is too old to be put.
        outbox.put(self._make_sendable(count, time=int(put_at)), put_at)
        outbox.close()

    def spool_stop(self, keys: Sequence[bytes], at: float) -> None:
        """Let a denial wait in the spool of this host: Redis is away."""
        outbox = make_outbox(replace(self.settings, outbox="redis://127.0.0.1:1"), Counters())
        outbox.forget(keys, at, at)
        outbox.close()

    def put_sendable(self, count: int, **properties: Any) -> None:
        """Let events wait that Mixpanel takes, put now."""
        ticket = Ticket(secrets.token_hex(8), 1, is_historical=True)
        self.outbox.put(self._make_sendable(count, **properties), time.time(), ticket)

    def bury(
        self, *names: str, reason: str = "rejected", reply: str = "no time", at: float = NOW
    ) -> None:
        """Let events die at a time."""
        for name in names:
            self.outbox.put([make_entry(name, user=b"user")], at)
            (leased,) = self.lease()
            self.outbox.bury(leased.id, [Refusal(0, reason, reply)], at)

    def lease(self, now: float = NOW) -> Any:
        """Take one entry, the oldest."""
        return self.outbox.lease(
            Endpoint.EVENTS, now, max_messages=1, max_bytes=1_000_000, seconds=60.0
        )

    def lease_spooled(self, endpoint: Endpoint = Endpoint.EVENTS, *, seconds: float = 60.0) -> Any:
        """Take what is in the spool, as a process that hands it over does."""
        spool = SQLiteOutbox(find_location(self.settings).spool, self.settings)
        taken = spool.lease(
            endpoint, time.time(), max_messages=9, max_bytes=1_000_000, seconds=seconds
        )
        spool.close()
        return taken

    def write(self, *lines: str) -> str:
        """Write a file. Answer its path."""
        file = self.path / "events.ndjson"
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return str(file)

    def call(self, *arguments: str, is_now: bool = False) -> tuple[int, str, str]:
        """Call a command. Answer exit code, standard output and standard error.

        Args:
            arguments: Of the command line.
            is_now: Whether it lives in the real time, as what it sends to does.
        """
        parser = argparse.ArgumentParser(prog="mp-asgi")
        subparsers = parser.add_subparsers()
        for command in (backfill, dead, drain, status, tail):
            command.add(subparsers)
        args = parser.parse_args(arguments)
        code = args.run(args, Time() if is_now else Time(self.clock, self.clock, self._sleep))
        out, err = self.capsys.readouterr()
        return code, out, err

    def read_json(self, *arguments: str, code: int = 0, is_now: bool = False) -> Any:
        """Call a command with `--json`. Answer what it printed."""
        found, out, _ = self.call(*arguments, "--json", is_now=is_now)
        assert found == code
        return json.loads(out)

    def _make_sendable(self, count: int, **properties: Any) -> list[Entry]:
        reader = LineReader(self.settings.token, max(NOW, time.time()))
        lines = [make_line(f"Event {number}", **properties) for number in range(count)]
        return [reader.read(line.encode()) for line in lines]

    def _sleep(self, seconds: float) -> None:
        self.clock.advance(seconds)
        if not self.plans:
            raise KeyboardInterrupt
        self.plans.pop(0)()
