"""End the processes that track, in every way in which processes end."""

import contextlib
import itertools
import random
import signal
import threading
import time

import urllib3

from mp_asgi.dev import Fault

from .stage import Producer, Site, Stage, words

UVICORN = "uvicorn benchmarks.faults.app:asgi --fd {fd} --log-level warning"
GUNICORN = (
    "gunicorn benchmarks.faults.app:wsgi --bind fd://{fd} --workers 2 --threads 4 "
    "--no-control-socket --log-level warning"
)
ROUNDS = 10
PACE_SECONDS = 0.001
DEAD_SECONDS = 1.0  # without an answer
STRICT = {"MP_ASGI_DURABILITY": "strict"}
# Nothing is under way when they are killed: `kill_sending` is about that.
QUIET = {"MP_ASGI_FLUSH_INTERVAL": "3600"}


def terminate_server(stage: Stage) -> None:
    """Send SIGTERM to a server while Mixpanel is down; the next process delivers."""
    stage.serve_mixpanel()
    stage.standin.misbehave(Fault.UNAVAILABLE, None)
    with stage.site(*words(UVICORN)) as site:
        stage.expect(range(stage.number))
        site.track_each(range(stage.number))
        site.end()
    stage.standin.behave()
    stage.finish()


def exit_in_peace(stage: Stage) -> None:
    """Leave by `sys.exit()` right after tracking."""
    stage.serve_mixpanel()
    producer = stage.start_producer()
    stage.track(producer)
    producer.end()
    stage.finish()


def exit_without_mixpanel(stage: Stage) -> None:
    """Leave by `sys.exit()` while Mixpanel is down; the next process delivers."""
    stage.serve_mixpanel()
    stage.standin.misbehave(Fault.UNAVAILABLE, None)
    producer = stage.start_producer()
    stage.track(producer)
    producer.end()
    stage.standin.behave()
    stage.finish()


def kill_relaxed(stage: Stage) -> None:
    """Kill a process that tracks an event a millisecond, again and again."""
    stage.serve_mixpanel()
    stage.standin.misbehave(Fault.UNAVAILABLE, None)
    killed: list[tuple[int, dict[int, int]]] = []
    for _ in range(ROUNDS):
        producer = stage.start_producer(**QUIET)
        killed.append(_kill_streaming(producer, len(stage.events), stage.number // ROUNDS))
        stage.events.update(killed[-1][1])
    stage.standin.behave()
    stage.finish()
    stage.notes.append(_describe_losses(stage, killed))


def kill_strict(stage: Stage) -> None:
    """Kill a server in the middle of its requests, again and again."""
    stage.serve_mixpanel()
    stage.standin.misbehave(Fault.UNAVAILABLE, None)
    while len(stage.events) < stage.number:
        with stage.site(*words(UVICORN), **STRICT, **QUIET) as site:
            first = max(stage.events, default=-1) + 2  # the last one may have arrived unanswered
            stage.events.update(_kill_serving(site, first, stage.number // ROUNDS))
    stage.standin.behave()
    stage.finish(stage.start_producer(**STRICT))


def kill_sending(stage: Stage) -> None:
    """Kill a process whose batch is under way; another process takes it over."""
    stage.serve_mixpanel()
    stage.standin.misbehave(Fault.SLOW, 1, seconds=60.0, endpoint="/import")
    stage.standin.misbehave(Fault.SLOW, 1, seconds=60.0, endpoint="/engage")
    producer = stage.start_producer()
    stage.track(producer)
    stage.wait_until(lambda: bool(stage.standin.requests))
    producer.end(signal.SIGKILL)
    started = time.monotonic()
    stage.finish()
    stage.notes.append(f"taken over after {time.monotonic() - started:.0f} s")


def fork(stage: Stage, *options: str) -> None:
    """Serve from two forked workers, while Mixpanel is down until they are gone."""
    stage.serve_mixpanel()
    stage.standin.misbehave(Fault.UNAVAILABLE, None)
    with stage.site(*words(GUNICORN), *options) as site:
        stage.expect(range(stage.number))
        workers = site.track_each(range(stage.number), threads=8)
        site.end()
    stage.standin.behave()
    stage.finish()
    stage.notes.append(f"{len(workers)} workers served")


def fork_preloaded(stage: Stage) -> None:
    """Fork after the app was imported."""
    fork(stage, "--preload")


def _kill_streaming(producer: Producer, first: int, number: int) -> tuple[int, dict[int, int]]:
    """Answer when the process was killed, and when it had tracked what (ns)."""
    producer.tell("stream", first=first, pause=PACE_SECONDS)
    time.sleep(number * PACE_SECONDS + random.random() * 0.02)
    at = time.monotonic_ns()
    producer.end(signal.SIGKILL)
    lines = (line.split() for line in producer.rest().splitlines())
    return at, {int(number): int(time_ns) for number, time_ns in lines}


def _kill_serving(site: Site, first: int, number: int) -> set[int]:
    """Kill a server between or in two requests; answer which events had been answered by then."""
    answered: set[int] = set()
    for event in range(first, first + number):
        site.track(event)
        answered.add(event)
    killer = threading.Timer(random.random() * 0.02, site.process.kill)
    killer.start()
    # The socket outlives the server: who connects now would wait for ever.
    with contextlib.suppress(urllib3.exceptions.HTTPError):
        for event in itertools.count(first + number):
            site.track(event, seconds=DEAD_SECONDS)
            answered.add(event)
    killer.join()
    return answered


def _describe_losses(stage: Stage, killed: list[tuple[int, dict[int, int]]]) -> str:
    arrived = {event["properties"]["number"] for event in stage.standin.events}
    losses = [
        [(at - tracked_at) / 1e6 for event, tracked_at in tracked.items() if event not in arrived]
        for at, tracked in killed
    ]
    oldest = max((age for ages in losses for age in ages), default=0.0)
    counts = sorted(len(ages) for ages in losses)
    return (
        f"lost in each of {len(killed)} kills: median {counts[len(counts) // 2]}, "
        f"most {counts[-1]}; the oldest had been tracked {oldest:.1f} ms before"
    )
