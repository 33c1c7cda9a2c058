"""Drive both middlewares by hand, with a browser in front and a stand-in for Mixpanel behind.

An app is a script: a tuple of acts, the same for ASGI and for WSGI. `START`, `CHUNK` and `END` say
how far the response is; what follows `END` runs in the background. Scripts without them start and
end their response after the last act.
"""

import base64
import hashlib
import io
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, Self
from urllib.parse import urlencode
from wsgiref.validate import validator

import anyio

from mp_asgi import (
    ANONYMOUS,
    Analytics,
    MixpanelMiddleware,
    MixpanelWSGIMiddleware,
    Settings,
    Stats,
    Tracker,
    get_tracker,
)
from mp_asgi.delivery.outbox.base import Backlog
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from mp_asgi.delivery.transport import Reply, Transport
from mp_asgi.dev import Fault, StandIn, run_in_thread
from mp_asgi.dev.clusters import Cluster
from mp_asgi.dev.wire import WireRequest
from mp_asgi.errors import Unavailable
from mp_asgi.events import Endpoint
from tests.support import TIMEOUT, FakeClock, make_settings

TURN = "test.turn"
SENDER = "mp-asgi-sender"
HOST = "shop.example"
NAVIGATION = (("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"))
GPC = (("sec-gpc", "1"),)
CROSS_SITE = (("sec-fetch-site", "cross-site"), ("origin", "https://evil.example"))

Headers = Sequence[tuple[str, str | bytes]]


class AppError(Exception):
    """What an app raises on purpose."""


