"""The WSGI door changes nothing but its own key, Set-Cookie, Vary and Cache-Control."""

import contextvars
import gc
import io
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest
from flask import Flask, request, stream_with_context
from flask import Response as FlaskResponse
from mixpanel import Mixpanel
from werkzeug.middleware.lint import LintMiddleware
from werkzeug.test import Client, EnvironBuilder

from mp_asgi import Consumer, MixpanelWSGIMiddleware, SettingsError, Tracker, get_tracker
from mp_asgi.head import RequestHead
from tests.probes import Project, open_project
from tests.support import TIMEOUT

KEY = "mp_asgi.tracker"
OK = "200 OK"
PLAIN = [("Content-Type", "text/plain")]


def wrap(project: Project, app: Any) -> MixpanelWSGIMiddleware:
    return MixpanelWSGIMiddleware(app, analytics=project.analytics)


def make_environ(**values: Any) -> dict[str, Any]:
    environ: dict[str, Any] = {"REMOTE_ADDR": "127.0.0.1", "QUERY_STRING": ""}
    setup_testing_defaults(environ)
    return {**environ, "HTTP_X_MP_CONSENT": "granted", **values}


class Gateway:
    """The server's end of a WSGI call: keeps every start and everything that was written."""

    def __init__(self) -> None:
        self.starts: list[tuple[Any, ...]] = []
        self.written: list[bytes] = []

    def start_response(self, *call: Any) -> Callable[[bytes], None]:
        self.starts.append(call)
        return self.write

    def write(self, text: bytes) -> None:
        self.written.append(text)

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers of the last start."""
        return list(self.starts[-1][1])

    def cookie_names(self, start: int = -1) -> list[str]:
        headers = self.starts[start][1]
        return [value.partition("=")[0] for name, value in headers if name.lower() == "set-cookie"]


def serve(app: Any, environ: dict[str, Any]) -> tuple[Gateway, bytes]:
    """Call a WSGI app once, as a server does."""
    gateway = Gateway()
    body = app(environ, gateway.start_response)
    try:
        text = b"".join(body)
    finally:
        close(body)
    return gateway, b"".join(gateway.written) + text


def close(body: Any) -> None:
    if hasattr(body, "close"):
        body.close()


def answer(body: Any, headers: list[tuple[str, str]] = PLAIN, status: str = OK) -> Any:
    """Answer an app that tracks an event and returns this body."""

    def app(environ: Any, start_response: Any) -> Any:
        get_tracker(environ).track("Seen")
        start_response(status, headers)
        return body

    return app


class Closing:
    """An iterable that counts how often it is closed."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self.parts = parts
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.parts)

    def close(self) -> None:
        self.closed += 1


class ClosingList(list[bytes]):
    closed = 0

    def close(self) -> None:
        self.closed += 1


def stream_and_fail(error: BaseException) -> Iterator[bytes]:
    yield b"part"
    raise error


# --- environ ------------------------------------------------------------------------------------


def test_only_our_key_enters_the_environ(project: Project) -> None:
    environ = make_environ()
    before = dict(environ)

    serve(wrap(project, answer([b"ok"])), environ)

    assert isinstance(environ.pop(KEY), Tracker)
    assert environ == before


def test_the_app_gets_the_servers_own_environ(project: Project) -> None:
    environ, seen = make_environ(), []

    def app(environ: Any, start_response: Any) -> Any:
        seen.append(environ)
        start_response(OK, PLAIN)
        return []

    serve(wrap(project, app), environ)

    assert seen[0] is environ


@pytest.mark.parametrize("key", ["REMOTE_ADDR", "wsgi.url_scheme", "HTTP_HOST", "SERVER_NAME"])
def test_a_server_may_leave_out_a_key(project: Project, key: str) -> None:
    environ = make_environ()
    del environ[key]

    serve(wrap(project, answer([b"ok"])), environ)

    assert project.delivered_names() == ["Seen"]


def test_a_policy_of_the_app_is_told_every_header() -> None:
    def decide(head: RequestHead) -> str:
        return "opt-out" if head.header(b"x-our-region") == b"elsewhere" else "opt-in"

    environ = make_environ(HTTP_X_OUR_REGION="elsewhere")
    del environ["HTTP_X_MP_CONSENT"]

    with open_project(policy=decide) as project:
        serve(wrap(project, answer([b"ok"])), environ)

        assert project.delivered_names() == ["Seen"]


# --- start_response ---------------------------------------------------------------------------


def test_an_untouched_response_passes_as_the_same_objects(project: Project) -> None:
    headers, body = list(PLAIN), [b"ok"]

    def app(environ: Any, start_response: Any) -> Any:
        assert start_response(OK, headers) == gateway.write
        return body

    gateway = Gateway()
    returned = wrap(project, app)(make_environ(), gateway.start_response)

    assert returned is body
    ((status, sent),) = gateway.starts
    assert status is OK
    assert sent is headers


