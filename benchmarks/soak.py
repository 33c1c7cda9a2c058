"""Serve from two processes at a steady rate while Mixpanel is down for the middle half.

    python -m benchmarks.soak [--minutes 10] [--rate 200] [--json]

Samples the memory of each worker, how much waits in the outbox and how large its files are. The
exit code is 1 if anything is lost or doubled, or if a worker's memory grows by more than
`MAX_SLOPE_KB` a minute once it is warm.
"""

import argparse
import itertools
import json
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mp_asgi.delivery.outbox.factory import open_outbox
from mp_asgi.dev import Fault, StandIn
from mp_asgi.settings import Settings

from .faults.deaths import UVICORN
from .faults.stage import TOKEN, Site, Stage, open_stage, words

REQUEST_EVENTS = 10
SAMPLES = 120
LINES = 20
WARM_UP = 0.4  # of the whole time: the outage has begun, and what it needs is loaded
MAX_SLOPE_KB = 200.0  # a minute; one lost 300-byte event in ten would make 360 at 200 a second
DRAIN_SECONDS = 300.0


@dataclass(frozen=True)
class Sample:
    """What was seen at one moment.

    Attributes:
        at: Seconds since the start.
        rss_kb: Memory of each worker, by its process ID.
        depth: Messages that wait.
        outbox_bytes: Bytes that they take.
        file_bytes: Bytes of all files in the state directory.
    """

    at: float
    rss_kb: dict[int, int]
    depth: int
    outbox_bytes: int
    file_bytes: int


class Observer:
    """Who takes the samples.

    Attributes:
        samples: In order.
        drained_seconds: How long it took to deliver what waited when the last event was tracked.
    """

    def __init__(self, stage: Stage, workers: Sequence[int]) -> None:
        self._stage = stage
        self._workers = workers
        self._outbox = open_outbox(Settings.from_env(stage.environ()), creates=False)
        self._started = time.monotonic()
        self.samples: list[Sample] = []
        self.drained_seconds = 0.0

    def depth(self) -> int:
        return self._outbox.stats().depth

    def look(self) -> Sample:
        stats = self._outbox.stats()
        files = (self._stage.directory / "state").rglob("*")
        sample = Sample(
            at=time.monotonic() - self._started,
            rss_kb={worker: read_rss_kb(worker) for worker in self._workers},
            depth=stats.depth,
            outbox_bytes=stats.size_bytes,
            file_bytes=sum(file.stat().st_size for file in files if file.is_file()),
        )
        self.samples.append(sample)
        return sample


def soak(stage: Stage, site: Site, seconds: float, rate: float) -> Observer:
    """Track at a steady rate, and watch until all is delivered.

    Mixpanel is down from one quarter of the time to three quarters.
    """
    stage.later(seconds / 4, lambda: stage.standin.misbehave(Fault.UNAVAILABLE, None))
    stage.later(seconds * 3 / 4, stage.standin.behave)
    numbers = itertools.count(step=REQUEST_EVENTS)
    observer = Observer(stage, find_workers(stage, site, numbers))
    over = threading.Event()
    thread = threading.Thread(target=watch, args=(observer, seconds / SAMPLES, over))
    thread.start()
    try:
        track_steadily(stage, site, numbers, seconds, rate)
        started = time.monotonic()
        stage.wait_until(lambda: not observer.depth(), DRAIN_SECONDS)
        observer.drained_seconds = time.monotonic() - started
    finally:
        over.set()
        thread.join()
    return observer


def track_steadily(
    stage: Stage, site: Site, numbers: "itertools.count[int]", seconds: float, rate: float
) -> None:
    started = time.monotonic()
    for count, first in enumerate(numbers):
        due = started + count * REQUEST_EVENTS / rate
        if due > started + seconds:
            return
        time.sleep(max(0.0, due - time.monotonic()))
        ask(stage, site, first)


def ask(stage: Stage, site: Site, first: int) -> int:
    worker = site.track(first, REQUEST_EVENTS)
    stage.expect(range(first, first + REQUEST_EVENTS))
    return worker


def find_workers(stage: Stage, site: Site, numbers: "itertools.count[int]") -> Sequence[int]:
    """Answer the two processes that serve, in order."""
    workers: set[int] = set()
    while len(workers) < 2:
        workers.add(ask(stage, site, next(numbers)))
    return sorted(workers)


def watch(observer: Observer, interval: float, over: threading.Event) -> None:
    for number in itertools.count():
        sample = observer.look()
        if number % (SAMPLES // LINES) == 0:
            print(render_sample(sample), file=sys.stderr, flush=True)
        if over.wait(interval):
            return


def read_rss_kb(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0])


def render_sample(sample: Sample) -> str:
    rss = " ".join(f"{kilobytes / 1000:.1f}" for kilobytes in sample.rss_kb.values())
    return (
        f"{sample.at:6.1f} s  memory {rss} MB  waiting {sample.depth} messages, "
        f"{sample.outbox_bytes / 1e6:.2f} MB  files {sample.file_bytes / 1e6:.2f} MB"
    )


def slopes_kb(samples: Sequence[Sample]) -> list[float]:
    """Answer by how many kB a minute each worker grew, once warm."""
    warm = samples[round(len(samples) * WARM_UP) :]
    minutes = [sample.at / 60 for sample in warm]
    return [
        statistics.linear_regression(minutes, [sample.rss_kb[worker] for sample in warm]).slope
        for worker in warm[0].rss_kb
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=200.0, help="events a second")
    parser.add_argument("--json", action="store_true", help="the result and all samples as JSON")
    options = parser.parse_args()
    standin = StandIn(TOKEN)
    with open_stage(standin, 1.0, {}) as stage:
        stage.serve_mixpanel()
        with stage.site(*words(UVICORN), "--workers", "2") as site:
            observer = soak(stage, site, options.minutes * 60, options.rate)
            site.end()
        stage.finish()
        tally = stage.tally()
    samples, slopes = observer.samples, slopes_kb(observer.samples)
    if options.json:
        print(json.dumps({"tally": asdict(tally), "samples": [asdict(one) for one in samples]}))
    print(f"accepted {tally.accepted}, delivered {tally.delivered}, lost {tally.lost}")
    print(f"arrived again: {tally.doubled_raw} with the same key, {tally.doubled} with another")
    print(f"memory grew by {', '.join(f'{slope:.0f}' for slope in slopes)} kB a minute")
    print(f"at most {max(sample.depth for sample in samples)} messages waited", end="; ")
    print(f"the files took at most {max(one.file_bytes for one in samples) / 1e6:.1f} MB")
    print(f"empty {observer.drained_seconds:.1f} s after the last event")
    return int(bool(tally.lost or tally.doubled) or max(slopes) > MAX_SLOPE_KB)


if __name__ == "__main__":
    sys.exit(main())
