"""What the tests of commands about people share: an environment, a ledger, and a quick clock."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mp_asgi.cli import consent, erase, retrieve
from mp_asgi.cli.people import Time
from mp_asgi.dev import StandIn
from mp_asgi.events import Act, ActState, Link, Subject
from mp_asgi.ledger import Ledger
from mp_asgi.wire import KeyMaker
from tests.support import NOW, FakeClock

TOKEN, OAUTH = "t0ken", "0auth-secret"
LEDGER_KEY = "l" * 32
DEVICE = "3f2b8a52-2f5c-4e7b-9a50-0a7c1c1d2e3f"
USER_KEY = KeyMaker(TOKEN).user_key("U1-secret")
DEVICE_KEY = KeyMaker(TOKEN).device_key(DEVICE)


class Office:
    """Where somebody calls the commands; waiting passes the stand-in's time at once."""

    def __init__(self, standin: StandIn, clock: FakeClock, path: Path, capsys: Any) -> None:
        self.standin = standin
        self.clock = clock
        self.path = path
        self.ids = path / "ids"
        self.capsys = capsys
        self.sleep = clock.advance
        self.read_clock: Callable[[], float] = clock
        self.ledger = Ledger(
            str(path / "ledger.db"), [LEDGER_KEY], project=TOKEN.encode(), clock=clock
        )

    def fill(self) -> None:
        """Let the ledger know one user on one device, and list both in the file."""
        self.ledger.open()
        self.ledger.append(
            [
                Act(
                    key=USER_KEY,
                    subject=Subject.USER,
                    state=ActState.GRANTED,
                    at=NOW - 86_400,
                    version="2026-11",
                    basis="consent",
                ),
                Link("U1-secret", DEVICE, USER_KEY, DEVICE_KEY, NOW - 86_400),
            ]
        )
        self.write("U1-secret")

    def write(self, *lines: str) -> None:
        self.ids.write_text("\n".join(lines), encoding="utf-8")

    def call(self, *arguments: str) -> tuple[int, str, str]:
        """Call a command. Answer exit code, standard output and standard error."""
        parser = argparse.ArgumentParser(prog="mp-asgi")
        subparsers = parser.add_subparsers()
        for command in (erase, retrieve, consent):
            command.add(subparsers)
        args = parser.parse_args(arguments)
        time = Time(self.read_clock, self.clock, self.sleep)
        code = args.run(args, time)
        out, err = self.capsys.readouterr()
        return code, out, err

    def on_file(self, *arguments: str) -> tuple[int, str, str]:
        """Call a command on the file of IDs."""
        return self.call(*arguments, "-f", str(self.ids))

    def read_json(self, *arguments: str) -> Any:
        code, out, _ = self.on_file(*arguments, "--json")
        assert code == 0
        return json.loads(out)