# --- scripts ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that an app does in a request."""

    verb: str
    values: tuple[Any, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()


CHUNK = Act("chunk")
END = Act("end")
FAIL = Act("fail")
_MARKS = frozenset({"start", "chunk", "end"})


def start(status: int = 200, *headers: tuple[str, str]) -> Act:
    return Act("start", (status, headers))


START = start()


def track(name: str, **properties: Any) -> Act:
    return Act("track", (name, properties))


def identify(user_id: object, **options: Any) -> Act:
    return Act("identify", (user_id,), tuple(options.items()))


def reset(**options: Any) -> Act:
    return Act("reset", (), tuple(options.items()))


def grant(**options: Any) -> Act:
    return Act("grant", (), tuple(options.items()))


def deny(**options: Any) -> Act:
    return Act("deny", (), tuple(options.items()))


def set_person(**properties: Any) -> Act:
    return Act("set_person", (properties,))


def set_group(key: str, group_id: str) -> Act:
    return Act("set_group", (key, group_id))


def update_group(key: str, group_id: str, **properties: Any) -> Act:
    return Act("update_group", (key, group_id, properties))


def look() -> Act:
    """Read who the visitor is, which is a use."""
    return Act("look")


def read_consent() -> Act:
    return Act("read_consent")


def login(user_id: str, **options: Any) -> Act:
    """Log in at the app, and say so in the way that the world's identity source wants.

    Only `identify` has options; an `identify_from` answers a user, and no more.
    """
    return Act("login", (user_id,), tuple(options.items()))


def logout() -> Act:
    return Act("logout")


def advance(seconds: float) -> Act:
    return Act("advance", (seconds,))


def call(function: Callable[[Tracker], object]) -> Act:
    return Act("call", (function,))


def complete(script: Sequence[Act]) -> tuple[Act, ...]:
    """Answer the script with its response started and ended, unless it fails before."""
    acts = list(script)
    verbs = [act.verb for act in acts]
    if "fail" in verbs:
        return tuple(acts[: verbs.index("fail") + 1])
    if "start" not in verbs:
        acts.append(START)
    if "end" not in verbs:
        acts.append(END)
    return tuple(acts)


class Turn:
    """One request as the app lives it."""

    def __init__(self, world: "World", script: Sequence[Act], session: dict[str, Any]) -> None:
        self.world = world
        self.script = complete(script)
        self.session = session
        self.notes: list[Any] = []
        self.tracker: Tracker | None = None

    @property
    def is_plain(self) -> bool:
        """Whether nothing happens after the response's start."""
        return [act.verb for act in self.script[-2:]] == ["start", "end"]

    def play(self, connection: Mapping[str, Any]) -> Iterator[Act]:
        """Do what the script says. Yield where the response moves on."""
        self.tracker = get_tracker(connection)
        for act in self.script:
            if act.verb in _MARKS:
                yield act
            elif act.verb == "fail":
                raise AppError
            else:
                self.perform(act, self.tracker)

    def perform(self, act: Act, tracker: Tracker) -> None:
        if act.verb in _VERBS:
            _VERBS[act.verb](tracker, *act.values, **dict(act.options))
        elif act.verb in _READS:
            self.notes.append(_READS[act.verb](tracker))
        else:
            self._perform_own(act, tracker)

    def _perform_own(self, act: Act, tracker: Tracker) -> None:
        match act.verb:
            case "call":
                self.notes.append(act.values[0](tracker))
            case "advance":
                self.world.clock.advance(*act.values)
            case "login":
                self.session["user"] = act.values[0]
                if not self.world.has_source:
                    tracker.identify(*act.values, **dict(act.options))
            case "logout":
                self.session["user"] = ANONYMOUS
                tracker.reset()
            case _:
                raise AssertionError(act)


_VERBS: dict[str, Callable[..., object]] = {
    "track": Tracker.track,
    "identify": Tracker.identify,
    "reset": Tracker.reset,
    "grant": lambda tracker, **options: tracker.consent.grant(**options),
    "deny": lambda tracker, **options: tracker.consent.deny(**options),
    "set_person": lambda tracker, properties: tracker.people.set(properties),
    "set_group": Tracker.set_group,
    "update_group": lambda tracker, key, id_, properties: tracker.group(key, id_).set(properties),
}
_READS: dict[str, Callable[[Tracker], object]] = {
    "look": lambda tracker: (tracker.device_id, tracker.user_id, tracker.distinct_id),
    "read_consent": lambda tracker: (
        tracker.consent.state,
        tracker.consent.reason,
        tracker.consent.needs_prompt,
    ),
}


def read_session_user(connection: Mapping[str, Any]) -> object:
    """Be the app's `identify_from`."""
    return connection[TURN].session.get("user")


def read_session_consent(connection: Mapping[str, Any]) -> object:
    """Be the app's `consent_from`; an exception in the session is raised."""
    answer = connection[TURN].session.get("consent")
    if isinstance(answer, Exception):
        raise answer
    return answer


# --- doors ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """What a browser sends; header names in lower case."""

    headers: Headers = ()
    scheme: str = "https"
    method: str = "GET"
    path: str = "/"
    query: str = ""
    client: str = "203.0.113.7"
    body: bytes = b""


@dataclass(slots=True)
class Answer:
    """What a browser gets; `error` is what the server saw the app raise."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    error: BaseException | None = None
    notes: list[Any] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [value for found, value in self.headers if found.lower() == name]

    @property
    def cookies(self) -> list[str]:
        return self.all("set-cookie")

    @property
    def cookie_names(self) -> list[str]:
        return [cookie.partition("=")[0] for cookie in self.cookies]


class Door(Protocol):
    """A way into the app."""

    def serve(self, request: Request, turn: Turn) -> Answer:
        """Serve one request, as a server would."""
        ...


class ASGIDoor:
    """`MixpanelMiddleware` around the scripted app, on asyncio, without a server."""

    def __init__(self, analytics: Analytics) -> None:
        self.app = MixpanelMiddleware(_asgi_app, analytics=analytics)

    def serve(self, request: Request, turn: Turn) -> Answer:
        answer = Answer(notes=turn.notes)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": request.body, "more_body": False}

        async def send(message: Mapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                headers = message["headers"]
                answer.headers = [(name.decode("latin-1"), _text(text)) for name, text in headers]
            else:
                answer.body += message["body"]

        async def run() -> None:
            try:
                await self.app(self._scope(request, turn), receive, send)
            except Exception as error:  # noqa: BLE001  # a server survives what an app raises
                answer.error = error

        anyio.run(run)
        return answer

    def _scope(self, request: Request, turn: Turn) -> dict[str, Any]:
        headers = [(b"host", HOST.encode())]
        for name, value in request.headers:
            raw = (name.encode(), _bytes(value))
            if name == "host":
                headers[0] = raw
            else:
                headers.append(raw)
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "path": request.path,
            "raw_path": request.path.encode(),
            "query_string": request.query.encode("latin-1"),
            "root_path": "",
            "scheme": request.scheme,
            "client": (request.client, 40_000),
            "server": (HOST, 443),
            "headers": headers,
            TURN: turn,
        }


class WSGIDoor:
    """`MixpanelWSGIMiddleware` around the scripted app.

    Args:
        is_validated: Stand `wsgiref.validate` on both sides of the middleware. It hides the
            length of a body, so the way of bodies with a length needs a door without it.
    """

    def __init__(self, analytics: Analytics, *, is_validated: bool = False) -> None:
        app = validator(_wsgi_app) if is_validated else _wsgi_app
        middleware = MixpanelWSGIMiddleware(app, analytics=analytics)
        self.app = validator(middleware) if is_validated else middleware

    def serve(self, request: Request, turn: Turn) -> Answer:
        answer = Answer(notes=turn.notes)

        def start_response(status: str, headers: Any, exc_info: Any = None, /) -> Any:
            answer.status = int(status[:3])
            answer.headers = list(headers)
            return lambda _: None

        try:
            body = self.app(self._environ(request, turn), start_response)
            try:
                for part in body:
                    answer.body += part
            finally:
                if hasattr(body, "close"):
                    body.close()
        except Exception as error:  # noqa: BLE001  # a server survives what an app raises
            answer.error = error
        return answer

    def _environ(self, request: Request, turn: Turn) -> dict[str, Any]:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": request.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query,
            "SERVER_NAME": HOST,
            "SERVER_PORT": "443",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": request.client,
            "HTTP_HOST": HOST,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": request.scheme,
            "wsgi.input": io.BytesIO(request.body),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            TURN: turn,
        }
        given: dict[str, str] = {}
        for name, value in request.headers:
            key = "HTTP_" + name.upper().replace("-", "_")
            separator = "; " if name == "cookie" else ","
            text = _bytes(value).decode("latin-1")
            given[key] = f"{given[key]}{separator}{text}" if key in given else text
        if request.body:
            environ["CONTENT_LENGTH"] = str(len(request.body))
        if content_type := given.pop("HTTP_CONTENT_TYPE", None):
            environ["CONTENT_TYPE"] = content_type
        return environ | given


async def _asgi_app(scope: Any, receive: Any, send: Any) -> None:
    for mark in scope[TURN].play(scope):
        if mark.verb == "start":
            status, headers = mark.values
            raw = [(name.encode(), value.encode()) for name, value in _complete(status, headers)]
            await send({"type": "http.response.start", "status": status, "headers": raw})
        else:
            more = mark.verb == "chunk"
            await send({"type": "http.response.body", "body": b"part", "more_body": more})


def _wsgi_app(environ: dict[str, Any], start_response: Any) -> Any:
    turn: Turn = environ[TURN]
    marks = turn.play(environ)
    status, headers = next(marks).values
    start_response(f"{status} Whatever", _complete(status, headers))
    return [b"part"] if turn.is_plain else _ScriptedBody(marks)


class _ScriptedBody:
    """A body that acts between its parts, and in the background once it is closed."""

    def __init__(self, marks: Iterator[Act]) -> None:
        self._marks = marks
        self._is_complete = False

    def __iter__(self) -> Iterator[bytes]:
        for mark in self._marks:
            yield b"part"
            if mark.verb == "end":
                self._is_complete = True
                return

    def close(self) -> None:
        if self._is_complete:
            for _ in self._marks:
                raise AssertionError("nothing moves on behind the end")


def _complete(status: int, headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    has_type = status != 304  # wsgiref.validate wants none then, and one everywhere else
    return [("content-type", "text/plain")] * has_type + list(headers)


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1")


def _text(value: bytes) -> str:
    return value.decode("latin-1")


# --- a browser --------------------------------------------------------------------------------


class Cookie(NamedTuple):
    """A stored cookie."""

    value: str
    is_secure: bool
    expires: float


class Browser:
    """A visitor: keeps cookies as a browser does, and one session at the app.

    Attributes:
        jar: Cookies by name, and by domain where they have one: `name@domain`.
    """

    def __init__(self, world: "World", *, scheme: str = "https") -> None:
        self.world = world
        self.scheme = scheme
        self.jar: dict[str, Cookie] = {}
        self.session: dict[str, Any] = {}
        token = world.settings.token
        opt = f"__mp_opt_in_out_{token}"
        self.ours = {"mp_choice", f"mp_{token}_mixpanel", opt, f"{opt}_mp_asgi"}
        for name in (world.settings.id_cookie, world.settings.consent_cookie):
            self.ours |= {name, f"__Host-{name}"}

    def visit(
        self,
        *script: Act,
        headers: Headers = (),
        method: str = "GET",
        path: str = "/",
        scheme: str = "",
        jar: Mapping[str, Cookie] | None = None,
        body: bytes = b"",
    ) -> Answer:
        """Make a request, and keep the cookies of its answer.

        Args:
            script: What the app does.
            headers: Beside Host and Cookie.
            method: Of the request.
            path: Of the request; what is under the mount never reaches the app.
            scheme: The browser's own if empty.
            jar: Cookies of an earlier moment, as a request carries that left then.
            body: Of the request.
        """
        scheme = scheme or self.scheme
        cookie = self.cookie_header(scheme, jar)
        given = (*headers, ("cookie", cookie)) if cookie else tuple(headers)
        request = Request(headers=given, scheme=scheme, method=method, path=path, body=body)
        answer = self.world.serve(request, script, self.session)
        self.keep(answer, scheme)
        return answer

    def cookie_header(self, scheme: str = "", jar: Mapping[str, Cookie] | None = None) -> str:
        is_https = (scheme or self.scheme) == "https"
        now = self.world.clock()
        return "; ".join(
            f"{key.partition('@')[0]}={cookie.value}"
            for key, cookie in (self.jar if jar is None else jar).items()
            if cookie.expires > now and (is_https or not cookie.is_secure)
        )

    def keep(self, answer: Answer, scheme: str) -> None:
        """Store, replace and delete our cookies as rfc6265bis section 5.7 says."""
        for text in answer.cookies:
            pair, *attributes = [part.strip() for part in text.split(";")]
            name, _, value = pair.partition("=")
            given = {key.lower(): item for key, _, item in (a.partition("=") for a in attributes)}
            is_secure = "secure" in given
            if name not in self.ours or not self._may_set(name, given, scheme):
                continue
            seconds = int(given["max-age"])
            key = f"{name}@{given['domain']}" if "domain" in given else name
            self.jar.pop(key, None)
            if seconds > 0:
                self.jar[key] = Cookie(value, is_secure, self.world.clock() + seconds)

    def write(self, name: str, value: str, domain: str = "") -> None:
        """Store a cookie as a script of the page does, or another server of the site."""
        key = f"{name}@{domain}" if domain else name
        self.jar[key] = Cookie(value, is_secure=False, expires=math.inf)

    def values(self, name: str) -> list[str]:
        """Answer what scripts see under a name: a value for each domain that has one."""
        return [cookie.value for key, cookie in self.jar.items() if key.partition("@")[0] == name]

    def _may_set(self, name: str, given: Mapping[str, str], scheme: str) -> bool:
        is_secure = "secure" in given
        if name.startswith("__Host-"):
            is_hosted = is_secure and given.get("path") == "/" and "domain" not in given
            if not is_hosted:
                return False
        # An insecure origin may not touch secure cookies.
        is_taken = name in self.jar and self.jar[name].is_secure
        return scheme == "https" or not (is_secure or is_taken)

    def snapshot(self) -> dict[str, Cookie]:
        return dict(self.jar)

    @property
    def device_id(self) -> str | None:
        """What the ID cookie holds; `<form>.<device ID>.…` before the signature."""
        names = {f"__Host-{self.world.settings.id_cookie}", self.world.settings.id_cookie}
        for key, cookie in self.jar.items():
            if key.partition("@")[0] in names and cookie.expires > self.world.clock():
                return cookie.value.split(".")[1]
        return None


class WorldClock(FakeClock):
    """For the thread that sends, no time passes: nothing that waits becomes too old.

    Attributes:
        began: What that thread reads.
        rests: Called before the clock moves: what was submitted is stored in its own time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.began = self.now
        self.rests: list[Callable[[], None]] = []

    def __call__(self) -> float:
        return self.began if threading.current_thread().name == SENDER else self.now

    def advance(self, seconds: float) -> None:
        for rest in self.rests:
            rest()
        super().advance(seconds)


class RushingClock(WorldClock):
    """For the thread that sends, a minute passes at each look: no pause is ever waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.rushed = 0.0

    def __call__(self) -> float:
        if threading.current_thread().name != SENDER:
            return super().__call__()
        self.rushed += 60.0  # as long as any pause, and not too long for a lease
        return self.now + self.rushed


class PatientOutbox(MemoryOutbox):
    """Let nothing leave before a flush asks for it, wherever the clock jumps.

    Args:
        settings: As for any.
        is_asked: Whether somebody flushes.
    """

    def __init__(self, settings: Settings, is_asked: Callable[[], bool]) -> None:
        super().__init__(settings)
        self._is_asked = is_asked

    def backlog(self, endpoint: Endpoint, now: float) -> Backlog:
        return super().backlog(endpoint, now) if self._is_asked() else Backlog(0, 0, now)


# --- the world --------------------------------------------------------------------------------


class Row(NamedTuple):
    """An event as Mixpanel sees it; of `$identify` and `$create_alias`, what it joins."""

    name: str
    device: str | None
    user: str | None


class World:
    """One app behind one door, its analytics, and a Mixpanel.

    Args:
        kind: `asgi`, `wsgi`, or `wsgi-validated`.
        standin: The Mixpanel; a new one if None.
        url: Where the stand-in listens; without one it is asked in this process.
        clock: What everything asks for the time.
        seed: Of the randomness.
        settings: Of the analytics.
    """

    def __init__(
        self,
        kind: str,
        *,
        standin: StandIn | None = None,
        url: str = "",
        clock: FakeClock | None = None,
        seed: str = "",
        **settings: Any,
    ) -> None:
        self.kind = kind
        self.clock = clock or WorldClock()
        self.settings: Settings = make_settings(api_host=url, flush_interval=3600.0, **settings)
        self.has_source = self.settings.identify_from is not None
        mode = self.settings.identity
        self.standin = standin or StandIn("t0ken")
        self.standin.mode, self.standin.clock = mode, lambda: self.clock.now
        self.random = Randomness(seed)
        transport: Callable[[], Transport] | None = None
        if not url:
            transport = lambda: DirectTransport(self.standin)  # noqa: E731
        self.analytics = Analytics(
            self.settings,
            outbox=lambda: PatientOutbox(self.settings, self._is_flushing),
            clock=self.clock,
            random_bytes=self.random,
            transport=transport,
        )
        self.door = open_door(kind, self.analytics)
        if isinstance(self.clock, WorldClock):
            self.clock.rests.append(self._wait_until_stored)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.analytics.close(TIMEOUT)

    def browser(self, *, scheme: str = "https") -> Browser:
        return Browser(self, scheme=scheme)

    def serve(
        self, request: Request, script: Sequence[Act], session: dict[str, Any] | None = None
    ) -> Answer:
        return self.door.serve(request, Turn(self, script, {} if session is None else session))

    def _is_flushing(self) -> bool:
        return self.analytics._worker._home.flushes > 0

    def flush(self) -> None:
        """Deliver what waits, once the outbox knows of everything that was submitted.

        A denial that is still on its way when a flush begins may come too late.
        """
        self._wait_until_stored()
        assert self.analytics.flush(TIMEOUT)
        # The last delivery may be counted a moment after the flush that waited for it.
        wait_until(lambda: account_for(self.analytics.stats()) == 0)

    def _wait_until_stored(self) -> None:
        intake = self.analytics._worker._home.intake

        def is_stored() -> bool:
            with intake.storing:
                return not intake.items

        wait_until(is_stored)

    def rows(self) -> list[Row]:
        """Answer who did what, as it arrived; nothing may be refused, doubled or not joined."""
        self.flush()
        assert [rejected.reason for rejected in self.standin.rejected] == []
        assert self.standin.duplicates() == {}
        assert self.standin.failures() == []
        return [self._row(event) for event in self.standin.events]

    def who_is_who(self) -> dict[str, list[str]]:
        """Answer what each person did in Mixpanel's eyes, by the ID that stands for them."""
        self.flush()
        return name_people(self.standin.clusters())

    def _row(self, event: Mapping[str, Any]) -> Row:
        name, properties = event["event"], event["properties"]
        if name == "$identify":
            assert properties["distinct_id"] == properties["$identified_id"]
            return Row(name, properties["$anon_id"], properties["$identified_id"])
        if name == "$create_alias":
            return Row(name, properties["distinct_id"], properties["alias"])
        row = Row(name, properties.get("$device_id"), properties.get("$user_id"))
        prefix = "$device:" if self.settings.identity == "simplified" else ""
        assert properties["distinct_id"] == (row.user or f"{prefix}{row.device}")
        return row

    def stats(self) -> Stats:
        """Answer the counters, which must account for every message."""
        stats = self.analytics.stats()
        assert account_for(stats) == 0
        return stats


def name_people(people: Iterable[Cluster]) -> dict[str, list[str]]:
    """Answer what each did, by the ID that stands for them."""
    return {person.canonical_id: [event["event"] for event in person.events] for person in people}


def account_for(stats: Stats) -> int:
    """Answer how many accepted messages nobody can tell the fate of."""
    told = stats.delivered + stats.waiting + stats.buried + sum(stats.dropped.values())
    return stats.accepted - told


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds; whoever goes on checks whether it does."""
    pause = threading.Event()
    for _ in range(int(TIMEOUT * 1_000)):
        if condition():
            return
        pause.wait(0.001)


class Randomness:
    """Bytes that follow from the seed and from how many were asked for before."""

    def __init__(self, seed: str) -> None:
        self.seed = seed
        self.count = 0

    def __call__(self, size: int) -> bytes:
        self.count += 1
        return hashlib.sha256(f"{self.seed}/{self.count}".encode()).digest()[:size]


class DirectTransport:
    """Carry batches to a stand-in of this process, with what a network adds: lost answers."""

    def __init__(self, standin: StandIn) -> None:
        self.standin = standin

    def send(self, endpoint: Endpoint, body: bytes) -> Reply:
        user = base64.b64encode(b"t0ken:").decode()
        headers = {"content-type": "application/json", "authorization": f"Basic {user}"}
        query = "strict=1" if endpoint is Endpoint.EVENTS else "verbose=1"
        if endpoint is Endpoint.ALIASES:
            headers = {"content-type": "application/x-www-form-urlencoded"}
            query, body = "verbose=1&ip=0", urlencode({"data": body}).encode()
        request = WireRequest("POST", endpoint.value, query, headers, body)
        order = self.standin.take_order(endpoint.value)
        reply = self.standin.answer(request, tuple(headers.items()), order)
        if order is not None and order.fault in {Fault.DROP, Fault.REFUSE}:
            raise Unavailable("cut off", is_sent=True)
        return Reply(reply.status, reply.body, {k.lower(): v for k, v in reply.headers.items()})

    def close(self) -> None:
        """Hold nothing."""


def open_door(kind: str, analytics: Analytics) -> Door:
    if kind == "asgi":
        return ASGIDoor(analytics)
    return WSGIDoor(analytics, is_validated=kind == "wsgi-validated")


@contextmanager
def serve_standin() -> Iterator[tuple[StandIn, str]]:
    """Run a stand-in behind real HTTP; answer it and its URL."""
    standin = StandIn("t0ken")
    with run_in_thread(standin) as address:
        yield standin, address.url
