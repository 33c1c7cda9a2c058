"""`mp-asgi drain`: deliver what waits in the outbox, until it is empty, for a time, or for ever."""

import argparse
import json
import math
import sys
from contextlib import closing
from typing import Any, Final

from mp_asgi.delivery.outbox.base import Outbox
from mp_asgi.delivery.pump import LEASE_SECONDS
from mp_asgi.errors import OutboxUnavailable
from mp_asgi.settings import Settings
from mp_asgi.settings.outbox_place import OutboxKind

from .drainer import Drainer
from .leftovers import find_journals, find_leftovers, forwarding
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

_PAUSE_SECONDS: Final = 1.0  # between two tries of an outbox that is away


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "drain",
        help="deliver what waits",
        description="Deliver what waits in the outbox that MP_ASGI_OUTBOX names, as the web "
        "processes would, and on this host what is in journals of processes that have ended and, "
        "with Redis, in the spool. Any number may run at once, on any hosts. The exit code is 1 if "
        "something waits at the end; with --forever, if it ends without a signal, or if the outbox "
        "does not answer then.",
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--max-time", type=_parse_seconds, metavar="SECONDS", help="give up after so long"
    )
    group.add_argument(
        "--forever", action="store_true", help="go on until SIGTERM or Ctrl-C, as a service"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.set_defaults(run=run, changes=True)


def run(args: argparse.Namespace, moment: Time = REAL_TIME) -> int:
    """Do what the arguments say. Return the exit code."""

    def call() -> int:
        settings = require_enabled(Settings.from_env())
        # A service may be started before the first event; who drains once wants to find one. A
        # process without threads makes no outbox.
        creates = args.forever or bool(find_journals(settings))
        with lend_outbox(settings, creates=creates) as outbox:
            if args.forever and settings.outbox_place.kind is OutboxKind.REDIS:
                wait_until_it_answers(outbox, moment)
            return _drain(args, settings, outbox, moment)

    return guard("drain", call, as_json=args.json)


def wait_until_it_answers(outbox: Outbox, moment: Time) -> None:
    """Return once it does: a service may be started before its server is."""
    told = ""
    while True:
        try:
            outbox.stats()
        except OutboxUnavailable as error:
            if told != str(error):
                told = str(error)
                text = f"mp-asgi drain: {told.rstrip('.')}. It is tried again."
                print(text, file=sys.stderr, flush=True)
            moment.sleep(_PAUSE_SECONDS)
        else:
            return


def _drain(args: argparse.Namespace, settings: Settings, outbox: Outbox, moment: Time) -> int:
    began = moment.monotonic()
    seconds = math.inf if args.max_time is None else args.max_time
    with (
        closing(make_progress()) as progress,
        # A service is there before the first outage.
        forwarding(settings, outbox, creates=args.forever, seconds=seconds) as spooled,
        Drainer(settings, outbox, progress, "drain") as drainer,
    ):
        if args.forever:
            if not args.json:
                print(f"Delivering from {name_place(settings)} until a signal.", flush=True)
            is_done = drainer.deliver_for_ever()
        else:
            is_done = drainer.deliver_until(
                lambda: drainer.is_flushed and not spooled() and not outbox.stats().depth, seconds
            )
    content = _sum_up(settings, outbox, drainer, moment.monotonic() - began)
    print(json.dumps(content) if args.json else _render(content))
    if not args.forever:  # whether it saw the end of it or not
        is_done = not content["waiting"] and not content["journals"]
    return int(not is_done)


def _sum_up(settings: Settings, outbox: Outbox, drainer: Drainer, seconds: float) -> dict[str, Any]:
    counts = drainer.count()
    left = find_leftovers(settings)
    waiting = counts.waiting + left.spool.depth
    return {
        "waiting": waiting,
        "leased": outbox.stats().leased,
        "journals": left.journals,
        "delivered": counts.delivered,
        "buried": counts.buried,
        "dropped": sum(counts.dropped.values()),
        "seconds": round(seconds, 3),
        "trouble": drainer.trouble if waiting or left.journals else "",
    }


def _render(content: dict[str, Any]) -> str:
    took = render_seconds(content["seconds"])
    sentences = [f"{count_messages(content['delivered'])} delivered in {took}."]
    if content["buried"]:
        sentences.append(f"{content['buried']:,} died: see `mp-asgi dead list`.")
    if content["dropped"]:
        sentences.append(f"{content['dropped']:,} dropped: see `mp-asgi status`.")
    if content["waiting"]:
        why = content["trouble"] or _guess(content["leased"])
        sentences.append(f"{render_waiting(content['waiting'])} still. {why}")
    elif content["journals"]:
        why = content["trouble"] or "Another process may have them in hand."
        sentences.append(f"{count(content['journals'], 'journal')} not taken in. {why}")
    else:
        sentences.append("Nothing waits.")
    return " ".join(sentences)


def _guess(leased: int) -> str:
    """Answer why something waits that nothing is known to stop."""
    if not leased:
        return "New ones come, or the time was too short."
    return (
        f"{leased:,} on the way, by us or another process: Mixpanel has not answered yet. What "
        f"gets no answer is sent again after {render_seconds(LEASE_SECONDS)}."
    )


def _parse_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds
