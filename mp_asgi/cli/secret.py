"""`mp-asgi secret`: print a key that can sign cookies."""

import argparse
import secrets

KEY_BYTES = 48  # 64 characters; MP_ASGI_SECRET_KEYS asks for at least 32


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "secret",
        help="print a new key for MP_ASGI_SECRET_KEYS",
        description="Print a new random key for MP_ASGI_SECRET_KEYS. To rotate, put it behind the "
        "old one (comma list, oldest first): the last key signs, all of them verify.",
    )
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Print one key."""
    print(secrets.token_urlsafe(KEY_BYTES))
    return 0
