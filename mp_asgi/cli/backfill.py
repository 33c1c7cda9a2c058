"""`mp-asgi backfill`: import historical events from a file, each once, however often it is run."""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

from mp_asgi.backfill import LineReader, Portion, read_portions
from mp_asgi.delivery.outbox.base import Outbox, Ticket
from mp_asgi.delivery.replies import printable
from mp_asgi.settings import Settings

from .drainer import Drainer
from .outbox import lend_outbox, require_enabled
from .people import REAL_TIME, Missing, Time, count, guard
from .progress import Progress, make_progress
from .room import SHARE, find_room

_TOLD_PROBLEMS: Final = 20


_BEGUN: Final = "an earlier run has stored this file, or a part of it. --resume goes on there."
_NO_ROOM: Final = (
    "MP_ASGI_OUTBOX_MAX_MESSAGES or MP_ASGI_OUTBOX_MAX_BYTES is too small for a hundred lines. "
    "Raise it."
)
_NOTHING_STORED: Final = "nothing was stored. --skip-bad leaves such lines out."
_INTERRUPTED: Final = "interrupted. What is stored stays; --resume goes on."
_OUTCOMES: Final = (
    ("seen", "by an earlier run"),
    ("refused", "refused, because they have withdrawn"),
    ("overflowed", "lost, because the outbox was full"),
    ("bad", "bad and left out"),
)


