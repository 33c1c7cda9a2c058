"""`mp-asgi tail`: print what happens in the outbox, as it happens: numbers, reasons, and the names
of what dies. No properties, no IDs.
"""

import argparse
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from mp_asgi.delivery.outbox.base import Outbox
from mp_asgi.delivery.replies import printable
from mp_asgi.errors import OutboxUnavailable

from .outbox import lend_outbox, read_letters, read_settings, render_time
from .people import REAL_TIME, Time, guard

_SECONDS: Final = 1.0  # between looks
_SHOWN: Final = ("accepted", "replayed", "delivered", "retried", "buried", "dropped")


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "tail",
        help="print what is accepted, delivered, buried and dropped, as it happens",
        description="Follow the outbox that MP_ASGI_OUTBOX names: a line a second in which "
        "something happened, until Ctrl-C. No properties, no IDs.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, moment: Time = REAL_TIME) -> int:
    """Do what the arguments say. Return the exit code."""

    def call() -> int:
        with lend_outbox(read_settings()) as outbox:
            try:
                _follow(outbox, moment, as_json=args.json)
            except KeyboardInterrupt:
                return 0

    return guard("tail", call, as_json=args.json)


@dataclass(slots=True)
class _Place:
    """How far the reading is."""

    totals: Counter[tuple[str, str]]
    letter: int


def _follow(outbox: Outbox, moment: Time, *, as_json: bool) -> NoReturn:
    place = _Place(
        Counter(outbox.stats().totals),
        max((letter.id for letter in read_letters(outbox)), default=0),
    )
    error = ""
    while True:
        moment.sleep(_SECONDS)
        now = moment.clock()
        try:
            news = _read_news(outbox, place)
        except OutboxUnavailable as failure:
            news = {"error": str(failure)} if str(failure) != error else {}
            error = str(failure)
        else:
            error = ""
        if news:
            line = json.dumps({"at": now} | news) if as_json else _render(now, news)
            print(line, flush=True)


def _read_news(outbox: Outbox, place: _Place) -> dict[str, Any]:
    """Answer what was counted since the last reading; nothing if nothing was."""
    stats = outbox.stats()
    # An outbox that was made anew counts from zero: what would be negative is left out.
    counted = Counter(stats.totals) - place.totals
    place.totals = Counter(stats.totals)
    names: Counter[str] = Counter()
    for letter in read_letters(outbox, place.letter):
        names[printable(letter.message.name)] += 1
        place.letter = letter.id
    news: dict[str, Any] = {}
    for name in _SHOWN:
        reasons = {reason: number for (key, reason), number in counted.items() if key == name}
        if reasons:
            news[name] = reasons if name in {"buried", "dropped"} else sum(reasons.values())
    if names:
        news["names"] = dict(names)
    return news | {"waiting": stats.depth} if news else {}


def _render(now: float, news: dict[str, Any]) -> str:
    if "error" in news:
        return f"{render_time(now)}  {news['error']}"
    parts = [_render_part(name, news[name]) for name in _SHOWN if name in news]
    if names := news.get("names"):
        parts.append("died: " + ", ".join(f"{number} {name}" for name, number in names.items()))
    return f"{render_time(now)}  {', '.join(parts)}; {news['waiting']:,} waiting"


def _render_part(name: str, number: "int | dict[str, int]") -> str:
    if isinstance(number, int):
        return f"{name} {number:,}"
    reasons = ", ".join(f"{reason} {part:,}" for reason, part in number.items())
    return f"{name} {sum(number.values()):,} ({reasons})"
