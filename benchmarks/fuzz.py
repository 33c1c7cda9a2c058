"""Damage all cookie headers of the fixtures, and count what the readers make of it.

    python -m benchmarks.fuzz [INPUTS]

Ends with 1 if a reader raised, or took damage for consent (see `tests.readers.fuzz`).
"""

import sys
import time

from tests.readers.fuzz import run

INPUTS = 120_000
SHOWN = 10  # violations; the count tells of the others


def main(arguments: list[str]) -> int:
    """Run, print, and answer the exit code."""
    started = time.process_time()
    report = run(int(arguments[0]) if arguments else INPUTS)
    seconds = time.process_time() - started
    said = ", ".join(f"{name} {count:,}" for name, count in sorted(report.said.items()))
    print(f"{report.inputs:,} damaged headers, {report.reads:,} readings, {seconds:.1f} s of CPU")
    print(f"said: {said}")
    print(f"granted by rewriting the value that says so: {report.excused:,}")
    print(f"violations: {len(report.violations):,}")
    for violation in report.violations[:SHOWN]:
        print("  " + violation)
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