@dataclass(frozen=True, slots=True)
class _Desk:
    """What a run works with."""

    settings: Settings
    progress: Progress
    time: Time


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "backfill",
        help="import historical events from a file",
        description="Import events of the past: one JSON object a line, as Mixpanel's raw export "
        "or `mp-asgi dead export` writes them. Every line is checked before the first is stored. "
        "Whoever has withdrawn since, by the ledger or a stop mark, is left out.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="of one JSON object a line")
    parser.add_argument(
        "--basis",
        type=_parse_basis,
        required=True,
        metavar="TEXT",
        help="needed: you assert that everybody in the file had agreed to being tracked when it "
        "happened; say where the proof is, as in 'ticket 17, consent export of May'. It is printed "
        "with the file's digest: keep what this command prints",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on where an earlier run of this file ended"
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out lines that cannot be sent, and count"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.set_defaults(run=run, changes=True)


def run(args: argparse.Namespace, moment: Time = REAL_TIME) -> int:
    """Do what the arguments say. Return the exit code."""

    def call() -> int:
        settings = require_enabled(Settings.from_env())
        with args.file.open("rb") as file, closing(make_progress()) as progress:
            return _import(args, _Desk(settings, progress, moment), file)

    return guard("backfill", call, as_json=args.json, interrupted=_INTERRUPTED)


def _import(args: argparse.Namespace, desk: _Desk, file: BinaryIO) -> int:
    reader = LineReader(desk.settings.token, desk.time.clock())
    survey = _survey(file, reader, desk.progress)
    if survey.bad and not args.skip_bad:
        print(f"mp-asgi backfill: {_NOTHING_STORED}", file=sys.stderr)
        if args.json:
            print(json.dumps({"error": "bad lines", "bad": survey.bad}))
        return 2
    file.seek(0)
    # No record of the ledger fits: each is of one person's choice.
    print(f"mp-asgi backfill: file {survey.digest}; basis: {args.basis}", file=sys.stderr)
    with (
        lend_outbox(desk.settings, creates=True) as outbox,
        Drainer(desk.settings, outbox, desk.progress, "backfill") as drainer,
    ):
        backfill = _Backfill(desk, outbox, drainer, survey)
        backfill.store(read_portions(file, reader.read), resumes=args.resume)
        is_done = backfill.finish()
        content = backfill.to_json()
    return _report(args, content, survey.digest, is_done=is_done)


@dataclass(frozen=True, slots=True)
class _Survey:
    """What a file holds.

    Attributes:
        digest: SHA-256 of all of it, in hexadecimal digits.
        good: How many lines can be sent.
        bad: How many cannot.
    """

    digest: str
    good: int
    bad: int


def _survey(file: BinaryIO, reader: LineReader, progress: Progress) -> _Survey:
    """Check every line, and say what is wrong with the first of those that cannot be sent."""
    size = os.fstat(file.fileno()).st_size
    digest = sha256()
    good = bad = 0

    def hash_lines() -> Iterator[bytes]:
        for line in file:
            digest.update(line)
            yield line

    for portion in read_portions(hash_lines(), reader.read):
        for number, problem in portion.problems.items():
            bad += 1
            if bad <= _TOLD_PROBLEMS:
                print(f"mp-asgi backfill: line {number}: {problem}.", file=sys.stderr)
        good += len(portion.entries)
        progress.show("Checking bytes", file.tell(), size)
    if bad > _TOLD_PROBLEMS:
        more = count(bad - _TOLD_PROBLEMS, "more bad line")
        print(f"mp-asgi backfill: and {more}.", file=sys.stderr)
    return _Survey(digest.hexdigest(), good, bad)


class _Backfill:
    """One run, with what became of the lines so far."""

    def __init__(self, desk: _Desk, outbox: Outbox, drainer: Drainer, survey: _Survey) -> None:
        self._desk = desk
        self._outbox = outbox
        self._drainer = drainer
        self._survey = survey
        self.seen = self.stored = self.stopped = self.overflowed = 0

    def store(self, portions: Iterable[Portion], *, resumes: bool) -> None:
        """Put everything that no earlier run has put, as far as there is room.

        Raises:
            Missing: An earlier run has begun, and this one does not resume; or there is never room.
            OutboxUnavailable: The outbox does not answer.
        """
        # The first says whether an earlier run has begun: it needs room, and leaves none.
        share = 1.0
        for portion in filter(lambda portion: portion.entries, portions):
            if not self._wait_for_room(portion, share):
                return
            share = SHARE
            ticket = Ticket(self._survey.digest, portion.last_line, is_historical=True)
            result = self._outbox.put(portion.entries, self._desk.time.clock(), ticket)
            if not result.accepted and not resumes:
                raise Missing(_BEGUN)
            self.seen += len(portion.entries) - result.accepted
            self.stored += result.stored
            self.stopped += result.stopped
            self.overflowed += result.overflowed
            self._desk.progress.show("Storing", self._done, self._survey.good)

    def finish(self) -> bool:
        """Deliver what is stored. Return whether every line is stored, and none of them waits."""
        horizon = self._outbox.horizon()
        is_past = self._drainer.deliver_until(lambda: self._outbox.is_past(horizon))
        return is_past and self._done == self._survey.good

    def to_json(self) -> dict[str, int]:
        """Answer what became of the lines, and of all that waits in the outbox."""
        counts = self._drainer.count()
        return {
            "read": self._survey.good + self._survey.bad,
            "bad": self._survey.bad,
            "seen": self.seen,
            "stored": self.stored,
            "refused": self.stopped,
            "overflowed": self.overflowed,
            "delivered": counts.delivered,
            "buried": counts.buried,
            "dropped": sum(counts.dropped.values()) - self.stopped - self.overflowed,
            "waiting": counts.waiting,
        }

    @property
    def _done(self) -> int:
        return self.seen + self.stored + self.stopped + self.overflowed

    def _wait_for_room(self, portion: Portion, share: float) -> bool:
        """Deliver until a portion fits. Return False if a signal came before."""
        settings = self._desk.settings
        if (
            len(portion.entries) > settings.outbox_max_messages
            or portion.size_bytes > settings.outbox_max_bytes
        ):
            raise Missing(_NO_ROOM)

        def has_room() -> bool:
            room = find_room(self._outbox, settings, share)
            return room.is_empty or room.holds(len(portion.entries), portion.size_bytes)

        # A signal ends it even while there is room.
        return not self._drainer.is_stopped and self._drainer.deliver_until(has_room)


def _report(
    args: argparse.Namespace, content: dict[str, int], digest: str, *, is_done: bool
) -> int:
    code = int(not is_done or content["overflowed"] > 0)
    if args.json:
        print(json.dumps({"file": digest, "basis": args.basis} | content))
        return code
    parts = [f"{count(content['read'], 'line')} read", f"{content['stored']:,} stored"]
    parts += [f"{content[key]:,} {text}" for key, text in _OUTCOMES if content[key]]
    print(f"{', '.join(parts)}.")
    print(
        f"Meanwhile the outbox, visitors' events included: {content['delivered']:,} delivered, "
        f"{content['buried']:,} buried, {content['dropped']:,} dropped, "
        f"{content['waiting']:,} waiting."
    )
    if not is_done:
        print(f"mp-asgi backfill: {_INTERRUPTED}", file=sys.stderr)
    return code


def _parse_basis(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty")
    return printable(text.strip())
