"""Read the command line and call the one command it names."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import Final

from mp_asgi._version import __version__

from . import (
    backfill,
    consent,
    dead,
    demo,
    drain,
    erase,
    explain,
    retrieve,
    secret,
    status,
    tail,
)

_COMMANDS: Final = (
    *(demo, secret, explain, consent, erase, retrieve),
    *(status, tail, dead, drain, backfill),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `mp-asgi`.

    Args:
        arguments: Instead of the process's own.

    Returns:
        0 if it went well, 1 on a problem, 2 on wrong usage.
    """
    _print_anything()
    parser = argparse.ArgumentParser(
        prog="mp-asgi", description="Mixpanel server-side tracking, with consent."
    )
    parser.add_argument("--version", action="version", version=f"mp-asgi {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(subparsers)
    args = parser.parse_args(arguments)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output is gone, as in `| head`.
        sys.stderr.close()
        return 0
    except OSError as error:  # commands tell their own; this is what they have printed
        print(f"mp-asgi: standard output: {error.strerror}", file=sys.stderr)
        _discard_output()
        return 2
    return code


def _discard_output() -> None:
    """Let the interpreter not try again what cannot be written."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _print_anything() -> None:
    """Let a terminal without the letters of an ID show their numbers instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
