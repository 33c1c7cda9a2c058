"""Count the instructions that a request costs: they do not depend on what else the machine does.

    python -m benchmarks.callgrind [NUMBER]

One process runs every variant under `valgrind --tool=callgrind`, which writes a dump whenever
the C library's `getloadavg` is called: nobody but us does that.
"""

import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

REQUESTS = 200
TIMEOUT = 600.0  # seconds; valgrind runs Python about fifty times slower
_SUMMARY = re.compile(r"^(?:summary|totals): (\d+)", re.MULTILINE)


def mark() -> None:
    """Let callgrind write what it counted since the last mark."""
    os.getloadavg()


def run_variants(number: int) -> None:
    """Run all variants between marks: the child's side."""
    from .variants import make_requests, make_variants

    asgi, wsgi = make_variants()  # nothing delivers: its threads would count
    gc.disable()
    for variant in (*asgi, *wsgi):
        for request in make_requests(variant, 30):
            variant.serve(request)  # memos fill, bytecode specialises
        requests = list(make_requests(variant, number))
        mark()
        for request in requests:
            variant.serve(request)
        mark()


def why_not() -> str:
    """Answer why callgrind cannot run here; empty if it can."""
    if shutil.which("valgrind") is None:
        return "valgrind is not installed (apt-get install valgrind)"
    if not hasattr(os, "getloadavg"):
        return "this system has no getloadavg, by which the dumps are marked"
    return ""


def count(number: int) -> list[float]:
    """Answer the instructions a request took, for each variant in its order.

    Raises:
        RuntimeError: Valgrind failed, or wrote other dumps than expected.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "valgrind",
            "--tool=callgrind",
            "--dump-before=getloadavg",
            f"--callgrind-out-file={folder}/out",
            sys.executable,
            "-m",
            "benchmarks.callgrind",
            "--child",
            str(number),
        ]
        environ = {**os.environ, "PYTHONHASHSEED": "0"}
        done = subprocess.run(
            command, check=False, capture_output=True, timeout=TIMEOUT, env=environ
        )
        if done.returncode:
            raise RuntimeError(done.stderr.decode(errors="replace")[-400:])
        parts = sorted(Path(folder).glob("out.*"), key=lambda path: int(path.suffix[1:]))
        found = [_SUMMARY.search(path.read_text(errors="replace")) for path in parts]
    # Every second dump is a variant; the others are what lies between.
    return [int(match[1]) / number for match in found[1::2] if match is not None]


def print_table(number: int = REQUESTS, *, report: Callable[[str], None] = print) -> None:
    """Print the instructions that each line adds to the no-op middleware of its door."""
    if reason := why_not():
        report(f"Instructions: skipped, {reason}.")
        return
    from .variants import make_variants

    asgi, wsgi = make_variants()
    names = [
        (door, variant.name)
        for door, variants in (("ASGI", asgi), ("WSGI", wsgi))
        for variant in variants
    ]
    try:
        counts = count(number)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        report(f"Instructions: skipped, valgrind failed: {error}")
        return
    if len(counts) != len(names):
        report(f"Instructions: skipped, {len(counts)} dumps for {len(names)} variants.")
        return
    _print_counts(dict(zip(names, counts, strict=True)), report)


def _print_counts(counts: dict[tuple[str, str], float], report: Callable[[str], None]) -> None:
    report("Instructions added to a request (callgrind), and their part of a session read")
    anchor = counts["ASGI", "session read"] - counts["ASGI", "no-op"]
    for (door, name), value in counts.items():
        if name == "no-op":
            continue
        added = value - counts[door, "no-op"]
        report(f"  {door} {name:22}{added:10.0f}   {added / anchor:6.3f} = 1/{anchor / added:.1f}")
        if name == "11 events, seen":
            slope = (value - counts[door, "event, seen"]) / 10
            report(f"  {door} {'further event':22}{slope:10.0f}   {slope / anchor:6.3f}")


def main(arguments: Sequence[str]) -> None:
    """Print the table, or be its child."""
    if arguments[:1] == ["--child"]:
        run_variants(int(arguments[1]))
    else:
        print_table(int(arguments[0]) if arguments else REQUESTS)


if __name__ == "__main__":
    main(sys.argv[1:])