def test_only_our_three_headers_change(project: Project) -> None:
    headers = [
        ("Set-Cookie", "session=1"),
        ("X-Mixed-Case", "\xff"),
        ("Link", "</a>"),
        ("Link", "</b>"),
        ("Vary", "Accept"),
    ]
    given = list(headers)

    gateway, _ = serve(wrap(project, answer([b"ok"], headers)), make_environ())

    assert headers == given
    assert gateway.headers[:5] == given
    assert {name for name, _ in gateway.headers[5:]} == {"set-cookie", "vary", "cache-control"}
    assert gateway.cookie_names() == ["session", "mp_id"]


@pytest.mark.parametrize(
    "status", ["200 OK", "404 Not Found", "299 ", "999 Whatever", "200", "OK"], ids=repr
)
def test_a_status_passes_as_it_is(project: Project, status: str) -> None:
    gateway, _ = serve(wrap(project, answer([b"ok"], status=status)), make_environ())

    assert gateway.starts[0][0] is status
    assert gateway.cookie_names() == ["mp_id"]


def test_headers_of_a_shared_response_pass_as_they_are(project: Project) -> None:
    headers = [("Content-Type", "text/plain"), ("Cache-Control", "public, max-age=60")]

    gateway, _ = serve(wrap(project, answer([b"ok"], headers)), make_environ())

    assert gateway.headers == headers
    assert project.delivered_names() == ["Seen"]


def test_headers_that_no_server_can_send_reach_the_server_as_they_are(project: Project) -> None:
    headers = [("Content-Type", "text/plain"), ("X-Euro", "€")]

    gateway, _ = serve(wrap(project, answer([b"ok"], headers)), make_environ())

    assert gateway.headers == headers
    assert project.delivered_names() == ["Seen"]


def test_write_is_the_servers_own(project: Project) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        get_tracker(environ).track("Seen")
        write = start_response(OK, PLAIN)
        write(b"written ")
        return [b"returned"]

    gateway, text = serve(wrap(project, app), make_environ())

    assert text == b"written returned"
    assert gateway.cookie_names() == ["mp_id"]
    assert project.delivered_names() == ["Seen"]


def test_a_second_start_after_an_error_carries_the_cookie_and_its_exc_info(
    project: Project,
) -> None:
    info: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        get_tracker(environ).track("Seen")
        start_response(OK, PLAIN)
        try:
            int("x")
        except ValueError:
            info.append(sys.exc_info())
            start_response("500 Broken", PLAIN, info[0])
        return [b"sorry"]

    gateway, _ = serve(wrap(project, app), make_environ())

    assert [len(call) for call in gateway.starts] == [2, 3]
    assert gateway.starts[1][2] is info[0]
    assert gateway.cookie_names(0) == ["mp_id"]
    assert gateway.cookie_names(1) == ["mp_id"]


def test_what_start_response_raises_passes_by_identity(project: Project) -> None:
    error = AssertionError("headers were sent")

    def start_response(*call: Any) -> Any:
        raise error

    with pytest.raises(AssertionError) as raised:
        wrap(project, answer([b"ok"]))(make_environ(), start_response)

    assert raised.value is error
    assert project.delivered_names() == ["Seen"]


# --- bodies -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [[b"ok"], (b"o", b"k"), ClosingList([b"ok"]), []],
    ids=["list", "tuple", "list with close", "empty list"],
)
def test_a_body_with_a_length_is_returned_as_it_is(project: Project, body: Any) -> None:
    returned = wrap(project, answer(body))(make_environ(), Gateway().start_response)

    assert returned is body
    assert project.delivered_names() == ["Seen"]


@pytest.mark.parametrize(
    "make_wrapper", [FileWrapper, lambda file, size=8192: file], ids=["class", "function"]
)
def test_what_the_servers_file_wrapper_made_is_returned_as_it_is(
    project: Project, make_wrapper: Any
) -> None:
    """Wsgiref, gunicorn and waitress compare the type; uWSGI, whose wrapper is a function, the
    object.
    """
    made = []

    def app(environ: Any, start_response: Any) -> Any:
        get_tracker(environ).track("Seen")
        start_response(OK, PLAIN)
        made.append(environ["wsgi.file_wrapper"](io.BytesIO(b"film"), 4096))
        return made[0]

    environ = make_environ(**{"wsgi.file_wrapper": make_wrapper})
    returned = wrap(project, app)(environ, Gateway().start_response)

    assert returned is made[0]
    assert environ["wsgi.file_wrapper"] is make_wrapper
    assert project.delivered_names() == ["Seen"]


def test_events_of_a_stream_are_handed_over_at_its_close(project: Project) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response(OK, PLAIN)
        for name in ("one", "two"):
            get_tracker(environ).track(name)
            yield name.encode()

    body = wrap(project, app)(make_environ(), Gateway().start_response)
    parts = list(body)
    close(body)

    assert parts == [b"one", b"two"]
    assert project.delivered_names() == ["one", "two"]


