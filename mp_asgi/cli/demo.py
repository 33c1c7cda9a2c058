"""Run the example shop against a local Mixpanel stand-in: no account, no network."""

import argparse
import errno
import importlib
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mp_asgi.dev.judge import Mode

DEFAULT_PORT = 8000
DEFAULT_STANDIN_PORT = 8001
TOKEN = "0" * 31 + "1"  # shaped as Mixpanel's; only the stand-in sees it
PREFIXES = ("MIXPANEL_", "MP_ASGI_")
# What a login means in each ID merge; examples/ call `identify` without `new_user`.
LOGIN: "Mapping[Mode, str]" = {
    "simplified": "Log in, and it carries your $user_id; log out, and you are new.",
    "original": "Log in, and an $identify joins it to you; log out, and the device stays the same.",
    "legacy": "Log in, and you are another person: only a sign-up sends a $create_alias.",
}

GUIDE = """
  {shop:<20}{shop_url}
  Mixpanel stand-in   {url}

Open both. In the shop, add something to the cart: nothing arrives. Accept in the banner and add
again: the event arrives with a $device_id.
{login}
Refuse under "Privacy settings", and nothing leaves any more. Ctrl-C ends the demo.
"""

Server = Callable[..., AbstractContextManager[Any]]


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register `mp-asgi demo`."""
    parser = subparsers.add_parser(
        "demo",
        help="run the example shop with a local Mixpanel",
        epilog="MP_ASGI_IDENTITY=original or =legacy shows Mixpanel's other ID merges.",
    )
    parser.add_argument("--wsgi", action="store_true", help="the Flask shop, not Starlette's")
    parser.add_argument("--port", type=_parse_port, help=f"the shop's port ({DEFAULT_PORT})")
    parser.add_argument(
        "--standin-port", type=_parse_port, help=f"the stand-in's port ({DEFAULT_STANDIN_PORT})"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM. Return the exit code."""
    try:
        with _stop_signal() as stop, ExitStack() as stack:
            _serve(args, stack)
            stop.wait()
            print("\nStopping.", flush=True)
    except (ImportError, OSError, RuntimeError) as error:
        print(f"mp-asgi demo: {error}", file=sys.stderr)
        return 1
    return 0


def _serve(args: argparse.Namespace, stack: ExitStack) -> None:
    from mp_asgi.dev.server import run_in_thread, run_wsgi_in_thread  # noqa: PLC0415 - extras
    from mp_asgi.dev.standin import StandIn  # noqa: PLC0415 - Starlette, only when it runs

    mode = _read_mode()
    name, serve = "starlette_app", partial(run_in_thread, log_level="error")
    if args.wsgi:
        name, serve = "flask_app", partial(run_wsgi_in_thread)
    standin = _start(
        stack,
        run_in_thread,
        StandIn(TOKEN, mode=mode),
        port=args.standin_port,
        default=DEFAULT_STANDIN_PORT,
        option="--standin-port",
    )
    _configure(standin.url, mode, stack.enter_context(TemporaryDirectory(prefix="mp-asgi-demo-")))
    app = _load_app(name)
    if args.wsgi:
        # No WSGI server says when it ends; what waits is sent while the stand-in is still there.
        stack.callback(app.extensions["mixpanel"].close)
    shop = _start(stack, serve, app, port=args.port, default=DEFAULT_PORT, option="--port")
    kind = "Flask" if args.wsgi else "Starlette"
    guide = GUIDE.format(
        shop=f"Shop ({kind})", shop_url=shop.url, url=standin.url, login=LOGIN[mode]
    )
    print(guide, flush=True)


def _start(
    stack: ExitStack, serve: Server, app: object, *, port: int | None, default: int, option: str
) -> Any:
    try:
        return stack.enter_context(serve(app, default if port is None else port))
    except OSError as error:
        if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
            raise
        if port is not None:
            raise OSError(f"{option} {port} is taken. Name another one or leave it out.") from error
    return stack.enter_context(serve(app, 0))


def _read_mode() -> "Mode":
    """Answer the ID merge to show: the one setting that the demo takes from the shell."""
    wanted = os.environ.get("MP_ASGI_IDENTITY") or "simplified"
    for mode in LOGIN:
        if mode == wanted:
            return mode
    raise RuntimeError(f"MP_ASGI_IDENTITY is {wanted!r}. Use {' or '.join(LOGIN)}.")


def _configure(api_host: str, mode: "Mode", state_directory: str) -> None:
    """Point the example at the stand-in, whatever else the developer's shell says."""
    for name in [name for name in os.environ if name.startswith(PREFIXES)]:
        del os.environ[name]
    os.environ.update(
        MIXPANEL_TOKEN=TOKEN,
        MIXPANEL_API_HOST=api_host,
        MP_ASGI_SECRET_KEYS=secrets.token_urlsafe(32),
        MP_ASGI_FLUSH_INTERVAL="0.2",
        MP_ASGI_IDENTITY=mode,
        MP_ASGI_STATE_DIRECTORY=state_directory,
    )


def _load_app(name: str) -> Any:
    # A wheel carries the examples inside the package; a checkout has them beside it.
    problem: ImportError | None = None
    for package in ("mp_asgi.dev.examples", "examples"):
        try:
            return importlib.import_module(f"{package}.{name}.main").app
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if missing == "flask":
                raise ImportError('Flask is missing. Run: pip install "mp-asgi[flask]"') from error
            if not f"{package}.{name}.main".startswith(missing):
                raise
            problem = error
    raise ImportError(
        "The example apps are missing. Run this in a checkout of mp-asgi, or install its wheel."
    ) from problem


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """Give an event that Ctrl-C and SIGTERM set."""
    stop = threading.Event()

    def stop_soon(number: int, frame: FrameType | None) -> None:
        stop.set()

    previous = {
        number: signal.signal(number, stop_soon) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, action in previous.items():
            signal.signal(number, action)


def _parse_port(text: str) -> int:
    port = int(text) if text.isascii() and text.isdigit() else 0
    if not 0 < port < 65_536:  # noqa: PLR2004 - 16 bits
        raise argparse.ArgumentTypeError(f"{text!r} is no port; use 1 to 65535")
    return port
