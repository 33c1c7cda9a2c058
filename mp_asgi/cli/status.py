"""`mp-asgi status`: say whether the outbox needs somebody, then how full it is and what became of
everything that was accepted.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from mp_asgi.delivery.outbox.base import Outbox
from mp_asgi.errors import OutboxUnavailable
from mp_asgi.health import NEARLY_FULL, OLD_SECONDS
from mp_asgi.settings import Settings

from .leftovers import Leftovers
from .letters import Letters
from .look import RECENT_SECONDS, Look, look_at
from .outbox import (
    count_messages,
    lend_outbox,
    name_place,
    read_settings,
    render_bytes,
    render_seconds,
    render_time,
    render_waiting,
)
from .people import REAL_TIME, Time, guard

_WATCH_SECONDS: Final = 2.0
_CLEAR: Final = "\x1b[H\x1b[J"


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "status",
        help="say how delivery fares, and whether it needs somebody",
        description="Look at the outbox that MP_ASGI_OUTBOX names. The exit code is 1 if somebody "
        f"is needed: something waits for over {render_seconds(OLD_SECONDS)}, something died "
        f"within {render_seconds(RECENT_SECONDS)}, the outbox is {NEARLY_FULL:.0%} full, a process "
        "has left a journal that nobody took in, something waits where these settings do not lead, "
        "or the outbox does not answer.",
    )
    parser.add_argument(
        "--watch",
        nargs="?",
        type=_parse_seconds,
        const=_WATCH_SECONDS,
        metavar="SECONDS",
        help="look again and again, until Ctrl-C; default: every %(const)s s",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a look")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, moment: Time = REAL_TIME) -> int:
    """Do what the arguments say. Return the exit code."""

    def call() -> int:
        settings = read_settings()
        with lend_outbox(settings) as outbox:
            if args.watch is None:
                look = look_at(outbox, Letters(outbox), settings, moment.clock())
                print(json.dumps(look.to_json()) if args.json else _render(look, settings))
                return int(bool(look.worries()))
            return _watch(args, outbox, settings, moment)

    return guard("status", call, as_json=args.json)


def _watch(args: argparse.Namespace, outbox: Outbox, settings: Settings, moment: Time) -> int:
    """Look until somebody ends it. Return the exit code of the last look."""
    redraws = sys.stdout.isatty() and not args.json
    look = partial(look_at, outbox, Letters(outbox), settings)
    code = 0
    try:
        while True:
            text, code = _look_once(look, settings, moment.clock(), args, redraws=redraws)
            print(f"{_CLEAR}{text}" if redraws else text, flush=True)
            moment.sleep(args.watch)
    except KeyboardInterrupt:
        return code


def _look_once(
    take: Callable[[float], Look],
    settings: Settings,
    now: float,
    args: argparse.Namespace,
    *,
    redraws: bool,
) -> tuple[str, int]:
    """Answer what to print, and the exit code: an outbox that is away may come back."""
    try:
        look = take(now)
    except OutboxUnavailable as error:
        content = {"at": now, "error": str(error)}
        return json.dumps(content) if args.json else f"{render_time(now)}  {error}", 1
    code = int(bool(look.worries()))
    if args.json:
        return json.dumps(look.to_json()), code
    return _render(look, settings) if redraws else _render_line(look), code


def _render(look: Look, settings: Settings) -> str:
    stats, worries = look.stats, look.worries()
    verdict = [f"Needs you: {worry}" for worry in worries] or [
        f"All is well: {_render_waiting(look)}."
    ]
    waiting = f"{count_messages(stats.depth)}, {render_bytes(stats.size_bytes)}"
    if stats.leased:
        waiting += f", {stats.leased:,} on the way"
    if stats.behind_aliases:
        waiting += f", {stats.behind_aliases:,} behind an alias"
    rows = [
        ("outbox", name_place(settings)),
        ("waiting", f"{waiting}; {look.fullness:.0%} full"),
        *_render_leftovers(look.leftovers),
        ("dead", _render_dead(look)),
        ("dropped", _render_reasons(look.counts.dropped)),
        ("total", _render_identity(look)),
    ]
    lines = [*verdict, "", *(f"{name:<8} {text}" for name, text in rows)]
    if look.counts.dropped:
        lines.append("What each reason means: docs/operations.md")
    return "\n".join(lines)


def _render_waiting(look: Look) -> str:
    text = render_waiting(look.waiting)
    return f"{text}, up to {render_seconds(look.waiting_seconds)}" if look.waiting else text


def _render_leftovers(left: Leftovers) -> list[tuple[str, str]]:
    rows = []
    if left.spool.depth:
        size = render_bytes(left.spool.size_bytes)
        rows.append(("spool", f"{count_messages(left.spool.depth)}, {size}, of this host"))
    if left.journals:
        rows.append(
            ("journals", f"{left.journals:,} left behind, {render_bytes(left.journal_bytes)}")
        )
    return rows


def _render_dead(look: Look) -> str:
    text = _render_reasons(look.dead)
    return f"{text}; {render_bytes(look.stats.dead_bytes)}" if look.dead else text


def _render_reasons(numbers: Mapping[str, int]) -> str:
    """Answer `3: 2 rejected, 1 expired`, or `0`."""
    parts = ", ".join(f"{number:,} {reason}" for reason, number in sorted(numbers.items()))
    total = f"{sum(numbers.values()):,}"
    return f"{total}: {parts}" if parts else total


def _render_identity(look: Look) -> str:
    counts = look.counts
    dropped = sum(counts.dropped.values())
    text = (
        f"{counts.accepted:,} accepted + {look.replayed:,} replayed = {counts.delivered:,} "
        f"delivered + {counts.waiting:,} waiting + {counts.buried + look.replayed:,} buried + "
        f"{dropped:,} dropped"
    )
    return text if look.is_balanced else f"{text} (does not add up: look again)"


def _render_line(look: Look) -> str:
    """Answer a look on one line, for a log."""
    counts = look.counts
    state = "needs you" if look.worries() else "well"
    return (
        f"{render_time(look.at)}  {state}: {_render_waiting(look)}; dead "
        f"{sum(look.dead.values()):,}, delivered {counts.delivered:,}, dropped "
        f"{sum(counts.dropped.values()):,}"
    )


def _parse_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 86_400.0:  # noqa: PLR2004
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0.1 to 86400")
    return seconds
