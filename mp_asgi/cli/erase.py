"""`mp-asgi erase`: erase people here and at Mixpanel; the receipt lets a later run go on."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Collection
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from mp_asgi.delivery.outbox.location import find_location
from mp_asgi.erasure.eraser import SEND_SECONDS, Eraser, Purge
from mp_asgi.erasure.jobs import Compliance, JobKind, JobState
from mp_asgi.erasure.people import Person
from mp_asgi.erasure.receipt import NOT_STOPPED, Receipt
from mp_asgi.errors import MixpanelASGIError, OutboxUnavailable
from mp_asgi.events import Subject
from mp_asgi.settings import Settings
from mp_asgi.settings.outbox_place import OutboxKind

from .leftovers import find_journals
from .outbox import count_messages, lend_outbox, read_settings
from .people import (
    FORMAT,
    REAL_TIME,
    Desktop,
    Time,
    add_file,
    ask_status,
    count,
    guard,
    mask,
    open_desktop,
    parse_task_id,
    read_people,
    require_api,
)
from .progress import Progress, make_progress

_HELD: Final = "kept until a later run finds that Mixpanel is done"
_FENCE: Final = "Seconds until no earlier send is under way"


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "erase",
        help="erase people, here and at Mixpanel",
        description=f"Erase people: stop tracking them, forget what is kept here, and have "
        f"Mixpanel delete them. {FORMAT} This cannot be undone; --dry-run shows it first.",
    )
    add_file(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would be done; send and write nothing"
    )
    parser.add_argument(
        "--wait", action="store_true", help="wait until Mixpanel is done, up to 30 days"
    )
    parser.add_argument(
        "--compliance",
        choices=[item.value.lower() for item in Compliance],
        default="gdpr",
        help="the law that Mixpanel is told; default: %(default)s",
    )
    _add_output(parser)
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--status", type=parse_task_id, metavar="TASK", help="only ask how far a job is"
    )
    group.add_argument(
        "--cancel",
        type=parse_task_id,
        metavar="TASK",
        help="only cancel a job that has not started",
    )
    parser.set_defaults(run=run, changes=True)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--receipt",
        type=Path,
        metavar="PATH",
        help="keep the receipt here after every step; if it is there already, go on with it",
    )
    parser.add_argument("--reveal", action="store_true", help="write raw IDs, not their hashes")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, moment: Time = REAL_TIME) -> int:
    """Do what the arguments say. Return the exit code."""

    def call() -> int:
        if args.status is not None or args.cancel is not None:
            with open_desktop(moment, has_ledger=False) as desktop:
                return _ask_about_task(args, desktop)
        with open_desktop(moment) as desktop, closing(make_progress()) as progress:
            return _Run(args, desktop, progress).run()

    return guard("erase", call, as_json=args.json)


class _Run:
    """One erasure, with the receipt as far as it got."""

    def __init__(self, args: argparse.Namespace, desktop: Desktop, progress: Progress) -> None:
        self._args = args
        self._progress = progress
        self._desktop = desktop
        self._receipt: Receipt | None = None
        self._settings = read_settings()
        purge = _find_purge(self._settings, desktop.time.clock)
        self._eraser = Eraser(
            desktop.reader,
            desktop.ledger,
            desktop.api,
            # Without a tombstone and an outbox nothing keeps a send from starting.
            fence=self._pass_fence if desktop.ledger or purge else None,
            purge=purge,
            clock=desktop.time.clock,
            save=self._save,
            report=progress.show,
        )

    def run(self) -> int:
        args = self._args
        people = read_people(args.file, self._desktop.reader)
        before = _load(args.receipt)
        if args.dry_run:
            return self._plan(self._eraser.find(people, before))
        try:
            receipt = self._erase(people, before)
        except (KeyboardInterrupt, MixpanelASGIError, OSError) as error:
            if self._receipt is None or not self._receipt.has_begun:
                raise
            reason = str(error).rstrip(".") or "Interrupted"
            problem = f"{reason}. What was done stays done. Run this again."
            receipt = replace(self._receipt, problems=(problem,))
        self._show(receipt)
        return 1 if receipt.problems else 0

    def _erase(self, people: list[Person], receipt: Receipt | None) -> Receipt:
        args = self._args
        while True:
            receipt = self._eraser.erase(
                people,
                compliance=Compliance(args.compliance.upper()),
                receipt=receipt,
                reveals=args.reveal,
            )
            if not args.wait or receipt.problems or receipt.is_finished:
                return receipt
            receipt = self._eraser.wait(receipt)
            if receipt.problems:
                return receipt

    def _pass_fence(self) -> None:
        total = int(SEND_SECONDS)
        for second in range(total):
            self._progress.show(_FENCE, second, total)
            self._desktop.time.sleep(1.0)
        self._progress.show(_FENCE, total, total)

    def _save(self, receipt: Receipt) -> None:
        self._receipt = receipt
        if self._args.receipt is not None:
            _write(self._args.receipt, json.dumps(receipt.to_json(), indent=1) + "\n")

    def _show(self, receipt: Receipt) -> None:
        self._progress.close()
        warnings = [*receipt.warnings, *_find_remains(self._settings)]
        for problem in (*warnings, *receipt.problems):
            print(f"mp-asgi erase: {problem}", file=sys.stderr)
        content = receipt.to_json() | {"warnings": warnings}
        print(json.dumps(content) if self._args.json else _render(receipt))

    def _plan(self, everybody: list[Person]) -> int:
        desktop, is_revealed = self._desktop, self._args.reveal
        names = [mask(person, is_revealed=is_revealed) for person in everybody]
        has_ledger, asks = desktop.ledger is not None, desktop.api is not None
        if self._args.json:
            print(json.dumps({"would_erase": names, "ledger": has_ledger, "mixpanel": asks}))
            return 0
        if not has_ledger:
            print(f"mp-asgi erase: {NOT_STOPPED}", file=sys.stderr)
        if not asks:
            print(
                "mp-asgi erase: MIXPANEL_OAUTH_TOKEN is not set, so Mixpanel is not asked.",
                file=sys.stderr,
            )
        print("Would erase, and has done nothing:", *names, sep="\n  ")
        return 0


def _find_purge(settings: Settings, clock: Callable[[], float]) -> Purge | None:
    """Answer what makes the outbox forget; None where there is none that could be opened."""
    kind = settings.outbox_place.kind
    if kind is OutboxKind.MEMORY:
        return None
    with suppress(OutboxUnavailable):  # told when it is to be opened
        is_there = kind is OutboxKind.REDIS or find_location(settings).outbox.exists()
        if not is_there and not find_journals(settings):
            return None

    def purge(keys: Collection[bytes], at: float) -> int:
        # What stands in a journal comes to the outbox later, and must find a stop mark there.
        with lend_outbox(settings, creates=True) as outbox:
            return outbox.erase(keys, at, clock())

    return purge


def _find_remains(settings: Settings) -> list[str]:
    """Warn of the journals that hold what was tracked as it was: nobody is erased in them."""
    if not (journals := find_journals(settings)):
        return []
    names = ", ".join(path.name for path in journals)
    warning = (
        f"Journals of this host still hold what was tracked, perhaps by these people, too: {names} "
        f"(in {journals[0].parent}). Each is deleted when its process has ended and the outbox has "
        "all of it: restart the app, then run `mp-asgi drain`."
    )
    return [warning]


def _ask_about_task(args: argparse.Namespace, desktop: Desktop) -> int:
    if args.status is not None:
        return ask_status(desktop, JobKind.DELETION, args.status, as_json=args.json)
    require_api(desktop).cancel(args.cancel)
    content = {"task_id": args.cancel, "is_cancelled": True}
    print(json.dumps(content) if args.json else "Cancelled.")
    return 0


def _load(path: Path | None) -> Receipt | None:
    if path is None or not path.exists():
        return None
    return Receipt.parse(path.read_text(encoding="utf-8", errors="replace"))


def _write(path: Path, text: str) -> None:
    """Put a file in the place of another, whole or not at all, for its owner alone.

    Raises:
        OSError: Names the path that was given, not the one beside it.
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _render(receipt: Receipt) -> str:
    users = count(receipt.count(Subject.USER), "user")
    devices = count(receipt.count(Subject.DEVICE), "device")
    cleared = count(receipt.cleared, "record")
    rows = [
        ("tombstones", _when(receipt.entombed_at, "none")),
        ("fence", _when(receipt.fenced_at, "not waited for")),
        ("outbox", _render_outbox(receipt)),
        ("Mixpanel", _render_jobs(receipt)),
        ("ledger", _when(receipt.cleared_at, _HELD, f", {cleared} emptied, links gone")),
    ]
    if receipt.entombed_at is None:
        rows[-1:] = []
    title = f"Erasure of {users} and {devices} ({receipt.compliance.value})"
    return "\n".join([title, "", *(f"  {name:<11} {value}" for name, value in rows)])