def test_events_of_a_stream_that_nobody_closes_are_handed_over_at_its_end(
    project: Project,
) -> None:
    app = wrap(project, answer(iter([b"a", b"b"])))

    body = app(make_environ(), Gateway().start_response)

    assert list(body) == [b"a", b"b"]
    assert project.accepted == 1
    close(body)
    close(body)
    assert project.delivered_names() == ["Seen"]


def test_a_tracker_first_used_in_a_stream_that_nobody_closes_sends_its_events() -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response(OK, PLAIN)
        yield b"a"
        get_tracker(environ).track("Seen")

    with open_project(identify_from=lambda environ: "U1") as project:
        list(wrap(project, app)(make_environ(), Gateway().start_response))

        [event] = project.deliver()
        assert event["properties"]["$user_id"] == "U1"


def test_events_of_a_bodys_close_follow_those_of_its_stream(project: Project) -> None:
    class Telling(Closing):
        def close(self) -> None:
            get_tracker(environ).track("Closed")

    environ = make_environ()
    serve(wrap(project, answer(Telling([b"a"]))), environ)

    assert project.delivered_names() == ["Seen", "Closed"]


def test_a_generator_that_starts_late_gets_the_cookie(project: Project) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        get_tracker(environ).track("Seen")
        start_response(OK, PLAIN)
        yield b"ok"

    gateway, text = serve(wrap(project, app), make_environ())

    assert text == b"ok"
    assert gateway.cookie_names() == ["mp_id"]
    assert project.delivered_names() == ["Seen"]


def test_a_sized_body_that_starts_late_gets_the_cookie(project: Project) -> None:
    class Lazy:
        def __init__(self, environ: Any, start_response: Any) -> None:
            self.call = environ, start_response

        def __len__(self) -> int:
            return 1

        def __iter__(self) -> Iterator[bytes]:
            environ, start_response = self.call
            get_tracker(environ).track("Seen")
            start_response(OK, PLAIN)
            yield b"ok"

    gateway, _ = serve(wrap(project, Lazy), make_environ())

    assert gateway.cookie_names() == ["mp_id"]
    assert project.delivered_names() == ["Seen"]


def test_a_withdrawal_during_the_body_wins(project: Project) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        tracker = get_tracker(environ)
        tracker.track("Before")
        start_response(OK, PLAIN)
        yield b"part"
        tracker.consent.withdraw()
        tracker.track("After")
        yield b"rest"

    serve(wrap(project, app), make_environ())

    assert project.deliver() == []


def test_events_of_an_endless_stream_do_not_wait_for_its_end(project: Project) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        get_tracker(environ).track("Opened")
        start_response(OK, PLAIN)
        yield b"part"
        while True:
            get_tracker(environ).track("Ticked")
            yield b"part"

    body = iter(wrap(project, app)(make_environ(), Gateway().start_response))
    for _ in range(3):
        next(body)

    assert project.accepted >= 2


def test_an_endless_stream_may_use_the_tracker_late(project: Project) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response(OK, PLAIN)
        yield b"part"
        while True:
            get_tracker(environ).track("Ticked")
            yield b"part"

    body = iter(wrap(project, app)(make_environ(), Gateway().start_response))
    for _ in range(3):
        next(body)

    assert project.accepted >= 1


@pytest.mark.parametrize("kind", [ClosingList, Closing])
def test_close_is_called_exactly_once(project: Project, kind: Any) -> None:
    body = kind([b"ok"])

    serve(wrap(project, answer(body)), make_environ())

    assert body.closed == 1


def test_close_is_called_exactly_once_if_the_body_fails(project: Project) -> None:
    error = RuntimeError("broken")
    body = Closing(stream_and_fail(error))

    with pytest.raises(RuntimeError) as raised:
        serve(wrap(project, answer(body)), make_environ())

    assert raised.value is error
    assert body.closed == 1
    assert project.delivered_names() == ["Seen"]


def test_close_is_called_exactly_once_if_the_client_leaves_early(project: Project) -> None:
    body = Closing([b"one", b"two"])

    returned = wrap(project, answer(body))(make_environ(), Gateway().start_response)
    assert next(iter(returned)) == b"one"
    close(returned)

    assert body.closed == 1
    assert project.delivered_names() == ["Seen"]


def test_a_close_that_fails_passes_by_identity(project: Project) -> None:
    error = OSError("no disk")

    class Failing(Closing):
        def close(self) -> None:
            raise error

    with pytest.raises(OSError, match="disk") as raised:
        serve(wrap(project, answer(Failing([b"ok"]))), make_environ())

    assert raised.value is error
    assert project.delivered_names() == ["Seen"]


