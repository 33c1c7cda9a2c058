"""The ASGI door changes nothing but its own keys, Set-Cookie, Vary and Cache-Control."""

import contextvars
import copy
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from blockbuster import blockbuster_ctx
from starlette._utils import is_async_callable
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from mp_asgi import Analytics, MixpanelMiddleware, SettingsError, Tracker, get_tracker
from mp_asgi.delivery.outbox.base import OutboxStats
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from mp_asgi.dev import StandIn, run_in_thread
from tests.probes import (
    BODY,
    GRANTED,
    START,
    Project,
    Wire,
    cookie_header,
    cookie_names,
    http_scope,
    open_project,
    serve,
    websocket_scope,
    without_ours,
)
from tests.support import TIMEOUT, make_settings

KEY = "mp_asgi.tracker"


def wrap(project: Project, app: Any) -> MixpanelMiddleware:
    return MixpanelMiddleware(app, analytics=project.analytics)


def answer(*messages: Any, event: str = "", reads_id: bool = False) -> Any:
    """Answer an app that sends these messages, having used the tracker as told."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if event:
            get_tracker(scope).track(event)
        if reads_id:
            assert get_tracker(scope).device_id
        for message in messages:
            await send(message)

    return app


# --- scope ------------------------------------------------------------------------------------


async def test_only_our_two_keys_enter_the_scope(project: Project) -> None:
    scope = http_scope(GRANTED, state={"db": "pool"})
    before = copy.deepcopy(scope)

    await serve(wrap(project, answer(START, BODY, event="Seen")), scope)

    tracker = scope.pop(KEY)
    assert scope["state"].pop("mixpanel") is tracker
    assert isinstance(tracker, Tracker)
    assert scope == before


async def test_the_app_gets_the_servers_own_scope_and_receive(project: Project) -> None:
    scope, seen = http_scope(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive))

    wire = Wire()
    receive = wire.receive
    await wrap(project, app)(scope, receive, wire.send)

    ((inner_scope, inner_receive),) = seen
    assert inner_scope is scope
    assert inner_receive is receive


async def test_what_the_app_puts_into_the_scope_is_seen_outside(project: Project) -> None:
    scope = http_scope()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["route"] = "/items/{id}"

    await serve(wrap(project, app), scope)

    assert scope["route"] == "/items/{id}"


@pytest.mark.parametrize("key", ["state", "client", "scheme", "headers", "server", "method"])
async def test_a_server_may_leave_out_an_optional_key(project: Project, key: str) -> None:
    scope = http_scope(GRANTED)
    del scope[key]

    wire = await serve(wrap(project, answer(START, BODY, event="Seen")), scope)

    assert wire.types == ["http.response.start", "http.response.body"]
    assert scope["state"]["mixpanel"] is scope[KEY]
    assert project.delivered_names() == ([] if key == "headers" else ["Seen"])


@pytest.mark.parametrize("kind", [tuple, iter], ids=["tuple", "one-shot iterator"])
async def test_request_headers_of_any_shape_reach_tracker_and_app(
    project: Project, kind: Any
) -> None:
    scope = http_scope(GRANTED)
    expected = scope["headers"]
    scope["headers"] = kind(expected)
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        get_tracker(scope).track("Seen")
        seen.extend(scope["headers"])

    await serve(wrap(project, app), scope)

    assert seen == expected
    assert project.delivered_names() == ["Seen"]


async def test_header_pairs_may_be_lists(project: Project) -> None:
    scope = http_scope()
    scope["headers"] = [[b"host", b"shop.test"], list(GRANTED)]

    await serve(wrap(project, answer(START, BODY, event="Seen")), scope)

    assert project.delivered_names() == ["Seen"]


@pytest.mark.parametrize("kind", ["mqtt", "http2.push", "test"])
async def test_an_unknown_scope_goes_straight_through(project: Project, kind: str) -> None:
    scope, seen = {"type": kind}, []

    async def app(*call: Any) -> None:
        seen.append(call)

    wire = Wire()
    call = (scope, wire.receive, wire.send)
    await wrap(project, app)(*call)

    assert seen == [call]
    assert scope == {"type": kind}


async def test_an_apps_refusal_of_an_unknown_scope_passes(project: Project) -> None:
    refusal = NotImplementedError("no mqtt here")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise refusal

    with pytest.raises(NotImplementedError) as raised:
        await serve(wrap(project, app), {"type": "mqtt"})

    assert raised.value is refusal


def test_frameworks_see_an_async_callable(project: Project) -> None:
    assert is_async_callable(wrap(project, answer()))


async def test_it_stays_in_the_task_and_contextvars_flow_out(project: Project) -> None:
    variable = contextvars.ContextVar("variable", default="outside")
    tasks = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        get_tracker(scope).track("Seen")
        tasks.append(anyio.get_current_task().id)
        variable.set("inside")
        await send(START)
        await send(BODY)

    await serve(wrap(project, app), http_scope(GRANTED))

    assert tasks == [anyio.get_current_task().id]
    assert variable.get() == "inside"


# --- messages ---------------------------------------------------------------------------------


async def test_an_untouched_response_passes_as_the_same_objects(project: Project) -> None:
    wire = await serve(wrap(project, answer(START, BODY)), http_scope(GRANTED))

    assert [sent is given for sent, given in zip(wire.sent, (START, BODY), strict=True)] == [
        True,
        True,
    ]


async def test_only_our_three_headers_change(project: Project) -> None:
    headers = [
        (b"Set-Cookie", b"session=1"),
        (b"X-Mixed-Case", b"\xff\x00"),
        (b"link", b"</a>"),
        (b"link", b"</b>"),
        (b"Vary", b"Accept"),
    ]
    start = {**START, "headers": headers, "trailers": True, "future": object()}

    wire = await serve(
        wrap(project, answer(start, BODY, event="Seen", reads_id=True)), http_scope(GRANTED)
    )

    sent = wire.sent[0]
    assert {**sent, "headers": headers} == start
    assert without_ours(sent["headers"]) == without_ours(headers)
    assert sent["headers"][:5] == headers
    assert cookie_names(sent["headers"]) == ["session", "mp_id"]


async def test_the_apps_message_and_list_stay_as_they_were(project: Project) -> None:
    start = copy.deepcopy(START)

    wire = await serve(wrap(project, answer(start, BODY, event="Seen")), http_scope(GRANTED))

    assert start == START
    assert cookie_names(wire.sent[0]["headers"]) == ["mp_id"]


async def test_one_message_used_for_every_response_gathers_nothing(project: Project) -> None:
    app = wrap(project, answer(START, BODY, event="Seen"))

    await serve(app, http_scope(GRANTED))
    wire = await serve(app, http_scope(GRANTED))

    assert cookie_names(wire.sent[0]["headers"]) == ["mp_id"]


async def test_one_message_dict_may_be_refilled_by_the_app(project: Project) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        get_tracker(scope).track("Seen")
        message = {"type": "http.response.start", "status": 200, "headers": []}
        await send(message)
        message.clear()
        message.update(type="http.response.body", body=b"ok")
        await send(message)

    wire = await serve(wrap(project, app), http_scope(GRANTED))

    assert wire.types[0] == "http.response.start"
    assert wire.sent[1] == BODY


async def test_a_start_without_headers_gets_the_cookie(project: Project) -> None:
    start = {"type": "http.response.start", "status": 204}

    wire = await serve(wrap(project, answer(start, BODY, event="Seen")), http_scope(GRANTED))

    assert cookie_names(wire.sent[0]["headers"]) == ["mp_id"]


@pytest.mark.parametrize("kind", [tuple, iter], ids=["tuple", "one-shot iterator"])
async def test_response_headers_of_any_shape_survive_with_the_cookie(
    project: Project, kind: Any
) -> None:
    start = {**START, "headers": kind(START["headers"])}

    wire = await serve(wrap(project, answer(start, BODY, event="Seen")), http_scope(GRANTED))

    headers = list(wire.sent[0]["headers"])
    assert without_ours(headers) == START["headers"]
    assert cookie_names(headers) == ["mp_id"]


async def test_one_shot_headers_survive_where_no_cookie_may_be_set(project: Project) -> None:
    headers = [(b"cache-control", b"public, max-age=60"), (b"x-kept", b"1")]
    start = {**START, "headers": iter(headers)}

    wire = await serve(wrap(project, answer(start, BODY, event="Seen")), http_scope(GRANTED))

    assert list(wire.sent[0]["headers"]) == headers


async def test_text_in_headers_is_the_servers_to_refuse(project: Project) -> None:
    """ASGI wants bytes; h11 under uvicorn takes text all the same."""
    headers = [("vary", "Accept"), ("cache-control", "private")]
    start = {**START, "headers": headers}

    wire = await serve(wrap(project, answer(start, BODY, event="Seen")), http_scope(GRANTED))

    assert list(wire.sent[0]["headers"])[:2] == headers


EXTENSIONS = [
    {"type": "http.response.debug", "info": {"template": object()}},
    {"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]},
    {"type": "http.response.push", "path": "/style.css", "headers": []},
]
ENDS = [
    {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")], "more_trailers": False},
    {"type": "http.response.pathsend", "path": "/srv/film.mp4"},
    {"type": "http.response.zerocopysend", "file": 3},
    {"type": "http.response.from.the.future"},
]


def kind_of(message: Any) -> str:
    return str(message["type"])


@pytest.mark.parametrize("extension", [*EXTENSIONS, *ENDS], ids=kind_of)
async def test_a_message_we_do_not_know_passes_as_the_same_object(
    project: Project, extension: Any
) -> None:
    app = answer(extension, START, extension, BODY, extension, event="Seen")

    wire = await serve(wrap(project, app), http_scope(GRANTED))

    assert [wire.sent[index] is extension for index in (0, 2, 4)] == [True, True, True]
    assert cookie_names(wire.sent[1]["headers"]) == ["mp_id"]
    assert project.delivered_names() == ["Seen"]


@pytest.mark.parametrize("end", ENDS[:3], ids=kind_of)
async def test_a_response_may_end_without_a_body_message(project: Project, end: Any) -> None:
    wire = await serve(wrap(project, answer(START, end, event="Seen")), http_scope(GRANTED))

    assert wire.sent[1] is end
    assert project.delivered_names() == ["Seen"]


@pytest.mark.parametrize("status", ["200", None, 200.5], ids=repr)
@pytest.mark.parametrize("event", ["", "Seen"], ids=["unused", "used"])
async def test_a_status_that_is_no_number_is_the_servers_to_refuse(
    project: Project, status: Any, event: str
) -> None:
    start = {**START, "status": status}

    wire = await serve(wrap(project, answer(start, BODY, event=event)), http_scope(GRANTED))

    assert [message.get("status") for message in wire.sent] == [status, None]
    assert cookie_names(wire.sent[0]["headers"]) == (["mp_id"] if event else [])


async def test_an_informational_start_is_left_alone_and_the_final_one_gets_the_cookie(
    project: Project,
) -> None:
    hint = {"type": "http.response.start", "status": 103, "headers": [(b"link", b"</a>")]}

    wire = await serve(wrap(project, answer(hint, START, BODY, event="Seen")), http_scope(GRANTED))

    assert wire.sent[0] is hint
    assert cookie_names(wire.sent[1]["headers"]) == ["mp_id"]


async def test_an_informational_start_does_not_close_the_door_for_cookies(
    project: Project,
) -> None:
    hint = {"type": "http.response.start", "status": 103, "headers": []}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(hint)
        get_tracker(scope).track("Seen")  # its first use comes after the hint
        await send(START)
        await send(BODY)

    wire = await serve(wrap(project, app), http_scope(GRANTED))

    assert cookie_names(wire.sent[1]["headers"]) == ["mp_id"]


# --- exceptions and hang-ups --------------------------------------------------------------------


@pytest.mark.parametrize("messages", [(), (START,), (START, BODY)], ids=["open", "start", "end"])
@pytest.mark.parametrize("kind", [RuntimeError, SystemExit, KeyboardInterrupt])
async def test_an_exception_passes_by_identity_and_its_events_are_sent(
    project: Project, messages: Any, kind: type[BaseException]
) -> None:
    error = kind("broken")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        get_tracker(scope).track("Tried")
        for message in messages:
            await send(message)
        raise error

    with pytest.raises(kind) as raised:
        await serve(wrap(project, app), http_scope(GRANTED))

    assert raised.value is error
    assert error.__context__ is None
    assert error.__cause__ is None
    assert project.delivered_names() == ["Tried"]


async def test_an_event_of_a_request_that_failed_before_its_start_knows_its_page(
    project: Project,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        get_tracker(scope).track("Tried")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await serve(wrap(project, app), http_scope(GRANTED, raw_path=b"/there"))

    [event] = project.deliver()
    assert event["properties"]["$current_url"] == "http://shop.test/there"


async def test_a_denial_stops_what_waits_even_if_the_request_fails(project: Project) -> None:
    first = await serve(wrap(project, answer(START, BODY, event="Waits")), http_scope(GRANTED))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        get_tracker(scope).consent.deny()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await serve(wrap(project, app), http_scope(cookie_header(first.sent[0]["headers"])))

    assert project.deliver() == []
    assert project.analytics.stats().dropped == {"stopped": 1}


@pytest.mark.parametrize("number", [0, 1], ids=["start", "body"])
async def test_a_send_that_fails_passes_by_identity_and_events_are_sent(
    project: Project, number: int
) -> None:
    error = OSError("client is gone")
    wire = Wire()

    async def send(message: Any) -> None:
        if len(wire.sent) == number:
            raise error
        await wire.send(message)

    with pytest.raises(OSError, match="gone") as raised:
        await wrap(project, answer(START, BODY, event="Seen"))(
            http_scope(GRANTED), wire.receive, send
        )

    assert raised.value is error
    assert project.delivered_names() == ["Seen"]


async def test_events_of_a_cancelled_request_are_sent(project: Project) -> None:
    is_streaming = anyio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        get_tracker(scope).track("Opened")
        await send(START)
        is_streaming.set()
        try:
            await anyio.sleep_forever()
        finally:
            get_tracker(scope).track("Hung up")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve, wrap(project, app), http_scope(GRANTED))
        await is_streaming.wait()
        tasks.cancel_scope.cancel()

    assert project.delivered_names() == ["Opened", "Hung up"]


async def test_the_end_of_a_request_never_waits(project: Project) -> None:
    # An await that needed a loop would not get past the first step.
    serve_by_hand(wrap(project, answer(event="Seen")), http_scope(GRANTED))

    assert project.accepted == 1


# --- streams, background tasks and what comes later --------------------------------------------


async def test_events_are_handed_over_when_the_body_is_complete(project: Project) -> None:
    counts = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        get_tracker(scope).track("Seen")
        await send(START)
        await send({**BODY, "more_body": True})
        counts.append(project.accepted)
        await send({**BODY, "more_body": False})
        counts.append(project.accepted)

    await serve(wrap(project, app), http_scope(GRANTED))

    assert counts == [0, 1]


@pytest.mark.parametrize("message", EXTENSIONS, ids=kind_of)
async def test_an_extension_in_the_middle_of_a_body_is_not_its_end(
    project: Project, message: Any
) -> None:
    counts = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        get_tracker(scope).track("Seen")
        await send(START)
        await send({**BODY, "more_body": True})
        await send(message)
        counts.append(project.accepted)
        await send(BODY)

    await serve(wrap(project, app), http_scope(GRANTED))

    assert counts == [0]
    assert project.delivered_names() == ["Seen"]


async def test_a_withdrawal_during_the_body_wins(project: Project) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        get_tracker(scope).track("Before")
        await send(START)
        get_tracker(scope).track("During")
        await send({**BODY, "more_body": True})
        get_tracker(scope).consent.withdraw()
        get_tracker(scope).track("After")
        await send(BODY)

    await serve(wrap(project, app), http_scope(GRANTED))

    assert project.deliver() == []


async def test_a_tracker_first_used_in_the_body_sends_its_events(project: Project) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        get_tracker(scope).track("Late")
        await send(BODY)

    wire = await serve(wrap(project, app), http_scope(GRANTED))

    assert wire.sent[0] is START
    assert project.delivered_names() == ["Late"]
    assert project.analytics.stats().unpersisted == 1


async def test_a_tracker_first_used_in_the_body_still_asks_who_the_user_is() -> None:
    counts = []
    with open_project(identify_from=lambda scope: scope["user"]) as project:

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(START)
            get_tracker(scope).track("Late")
            await send({**BODY, "more_body": True})
            get_tracker(scope).track("Later")
            counts.append(project.accepted)
            await send(BODY)

        await serve(wrap(project, app), http_scope(GRANTED, user="ada"))

        users = [event["properties"]["$user_id"] for event in project.deliver()]

    assert users == ["ada", "ada"]
    assert counts == [2]


async def test_events_after_the_end_follow_at_once(project: Project) -> None:
    counts = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(START, BODY, event="Seen")(scope, receive, send)
        get_tracker(scope).track("In the background")
        counts.append(project.accepted)

    scope = http_scope(GRANTED)
    await serve(wrap(project, app), scope)
    scope[KEY].track("Long after")

    assert counts == [2]
    assert project.delivered_names() == ["Seen", "In the background", "Long after"]


async def test_a_tracker_first_used_after_the_end_sends_its_events(project: Project) -> None:
    scope = http_scope(GRANTED)
    await serve(wrap(project, answer(START, BODY)), scope)

    scope[KEY].track("Long after")

    assert project.delivered_names() == ["Long after"]


def test_starlettes_streams_and_background_tasks_are_whole(project: Project) -> None:
    async def stream(request: Request) -> AsyncIterator[str]:
        for name in ("one", "two"):
            request.state.mixpanel.track(name)
            yield name

    async def endpoint(request: Request) -> Response:
        task = BackgroundTask(request.state.mixpanel.track, "three")
        return StreamingResponse(stream(request), background=task)

    app = Starlette(
        routes=[Route("/", endpoint)],
        middleware=[Middleware(MixpanelMiddleware, analytics=project.analytics)],
    )

    response = TestClient(app).get("/", headers={"X-MP-Consent": "granted"})

    assert response.text == "onetwo"
    assert project.delivered_names() == ["one", "two", "three"]


# --- websockets ---------------------------------------------------------------------------------

ACCEPT = {"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"x-kept", b"1")]}
CLOSE = {"type": "websocket.close", "code": 1000, "reason": ""}
TEXT = {"type": "websocket.send", "text": "hello"}


async def test_an_accepted_socket_carries_the_cookie_and_nothing_for_caches(
    project: Project,
) -> None:
    wire = await serve(
        wrap(project, answer(ACCEPT, TEXT, CLOSE, event="Joined")), websocket_scope(GRANTED)
    )

    accept = wire.sent[0]
    assert {**accept, "headers": ACCEPT["headers"]} == ACCEPT
    assert [name for name, _ in accept["headers"]] == [b"x-kept", b"set-cookie"]
    assert (wire.sent[1] is TEXT, wire.sent[2] is CLOSE) == (True, True)
    assert project.delivered_names() == ["Joined"]


async def test_an_accept_without_headers_carries_the_cookie(project: Project) -> None:
    accept = {"type": "websocket.accept"}

    wire = await serve(wrap(project, answer(accept, event="Joined")), websocket_scope(GRANTED))

    assert cookie_names(wire.sent[0]["headers"]) == ["mp_id"]


async def test_a_secure_socket_gets_the_host_cookie(project: Project) -> None:
    scope = websocket_scope(GRANTED, scheme="wss")

    wire = await serve(wrap(project, answer(ACCEPT, event="Joined")), scope)

    assert cookie_names(wire.sent[0]["headers"]) == ["__Host-mp_id"]


async def test_a_socket_closed_before_it_opened_passes_and_its_events_are_sent(
    project: Project,
) -> None:
    wire = await serve(wrap(project, answer(CLOSE, event="Refused")), websocket_scope(GRANTED))

    assert wire.sent[0] is CLOSE
    assert project.delivered_names() == ["Refused"]


async def test_a_denial_response_carries_the_cookie(project: Project) -> None:
    start = {"type": "websocket.http.response.start", "status": 403, "headers": []}
    body = {"type": "websocket.http.response.body", "body": b"no"}

    wire = await serve(
        wrap(project, answer(start, body, event="Refused")), websocket_scope(GRANTED)
    )

    assert cookie_names(wire.sent[0]["headers"]) == ["mp_id"]
    assert wire.sent[1] is body
    assert project.delivered_names() == ["Refused"]


async def test_events_of_an_open_socket_do_not_wait_for_its_end(project: Project) -> None:
    counts = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        get_tracker(scope).track("Joined")
        await send(ACCEPT)
        counts.append(project.accepted)
        get_tracker(scope).track("Spoke")
        counts.append(project.accepted)

    await serve(wrap(project, app), websocket_scope(GRANTED))

    assert counts == [1, 2]


async def test_a_socket_that_only_listens_sends_the_events_of_a_late_first_use(
    project: Project,
) -> None:
    counts = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        while (await receive())["type"] == "websocket.receive":
            get_tracker(scope).track("Heard")
            counts.append(project.accepted)

    heard = {"type": "websocket.receive", "text": "…"}
    await serve(wrap(project, app), websocket_scope(GRANTED), heard, heard)

    assert counts == [1, 2]  # a socket may stay open for days


async def test_a_tracker_first_used_after_accept_sends_with_the_next_message(
    project: Project,
) -> None:
    counts = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        get_tracker(scope).track("Spoke")
        await send(TEXT)
        counts.append(project.accepted)

    wire = await serve(wrap(project, app), websocket_scope(GRANTED))

    assert wire.sent[0] is ACCEPT
    assert counts == [1]


def test_starlettes_websocket_has_the_tracker(project: Project) -> None:
    async def endpoint(websocket: WebSocket) -> None:
        websocket.state.mixpanel.track("Joined")
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    app = Starlette(
        routes=[WebSocketRoute("/", endpoint)],
        middleware=[Middleware(MixpanelMiddleware, analytics=project.analytics)],
    )

    headers = {"X-MP-Consent": "granted"}
    with TestClient(app).websocket_connect("/", headers=headers) as session:
        session.send_text("hello")
        assert session.receive_text() == "hello"

    assert project.delivered_names() == ["Joined"]


# --- mounted and wrapped twice -------------------------------------------------------------------


def test_a_mounted_app_shares_the_tracker_of_an_equal_project(project: Project) -> None:
    trackers = []

    async def inner(request: Request) -> Response:
        trackers.append(get_tracker(request))
        request.state.mixpanel.track("Seen")
        return PlainTextResponse("ok")

    class Outer:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            trackers.append(get_tracker(scope))
            await self.app(scope, receive, send)

    # Equal settings, another assembly: as if each app had configured itself.
    same = Middleware(MixpanelMiddleware, analytics=Analytics(make_settings()))
    mounted = Starlette(routes=[Route("/", inner)], middleware=[same])
    app = Starlette(
        routes=[Mount("/sub", mounted)],
        middleware=[Middleware(MixpanelMiddleware, analytics=project.analytics), Middleware(Outer)],
    )

    response = TestClient(app).get("/sub/", headers={"X-MP-Consent": "granted"})

    assert trackers[0] is trackers[1]
    assert response.headers.get_list("set-cookie")[0].startswith("mp_id=")
    assert len(response.headers.get_list("set-cookie")) == 1
    assert project.delivered_names() == ["Seen"]


@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
async def test_another_project_inside_has_its_own_tracker_and_gives_back_the_outer(
    project: Project, other_project: Project, fails: bool
) -> None:
    seen: list[tuple[Tracker, Any]] = []

    def note(scope: Any) -> None:
        seen.append((get_tracker(scope), scope["state"]["mixpanel"]))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        note(scope)
        get_tracker(scope).track("Inside")
        await send(START)
        await send(BODY)
        if fails:
            raise RuntimeError

    async def between(scope: Any, receive: Any, send: Any) -> None:
        note(scope)
        get_tracker(scope).track("Before")
        try:
            await wrap(other_project, app)(scope, receive, send)
        finally:
            note(scope)
            get_tracker(scope).track("After")

    scope = http_scope(GRANTED)
    try:
        await serve(wrap(project, between), scope)
    except RuntimeError:
        assert fails

    before, inside, after = (tracker for tracker, _ in seen)
    assert before is after is scope[KEY]
    assert inside is not before
    assert all(tracker is state for tracker, state in seen)
    assert project.delivered_names() == ["Before", "After"]
    assert other_project.delivered_names() == ["Inside"]


@pytest.mark.parametrize("copied", [dict, lambda scope: scope], ids=["a-copy", "the-same"])
async def test_a_scope_that_is_served_again_gets_a_tracker_of_its_own(
    project: Project, copied: Any
) -> None:
    """As middlewares outside of us do that try again."""
    trackers = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        trackers.append(get_tracker(scope))
        assert scope["state"]["mixpanel"] is trackers[-1]
        await serve_track(scope, receive, send)

    scope = http_scope(GRANTED)
    first = await serve(wrap(project, app), scope)
    second = await serve(wrap(project, app), copied(scope))

    assert trackers[0] is not trackers[1]
    assert project.delivered_names() == ["Seen", "Seen"]
    for wire in (first, second):
        assert cookie_names(wire.sent[0]["headers"]) == ["mp_id"]


# --- page views -----------------------------------------------------------------------------------

NAVIGATION = ((b"sec-fetch-mode", b"navigate"), (b"sec-fetch-dest", b"document"))
PAGE: dict[str, Any] = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/html"), (b"x-own", b"1")],
}


@pytest.fixture
def seeing() -> Iterator[Project]:
    """Answer a project that tracks page views by itself."""
    with open_project(track_pageviews=True) as project:
        yield project


def page_scope(**values: Any) -> dict[str, Any]:
    return http_scope(GRANTED, *NAVIGATION, **values)


def views(project: Project) -> list[dict[str, Any]]:
    """Answer what page views say of their page."""
    names = ("$current_url", "current_url_path", "current_url_route")
    told = [message["properties"] for message in project.deliver()]
    return [{name: item[name] for name in names if name in item} for item in told]


async def test_a_page_that_somebody_opens_is_tracked_and_its_visitor_kept(seeing: Project) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["mp_asgi.route"] = "/orders/{id}"
        await send(PAGE)
        await send(BODY)

    wire = await serve(wrap(seeing, app), page_scope(raw_path=b"/orders/7"))

    assert seeing.delivered_names() == ["$mp_web_page_view"]
    assert views(seeing) == [
        {
            "$current_url": "http://shop.test/orders/7",
            "current_url_path": "/orders/7",
            "current_url_route": "/orders/{id}",
        }
    ]
    assert cookie_names(wire.sent[0]["headers"]) == ["mp_id"]


@pytest.mark.parametrize(
    ("scope", "start"),
    [
        pytest.param(page_scope(method="POST"), PAGE, id="a-form"),
        pytest.param(page_scope(), {**PAGE, "status": 404}, id="an-error"),
        pytest.param(page_scope(), {**PAGE, "status": "200"}, id="no-status"),
        pytest.param(page_scope(), {"type": "http.response.start", "status": 200}, id="no-headers"),
        pytest.param(page_scope(), START, id="no-html"),
    ],
)
async def test_what_is_no_page_leaves_the_tracker_untouched(
    seeing: Project, scope: dict[str, Any], start: dict[str, Any]
) -> None:
    scope = dict(scope)
    wire = await serve(wrap(seeing, answer(start, BODY)), scope)

    assert scope[KEY].exchange is None
    assert wire.sent[0] == {"headers": [], **start}
    assert seeing.accepted == 0


async def test_no_script_makes_a_page_view(seeing: Project) -> None:
    await serve(wrap(seeing, answer(PAGE, BODY)), http_scope(GRANTED))

    assert seeing.delivered_names() == []


async def test_what_the_app_tracked_itself_is_not_tracked_twice(seeing: Project) -> None:
    app = answer(PAGE, BODY, event="$mp_web_page_view")

    await serve(wrap(seeing, app), page_scope())

    assert seeing.delivered_names() == ["$mp_web_page_view"]


async def test_where_nobody_wants_page_views_there_are_none(project: Project) -> None:
    scope = page_scope()

    await serve(wrap(project, answer(PAGE, BODY)), scope)

    assert scope[KEY].exchange is None


async def test_one_shot_headers_are_seen_and_reach_the_server(seeing: Project) -> None:
    start = {**PAGE, "headers": iter(PAGE["headers"])}

    wire = await serve(wrap(seeing, answer(start, BODY)), page_scope())

    assert without_ours(wire.sent[0]["headers"]) == PAGE["headers"]
    assert seeing.delivered_names() == ["$mp_web_page_view"]


async def test_seeing_a_page_changes_no_message_of_the_app(seeing: Project) -> None:
    start = copy.deepcopy(PAGE)

    wire = await serve(wrap(seeing, answer(start, BODY)), page_scope())

    assert start == PAGE
    assert wire.sent[0] is not start


async def test_a_page_is_seen_where_the_server_does_not_name_the_method(seeing: Project) -> None:
    scope = page_scope()
    del scope["method"]

    await serve(wrap(seeing, answer(PAGE, BODY)), scope)

    assert seeing.delivered_names() == ["$mp_web_page_view"]


async def test_what_a_browser_fetches_in_case_somebody_clicks_is_no_page_view(
    seeing: Project,
) -> None:
    scope = http_scope(GRANTED, *NAVIGATION, (b"x-moz", b"prefetch"))

    await serve(wrap(seeing, answer(PAGE, BODY)), scope)

    assert seeing.delivered_names() == []


async def test_an_announcement_is_no_page(seeing: Project) -> None:
    hints = {"type": "http.response.start", "status": 103, "headers": PAGE["headers"]}

    await serve(wrap(seeing, answer(hints, PAGE, BODY)), page_scope())

    assert seeing.delivered_names() == ["$mp_web_page_view"]


async def test_a_socket_is_no_page(seeing: Project) -> None:
    scope = websocket_scope(GRANTED, *NAVIGATION)

    wire = await serve(wrap(seeing, answer({"type": "websocket.accept"})), scope)

    assert wire.types == ["websocket.accept"]
    assert scope[KEY].exchange is None


# --- the request that runs ------------------------------------------------------------------------

Requests = contextvars.ContextVar[Tracker | None]


@pytest.fixture
def requests(project: Project) -> Requests:
    """Want to know which request of the project runs."""
    project.analytics.requests = contextvars.ContextVar("requests", default=None)
    return project.analytics.requests


@pytest.mark.parametrize("make_scope", [http_scope, websocket_scope], ids=["http", "websocket"])
async def test_whoever_asks_finds_the_request_that_runs_and_none_afterwards(
    project: Project, requests: Requests, make_scope: Any
) -> None:
    found = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append(requests.get())

    scope = make_scope()
    await wrap(project, app)(scope, None, None)

    assert found == [scope[KEY]]
    assert requests.get() is None


async def test_a_request_that_raises_does_not_run_any_longer(
    project: Project, requests: Requests
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await wrap(project, app)(http_scope(), None, None)

    assert requests.get() is None


async def test_a_request_inside_of_another_one_gives_it_back(
    project: Project, requests: Requests
) -> None:
    found = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        found.append(requests.get())

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        await wrap(project, inner)(http_scope(), None, None)
        found.append(requests.get())

    scope = http_scope()
    await wrap(project, outer)(scope, None, None)

    assert found[0] is not found[1]
    assert found[1] is scope[KEY]


async def test_requests_at_the_same_time_are_told_apart(
    project: Project, requests: Requests
) -> None:
    found: dict[str, bool] = {}
    both = anyio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/second":
            both.set()
        await both.wait()
        found[scope["path"]] = requests.get() is scope[KEY]

    with anyio.fail_after(TIMEOUT):
        async with anyio.create_task_group() as group:
            for path in ("/first", "/second"):
                group.start_soon(wrap(project, app), http_scope(path=path), None, None)

    assert found == {"/first": True, "/second": True}


def test_starlettes_thread_of_a_plain_function_finds_its_request(
    project: Project, requests: Requests
) -> None:
    found = []

    def endpoint(request: Request) -> Response:
        found.append((requests.get(), threading.current_thread()))
        assert requests.get() is request.scope[KEY]
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/", endpoint)])
    with TestClient(wrap(project, app)) as client:
        client.get("/")

    [(tracker, thread)] = found
    assert isinstance(tracker, Tracker)
    assert thread is not threading.main_thread()


async def test_where_nobody_asks_no_request_is_told(project: Project) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(
            [item for item in contextvars.copy_context().values() if isinstance(item, Tracker)]
        )

    await wrap(project, app)(http_scope(), None, None)

    assert seen == [[]]


# --- lifespan -----------------------------------------------------------------------------------

LIFESPAN = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
STARTUP = {"type": "lifespan.startup"}
SHUTDOWN = {"type": "lifespan.shutdown"}


async def speak_lifespan(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def refuse_lifespan(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError(f"can only handle http, not {scope['type']}")


async def serve_track(scope: Any, receive: Any, send: Any) -> None:
    await answer(START, BODY, event="Seen")(scope, receive, send)


@pytest.mark.parametrize("lifespan", [speak_lifespan, refuse_lifespan])
async def test_the_shutdown_is_complete_when_everything_is_delivered(
    project: Project, lifespan: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (lifespan if scope["type"] == "lifespan" else serve_track)(scope, receive, send)

    delivered: list[tuple[str, int]] = []
    wire = Wire(STARTUP, SHUTDOWN)

    async def send(message: Any) -> None:
        delivered.append((message["type"], len(project.transport.messages)))

    middleware = wrap(project, app)
    await serve(middleware, http_scope(GRANTED))
    await middleware(dict(LIFESPAN), wire.receive, send)

    assert delivered == [("lifespan.startup.complete", 0), ("lifespan.shutdown.complete", 1)]
    assert project.transport.closed.is_set()


class Failing(MemoryOutbox):
    """A storage whose errors are its own."""

    def stats(self) -> OutboxStats:
        raise RuntimeError


async def test_a_drain_that_fails_does_not_keep_the_app_from_its_shutdown() -> None:
    settings = make_settings()
    analytics = Analytics(settings, outbox=lambda: Failing(settings))
    wire = Wire(STARTUP, SHUTDOWN)

    await MixpanelMiddleware(speak_lifespan, analytics=analytics)(
        dict(LIFESPAN), wire.receive, wire.send
    )

    assert wire.types == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_a_failed_shutdown_drains_and_passes_as_it_is(project: Project) -> None:
    failed = {"type": "lifespan.shutdown.failed", "message": "no database"}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await serve_track(scope, receive, send)
        else:
            await receive()
            await send(failed)

    middleware = wrap(project, app)
    await serve(middleware, http_scope(GRANTED))
    wire = await serve(middleware, dict(LIFESPAN), SHUTDOWN)

    assert wire.sent[0] is failed
    assert [event["event"] for event in project.transport.messages] == ["Seen"]


async def test_an_app_that_raises_after_it_received_is_not_answered_for(project: Project) -> None:
    error = RuntimeError("no database")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise error

    wire = Wire(STARTUP, SHUTDOWN)
    with pytest.raises(RuntimeError) as raised:
        await wrap(project, app)(dict(LIFESPAN), wire.receive, wire.send)

    assert raised.value is error
    assert wire.sent == []


async def test_an_app_that_raises_in_its_shutdown_loses_no_event(project: Project) -> None:
    error = RuntimeError("no database")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await serve_track(scope, receive, send)
        elif (await receive())["type"] == "lifespan.shutdown":
            raise error

    middleware = wrap(project, app)
    await serve(middleware, http_scope(GRANTED))
    with pytest.raises(RuntimeError) as raised:
        await serve(middleware, dict(LIFESPAN), SHUTDOWN)

    assert raised.value is error
    assert [event["event"] for event in project.transport.messages] == ["Seen"]


async def test_messages_that_lifespan_may_learn_pass_and_are_no_shutdown(
    project: Project,
) -> None:
    news = {"type": "lifespan.reload"}

    wire = await serve(wrap(project, refuse_lifespan), dict(LIFESPAN), STARTUP, news, SHUTDOWN)

    assert wire.types == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


REFUSALS = [
    ValueError("Django can only handle ASGI/HTTP connections, not lifespan."),
    AssertionError(),
    NotImplementedError("http only"),
    RuntimeError("Unknown scope type"),
]


@pytest.mark.parametrize("error", REFUSALS, ids=repr)
async def test_a_usual_refusal_of_lifespan_is_not_worth_a_word(
    project: Project, error: Exception, caplog: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    wire = await serve(wrap(project, app), dict(LIFESPAN), STARTUP, SHUTDOWN)

    assert wire.types == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert caplog.messages == []


async def test_a_failure_that_is_taken_for_a_refusal_of_lifespan_is_logged(
    project: Project, caplog: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("no database")

    wire = await serve(wrap(project, app), dict(LIFESPAN), STARTUP, SHUTDOWN)

    assert wire.types == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert caplog.messages == [
        "The app raised RuntimeError('no database') at its lifespan scope; taken as 'no lifespan'."
    ]


async def test_an_app_that_raises_after_it_sent_is_not_answered_for(project: Project) -> None:
    error = RuntimeError("no lifespan after all")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.complete"})
        raise error

    wire = Wire(STARTUP, SHUTDOWN)
    with pytest.raises(RuntimeError) as raised:
        await wrap(project, app)(dict(LIFESPAN), wire.receive, wire.send)

    assert raised.value is error
    assert wire.types == ["lifespan.startup.complete"]


async def test_an_app_that_returns_silently_is_left_silent(project: Project) -> None:
    wire = await serve(wrap(project, answer()), dict(LIFESPAN), STARTUP, SHUTDOWN)

    assert wire.sent == []


async def test_the_lifespan_scope_gets_no_tracker(project: Project) -> None:
    scope = copy.deepcopy(LIFESPAN)

    await serve(wrap(project, speak_lifespan), scope, STARTUP, SHUTDOWN)

    assert scope == LIFESPAN


async def test_bad_settings_fail_the_startup_with_one_message() -> None:
    app = MixpanelMiddleware(speak_lifespan, token="t0ken", secret_keys=["short"], batch_size=0)

    wire = await serve(app, dict(LIFESPAN), STARTUP, SHUTDOWN)

    (failed,) = wire.sent
    assert failed["type"] == "lifespan.startup.failed"
    assert "MP_ASGI_SECRET_KEYS: key 1 of 1 has 5 bytes." in failed["message"]
    assert "MP_ASGI_BATCH_SIZE (batch_size) is 0." in failed["message"]
    assert "short" not in failed["message"]


@pytest.mark.parametrize("make_scope", [http_scope, websocket_scope])
async def test_bad_settings_raise_on_each_request_where_nobody_speaks_lifespan(
    make_scope: Any,
) -> None:
    app = MixpanelMiddleware(answer(START, BODY), token="", secret_keys=["k" * 32])

    for _ in range(2):
        with pytest.raises(SettingsError, match="MIXPANEL_TOKEN is not set"):
            await serve(app, make_scope())


async def test_every_request_gets_an_error_of_its_own() -> None:
    app = MixpanelMiddleware(answer(START, BODY), token="", secret_keys=["k" * 32])

    errors = []
    for _ in range(2):
        with pytest.raises(SettingsError) as raised:
            await serve(app, http_scope())
        errors.append(raised.value)

    assert errors[0] is not errors[1]
    assert errors[0].problems == errors[1].problems


async def test_two_answers_to_one_question_are_told_where_a_server_can_act_on_it(
    project: Project,
) -> None:
    app = MixpanelMiddleware(speak_lifespan, analytics=project.analytics, batch_size=5)

    wire = await serve(app, dict(LIFESPAN), STARTUP, SHUTDOWN)

    assert "analytics came together with batch_size." in wire.sent[0]["message"]


async def test_bad_settings_do_not_stand_in_the_way_of_an_unknown_scope() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    await serve(MixpanelMiddleware(app, token=""), {"type": "mqtt"})

    assert seen == ["mqtt"]


def test_starlette_with_bad_settings_can_be_built() -> None:
    app = Starlette(middleware=[Middleware(MixpanelMiddleware, token="")])

    with pytest.raises(SettingsError, match="MIXPANEL_TOKEN is not set"):
        TestClient(app).get("/")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_app_may_be_started_and_stopped_again(project: Project, backend: Any) -> None:
    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, str]]:
        yield {"db": "pool"}

    async def endpoint(request: Request) -> Response:
        request.state.mixpanel.track(request.query_params["event"])
        return PlainTextResponse(request.state.db)

    app = Starlette(
        routes=[Route("/", endpoint)],
        middleware=[Middleware(MixpanelMiddleware, analytics=project.analytics)],
        lifespan=lifespan,
    )

    seen = []
    for name in ("first", "second"):
        with TestClient(app, backend=backend) as client:
            url = f"/?event={name}"
            assert client.get(url, headers={"X-MP-Consent": "granted"}).text == "pool"
        seen.append([event["event"] for event in project.transport.messages])

    assert seen == [["first"], ["first", "second"]]


# --- memory -------------------------------------------------------------------------------------


def serve_by_hand(app: Any, scope: Any) -> None:
    """Serve a scope without a loop, which makes garbage of its own."""
    wire = Wire()
    with pytest.raises(StopIteration):
        app(scope, wire.receive, wire.send).send(None)


@pytest.mark.parametrize("event", ["", "Seen"], ids=["untouched", "tracked"])
def test_a_request_leaves_no_cycle(project: Project, event: str) -> None:
    app = wrap(project, answer(START, BODY, event=event))
    scopes = [http_scope(GRANTED) for _ in range(12)]
    serve_by_hand(app, scopes.pop())
    serve_by_hand(app, scopes.pop())
    project.deliver()
    gc.collect()
    gc.disable()
    try:
        while scopes:
            serve_by_hand(app, scopes.pop())
        found = gc.collect()
    finally:
        gc.enable()

    assert found == 0


@pytest.mark.parametrize("event", ["", "Seen"], ids=["untouched", "tracked"])
def test_a_kept_tracker_does_not_keep_the_request(project: Project, event: str) -> None:
    class Upload:
        """What a request may hold."""

    scope = http_scope(GRANTED, upload=Upload())
    upload = weakref.ref(scope["upload"])
    serve_by_hand(wrap(project, answer(START, BODY, event=event)), scope)

    tracker = scope[KEY]
    del scope

    assert isinstance(tracker, Tracker)
    assert upload() is None


async def test_requests_at_the_same_time_have_trackers_of_their_own(project: Project) -> None:
    is_first_inside = anyio.Event()
    is_second_done = anyio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        name = scope["path"]
        if name == "/first":
            is_first_inside.set()
            await is_second_done.wait()
        get_tracker(scope).track(name)
        await answer(START, BODY)(scope, receive, send)

    middleware = wrap(project, app)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve, middleware, http_scope(GRANTED, path="/first"))
        await is_first_inside.wait()
        await serve(middleware, http_scope(GRANTED, path="/second"))
        is_second_done.set()

    first, second = sorted(project.deliver(), key=lambda event: str(event["event"]))
    assert (first["event"], second["event"]) == ("/first", "/second")
    assert first["properties"]["$device_id"] != second["properties"]["$device_id"]


# --- the loop -----------------------------------------------------------------------------------


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_nothing_blocks_the_loop(anyio_backend: str) -> None:
    """The first event of a process, which starts the threads, and the drain included."""
    standin = StandIn()
    with run_in_thread(standin) as server:
        app = MixpanelMiddleware(
            serve_or_speak, token="t0ken", secret_keys=["k" * 32], api_host=server.url
        )
        with blockbuster_ctx():
            first = await serve(app, http_scope(GRANTED))
            await serve(app, http_scope(GRANTED, cookie_header(first.sent[0]["headers"])))
            await serve(app, dict(LIFESPAN), STARTUP, SHUTDOWN)

        assert [event["event"] for event in standin.events] == ["Seen"] * 2


async def serve_or_speak(scope: Any, receive: Any, send: Any) -> None:
    await (speak_lifespan if scope["type"] == "lifespan" else serve_track)(scope, receive, send)


def test_nothing_starts_before_the_first_event() -> None:
    before = set(threading.enumerate())

    MixpanelMiddleware(answer(), token="t0ken", secret_keys=["k" * 32])

    assert set(threading.enumerate()) <= before  # an earlier test's may end meanwhile


def test_an_unreachable_mixpanel_does_not_delay_the_answer() -> None:
    gate = threading.Event()
    with open_project(flush_interval=0.01, gate=gate) as project:
        client = TestClient(wrap(project, answer(START, BODY, event="Seen")))
        headers = {"X-MP-Consent": "granted"}

        assert client.get("/", headers=headers).text == "ok"
        assert project.transport.is_sending.wait(TIMEOUT)
        assert client.get("/", headers=headers).text == "ok"

        assert len(project.transport.messages) == 1  # the first is still on its way
        gate.set()
        assert project.delivered_names() == ["Seen", "Seen"]
