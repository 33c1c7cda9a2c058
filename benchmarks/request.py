"""Measure the CPU that the middlewares add to a request, beside two anchors of the same run.

    python -m benchmarks.request [--quick] [--no-callgrind]

The baseline is a middleware that does nothing. The anchor is what Starlette's SessionMiddleware
adds with a valid cookie: something that everybody's app can already afford. The request path
ends at the hand-over; only the row "real submit" runs the delivery's threads behind it.

What reading consent managers costs is the difference between the same request with ten readers
configured and with none.
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from . import callgrind
from .readers import LINES, PRESENT, make_reader_variants
from .variants import Variant, make_analytics, make_requests, make_variants

ROUNDS = 400
READER_ROUNDS = 200
QUICK_ROUNDS = 60
QUICK_READER_ROUNDS = 20
ROUND_REQUESTS = 100
GARBAGE_REQUESTS = 20_000
MICROSECONDS = 1e6


@dataclass(frozen=True)
class Target:
    """What a line must reach: a part of an anchor, or microseconds."""

    text: str
    limit: float


def measure_doors(
    asgi: Sequence[Variant], wsgi: Sequence[Variant], rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Answer what `measure` finds for each door, both in the same run."""
    tagged = [
        replace(variant, name=door + variant.name)
        for door, variants in (("A", asgi), ("W", wsgi))
        for variant in variants
    ]
    best = measure(tagged, rounds)
    first, second = (
        {name[1:]: seconds for name, seconds in best.items() if name[0] == door} for door in "AW"
    )
    return first, second


def measure(variants: Sequence[Variant], rounds: int) -> dict[str, float]:
    """Answer the least seconds of CPU a request took, the variants taking turns.

    The collector rests meanwhile, as in `timeit`; the lines on garbage say what it would find.
    """
    best = {variant.name: float("inf") for variant in variants}
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            # There and back: what runs after a long line finds the processor's caches cold.
            for variant in variants[:: (-1) ** number]:
                seconds = _time_round(variant)
                best[variant.name] = min(best[variant.name], seconds)
    finally:
        gc.enable()
    return best


def _time_round(variant: Variant) -> float:
    requests = list(make_requests(variant, ROUND_REQUESTS))
    serve = variant.serve
    started = time.thread_time()
    for request in requests:
        serve(request)
    seconds = time.thread_time() - started
    variant.settle()
    return seconds / ROUND_REQUESTS


def count_garbage(variant: Variant, number: int) -> int:
    """Answer how many objects only the collector can free after so many requests."""
    for request in make_requests(variant, 100):
        variant.serve(request)  # memos fill and lazy imports happen once
    gc.collect()
    gc.disable()
    try:
        for request in make_requests(variant, number):
            variant.serve(request)
        return gc.collect()
    finally:
        gc.enable()


def added(best: dict[str, float], *, baseline: str = "no-op") -> dict[str, float]:
    """Answer the microseconds that each line adds; "further event" is a slope."""
    rows = {name: (best[name] - best[baseline]) * MICROSECONDS for name in best}
    eleven = rows.pop("11 events, seen")
    rows["further event"] = (eleven - rows["event, seen"]) / 10
    return rows


def added_by_readers(best: dict[str, float]) -> dict[str, float]:
    """Answer the microseconds that readers add to each line."""
    pairs = (name.removesuffix("/with") for name in best if name.endswith("/with"))
    return {pair: (best[f"{pair}/with"] - best[f"{pair}/without"]) * MICROSECONDS for pair in pairs}


def targets(anchor: float, write: float) -> dict[str, Target]:
    """Answer the targets in microseconds of this machine."""
    return {
        "untouched": Target("1/15 of session read", anchor / 15),
        "event, seen": Target("1/5 of session read", anchor / 5),
        "event, moved": Target("1/3 of session read", anchor / 3),
        "event, stranger": Target("1/3 of session read", anchor / 3),
        "further event": Target("1.5 us", 1.5),
        "mint": Target("a session write", write),
    }


# "Nothing" is what two runs of one and the same line may differ by.
NO_READING = Target("nothing", 0.1)
READING = Target("25 us", 25.0)

NOTES = {
    "untouched": "the app never used the tracker",
    "event, seen": "one event, Cookie header seen before",
    "event, moved": "one event, new header, own cookies seen before",
    "event, stranger": "one event, a visitor never seen",
    "further event": "each event after the first",
    "mint": "one event, consent but no ID: Set-Cookie",
    "real submit": "as seen, with the delivery's threads behind",
    "session read": "anchor: SessionMiddleware, valid cookie, read",
    "session write": "anchor: SessionMiddleware, no cookie, write",
}


def print_table(asgi: dict[str, float], wsgi: dict[str, float]) -> bool:
    """Print both doors side by side. Return whether all targets are met."""
    anchor = asgi["session read"]
    goals = targets(anchor, asgi["session write"])
    print(f"{'added to a no-op middleware':48}{'ASGI us':>9}{'WSGI us':>9}  ratio  target")
    is_met = True
    for name, note in NOTES.items():
        there = f"{wsgi[name]:9.2f}" if name in wsgi else f"{'':9}"
        line = f"{note:48}{asgi[name]:9.2f}{there}  {_ratio(asgi[name], anchor):>6}"
        if name in goals:
            goal = goals[name]
            verdict = [_verdict(door[name], goal.limit) for door in (asgi, wsgi)]
            is_met = is_met and verdict == ["met", "met"]
            line += f" {goal.text} = {goal.limit:.2f} us: {' / '.join(verdict)}"
        print(line)
    return is_met


def print_readers(asgi: dict[str, float], wsgi: dict[str, float]) -> bool:
    """Print what ten readers add, both doors side by side. Return whether all targets are met."""
    print(f"{'added by ten readers to the same request':48}{'ASGI us':>9}{'WSGI us':>9}  target")
    is_met = True
    for present in PRESENT:
        print(f"with {present} cookies there")
        for name in LINES:
            values = [door[f"{name}/{present}"] for door in (asgi, wsgi)]
            goal = NO_READING if name == "untouched" else READING
            verdict = [_verdict(value, goal.limit) for value in values]
            is_met = is_met and verdict == ["met", "met"]
            numbers = "".join(f"{value:9.2f}" for value in values)
            print(f"  {NOTES[name]:46}{numbers}  {goal.text}: {' / '.join(verdict)}")
    return is_met


def _ratio(value: float, anchor: float) -> str:
    return f"1/{anchor / value:.1f}" if 0 < value < anchor else f"{value / anchor:.1f}"


def _verdict(value: float, limit: float) -> str:
    return "met" if value <= limit else "NOT MET"


def print_garbage(doors: dict[str, Sequence[Variant]], number: int) -> None:
    """Print what the collector finds."""
    for door, variants in doors.items():
        for variant in variants:
            if variant.name in {"untouched", "event, seen", "mint"}:
                found = count_garbage(variant, number)
                name = NOTES[variant.name]
                print(f"  {door} {name:42} {found} objects in {number} requests")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table; it informs, it does not judge: other loads may disturb a run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.request", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, no callgrind")
    parser.add_argument("--no-callgrind", action="store_true", help="leave the instructions out")
    options = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="mp-asgi-bench-") as directory,
        closing(make_analytics(directory=directory)) as delivering,
    ):
        _print_times(*make_variants(delivering), is_quick=options.quick)
    if not (options.quick or options.no_callgrind):
        print()
        callgrind.print_table()


def _print_times(asgi: Sequence[Variant], wsgi: Sequence[Variant], *, is_quick: bool) -> None:
    rounds = QUICK_ROUNDS if is_quick else ROUNDS
    best = measure_doors(asgi, wsgi, rounds)
    print(f"CPU time of the request path, least of {rounds} rounds of {ROUND_REQUESTS} requests\n")
    print_table(*map(added, best))
    rounds = QUICK_READER_ROUNDS if is_quick else READER_ROUNDS
    best = measure_doors(*make_reader_variants(), rounds)
    print(f"\nReading consent managers, least of {rounds} rounds\n")
    print_readers(*map(added_by_readers, best))
    print("\nCyclic garbage (the target is none):")
    number = GARBAGE_REQUESTS // (10 if is_quick else 1)
    print_garbage({"ASGI": asgi, "WSGI": wsgi}, number)


if __name__ == "__main__":
    main()
