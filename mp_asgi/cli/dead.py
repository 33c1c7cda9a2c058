"""`mp-asgi dead`: look at dead letters, send them again, keep them elsewhere, delete them."""

import argparse
import errno
import json
import os
import re
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from mp_asgi.backfill import EXTRA
from mp_asgi.delivery.outbox.base import MAX_DEAD_LETTERS, DeadLetter, Outbox
from mp_asgi.delivery.replies import printable

from .outbox import lend_outbox, read_letters, read_settings, render_time
from .people import REAL_TIME, Missing, Time, count, guard
from .replay import replay

_LISTED: Final = 50  # letters that fit a look
_REPLY_CHARACTERS: Final = 60
_NAME_CHARACTERS: Final = 40
#: The name of a field (reference/mixpanel.md section 7), or whatever else a reply quotes: up to the
#: last quote, for a value may hold some, or to the end if the reply was cut.
_QUOTED: Final = re.compile(
    r"""(?<!\w)(["'`])(?:(properties\.[\w$]+|\$\w+|event|-)\1(?!\w)|.*\1(?!\w)|.*)"""
)
_NO_ROOM: Final = (
    "the outbox is half full, and the rest is the visitors'. Run it again when it has been sent."
)
_MAX_ID: Final = 2**53 - 1  # what every storage can count
_MAX_DIGITS: Final = 17  # that many are beyond it

