"""Harm real processes, and count what is lost and what is doubled: 1,000 events a run.

    python -m benchmarks.reliability [--only NAME…] [--quick] [--json] [--list]

Every run has its own stand-in for Mixpanel, its own state directory and its own processes. An event
is lost if the app was told that it is taken and it neither arrived nor is a dead letter. It is
doubled if it arrives again under a key that Mixpanel does not deduplicate; what arrives again under
the same key is counted as `raw`. The exit code is 1 if anything is lost or doubled where nothing
may be.
"""

import argparse
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from mp_asgi.dev import Fault, StandIn

from .faults import deaths, network, remote, storage
from .faults.producer import READ_SECONDS
from .faults.stage import TOKEN, Stage, open_stage
from .faults.tally import Tally

QUICK_SCALE = 0.2
QUICK = {READ_SECONDS: "3"}
COLUMNS = ("accepted", "delivered", "lost", "raw", "doubled", "$add twice", "dead", "seconds")


@dataclass(frozen=True)
class Run:
    """One way to harm.

    Attributes:
        name: What the table says.
        play: Does it.
        may_lose: Whether losses are within what is promised; they are shown all the same.
    """

    name: str
    play: Callable[[Stage], None]
    may_lose: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a run found."""

    run: Run
    tally: Tally
    seconds: float
    notes: Sequence[str]

    @property
    def is_good(self) -> bool:
        tally = self.tally
        is_kept = self.run.may_lose or not tally.lost
        return is_kept and not tally.doubled and not tally.doubled_adds


RUNS = (
    Run("503 for 2 s", network.answer_badly_for(Fault.UNAVAILABLE, 2)),
    Run("503 for 10 s", network.answer_badly_for(Fault.UNAVAILABLE, 10)),
    Run("429", network.answer_badly(Fault.RATE_LIMITED)),
    Run("429 with Retry-After", network.answer_badly(Fault.RATE_LIMITED, retry_after=2)),
    Run("nobody listens", network.stay_away),
    Run("connection reset before the body is read", network.answer_badly(Fault.RESET)),
    Run("connection dropped after the body is read", network.answer_badly(Fault.HANG_UP)),
    Run("answer cut in its headers", network.answer_badly(Fault.CUT_HEADERS)),
    Run("answer cut in its body, kept", network.answer_badly(Fault.DROP)),
    Run("answer cut in its body, not kept", network.answer_badly(Fault.REFUSE)),
    Run("a stranger's 200 (captive portal)", network.answer_badly(Fault.GARBAGE)),
    Run("no answer, kept", network.answer_badly(Fault.SLOW, 1)),
    Run("no answer, not kept", network.answer_badly(Fault.HANG, 1)),
    Run("wrong TLS certificate", network.show_wrong_certificate),
    Run("no name resolves", network.break_names),
    Run("413", network.refuse_size),
    Run("400 for some events", network.refuse_some),
    Run("401, then repaired", network.answer_badly_for(Fault.UNAUTHORIZED, 2)),
    Run("8 threads", network.use_threads),
    Run("disk full", storage.fill_disk),
    Run("SIGTERM (uvicorn, Mixpanel down)", deaths.terminate_server),
    Run("sys.exit", deaths.exit_in_peace),
    Run("sys.exit (Mixpanel down)", deaths.exit_without_mixpanel),
    Run("kill -9, relaxed", deaths.kill_relaxed, may_lose=True),
    Run("kill -9, strict", deaths.kill_strict),
    Run("kill -9 while a batch is under way", deaths.kill_sending),
    Run("fork (gunicorn)", deaths.fork),
    Run("fork (gunicorn --preload)", deaths.fork_preloaded),
    Run("Redis restarted", remote.interrupt_redis(signal.SIGTERM)),
    Run("Redis killed", remote.interrupt_redis(signal.SIGKILL)),
    Run("one of three drainers killed", remote.kill_drainer),
    Run("3 hosts, 2 drainers: one of each and Redis killed", remote.use_machines),
)


def play(run: Run, *, is_quick: bool) -> Outcome:
    """Let one run happen, and count."""
    started = time.monotonic()
    scale, variables = (QUICK_SCALE, QUICK) if is_quick else (1.0, {})
    with open_stage(StandIn(TOKEN), scale, variables) as stage:
        run.play(stage)
        return Outcome(run, stage.tally(), time.monotonic() - started, stage.notes)


def report(run: Run, render: Callable[[Outcome], str], *, is_quick: bool) -> bool:
    """Play a run and print what it found. Return whether that is good."""
    try:
        outcome = play(run, is_quick=is_quick)
    except Exception:  # noqa: BLE001  # a run that does not work says nothing; the others go on
        print(f"{run.name} did not end:", file=sys.stderr)
        traceback.print_exc()
        return False
    print(render(outcome), flush=True)
    return outcome.is_good


def render_row(outcome: Outcome) -> str:
    tally = outcome.tally
    numbers = (
        *(tally.accepted, tally.delivered, tally.lost, tally.doubled_raw),
        *(tally.doubled, tally.doubled_adds, tally.dead, f"{outcome.seconds:.1f}"),
    )
    verdict = "" if outcome.is_good else "NOT GOOD"
    notes = "; ".join(filter(None, (verdict, *outcome.notes)))
    return " | ".join([f"| {outcome.run.name}", *map(str, numbers), f"{notes} |"])


def render_json(outcome: Outcome) -> str:
    counts = asdict(outcome.tally)
    more = {"seconds": round(outcome.seconds, 1), "notes": outcome.notes, "good": outcome.is_good}
    return json.dumps({"run": outcome.run.name, **counts, **more})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="runs whose name contains it")
    parser.add_argument("--quick", action="store_true", help="200 events, short timeouts")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each run")
    parser.add_argument("--list", action="store_true", help="name the runs, and stop")
    options = parser.parse_args()
    wanted = [
        run
        for run in RUNS
        if not options.only or any(word.lower() in run.name.lower() for word in options.only)
    ]
    if options.list or not wanted:
        print("\n".join(run.name for run in RUNS))
        return 0 if options.list else 2
    if not options.json:
        print(f"| run | {' | '.join(COLUMNS)} | notes |")
        print("|---|" + "---:|" * len(COLUMNS) + "---|")
    render = render_json if options.json else render_row
    verdicts = [report(run, render, is_quick=options.quick) for run in wanted]
    return int(not all(verdicts))


if __name__ == "__main__":
    sys.exit(main())
