import pytest
from starlette.middleware.base import BaseHTTPMiddleware

from mp_asgi import MixpanelMiddleware
from mp_asgi.endpoints import mount_asgi
from mp_asgi.endpoints.message import MAX_BODY_BYTES
from mp_asgi.errors import SettingsError
from tests.endpoints.site import CONSENT, Site, asgi_app
from tests.probes import http_scope, serve, websocket_scope
from tests.support import make_settings

SENT = [(b"sec-fetch-site", b"same-origin"), (b"content-type", b"application/json")]
DENIAL = b'{"analytics": "denied"}'


def request(body, *, is_more=False):
    return {"type": "http.request", "body": body, "more_body": is_more}


@pytest.fixture
def site():
    return Site("asgi")


async def post(site, *incoming, **values):
    scope = http_scope(*SENT, method="POST", path=CONSENT, **values)
    return await serve(site.asgi, scope, *incoming)


def test_without_a_mount_the_app_is_left_alone():
    assert mount_asgi(asgi_app, make_settings()) is asgi_app


def test_texts_that_cannot_be_shown_stop_the_start():
    with pytest.raises(SettingsError, match="MP_ASGI_NOTICE"):
        mount_asgi(asgi_app, make_settings(notice={"fr": {}}))


@pytest.mark.parametrize(
    "scope",
    [
        pytest.param(http_scope(path="/cart"), id="another-path"),
        pytest.param(http_scope(path="/_mp"), id="the-mount-alone"),
        pytest.param(websocket_scope(path=CONSENT), id="websocket"),
        pytest.param({"type": "lifespan"}, id="lifespan"),
    ],
)
async def test_everything_else_reaches_the_app_untouched(scope):
    calls = []

    async def app(*call):
        calls.append(call)

    before = dict(scope)
    receive, send = object(), object()
    await mount_asgi(app, make_settings(mount="/_mp"))(scope, receive, send)

    [(got, *channels)] = calls
    assert got is scope
    assert got == before
    assert channels == [receive, send]


@pytest.mark.parametrize(
    ("path", "root", "is_ours"),
    [
        pytest.param("/api/_mp/consent", "/api", True, id="server-puts-it-before"),
        pytest.param("/_mp/consent", "/api", True, id="proxy-strips-it"),
        pytest.param("/api/_mp/consent", "/api/", True, id="root-with-a-slash"),
        pytest.param("/_mp/consent", "/", True, id="root-is-a-slash"),
        pytest.param("/apix/_mp/consent", "/api", False, id="a-longer-name"),
        pytest.param("/api/_mp/consent", "", False, id="not-mounted"),
        pytest.param("/api/api/_mp/consent", "/api", False, id="only-once"),
        pytest.param("/api", "/api", False, id="the-root-itself"),
    ],
)
async def test_the_mount_is_inside_the_app(site, path, root, is_ours):
    wire = await serve(site.asgi, http_scope(path=path, root_path=root))

    assert ((b"x-app", b"yes") not in wire.sent[0]["headers"]) is is_ours


async def test_a_scope_without_root_path_is_served(site):
    scope = http_scope(path=CONSENT)
    del scope["root_path"]

    wire = await serve(site.asgi, scope)

    assert wire.sent[0]["status"] == 200


async def test_a_body_may_come_in_parts(site):
    wire = await post(
        site, request(DENIAL[:5], is_more=True), {"type": "http.request", "more_body": True},
        request(DENIAL[5:]),
    )  # fmt: skip

    assert wire.sent[0]["status"] == 200
    assert b'"denied"' in wire.sent[1]["body"]


async def test_reading_stops_where_a_body_is_too_long(site):
    parts = [request(b" " * MAX_BODY_BYTES, is_more=True), request(b" ", is_more=True)]

    wire = await post(site, *parts, request(b"never read", is_more=True))

    assert wire.sent[0]["status"] == 413
    assert [message["body"] for message in wire.incoming] == [b"never read"]


async def test_half_a_decision_of_a_client_that_hung_up_is_none(site):
    wire = await post(site, request(DENIAL, is_more=True), {"type": "http.disconnect"})

    assert wire.sent[0]["status"] == 400
    assert not [name for name, _ in wire.sent[0]["headers"] if name == b"set-cookie"]
    assert site.analytics.stats().accepted == 0


async def test_a_middleware_outside_of_us_survives_a_hang_up(site):
    async def pass_on(request, call_next):
        return await call_next(request)

    app = BaseHTTPMiddleware(site.asgi, dispatch=pass_on)
    scope = http_scope(*SENT, method="POST", path=CONSENT)

    wire = await serve(app, scope, request(DENIAL, is_more=True), {"type": "http.disconnect"})

    assert wire.sent[0]["status"] == 400


@pytest.mark.parametrize("path", [CONSENT, "/_mp/banner.js"])
async def test_a_body_that_nobody_needs_is_not_read(site, path):
    wire = await serve(site.asgi, http_scope(path=path), request(b"x"))

    assert len(wire.incoming) == 1


async def test_headers_that_come_twice_are_joined(site):
    scope = http_scope(*SENT, (b"sec-fetch-site", b"cross-site"), method="POST", path=CONSENT)

    wire = await serve(site.asgi, scope, request(DENIAL))

    assert wire.sent[0]["status"] == 403


async def test_without_our_middleware_the_remedy_is_named():
    app = mount_asgi(asgi_app, make_settings(mount="/_mp"))

    with pytest.raises(LookupError, match="MixpanelMiddleware"):
        await serve(app, http_scope(path=CONSENT))


async def test_the_apps_own_stored_answer_is_told():
    settings = make_settings(mount="/_mp", consent_from=lambda scope: True)
    app = MixpanelMiddleware(mount_asgi(asgi_app, settings), settings=settings)

    wire = await serve(app, http_scope(path=CONSENT))

    assert b'"state":"granted"' in wire.sent[1]["body"]
