"""Read the command line and call the one command it names."""

import argparse
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
from .streams import discard_output, outlive_reader, prepare_streams

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
    prepare_streams()
    parser = argparse.ArgumentParser(
        prog="mp-asgi", description="Mixpanel server-side tracking, with consent."
    )
    parser.set_defaults(changes=False)  # what only reads ends when nobody listens
    parser.add_argument("--version", action="version", version=f"mp-asgi {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(subparsers)
    args = parser.parse_args(arguments)
    if args.changes:
        outlive_reader()
    code = 0
    try:
        code = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output is gone, as in `| head`
        discard_output()
    except OSError as error:  # commands tell their own; this is what they have printed
        print(f"mp-asgi: standard output: {error.strerror}", file=sys.stderr)
        discard_output()
        return 2
    return code