def test_a_generator_is_closed_with_its_finally(project: Project) -> None:
    steps = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response(OK, PLAIN)
        try:
            yield b"one"
            yield b"two"
        finally:
            get_tracker(environ).track("Left early")
            steps.append("closed")

    body = wrap(project, app)(make_environ(), Gateway().start_response)
    next(iter(body))
    close(body)

    assert steps == ["closed"]
    assert project.delivered_names() == ["Left early"]


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_an_exception_passes_by_identity_and_its_events_are_sent(
    project: Project, kind: type[BaseException]
) -> None:
    error = kind("broken")

    def app(environ: Any, start_response: Any) -> Any:
        get_tracker(environ).track("Tried")
        raise error

    with pytest.raises(kind) as raised:
        serve(wrap(project, app), make_environ())

    assert raised.value is error
    assert (error.__cause__, error.__context__) == (None, None)
    assert project.delivered_names() == ["Tried"]


def test_an_event_of_a_request_that_failed_before_its_start_knows_its_page(
    project: Project,
) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        get_tracker(environ).track("Tried")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        serve(wrap(project, app), make_environ(HTTP_HOST="shop.test", PATH_INFO="/there"))

    [event] = project.deliver()
    assert event["properties"]["$current_url"] == "http://shop.test/there"


def test_a_denial_stops_what_waits_even_if_the_request_fails(project: Project) -> None:
    gateway, _ = serve(wrap(project, answer([b"ok"])), make_environ())
    cookie = next(value for name, value in gateway.headers if name.lower() == "set-cookie")

    def app(environ: Any, start_response: Any) -> Any:
        get_tracker(environ).consent.deny()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        serve(wrap(project, app), make_environ(HTTP_COOKIE=cookie.partition(";")[0]))

    assert project.deliver() == []
    assert project.analytics.stats().dropped == {"stopped": 1}


def test_an_unreachable_mixpanel_delays_neither_the_body_nor_its_close() -> None:
    gate = threading.Event()
    with open_project(flush_interval=0.01, gate=gate) as project:
        app = wrap(project, answer(Closing([b"ok"])))

        _, text = serve(app, make_environ())
        assert project.transport.is_sending.wait(TIMEOUT)
        _, again = serve(app, make_environ())

        assert (text, again) == (b"ok", b"ok")
        assert len(project.transport.messages) == 1  # the first is still on its way
        gate.set()
        assert project.delivered_names() == ["Seen", "Seen"]


# --- conformance ------------------------------------------------------------------------------


def late_start(environ: Any, start_response: Any) -> Iterator[bytes]:
    get_tracker(environ).track("Seen")
    start_response(OK, list(PLAIN))
    yield b"ok"


def plain_list(environ: Any, start_response: Any) -> list[bytes]:
    get_tracker(environ).track("Seen")
    start_response(OK, list(PLAIN))
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else b"ok"]


def error_page(environ: Any, start_response: Any) -> list[bytes]:
    get_tracker(environ).track("Seen")
    start_response(OK, list(PLAIN))
    try:
        int("x")
    except ValueError:
        start_response("500 Broken", list(PLAIN), sys.exc_info())
    return [b"sorry"]


@pytest.mark.parametrize(
    ("app", "method"),
    [(plain_list, "GET"), (plain_list, "HEAD"), (late_start, "GET"), (error_page, "POST")],
)
def test_wsgirefs_validator_finds_nothing_on_either_side(
    project: Project, app: Any, method: str
) -> None:
    checked = validator(wrap(project, validator(app)))

    gateway, _ = serve(checked, make_environ(REQUEST_METHOD=method))

    assert gateway.cookie_names() == ["mp_id"]
    assert project.delivered_names() == ["Seen"]


@pytest.mark.parametrize("app", [plain_list, late_start])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_werkzeugs_lint_finds_nothing_on_either_side(
    project: Project, app: Any, method: str
) -> None:
    client = Client(LintMiddleware(wrap(project, LintMiddleware(app))))

    response = client.open(method=method, headers={"X-MP-Consent": "granted"})

    assert response.status_code == 200
    assert response.headers["Set-Cookie"].startswith("mp_id=")
    response.close()
    assert project.delivered_names() == ["Seen"]


def test_the_servers_environ_may_be_werkzeugs(project: Project) -> None:
    environ = EnvironBuilder(headers={"X-MP-Consent": "granted"}).get_environ()

    serve(wrap(project, plain_list), environ)

    assert project.delivered_names() == ["Seen"]


def test_no_thread_starts_before_the_first_event() -> None:
    before = set(threading.enumerate())

    app = MixpanelWSGIMiddleware(plain_list, token="t0ken", secret_keys=["k" * 32])
    serve(app, make_environ(HTTP_X_MP_CONSENT="denied"))

    assert set(threading.enumerate()) == before