_Command = Callable[[argparse.Namespace, Outbox, Time], int]


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its own."""
    parser = subparsers.add_parser(
        "dead",
        help="list, show, replay, export or purge what Mixpanel refused",
        description="Work with the dead letters of the outbox that MP_ASGI_OUTBOX names.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_list(commands)
    _add_show(commands)
    _add_replay(commands)
    _add_purge(commands)
    _add_export(commands)


def run(args: argparse.Namespace, moment: Time = REAL_TIME) -> int:
    """Do what the arguments say. Return the exit code."""

    def call() -> int:
        with lend_outbox(read_settings()) as outbox:
            command: _Command = args.command
            return command(args, outbox, moment)

    return guard("dead", call, as_json=args.json)


def _add_list(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "list",
        help="print the newest, without properties",
        description="Print the newest dead letters: number, time, endpoint, name, reason, and how "
        "Mixpanel's reply begins. No properties: what the reply quotes is masked.",
    )
    parser.add_argument("--reason", metavar="REASON", help="only these, as in rejected")
    parser.add_argument(
        "--limit",
        type=_parse_limit,
        default=_LISTED,
        metavar="N",
        help="how many; default: %(default)s",
    )
    _finish(parser, _list)


def _add_show(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "show",
        help="print one, with its properties",
        description="Print one dead letter whole. Its properties are personal data.",
    )
    parser.add_argument("id", type=_parse_id, metavar="ID", help="its number in the list")
    _finish(parser, _show)


def _add_replay(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "replay",
        help="put letters back, to be sent again",
        description="Put dead letters back at the end of the outbox, to be sent again, until half "
        "of it is full. What its person has stopped since stays dead.",
    )
    _add_selection(parser)
    parser.set_defaults(changes=True)
    _finish(parser, _replay)


def _add_purge(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "purge", help="delete letters for good", description="Delete dead letters for good."
    )
    _add_selection(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.set_defaults(changes=True)
    _finish(parser, _purge)


def _add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "export",
        help="write all, with their properties, one JSON object a line",
        description="Write every dead letter with its properties, one JSON object a line, as "
        "`mp-asgi backfill` reads them. They stay where they are. Properties are personal data.",
    )
    parser.add_argument(
        "file", metavar="FILE", help="a new file, for its owner alone; - is standard output"
    )
    parser.set_defaults(run=run, command=_export, json=False)


def _add_selection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument(
        "ids", nargs="*", type=_parse_id, default=[], metavar="ID", help="their numbers"
    )
    group.add_argument("--all", action="store_true", help="every one")
    group.add_argument("--reason", metavar="REASON", help="those with this reason")


def _finish(parser: argparse.ArgumentParser, command: _Command) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run, command=command)


def _list(args: argparse.Namespace, outbox: Outbox, _: Time) -> int:
    rows: deque[dict[str, Any]] = deque(maxlen=args.limit)
    found = 0
    for letter in _choose(outbox, args.reason):
        row = _summarise(letter)
        rows.append(row | {"reply": _QUOTED.sub(_mask, row["reply"])})
        found += 1
    if args.json:
        print(json.dumps(list(rows)))
        return 0
    if found > len(rows):
        print(f"{count(found - len(rows), 'older letter')} not shown; --limit shows more.")
    for row in rows:
        name = row["name"][:_NAME_CHARACTERS]
        reply = row["reply"][:_REPLY_CHARACTERS]
        words = [row["id"], row["buried_at"], row["endpoint"], name, row["reason"], reply]
        print(*words, sep="  ")
    if not found:
        print("No dead letters.")
    return 0


def _show(args: argparse.Namespace, outbox: Outbox, _: Time) -> int:
    found = [letter for letter in outbox.dead(args.id - 1, 1) if letter.id == args.id]
    if not found:
        raise Missing(f"There is no dead letter {args.id}. `mp-asgi dead list` has the numbers.")
    (letter,) = found
    content = _summarise(letter) | {"message": json.loads(letter.message.body)}
    if args.json:
        print(json.dumps(content))
        return 0
    print("This holds properties, which are personal data.", file=sys.stderr)
    message = content.pop("message")
    for name, value in content.items():
        print(f"{name:<9}  {value}")
    # Escaped, so that no property plays with the terminal.
    print(json.dumps(message, indent=2))
    return 0


def _replay(args: argparse.Namespace, outbox: Outbox, moment: Time) -> int:
    sizes = _measure(args, outbox)
    asked = len(frozenset(args.ids)) or len(sizes)
    replayed, no_room = replay(outbox, sizes, read_settings(), moment.clock)
    kept = asked - replayed - no_room
    code = int(replayed < asked)
    if args.json:
        print(json.dumps({"replayed": replayed, "kept": kept, "no_room": no_room}))
        return code
    print(f"{count(replayed, 'dead letter')} put back, to be sent again.")
    if no_room:
        print(f"{count(no_room, 'other')} not: {_NO_ROOM}")
    if kept:
        print(f"{count(kept, 'other')} not: its person stopped it, or there is no such letter.")
    return code


def _purge(args: argparse.Namespace, outbox: Outbox, _: Time) -> int:
    ids = _select(args, outbox)
    if ids and not args.yes:
        if not sys.stdin.isatty():
            print("mp-asgi dead: without a terminal, purge needs --yes.", file=sys.stderr)
            return 2
        question = f"Delete {count(len(ids), 'dead letter')} for good? [y/N] "
        print(question, end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            print("Nothing was deleted.", file=sys.stderr)
            return 1
    purged = outbox.purge(ids)
    missing = len(ids) - purged
    if args.json:
        print(json.dumps({"purged": purged, "missing": missing}))
    else:
        print(f"{count(purged, 'dead letter')} deleted.")
        if missing:
            print(f"{count(missing, 'other')} not: there is no such letter.")
    return int(missing > 0)


def _export(args: argparse.Namespace, outbox: Outbox, _: Time) -> int:
    lines = map(_render_line, read_letters(outbox))
    if args.file == "-":
        for line in lines:
            print(line)
        return 0
    path = Path(args.file)
    written = _write_new(path, lines)
    print(f"{count(written, 'dead letter')} written to {path}, with properties: personal data.")
    return 0


def _write_new(path: Path, lines: Iterable[str]) -> int:
    """Write lines into a file that is not there yet, for its owner alone. Return how many.

    It bears its name when it is whole: whoever finds it may purge what it holds.
    """
    if path.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    descriptor, name = tempfile.mkstemp(".part", f"{path.name}.", path.parent)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            written = sum(1 for line in lines if file.write(f"{line}\n"))
            file.flush()
            os.fsync(file.fileno())
        path.touch(mode=0o600, exist_ok=False)  # unless somebody has taken the name meanwhile
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return written


def _choose(outbox: Outbox, reason: str | None) -> Iterable[DeadLetter]:
    letters = read_letters(outbox)
    return (letter for letter in letters if reason is None or letter.reason == reason)


def _measure(args: argparse.Namespace, outbox: Outbox) -> dict[int, int]:
    """Answer the bytes of each chosen letter that is there."""
    if args.ids:
        found = (letter for number in args.ids for letter in outbox.dead(number - 1, 1))
        letters: Iterable[DeadLetter] = (letter for letter in found if letter.id in args.ids)
    else:
        letters = _choose(outbox, args.reason)
    return {letter.id: letter.size_bytes for letter in letters}


def _select(args: argparse.Namespace, outbox: Outbox) -> frozenset[int]:
    return frozenset(args.ids or (letter.id for letter in _choose(outbox, args.reason)))


def _summarise(letter: DeadLetter) -> dict[str, Any]:
    """Answer what a letter says without its properties."""
    return {
        "id": letter.id,
        "buried_at": render_time(letter.buried_at),
        "endpoint": letter.endpoint.value,
        "name": printable(letter.message.name),
        "reason": letter.reason,
        "reply": printable(letter.reply),
    }


def _mask(quoted: re.Match[str]) -> str:
    """Keep the name of a field; anything else may be a visitor's."""
    quote, field = quoted.groups()
    return quoted[0] if field else f"{quote}***{quote}"


def _render_line(letter: DeadLetter) -> str:
    return json.dumps(json.loads(letter.message.body) | {EXTRA: _summarise(letter)})


def _parse_limit(text: str) -> int:
    return min(_parse_number(text), MAX_DEAD_LETTERS)


def _parse_id(text: str) -> int:
    number = _parse_number(text)
    if number > _MAX_ID:
        raise argparse.ArgumentTypeError(f"{text[:_NAME_CHARACTERS]!r} is no letter's number")
    return number


def _parse_number(text: str) -> int:
    digits = text.lstrip("0")
    if not (digits.isascii() and digits.isdigit()):
        raise argparse.ArgumentTypeError(f"{text[:_NAME_CHARACTERS]!r} is no number from 1")
    return int(digits[:_MAX_DIGITS])
