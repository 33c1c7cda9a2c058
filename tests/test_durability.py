"""When a request's events are kept, and when they are delivered: at both doors alike."""

import asyncio
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any
from wsgiref.handlers import SimpleHandler

import anyio
import anyio.to_thread
import pytest

from mp_asgi import Analytics, MixpanelMiddleware, MixpanelWSGIMiddleware, get_tracker
from mp_asgi.errors import OutboxUnavailable
from tests.support import RecordingTransport, make_settings

Story = list[tuple[str, int]]


class Desk:
    """One assembly, and how many messages had been handed over at each moment of a response."""

    def __init__(self, state: Path, **settings: Any) -> None:
        self.transport = RecordingTransport()
        self.handed_over = 0
        self.analytics = Analytics(
            make_settings(
                **{
                    "durability": "strict",
                    "outbox": "sqlite",
                    "state_directory": str(state),
                    "consent": "opt-out",
                    "flush_interval": 3600.0,
                    **settings,
                }
            ),
            transport=lambda: self.transport,
        )
        self.story: Story = []
        accept = self.analytics.accept

        def count(handover: Any) -> None:
            self.handed_over += len(handover.items)
            accept(handover)

        self.analytics.accept = count  # type: ignore[method-assign]  # what both doors call

    def note(self, moment: str) -> None:
        self.story.append((moment, self.handed_over))

    def sent(self) -> list[str]:
        return [message["event"] for message in self.transport.messages if "event" in message]


def tell_asgi(desk: Desk, *, fails: bool = False, headers: Any = ()) -> Story:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        tracker = get_tracker(scope)
        tracker.track("before")
        tracker.people.set({"plan": "pro"})
        if fails:
            raise ValueError
        await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
        tracker.identify("u1")
        tracker.track("after")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def send(message: Any) -> None:
        desk.note(message["type"].rpartition(".")[2])

    async def call() -> None:
        scope = {"type": "http", "method": "GET", "path": "/", "scheme": "https", "headers": []}
        try:
            await MixpanelMiddleware(app, analytics=desk.analytics)(scope, None, send)
        except ValueError:
            desk.note("raised")

    asyncio.run(call())
    return desk.story


def tell_wsgi(desk: Desk, *, fails: bool = False, headers: Any = ()) -> Story:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        tracker = get_tracker(environ)
        tracker.track("before")
        tracker.people.set({"plan": "pro"})
        if fails:
            raise ValueError
        start_response("200 OK", [(name.decode(), value.decode()) for name, value in headers])
        tracker.identify("u1")
        tracker.track("after")
        yield b""

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        desk.note("start")

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "https"}
    body: Any = MixpanelWSGIMiddleware(app, analytics=desk.analytics)(environ, start_response)
    try:
        for _ in body:
            desk.note("body")
    except ValueError:
        desk.note("raised")
    body.close()
    return desk.story


BOTH = pytest.mark.parametrize("tell", [tell_asgi, tell_wsgi], ids=["asgi", "wsgi"])


@pytest.fixture
def open_desk(tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    desks: list[Desk] = []

    def make(**settings: Any) -> Desk:
        desks.append(Desk(tmp_path, **settings))
        return desks[-1]

    yield make
    for desk in desks:
        desk.analytics.close(0)
        desk.analytics._worker._hooks.close()


@BOTH
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="with-an-id-cookie"),
        pytest.param([(b"cache-control", b"public")], id="without-one"),
    ],
)
def test_strict_durability_keeps_events_before_the_response_starts(open_desk, tell, headers):
    story = tell(open_desk(), headers=headers)

    assert story[0] == ("start", 1)


@BOTH
def test_relaxed_durability_hands_over_when_the_response_has_ended(open_desk, tell):
    assert tell(open_desk(durability="relaxed"))[0] == ("start", 0)


@BOTH
def test_a_later_event_is_kept_as_it_is_tracked_and_profiles_still_wait_for_their_user(
    open_desk, tell
):
    desk = open_desk()

    story = tell(desk)

    assert story[1] == ("body", 3)  # before, after, and the profile of whom `identify` named
    assert "anonymous_profile" not in desk.analytics.stats().refused


@BOTH
def test_events_of_a_request_that_fails_are_kept(open_desk, tell):
    desk = open_desk()

    tell(desk, fails=True)

    assert desk.handed_over == 1


# --- flush_on_response ----------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("fails", [False, True], ids=["answers", "fails"])
def test_delivery_ends_with_the_request_where_nothing_runs_after_it(open_desk, tell, fails):
    desk = open_desk(flush_on_response=True, durability="relaxed", outbox="memory")

    for number in (1, 2):  # each in an event loop of its own, as on Lambda
        tell(desk, fails=fails)
        assert desk.sent().count("before") == number


