"""`mp-asgi drain`: deliver what waits in the outbox, until it is empty, for a time, or for ever."""

import argparse
import json
import math
from contextlib import closing
from typing import Any

from mp_asgi.delivery.outbox.base import Outbox
from mp_asgi.settings import Settings

from .drainer import Drainer
from .leftovers import find_leftovers, forwarding, has_journals
from .outbox import (
    count_messages,
    lend_outbox,
    name_place,
    render_seconds,
    render_waiting,
    require_enabled,
)
from .people import REAL_TIME, Time, count, guard
from .progress import make_progress


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "drain",
        help="deliver what waits",
        description="Deliver what waits in the outbox that MP_ASGI_OUTBOX names, as the web "
        "processes would, and on this host what is in journals of processes that have ended and, "
        "with Redis, in the spool. Any number may run at once, on any hosts. The exit code is 1 if "
        "something waits at the end.",
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--max-time", type=_parse_seconds, metavar="SECONDS", help="give up after so long"
    )
    group.add_argument(
        "--forever", action="store_true", help="go on until SIGTERM or Ctrl-C, as a service"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, moment: Time = REAL_TIME) -> int:
    """Do what the arguments say. Return the exit code."""

    def call() -> int:
        settings = require_enabled(Settings.from_env())
        # A service may be started before the first event; who drains once wants to find one. A
        # process without threads makes no outbox.
        creates = args.forever or has_journals(settings)
        with lend_outbox(settings, creates=creates) as outbox:
            return _drain(args, settings, outbox, moment)

    return guard("drain", call, as_json=args.json)


def _drain(args: argparse.Namespace, settings: Settings, outbox: Outbox, moment: Time) -> int:
    began = moment.monotonic()
    with (
        closing(make_progress()) as progress,
        forwarding(settings, outbox) as spooled,
        Drainer(settings, outbox, progress, "drain") as drainer,
    ):
        if args.forever:
            if not args.json:
                print(f"Delivering from {name_place(settings)} until a signal.", flush=True)
            drainer.deliver_for_ever()
        else:
            seconds = math.inf if args.max_time is None else args.max_time
            drainer.deliver_until(
                lambda: drainer.is_flushed and not spooled() and not outbox.stats().depth, seconds
            )
    counts = drainer.count()
    left = find_leftovers(settings)
    waiting = counts.waiting + left.spool.depth
    content = {
        "waiting": waiting,
        "journals": left.journals,
        "delivered": counts.delivered,
        "buried": counts.buried,
        "dropped": sum(counts.dropped.values()),
        "seconds": round(moment.monotonic() - began, 3),
        "trouble": drainer.trouble if waiting or left.journals else "",
    }
    print(json.dumps(content) if args.json else _render(content))
    return int((waiting > 0 or left.journals > 0) and not args.forever)


def _render(content: dict[str, Any]) -> str:
    took = render_seconds(content["seconds"])
    sentences = [f"{count_messages(content['delivered'])} delivered in {took}."]
    if content["buried"]:
        sentences.append(f"{content['buried']:,} died: see `mp-asgi dead list`.")
    if content["dropped"]:
        sentences.append(f"{content['dropped']:,} dropped: see `mp-asgi status`.")
    if content["waiting"]:
        why = content["trouble"] or "New ones come, or another process has them in hand."
        sentences.append(f"{render_waiting(content['waiting'])} still. {why}")
    elif content["journals"]:
        why = content["trouble"] or "Another process may have them in hand."
        sentences.append(f"{count(content['journals'], 'journal')} not taken in. {why}")
    else:
        sentences.append("Nothing waits.")
    return " ".join(sentences)


def _parse_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds
