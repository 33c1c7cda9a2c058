"""Read the command line and call the one command it names."""

import argparse
import io
import sys
from collections.abc import Sequence

from mp_asgi._version import __version__

from . import consent, demo, erase, explain, retrieve, secret


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
    for command in (demo, secret, explain, consent, erase, retrieve):
        command.add(subparsers)
    args = parser.parse_args(arguments)
    try:
        code: int = args.run(args)
    except BrokenPipeError:
        # The reader of our output is gone, as in `| head`.
        sys.stderr.close()
        return 0
    return code


def _print_anything() -> None:
    """Let a terminal without the letters of an ID show their numbers instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