@BOTH
def test_a_delivery_that_fails_reaches_no_server(open_desk, tell):
    desk = open_desk(flush_on_response=True)

    def fail(timeout: float) -> bool:
        raise OutboxUnavailable("disk full")

    desk.analytics._flusher._flush = fail

    assert tell(desk)[0][0] == "start"
    assert desk.analytics._counters.snapshot().other["flush_failed"] == 1


def test_a_client_that_hangs_up_ends_no_delivery(open_desk):
    desk = open_desk(flush_on_response=True, durability="relaxed", outbox="memory")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        get_tracker(scope).track("before")
        await anyio.sleep_forever()

    async def call() -> None:
        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        with anyio.move_on_after(0.05):
            await MixpanelMiddleware(app, analytics=desk.analytics)(scope, None, None)

    anyio.run(call)

    assert desk.sent() == ["before"]


def test_an_untouched_request_waits_for_no_delivery(open_desk):
    desk = open_desk(flush_on_response=True)
    desk.analytics._flusher._flush = lambda timeout: pytest.fail("it flushed")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        desk.note(message["type"])

    asyncio.run(MixpanelMiddleware(app, analytics=desk.analytics)({"type": "http"}, None, send))

    assert desk.story == [("http.response.start", 0)]


def test_no_thread_for_the_delivery_reaches_no_server(open_desk, monkeypatch):
    desk = open_desk(flush_on_response=True)

    async def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("anyio.to_thread.run_sync", refuse)

    assert tell_asgi(desk)[0] == ("start", 1)
    assert desk.analytics._counters.snapshot().other["flush_failed"] == 1


# --- lifespan -------------------------------------------------------------------------------------


@pytest.mark.parametrize("speaks", [True, False], ids=["app-speaks-lifespan", "app-does-not"])
@pytest.mark.parametrize(
    ("settings", "runs"),
    [
        pytest.param({}, True, id="durable"),
        pytest.param({"outbox": "memory", "durability": "relaxed"}, False, id="memory"),
        pytest.param({"enabled": False}, False, id="switched-off"),
    ],
)
def test_a_start_resumes_what_an_earlier_process_left(open_desk, speaks, settings, runs):
    desk = open_desk(**settings)
    running: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not speaks:
            raise NotImplementedError
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    messages = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> Any:
        return {"type": next(messages)}

    async def send(message: Any) -> None:
        running.append(desk.analytics._worker.pulse().is_running)

    asyncio.run(
        MixpanelMiddleware(app, analytics=desk.analytics)({"type": "lifespan"}, receive, send)
    )

    assert running == [runs, False]


@BOTH
def test_what_a_job_tracks_in_a_request_is_delivered_with_it(open_desk, tell):
    desk = open_desk(flush_on_response=True, durability="relaxed", outbox="memory")
    desk.analytics.visitor(user_id="u1", consent=True).track("Renewed")

    serve_untouched(desk, tell)

    assert desk.sent() == ["Renewed"]


def serve_untouched(desk: Desk, tell: Any) -> None:
    late = tell_asgi_late if tell is tell_asgi else tell_wsgi_late
    late(desk, lambda tracker: None)


def test_a_flush_takes_none_of_the_apps_threads(open_desk):
    desk = open_desk(flush_on_response=True, durability="relaxed", outbox="memory")
    is_under_way, may_end = Event(), Event()

    def hang(timeout: float) -> bool:
        is_under_way.set()
        return may_end.wait(30)

    desk.analytics._flusher._flush = hang

    async def app(scope: Any, receive: Any, send: Any) -> None:
        get_tracker(scope).track("A")

    async def call() -> None:
        limiter = anyio.to_thread.current_default_thread_limiter()
        serve = MixpanelMiddleware(app, analytics=desk.analytics)
        async with anyio.create_task_group() as group:
            for _ in range(3):
                scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
                group.start_soon(serve, scope, None, None)
            await anyio.to_thread.run_sync(is_under_way.wait, 30)
            desk.note(str(limiter.borrowed_tokens))
            may_end.set()

    anyio.run(call)

    assert desk.story == [("0", 3)]


def test_a_loop_that_nobody_knows_gets_no_delivery_and_no_exception(open_desk):
    desk = open_desk(flush_on_response=True, durability="relaxed", outbox="memory")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        get_tracker(scope).track("A")

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    with pytest.raises(StopIteration):
        MixpanelMiddleware(app, analytics=desk.analytics)(scope, None, None).send(None)  # type: ignore[attr-defined,arg-type]

    assert desk.analytics._counters.snapshot().other["flush_failed"] == 1


