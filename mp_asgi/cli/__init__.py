"""Read the command line and call the one command it names."""

import argparse
from collections.abc import Sequence

from . import demo


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `mp-asgi`. Return 0 if it went well, 1 on a problem, 2 on wrong usage."""
    parser = argparse.ArgumentParser(prog="mp-asgi")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    demo.add(subparsers)
    args = parser.parse_args(arguments)
    code: int = args.run(args)
    return code
