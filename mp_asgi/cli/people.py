"""What the commands about people share: whom they are about, what they ask, how they fail.

IDs come from a file or standard input, never from the command line, where every user of the
machine and the shell's history could read them (RULES section 3).
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from mp_asgi.analytics import Analytics
from mp_asgi.assembly import make_ledger
from mp_asgi.erasure.eraser import NOT_ASKED
from mp_asgi.erasure.jobs import JobKind, is_task_id
from mp_asgi.erasure.mixpanel import PrivacyAPI, open_api
from mp_asgi.erasure.people import PeopleReader, Person, UnreadablePeople
from mp_asgi.errors import MixpanelASGIError, SettingsError
from mp_asgi.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mp_asgi.ledger import Ledger

FORMAT: Final = (
    "One ID a line: a user ID, or user:ID, device:ID, cookie:VALUE (of the ID cookie, for a "
    "visitor without an account). Blank lines and lines that start with # are passed over."
)
_INTERRUPTED: Final = "interrupted. Run it again to go on."
_STDIN: Final = 0


class Missing(MixpanelASGIError):
    """The command needs what is not configured; the message names the variable."""


@dataclass(frozen=True, slots=True)
class Time:
    """The time that a command lives in.

    Attributes:
        clock: Seconds since the epoch.
        monotonic: Seconds that never run backwards.
        sleep: Waits so many seconds.
    """

    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


REAL_TIME: Final = Time()


@dataclass(frozen=True, slots=True)
class Desktop:
    """What a command about people works with.

    Attributes:
        reader: Makes people of IDs.
        ledger: None if none is configured, or if the command needs none.
        api: Mixpanel's; None without an OAuth token.
        time: The time it lives in.
    """

    reader: PeopleReader
    ledger: "Ledger | None"
    api: PrivacyAPI | None
    time: Time


def add_file(parser: argparse.ArgumentParser) -> None:
    """Let a command be told whom it is about."""
    parser.add_argument(
        "-f",
        "--file",
        default="-",
        metavar="FILE",
        help="file with one ID a line; standard input if it is - or left out",
    )


def parse_task_id(text: str) -> str:
    """Answer a task ID of the command line.

    Raises:
        ArgumentTypeError: It cannot be one.
    """
    if not is_task_id(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no task ID of Mixpanel")
    return text


def read_people(path: str, reader: PeopleReader) -> list[Person]:
    """Read a file, or standard input if its name is `-`.

    Raises:
        OSError: It cannot be read.
        UnreadablePeople: A line cannot be used.
    """
    if path == "-" and os.isatty(_STDIN):
        print("Type one ID a line, end with Ctrl-D.", file=sys.stderr)
    source: Any = _STDIN if path == "-" else path
    # A wrong byte becomes a lone surrogate, which no ID may hold; a BOM is not part of the first.
    with open(source, encoding="utf-8-sig", errors="surrogateescape", closefd=path != "-") as lines:
        return reader.parse(lines)


def mask(person: Person, *, is_revealed: bool) -> str:
    """Answer a name for a person that only who knows the ID can tell: kind and keyed hash."""
    name = person.id if is_revealed else person.key.hex()[:12]
    return f"{person.subject.value} {name}"


@contextmanager
def open_desktop(moment: Time, *, has_ledger: bool = True) -> "Iterator[Desktop]":
    """Lend what the environment configures.

    Args:
        moment: The time to live in.
        has_ledger: Whether the command needs the ledger, which is never created here: an empty
            one at a wrong place would know nobody, and say so as if that were true.

    Raises:
        MixpanelASGIError: Something needed is missing or cannot be used.
    """
    # Who is switched off must be able to erase.
    settings = replace(Settings.from_env(), enabled=True)
    # Switched off, it opens no ledger of its own.
    core = Analytics(replace(settings, enabled=False), clock=moment.clock).core
    ledger = make_ledger(settings, moment.clock, creates=False) if has_ledger else None
    reader = PeopleReader(core.keys, core.mode, core.id_signer)
    api = open_api(settings, moment.monotonic, moment.sleep)
    try:
        yield Desktop(reader, ledger, api, moment)
    finally:
        if ledger is not None:
            ledger.close()


def guard(
    command: str, call: Callable[[], int], *, as_json: bool, interrupted: str = _INTERRUPTED
) -> int:
    """Call, and say in one sentence what went wrong. Return the exit code.

    Args:
        command: Its name.
        call: Answers the exit code.
        as_json: Whether standard output gets the sentence, too, as one JSON object.
        interrupted: What Ctrl-C leaves, and how to go on.
    """
    prefix = f"mp-asgi {command}: "
    try:
        return call()
    except BrokenPipeError:
        raise
    except SettingsError as error:
        code, text, prefix = 1, str(error), ""
    except (UnreadablePeople, OSError) as error:
        code, text = 2, str(error)
    except MixpanelASGIError as error:
        code, text = 1, str(error)
    except KeyboardInterrupt:
        code, text = 1, interrupted
    print(f"{prefix}{text}", file=sys.stderr)
    if as_json:
        with suppress(OSError):  # standard output may be what failed
            print(json.dumps({"error": text}))
    return code


def require_api(desktop: Desktop) -> PrivacyAPI:
    """Answer Mixpanel's API.

    Raises:
        Missing: There is no OAuth token.
    """
    if desktop.api is None:
        raise Missing(NOT_ASKED)
    return desktop.api


def require_ledger(desktop: Desktop) -> "Ledger":
    """Answer the ledger.

    Raises:
        Missing: None is configured.
    """
    if desktop.ledger is None:
        raise Missing(
            "MP_ASGI_LEDGER is not set. Set it, and MP_ASGI_LEDGER_KEYS, as the app has them."
        )
    return desktop.ledger


def ask_status(desktop: Desktop, kind: JobKind, task_id: str, *, as_json: bool) -> int:
    """Print how far a job is. Return the exit code."""
    status = require_api(desktop).status(kind, task_id)
    if as_json:
        content = {"task_id": task_id, "status": status.state.value, "link": status.link}
        print(json.dumps(content))
    else:
        print(" ".join(filter(None, (status.state.value, status.link))))
    return int(status.state.is_lost)


def count(number: int, noun: str) -> str:
    """Answer `1 job`, `2 jobs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