def test_two_answers_to_one_question_raise_in_the_constructor(project: Project) -> None:
    with pytest.raises(SettingsError, match="analytics came together with batch_size"):
        MixpanelWSGIMiddleware(answer([]), analytics=project.analytics, batch_size=5)


def test_an_environ_that_is_served_again_gets_a_tracker_of_its_own(project: Project) -> None:
    environ = make_environ()
    app = wrap(project, answer([b"a"]))

    first, _ = serve(app, environ)
    tracker = environ[KEY]
    second, _ = serve(app, environ)

    assert environ[KEY] is not tracker
    assert (first.cookie_names(), second.cookie_names()) == (["mp_id"], ["mp_id"])
    assert project.delivered_names() == ["Seen", "Seen"]


def test_bad_settings_raise_in_the_constructor() -> None:
    with pytest.raises(SettingsError) as raised:
        MixpanelWSGIMiddleware(plain_list, token="t0ken", secret_keys=["short"], batch_size=0)

    assert len(raised.value.problems) == 2
    assert "short" not in str(raised.value)


# --- memory -----------------------------------------------------------------------------------


def untouched(environ: Any, start_response: Any) -> list[bytes]:
    start_response(OK, list(PLAIN))
    return [b"ok"]


@pytest.mark.parametrize("app", [untouched, plain_list, late_start])
def test_a_request_leaves_no_cycle(project: Project, app: Any) -> None:
    middleware = wrap(project, app)
    environs = [make_environ() for _ in range(12)]
    serve(middleware, environs.pop())
    serve(middleware, environs.pop())
    project.deliver()
    gc.collect()
    gc.disable()
    try:
        while environs:
            serve(middleware, environs.pop())
        found = gc.collect()
    finally:
        gc.enable()

    assert found == 0


@pytest.mark.parametrize("app", [untouched, plain_list, late_start])
def test_a_kept_tracker_does_not_keep_the_request(project: Project, app: Any) -> None:
    class Upload:
        """What a request may hold."""

    environ = make_environ(upload=Upload())
    upload = weakref.ref(environ["upload"])
    serve(wrap(project, app), environ)

    tracker = environ[KEY]
    del environ

    assert isinstance(tracker, Tracker)
    assert upload() is None


# --- wrapped twice -----------------------------------------------------------------------------


def test_an_equal_project_inside_shares_the_tracker(project: Project) -> None:
    trackers = []

    def app(environ: Any, start_response: Any) -> Any:
        trackers.append(get_tracker(environ))
        return plain_list(environ, start_response)

    inner = MixpanelWSGIMiddleware(app, settings=project.analytics.settings)

    def between(environ: Any, start_response: Any) -> Any:
        trackers.append(get_tracker(environ))
        return inner(environ, start_response)

    gateway, _ = serve(wrap(project, between), make_environ())

    assert trackers[0] is trackers[1]
    assert gateway.cookie_names() == ["mp_id"]
    assert project.delivered_names() == ["Seen"]


