"""Try every server of the matrix, and print what became of its answers and events.

    python -m benchmarks.servers [--only NAME…]

Each server is started four times. Mixpanel hangs, visitors ask, and SIGTERM follows the last answer
at once; SIGTERM comes while eight threads ask, relaxed and strict; kill -9 follows an answer of a
strict server at once. Then another process delivers what is left. The exit code is 1 if anything
is lost or doubled.
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

from mp_asgi.dev import StandIn, run_in_thread
from tests.servers.processes import SERVERS, TOKEN, Kind
from tests.servers.trials import (
    STRICT,
    Ground,
    Trial,
    hang_and_terminate,
    kill,
    terminate_under_load,
)

COLUMNS = (
    *("server", "version", "runs at SIGTERM, at rest", "under load", "answer", "next answer"),
    *("exit", "SIGTERM: lost, doubled", "strict: lost, doubled", "kill -9, strict: lost"),
)
PACKAGES = {"tests.servers.apps.waitress": "waitress", "tests.servers.apps.greened": "eventlet"}

Try = Callable[[Callable[..., Trial]], Trial]


def report(name: str, kind: Kind, attempt: Try) -> bool:
    """Try a server and print its row. Return whether it keeps what is promised."""
    hang = attempt(partial(hang_and_terminate, kind=kind))
    relaxed = attempt(partial(terminate_under_load, kind=kind))
    strict = attempt(partial(terminate_under_load, kind=kind, **STRICT))
    killed = attempt(partial(kill, kind=kind))
    answer = max(hang.waits["sized"], hang.waits["streamed"])
    cells = (
        *(name, version(PACKAGES.get(kind.words[0], kind.words[0]))),
        *(render_ends(hang), render_ends(relaxed)),
        *(render_seconds(answer), render_seconds(hang.waits["next"])),
        f"{hang.code} in {hang.seconds:.1f} s",
        *(render_loss(relaxed), render_loss(strict)),
        f"{len(killed.lost)} of {len(killed.answered)}",
    )
    print(f"| {' | '.join(cells)} |", flush=True)
    return not any(trial.lost or trial.doubled for trial in (hang, relaxed, strict, killed))


def render_ends(trial: Trial) -> str:
    return " + ".join(sorted(trial.ends, reverse=True)) or "nothing"


def render_seconds(seconds: float) -> str:
    return f"{1_000 * seconds:.0f} ms"


def render_loss(trial: Trial) -> str:
    return f"{len(trial.lost)} of {len(trial.answered)}, {len(trial.doubled)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="servers whose name contains it")
    wanted = parser.parse_args().only
    # What is left is delivered by this process, two minutes later by its clock; it says so.
    logging.getLogger("mp_asgi").addHandler(logging.NullHandler())
    standin = StandIn(TOKEN)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    verdicts = []
    with run_in_thread(standin) as address:

        def attempt(trial: Callable[..., Trial]) -> Trial:
            standin.reset()
            with tempfile.TemporaryDirectory() as directory:
                return trial(Ground(Path(directory), standin, address.url))

        for name, kind in SERVERS.items():
            if wanted and not any(word in name for word in wanted):
                continue
            if kind.problem:
                print(f"{name}: {kind.problem}", file=sys.stderr)
                continue
            verdicts.append(report(name, kind, attempt))
    return int(not all(verdicts))


if __name__ == "__main__":
    sys.exit(main())