def _render_outbox(receipt: Receipt) -> str:
    if receipt.purged_at is not None:
        return _when(receipt.purged_at, "", f", {count_messages(receipt.purged)} deleted")
    if receipt.problems:
        return "not reached"
    if receipt.entombed_at is None:
        return "out of reach from here; what waits there will be sent"
    return "out of reach from here; each process drops what it reads a tombstone for"


def _render_jobs(receipt: Receipt) -> str:
    if not receipt.jobs:
        return "no job taken"
    lines = [
        f"\n{'':14}{job.task_id}  {job.status.state.value}  "
        + count(len(job.keys), job.subject.value)
        for job in receipt.jobs
    ]
    return f"{_count_jobs(receipt)}{''.join(lines)}"


def _count_jobs(receipt: Receipt) -> str:
    states = [job.status.state for job in receipt.jobs]
    lost = sum(state.is_lost for state in states)
    done = states.count(JobState.SUCCESS)
    under_way = len(states) - lost - done
    remedy = " and asked for again" if receipt.is_taken else "; run this again"
    words = [
        f"{count(done, 'job')} done" if done else "",
        f"{count(lost, 'job')} failed{remedy}" if lost else "",
        f"{count(under_way, 'job')} taken; it may take 30 days, --status TASK tells"
        if under_way
        else "",
    ]
    return ", ".join(filter(None, words))


def _when(at: float | None, otherwise: str, more: str = "") -> str:
    if at is None:
        return otherwise
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC{more}"