@pytest.mark.parametrize("is_stream", [False, True], ids=["list", "generator"])
def test_another_project_inside_has_its_own_tracker_and_gives_back_the_outer(
    project: Project, other_project: Project, is_stream: bool
) -> None:
    trackers: dict[str, Tracker] = {}

    def streaming(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response(OK, PLAIN)
        yield b"part"
        trackers["inside"] = get_tracker(environ)
        trackers["inside"].track("Inside")
        yield b"rest"

    def listing(environ: Any, start_response: Any) -> list[bytes]:
        trackers["inside"] = get_tracker(environ)
        trackers["inside"].track("Inside")
        start_response(OK, PLAIN)
        return [b"ok"]

    inner = wrap(other_project, streaming if is_stream else listing)

    def between(environ: Any, start_response: Any) -> Any:
        trackers["before"] = get_tracker(environ)
        return inner(environ, start_response)

    environ = make_environ()
    serve(wrap(project, between), environ)

    assert environ[KEY] is trackers["before"]
    assert trackers["inside"] is not trackers["before"]
    assert project.delivered_names() == []
    assert other_project.delivered_names() == ["Inside"]


def test_another_project_inside_whose_stream_goes_through_the_outer_app(
    project: Project, other_project: Project
) -> None:
    """The outer app may iterate and close the inner body itself, and then goes on tracking."""

    def between(environ: Any, start_response: Any) -> list[bytes]:
        body = wrap(other_project, late_start)(environ, start_response)
        parts = list(body)
        close(body)
        get_tracker(environ).track("Joined")
        return parts

    serve(wrap(project, between), make_environ())

    assert project.delivered_names() == ["Joined"]
    assert other_project.delivered_names() == ["Seen"]


def test_a_failing_inner_project_gives_back_the_outer_tracker(
    project: Project, other_project: Project
) -> None:
    trackers = []
    error = RuntimeError("broken")

    def fail(environ: Any, start_response: Any) -> Any:
        raise error

    def between(environ: Any, start_response: Any) -> Any:
        trackers.append(get_tracker(environ))
        try:
            return wrap(other_project, fail)(environ, start_response)
        finally:
            trackers.append(get_tracker(environ))

    with pytest.raises(RuntimeError) as raised:
        serve(wrap(project, between), make_environ())

    assert raised.value is error
    assert trackers[0] is trackers[1]


# --- page views -----------------------------------------------------------------------------------

NAVIGATION = {"HTTP_SEC_FETCH_MODE": "navigate", "HTTP_SEC_FETCH_DEST": "document"}
HTML = [("Content-Type", "text/html"), ("X-Own", "1")]


@pytest.fixture
def seeing() -> Iterator[Project]:
    """Answer a project that tracks page views by itself."""
    with open_project(track_pageviews=True) as project:
        yield project


def page_environ(**values: Any) -> dict[str, Any]:
    return make_environ(**{"HTTP_HOST": "shop.test", **NAVIGATION, **values})


def respond(headers: list[tuple[str, str]] = HTML, status: str = OK, **keys: str) -> Any:
    """Answer an app that does not track."""

    def app(environ: Any, start_response: Any) -> Any:
        environ.update(keys)
        start_response(status, headers)
        return [b"ok"]

    return app


def views(project: Project) -> list[dict[str, Any]]:
    """Answer what page views say of their page."""
    names = ("$current_url", "current_url_path", "current_url_route")
    told = [message["properties"] for message in project.deliver()]
    return [{name: item[name] for name in names if name in item} for item in told]


def test_a_page_that_somebody_opens_is_tracked_and_its_visitor_kept(seeing: Project) -> None:
    app = respond(**{"mp_asgi.route": "/orders/<id>"})

    gateway, _ = serve(wrap(seeing, app), page_environ(PATH_INFO="/orders/7"))

    assert seeing.delivered_names() == ["$mp_web_page_view"]
    assert views(seeing) == [
        {
            "$current_url": "http://shop.test/orders/7",
            "current_url_path": "/orders/7",
            "current_url_route": "/orders/<id>",
        }
    ]
    assert gateway.cookie_names() == ["mp_id"]


@pytest.mark.parametrize(
    ("environ", "app"),
    [
        pytest.param({"REQUEST_METHOD": "POST"}, respond(), id="a-form"),
        pytest.param({}, respond(status="404 Not Found"), id="an-error"),
        pytest.param({}, respond(status="OK"), id="no-status"),
        pytest.param({}, respond([]), id="no-headers"),
        pytest.param({}, respond(PLAIN), id="no-html"),
    ],
)
def test_what_is_no_page_leaves_the_tracker_untouched(
    seeing: Project, environ: dict[str, Any], app: Any
) -> None:
    environ = page_environ(**environ)

    serve(wrap(seeing, app), environ)

    assert environ[KEY].exchange is None
    assert seeing.accepted == 0


def test_no_script_makes_a_page_view(seeing: Project) -> None:
    serve(wrap(seeing, respond()), make_environ())

    assert seeing.delivered_names() == []


def test_what_the_app_tracked_itself_is_not_tracked_twice(seeing: Project) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        get_tracker(environ).track_pageview()
        start_response(OK, HTML)
        return [b"ok"]

    serve(wrap(seeing, app), page_environ())

    assert seeing.delivered_names() == ["$mp_web_page_view"]


def test_where_nobody_wants_page_views_there_are_none(project: Project) -> None:
    environ = page_environ()

    serve(wrap(project, respond()), environ)

    assert environ[KEY].exchange is None


def test_a_page_whose_body_starts_the_response_is_seen(seeing: Project) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response(OK, HTML)
        yield b"ok"

    gateway, _ = serve(wrap(seeing, app), page_environ())

    assert seeing.delivered_names() == ["$mp_web_page_view"]
    assert gateway.cookie_names() == ["mp_id"]


def test_seeing_a_page_changes_no_headers_of_the_app(seeing: Project) -> None:
    headers = list(HTML)

    gateway, _ = serve(wrap(seeing, respond(headers)), page_environ())

    assert headers == HTML
    assert gateway.headers[: len(HTML)] == HTML


def test_headers_with_any_latin_character_pass_as_they_are(seeing: Project) -> None:
    headers = [*HTML, ("X-Name", "caf\xe9")]

    gateway, _ = serve(wrap(seeing, respond(headers)), page_environ())

    assert gateway.headers[: len(headers)] == headers
    assert seeing.delivered_names() == ["$mp_web_page_view"]


ODD_STARTS = [
    pytest.param(OK, [*HTML, ("X-Odd", "\udcff")], id="surrogate"),
    pytest.param(OK, [*HTML, ("X-Odd", "€")], id="beyond-latin"),
    pytest.param(OK, [*HTML, ("X-Odd", 5)], id="number"),
    pytest.param(OK, [*HTML, (b"X-Odd", b"5")], id="bytes"),
    pytest.param(OK, [*HTML, ("X-Odd",)], id="no-value"),
    pytest.param(OK, [*HTML, 5], id="no-pair"),
    pytest.param(OK, None, id="no-headers"),
    pytest.param(200, HTML, id="status-is-a-number"),
    pytest.param(None, HTML, id="no-status"),
]


@pytest.mark.parametrize(("status", "headers"), ODD_STARTS)
@pytest.mark.parametrize("make_app", [respond, partial(answer, [b"ok"])], ids=["unused", "used"])
def test_what_no_server_can_send_is_no_page_and_reaches_the_server_as_it_is(
    seeing: Project, make_app: Any, status: Any, headers: Any
) -> None:
    gateway, _ = serve(wrap(seeing, make_app(headers=headers, status=status)), page_environ())

    ((sent_status, sent_headers),) = gateway.starts
    assert sent_status is status
    assert sent_headers is headers
    assert "$mp_web_page_view" not in seeing.delivered_names()


@pytest.mark.parametrize("status", ["\xb200 OK", "\u0662\u0660\u0660 OK"], ids=ascii)
def test_digits_of_others_are_no_status(seeing: Project, status: str) -> None:
    gateway, _ = serve(wrap(seeing, answer([b"ok"], HTML, status)), page_environ())

    assert gateway.starts[0][0] is status
    assert seeing.delivered_names() == ["Seen"]


def test_a_page_is_seen_where_the_server_does_not_name_the_method(seeing: Project) -> None:
    environ = page_environ()
    del environ["REQUEST_METHOD"]

    serve(wrap(seeing, respond()), environ)

    assert seeing.delivered_names() == ["$mp_web_page_view"]


def test_what_a_browser_fetches_in_case_somebody_clicks_is_no_page_view(seeing: Project) -> None:
    serve(wrap(seeing, respond()), page_environ(HTTP_X_MOZ="prefetch"))

    assert seeing.delivered_names() == []


def fail_after(*starts: tuple[str, list[tuple[str, str]]], act: Any = None) -> Any:
    """Answer an app that starts a page, fails, and starts again with what went wrong."""

    def app(environ: Any, start_response: Any) -> Any:
        if act is not None:
            act(get_tracker(environ))
        start_response(OK, HTML)
        try:
            int("x")
        except ValueError:
            for status, headers in starts:
                start_response(status, headers, sys.exc_info())
        return [b"sorry"]

    return app


@pytest.mark.parametrize(
    "starts",
    [
        pytest.param([("500 Broken", HTML)], id="an-error"),
        pytest.param([(OK, HTML)], id="an-error-that-does-not-say-so"),
        pytest.param([(OK, HTML), ("500 Broken", HTML)], id="two-errors"),
    ],
)
def test_a_page_that_failed_after_its_start_is_no_page_view(seeing: Project, starts: Any) -> None:
    gateway, _ = serve(wrap(seeing, fail_after(*starts)), page_environ())

    assert len(gateway.starts) == 1 + len(starts)
    assert seeing.delivered_names() == []


def test_an_error_page_is_no_page_view_where_the_start_before_was_none(seeing: Project) -> None:
    environ = page_environ(REQUEST_METHOD="POST")

    serve(wrap(seeing, fail_after((OK, HTML))), environ)

    assert environ[KEY].exchange is None


def test_what_the_app_tracked_itself_stays_when_its_page_fails(seeing: Project) -> None:
    app = fail_after(("500 Broken", HTML), act=Tracker.track_pageview)

    serve(wrap(seeing, app), page_environ())

    assert seeing.delivered_names() == ["$mp_web_page_view"]


# --- the request that runs ------------------------------------------------------------------------

Requests = contextvars.ContextVar[Tracker | None]


@pytest.fixture
def requests(project: Project) -> Requests:
    """Want to know which request of the project runs."""
    project.analytics.requests = contextvars.ContextVar("requests", default=None)
    return project.analytics.requests


def test_whoever_asks_finds_the_request_that_runs_and_none_afterwards(
    project: Project, requests: Requests
) -> None:
    found = []

    def app(environ: Any, start_response: Any) -> Any:
        found.append(requests.get())
        return respond()(environ, start_response)

    environ = make_environ()
    serve(wrap(project, app), environ)

    assert found == [environ[KEY]]
    assert requests.get() is None


def test_a_request_that_raises_does_not_run_any_longer(
    project: Project, requests: Requests
) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        raise LookupError

    with pytest.raises(LookupError):
        serve(wrap(project, app), make_environ())

    assert requests.get() is None


def test_a_request_inside_of_another_one_gives_it_back(
    project: Project, requests: Requests
) -> None:
    found = []

    def inner(environ: Any, start_response: Any) -> Any:
        found.append(requests.get())
        return respond()(environ, start_response)

    def outer(environ: Any, start_response: Any) -> Any:
        serve(wrap(project, inner), make_environ())
        found.append(requests.get())
        return respond()(environ, start_response)

    environ = make_environ()
    serve(wrap(project, outer), environ)

    assert found[0] is not found[1]
    assert found[1] is environ[KEY]


class Asking:
    """A body whose every step asks which request runs."""

    def __init__(self, requests: Requests) -> None:
        self.requests = requests
        self.found: list[Tracker | None] = []

    def __iter__(self) -> Iterator[bytes]:
        self.found.append(self.requests.get())
        return self

    def __next__(self) -> bytes:
        self.found.append(self.requests.get())
        return b"part"

    def close(self) -> None:
        self.found.append(self.requests.get())


def test_every_step_of_a_body_runs_as_its_request_and_nothing_in_between(
    project: Project, requests: Requests
) -> None:
    environ, asking = make_environ(), Asking(requests)
    body = wrap(project, answer(asking))(environ, Gateway().start_response)

    between = [requests.get()]
    parts = iter(body)
    for _ in range(2):
        next(parts)
        between.append(requests.get())
    close(body)

    assert asking.found == [environ[KEY]] * 4
    assert [*between, requests.get()] == [None] * 4


def test_two_bodies_in_turn_are_told_apart(project: Project, requests: Requests) -> None:
    environs = [make_environ(), make_environ()]
    askings = [Asking(requests), Asking(requests)]
    calls = zip(environs, askings, strict=True)
    bodies = [
        iter(wrap(project, answer(asking))(environ, Gateway().start_response))
        for environ, asking in calls
    ]

    for body in [*bodies, *bodies]:
        next(body)

    assert [asking.found for asking in askings] == [[environ[KEY]] * 3 for environ in environs]


@pytest.mark.parametrize("step", ["__iter__", "__next__", "close"])
def test_a_body_that_fails_does_not_run_any_longer(
    project: Project, requests: Requests, step: str
) -> None:
    error = LookupError("broken")

    def fail(self: Asking) -> Any:
        raise error

    body = type("Failing", (Asking,), {step: fail})(requests)

    with pytest.raises(LookupError) as raised:
        serve_one_part(wrap(project, answer(body)))

    assert raised.value is error
    assert requests.get() is None
    assert project.delivered_names() == ["Seen"]


def serve_one_part(app: Any) -> None:
    """Call a WSGI app as a server does whose client leaves early."""
    body = app(make_environ(), Gateway().start_response)
    try:
        next(iter(body))
    finally:
        close(body)


def test_a_part_that_is_none_is_the_servers_to_refuse(project: Project, requests: Requests) -> None:
    body = wrap(project, answer(iter([b"a", None, b"b"])))(make_environ(), Gateway().start_response)

    assert list(body) == [b"a", None, b"b"]


def tracking(client: Mixpanel) -> Flask:
    """Answer an app that uses the official client at every place that Flask offers."""
    app = Flask(__name__)

    @app.get("/stream")
    def stream() -> Any:
        def parts() -> Iterator[bytes]:
            client.track("", "Streamed")
            yield b"part"
            client.track("", request.args["name"])
            yield b"rest"

        return stream_with_context(parts())

    @app.get("/close")
    def leave() -> Any:
        response = FlaskResponse("ok")
        response.call_on_close(lambda: client.track("", "Closed"))
        return response

    return app


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("/stream", ["Streamed", "Second"], id="stream_with_context"),
        pytest.param("/close", ["Closed"], id="call_on_close"),
    ],
)
def test_the_official_client_in_a_body_tracks_for_its_request(
    project: Project, path: str, expected: list[str]
) -> None:
    client = Mixpanel("t0ken", consumer=Consumer(project.analytics))
    environ = make_environ(PATH_INFO=path, QUERY_STRING="name=Second")

    serve(wrap(project, tracking(client)), environ)

    assert project.delivered_names() == expected
    devices = {message["properties"]["$device_id"] for message in project.deliver()}
    assert devices == {environ[KEY].device_id}


def test_the_official_client_in_an_app_that_is_a_generator_tracks_for_its_request(
    project: Project,
) -> None:
    client = Mixpanel("t0ken", consumer=Consumer(project.analytics))

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        client.track("", "Before")
        start_response(OK, PLAIN)
        yield b"part"
        client.track("", "After")

    serve(wrap(project, app), make_environ())

    assert project.delivered_names() == ["Before", "After"]


def test_where_nobody_asks_no_request_is_told(project: Project) -> None:
    seen = []

    def app(environ: Any, start_response: Any) -> Any:
        seen.append(
            [item for item in contextvars.copy_context().values() if isinstance(item, Tracker)]
        )
        return respond()(environ, start_response)

    serve(wrap(project, app), make_environ())

    assert seen == [[]]
