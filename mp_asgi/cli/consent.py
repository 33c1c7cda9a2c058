"""`mp-asgi consent`: show, export and verify what the ledger recorded, and revoke consent."""

import argparse
import csv
import json
import re
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from mp_asgi.erasure.eraser import LEDGER_PEOPLE
from mp_asgi.erasure.people import Person
from mp_asgi.events import Act, ActState

from .people import (
    FORMAT,
    REAL_TIME,
    Desktop,
    Time,
    add_file,
    count,
    guard,
    mask,
    open_desktop,
    read_people,
    require_ledger,
)

if TYPE_CHECKING:
    from mp_asgi.ledger import Ledger

_LAST_OF_DAY: Final = 86_399.999  # seconds; the ledger counts whole milliseconds
_NOTE: Final = "Every process reads it before it sends again."

_Command = Callable[[argparse.Namespace, Desktop, "Ledger"], int]


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its own."""
    parser = subparsers.add_parser(
        "consent",
        help="show, export, verify or revoke recorded consent",
        description="Work with the ledger that MP_ASGI_LEDGER names.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_show(commands)
    _add_export(commands)
    _add_verify(commands)
    _add_revoke(commands)


def run(args: argparse.Namespace, moment: Time = REAL_TIME) -> int:
    """Do what the arguments say. Return the exit code."""

    def call() -> int:
        with open_desktop(moment) as desktop:
            command: _Command = args.command
            return command(args, desktop, require_ledger(desktop))

    return guard("consent", call, as_json=args.json)


def _add_show(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "show", help="print what people chose", description=f"Print what people chose. {FORMAT}"
    )
    add_file(parser)
    parser.add_argument("--reveal", action="store_true", help="print raw IDs, not their hashes")
    _finish(parser, _show)


def _add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "export",
        help="print every record",
        description="Print every record, one JSON object a line. Records name nobody.",
    )
    parser.add_argument(
        "--since", type=_parse_start, default=0.0, metavar="DATE", help="first day or time, UTC"
    )
    parser.add_argument("--until", type=_parse_end, metavar="DATE", help="last day or time, UTC")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--csv", action="store_true", help="print CSV")
    _finish(parser, _export, group)


def _add_verify(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "verify",
        help="tell whether anybody changed the records",
        description="Recompute the whole chain. Note the head that it prints somewhere else: given "
        "to a later run, it shows whether records at the end were taken away.",
    )
    parser.add_argument("--head", type=_parse_head, metavar="HASH", help="a head noted earlier")
    _finish(parser, _verify)


def _add_revoke(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "revoke",
        help="record that people are not to be tracked",
        description=f"Record a denial for people. {FORMAT}",
    )
    add_file(parser)
    parser.set_defaults(changes=True)
    _finish(parser, _revoke)


def _finish(
    parser: argparse.ArgumentParser,
    command: _Command,
    group: "argparse._ActionsContainer | None" = None,
) -> None:
    (group or parser).add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run, command=command)


def _show(args: argparse.Namespace, desktop: Desktop, ledger: "Ledger") -> int:
    people = read_people(args.file, desktop.reader)
    shown = []
    for person in people:
        records = [json.loads(record.to_json()) for record in ledger.history(person.key)]
        shown.append((mask(person, is_revealed=args.reveal), records))
    if args.json:
        print(json.dumps([{"person": name, "records": records} for name, records in shown]))
        return 0
    for name, records in shown:
        print(f"{name}: {count(len(records), 'record')}")
        for record in records:
            print(f"  {_render(record)}")
    return 0


def _render(record: dict[str, Any]) -> str:
    event, notice, processing = record["event"], record["notice"], record["processing"]
    words = [event["time"] or "erased", event["state"] or "", f"by {event['source']}"]
    if notice["version"]:
        words.append(f"notice {notice['version']}")
    if processing["legal_basis"]:
        words.append(f"basis {processing['legal_basis']}")
    return "  ".join(filter(None, words))


def _export(args: argparse.Namespace, desktop: Desktop, ledger: "Ledger") -> int:
    lines = (record.to_json() for record in ledger.export(since=args.since, until=args.until))
    if args.csv:
        _print_csv(json.loads(line) for line in lines)
    else:
        for line in lines:
            print(line)
    return 0


def _print_csv(records: Iterable[dict[str, Any]]) -> None:
    writer: csv.DictWriter[str] | None = None
    for record in records:
        row = {
            f"{group}.{name}": value for group in record for name, value in record[group].items()
        }
        if writer is None:
            writer = csv.DictWriter(sys.stdout, list(row))
            writer.writeheader()
        writer.writerow({name: _defuse(value) for name, value in row.items()})


def _verify(args: argparse.Namespace, desktop: Desktop, ledger: "Ledger") -> int:
    found = ledger.verify(args.head or "")
    if args.json:
        print(
            json.dumps(
                {
                    "is_intact": found.is_intact,
                    "records": found.records,
                    "erased": found.erased,
                    "head": found.head,
                    "problems": list(found.problems),
                }
            )
        )
        return int(not found.is_intact)
    print("Intact." if found.is_intact else "Not intact:", *found.problems, sep="\n  ")
    print(f"{count(found.records, 'record')}, {found.erased} of them erased. Head: {found.head}")
    return int(not found.is_intact)


def _revoke(args: argparse.Namespace, desktop: Desktop, ledger: "Ledger") -> int:
    people = read_people(args.file, desktop.reader)
    at = desktop.time.clock()
    revoked = 0
    for start in range(0, len(people), LEDGER_PEOPLE):
        part = people[start : start + LEDGER_PEOPLE]
        standings = ledger.standings([person.key for person in part])
        denials = [_deny(person, at) for person in part]
        news = [act for act in denials if act.is_news(standings.get(act.key))]
        ledger.append(news)
        revoked += len(news)
    denied = len(people) - revoked
    if args.json:
        print(json.dumps({"revoked": revoked, "denied_before": denied}))
    else:
        before = f" {count(denied, 'ID')} had one before." if denied else ""
        print(f"Recorded a denial for {count(revoked, 'ID')}.{before} {_NOTE}")
    return 0


def _deny(person: Person, at: float) -> Act:
    return Act(
        key=person.key,
        subject=person.subject,
        state=ActState.DENIED,
        at=at,
        source="operator",
    )


def _defuse(value: Any) -> Any:
    """Answer a cell that no spreadsheet takes for a formula (OWASP, CSV injection)."""
    return (
        f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
    )


def _parse_head(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text):
        message = f"{text!r} is no head; write the 64 digits that verify printed"
        raise argparse.ArgumentTypeError(message)
    return text


def _parse_start(text: str) -> float:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        message = f"{text!r} is no date; write 2026-11-30 or 2026-11-30T12:00"
        raise argparse.ArgumentTypeError(message) from error
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _parse_end(text: str) -> float:
    at = _parse_start(text)
    is_day = len(text) <= len("2026-11-30")
    return at + _LAST_OF_DAY if is_day else at