@pytest.mark.parametrize(
    ("body", "has_length"),
    [
        pytest.param([b"hello"], True, id="of-one-part"),
        pytest.param(iter([b"hello"]), False, id="of-nobody-knows-how-many"),
    ],
)
def test_a_body_keeps_its_length_where_the_request_ends_with_its_delivery(
    open_desk, body, has_length
):
    desk = open_desk(flush_on_response=True, durability="relaxed", outbox="memory")
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_PROTOCOL": "HTTP/1.1"}
    out = io.BytesIO()

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return body

    middleware: Any = MixpanelWSGIMiddleware(app, analytics=desk.analytics)
    SimpleHandler(io.BytesIO(), out, io.StringIO(), environ).run(middleware)

    assert out.getvalue().endswith(b"hello")
    assert (b"Content-Length: 5" in out.getvalue()) is has_length


# --- first used after the start -------------------------------------------------------------------


def tell_asgi_late(desk: Desk, use: Callable[[Any], object]) -> Story:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        use(get_tracker(scope))
        desk.note("used")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def send(message: Any) -> None:
        pass

    scope = {"type": "http", "method": "GET", "path": "/", "scheme": "https", "headers": []}
    asyncio.run(MixpanelMiddleware(app, analytics=desk.analytics)(scope, None, send))  # type: ignore[arg-type]
    desk.note("closed")
    return desk.story


def tell_wsgi_late(desk: Desk, use: Callable[[Any], object]) -> Story:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        use(get_tracker(environ))
        desk.note("used")
        yield b""

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "https"}
    body: Any = MixpanelWSGIMiddleware(app, analytics=desk.analytics)(environ, lambda *_: None)  # type: ignore[arg-type,return-value]
    list(body)
    body.close()
    desk.note("closed")
    return desk.story


def is_free(lock: Any) -> bool:
    """Answer whether another thread could go on now."""
    free: list[bool] = []

    def try_it() -> None:
        free.append(lock.acquire(timeout=1))
        if free[0]:
            lock.release()

    thread = Thread(target=try_it)
    thread.start()
    thread.join()
    return free[0]


BOTH_LATE = pytest.mark.parametrize("tell", [tell_asgi_late, tell_wsgi_late], ids=["asgi", "wsgi"])


@BOTH_LATE
@pytest.mark.parametrize("durability", ["strict", "relaxed"])
def test_what_is_first_tracked_after_the_start_is_kept_at_once_under_its_late_answers(
    open_desk, tell, durability
):
    asked: list[object] = []

    def find_user(connection: object) -> str:
        asked.append(connection)
        return "u1"

    desk = open_desk(durability=durability, identify_from=find_user)

    story = tell(desk, lambda tracker: (tracker.track("A"), tracker.track("B")))

    assert story == [("used", 2), ("closed", 2)]
    assert len(asked) == 1


@BOTH_LATE
def test_nothing_of_a_request_that_is_over_leads_back_to_it(open_desk, tell):
    desk, trackers = open_desk(identify_from=lambda _: "u1"), []

    tell(desk, trackers.append)
    tell(desk, lambda tracker: trackers.append(tracker) or tracker.consent.state)

    assert [tracker.late_seam for tracker in trackers] == [None, None]
    assert trackers[1].exchange._late_seam is None


@BOTH_LATE
def test_a_late_answer_refuses_what_is_first_tracked_after_the_start(open_desk, tell):
    desk = open_desk(consent_from=lambda _: False)

    assert tell(desk, lambda tracker: tracker.track("A")) == [("used", 0), ("closed", 0)]


@BOTH_LATE
def test_a_tracker_that_only_reads_after_the_start_asks_nobody_before_the_end(open_desk, tell):
    desk = open_desk(identify_from=lambda _: desk.note("asked"))

    tell(desk, lambda tracker: tracker.consent.state)

    assert desk.story[0] == ("used", 0)


@BOTH_LATE
def test_a_meeting_after_the_start_is_kept_at_once_without_the_lock(open_desk, tell):
    desk = open_desk(consent_from=lambda _: is_free(desk.analytics.core.lock), identity="original")

    story = tell(desk, lambda tracker: tracker.identify("u1"))

    assert story == [("used", 1), ("closed", 1)]


@BOTH_LATE
@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda tracker: tracker.track("A"), id="track"),
        pytest.param(lambda tracker: tracker.people.set({"plan": "pro"}), id="people"),
        pytest.param(lambda tracker: tracker.group("company", 1).set({"plan": "pro"}), id="group"),
    ],
)
def test_the_app_is_asked_at_once_and_without_the_lock_of_the_process(open_desk, tell, use):
    desk = open_desk(
        consent_from=lambda _: is_free(desk.analytics.core.lock), identify_from=lambda _: "u1"
    )

    assert tell(desk, use) == [("used", 1), ("closed", 1)]
