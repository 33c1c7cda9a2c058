"""Harm the way to Mixpanel, or let Mixpanel refuse."""

import time
from collections.abc import Callable

from mp_asgi.dev import Fault, run_in_thread

from .certificates import Authority
from .producer import RESOLVER
from .stage import Producer, Stage

Play = Callable[[Stage], None]

SHORT_SECONDS = 2.0
CHUNKS = 10
MAX_BYTES = 20_000  # what a stand-in takes at once that refuses by size
POISON = {"values": list(range(300))}  # Mixpanel takes 255 at most


def answer_badly(fault: Fault, times: int = 2, *, retry_after: int | None = None) -> Play:
    """Let so many requests for events fail, and so many for profiles."""

    def play(stage: Stage) -> None:
        stage.serve_mixpanel()
        producer = stage.start_producer()
        for endpoint in ("/import", "/engage"):
            stage.standin.misbehave(
                fault, times, endpoint=endpoint, seconds=60.0, retry_after=retry_after
            )
        track_over(SHORT_SECONDS, stage, producer)
        stage.finish(producer)
        assert_happened(fault, stage)

    return play


def answer_badly_for(fault: Fault, seconds: float) -> Play:
    """Let every request fail for a while, and go on tracking meanwhile."""

    def play(stage: Stage) -> None:
        stage.serve_mixpanel()
        producer = stage.start_producer()
        stage.standin.misbehave(fault, None)
        stage.later(seconds, stage.standin.behave)
        track_over(seconds, stage, producer)
        stage.finish(producer)
        assert_happened(fault, stage)

    return play


def show_wrong_certificate(stage: Stage) -> None:
    """Answer with a certificate that nobody trusts, then with a right one."""
    authority = Authority(stage.directory, "authority")
    stranger = Authority(stage.directory, "stranger")
    stage.variables["SSL_CERT_FILE"] = str(authority.path)
    with run_in_thread(stage.standin, certificate=stranger.certify("wrong")) as address:
        stage.variables["MIXPANEL_API_HOST"] = address.url
        producer = stage.start_producer()
        track_over(SHORT_SECONDS, stage, producer)
        assert stage.standin.requests == []  # nothing was told to a stranger
    stage.serve_mixpanel(address.port, authority.certify("right"))
    stage.finish(producer)


def break_names(stage: Stage) -> None:
    """Let no name resolve in the process that sends, then mend it."""
    address = stage.serve_mixpanel()
    broken = stage.directory / "resolver-is-broken"
    broken.touch()
    host = f"http://localhost:{address.port}"
    producer = stage.start_producer(MIXPANEL_API_HOST=host, **{RESOLVER: str(broken)})
    track_over(SHORT_SECONDS, stage, producer)
    assert stage.standin.requests == []
    broken.unlink()
    stage.finish(producer)


def stay_away(stage: Stage) -> None:
    """Let nobody listen at Mixpanel's address, and then somebody."""
    with run_in_thread(stage.standin) as address:
        stage.variables["MIXPANEL_API_HOST"] = address.url
    producer = stage.start_producer()
    track_over(SHORT_SECONDS, stage, producer)
    stage.serve_mixpanel(address.port)
    stage.finish(producer)


def refuse_size(stage: Stage) -> None:
    """Take little at once; one event is larger than that, and no halving helps it."""
    stage.standin.max_bytes = MAX_BYTES
    stage.serve_mixpanel()
    producer = stage.start_producer()
    stage.track(producer, 1, properties={"text": ["x" * 100] * (MAX_BYTES // 100)})
    stage.track(producer)
    stage.add(producer)
    stage.finish(producer)
    stage.notes.append("the dead one is larger than the limit")


def refuse_some(stage: Stage) -> None:
    """Refuse single events of a batch by Mixpanel's own rules."""
    stage.serve_mixpanel()
    producer = stage.start_producer()
    for _ in range(5):
        stage.track(producer, round(190 * stage.scale))
        stage.track(producer, round(10 * stage.scale), properties=POISON)
    stage.add(producer)
    stage.finish(producer)
    stage.notes.append("the dead ones are what Mixpanel refuses")


def use_threads(stage: Stage) -> None:
    """Track from eight threads at once."""
    stage.serve_mixpanel()
    producer = stage.start_producer()
    stage.track(producer, threads=8)
    stage.add(producer, threads=8)
    stage.finish(producer)


def assert_happened(fault: Fault, stage: Stage) -> None:
    """Raise if no request met the fault: then the run has shown nothing."""
    assert fault.value in {request.fault for request in stage.standin.requests}


def track_over(seconds: float, stage: Stage, producer: Producer) -> None:
    """Track everything in parts, spread over so many seconds, so that many batches leave."""
    for _ in range(CHUNKS):
        stage.track(producer, stage.number // CHUNKS)
        stage.add(producer, round(100 * stage.scale) // CHUNKS)
        time.sleep(seconds / CHUNKS)
