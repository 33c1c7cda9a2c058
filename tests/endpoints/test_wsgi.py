import io

import pytest

from mp_asgi import MixpanelWSGIMiddleware
from mp_asgi.endpoints import mount_wsgi
from mp_asgi.endpoints.message import MAX_BODY_BYTES
from mp_asgi.errors import SettingsError
from tests.endpoints.site import CONSENT, JSON, SAME_ORIGIN, Site, wsgi_app, wsgi_environ
from tests.support import make_settings

DENIAL = b'{"analytics": "denied"}'


@pytest.fixture
def site():
    return Site("wsgi")


def call(app, environ):
    """Call an app as a server does; answer status, headers and body."""
    started = []
    body = app(environ, lambda *given: started.append(given))
    text = b"".join(body)
    if hasattr(body, "close"):
        body.close()
    status, headers = started[0]
    return status, dict(headers), text


def post(site, body=DENIAL, **values):
    environ = wsgi_environ("POST", CONSENT, {**JSON, **SAME_ORIGIN}, body, **values)
    return call(site.wsgi, environ)


def test_without_a_mount_the_app_is_left_alone():
    assert mount_wsgi(wsgi_app, make_settings()) is wsgi_app


def test_texts_that_cannot_be_shown_stop_the_start():
    with pytest.raises(SettingsError, match="MP_ASGI_NOTICE"):
        mount_wsgi(wsgi_app, make_settings(notice={"fr": {}}))


@pytest.mark.parametrize("path", ["/cart", "/_mp", "/_mpx/consent", ""])
def test_everything_else_reaches_the_app_untouched(path):
    calls, body = [], []

    def app(*given):
        calls.append(given)
        return body

    environ, start_response = wsgi_environ("GET", path, {}), object()
    before = dict(environ)
    got = mount_wsgi(app, make_settings(mount="/_mp"))(environ, start_response)

    assert got is body
    assert calls == [(environ, start_response)]
    assert calls[0][0] is environ
    assert environ == before


def test_an_environ_without_a_path_reaches_the_app():
    environ = wsgi_environ("GET", "/", {})
    del environ["PATH_INFO"]

    app = mount_wsgi(lambda *given: [b"app"], make_settings(mount="/_mp"))

    assert app(environ, print) == [b"app"]


def test_the_mount_is_inside_the_app(site):
    environ = wsgi_environ("GET", CONSENT, {}, SCRIPT_NAME="/api")

    status, _, text = call(site.wsgi, environ)

    assert status == "200 OK"
    assert b"unknown" in text


@pytest.mark.parametrize(
    ("status", "decision"),
    [
        pytest.param("200 OK", DENIAL, id="taken"),
        pytest.param("400 Bad Request", b"{}", id="refused"),
    ],
)
def test_a_status_has_its_phrase(site, status, decision):
    assert post(site, decision)[0] == status


@pytest.mark.parametrize(
    ("length", "status"),
    [
        pytest.param(len(DENIAL), 200, id="as-sent"),
        pytest.param(len(DENIAL) - 1, 400, id="shorter"),
        pytest.param(len(DENIAL) + 1, 400, id="hung-up-before-the-end"),
        pytest.param(MAX_BODY_BYTES + 1, 400, id="hung-up-long-before-the-end"),
        pytest.param("", 400, id="empty"),
        pytest.param(None, 400, id="none"),
        pytest.param(0, 400, id="nothing"),
    ],
)
def test_the_length_says_how_much_is_read(site, length, status):
    values = {} if length is None else {"CONTENT_LENGTH": str(length)}
    environ = wsgi_environ("POST", CONSENT, {**JSON, **SAME_ORIGIN}, DENIAL)
    del environ["CONTENT_LENGTH"]

    assert call(site.wsgi, {**environ, **values})[0][:3] == str(status)


@pytest.mark.parametrize("length", ["-1", "+5", "5 5", "²", "\u0661", "x", "0x10"])
def test_a_length_that_is_none_reads_nothing(length):
    app = MixpanelWSGIMiddleware(mount_wsgi(wsgi_app, SETTINGS), settings=SETTINGS)
    stream = io.BytesIO(DENIAL)
    environ = wsgi_environ("POST", CONSENT, {**JSON, **SAME_ORIGIN}, CONTENT_LENGTH=length)

    status, _, _ = call(app, {**environ, "wsgi.input": stream})

    assert status[:3] == "400"
    assert stream.tell() == 0


@pytest.mark.parametrize("length", [str(MAX_BODY_BYTES + 1), "1" * 9, "9" * 5_000])
def test_a_body_that_is_too_long_is_read_no_further_than_to_see_it(length):
    app = MixpanelWSGIMiddleware(mount_wsgi(wsgi_app, SETTINGS), settings=SETTINGS)
    stream = io.BytesIO(b" " * 2 * MAX_BODY_BYTES)
    environ = wsgi_environ("POST", CONSENT, {**JSON, **SAME_ORIGIN}, CONTENT_LENGTH=length)

    status, _, _ = call(app, {**environ, "wsgi.input": stream})

    assert status[:3] == "413"
    assert stream.tell() == MAX_BODY_BYTES + 1


@pytest.mark.parametrize(
    ("is_terminated", "status"),
    [pytest.param(True, "200", id="ended-by-the-server"), pytest.param(False, "400", id="endless")],
)
def test_a_body_of_unknown_length_is_read_where_the_server_ends_it(is_terminated, status):
    app = MixpanelWSGIMiddleware(mount_wsgi(wsgi_app, SETTINGS), settings=SETTINGS)
    environ = wsgi_environ("POST", CONSENT, {**JSON, **SAME_ORIGIN}, DENIAL)
    del environ["CONTENT_LENGTH"]

    found, _, _ = call(app, {**environ, "wsgi.input_terminated": is_terminated})

    assert found[:3] == status


class HungUp(io.BytesIO):
    """The body of a client that has gone."""

    def read(self, size=-1, /):
        raise OSError("the client has gone")


def test_half_a_decision_of_a_client_that_hung_up_is_none():
    app = MixpanelWSGIMiddleware(mount_wsgi(wsgi_app, SETTINGS), settings=SETTINGS)
    environ = wsgi_environ("POST", CONSENT, {**JSON, **SAME_ORIGIN}, DENIAL)

    status, headers, _ = call(app, {**environ, "wsgi.input": HungUp()})

    assert status[:3] == "400"
    assert "Set-Cookie" not in {name.title() for name in headers}


@pytest.mark.parametrize("path", [CONSENT, "/_mp/banner.js"])
def test_a_body_that_nobody_needs_is_not_read(site, path):
    environ = wsgi_environ("GET", path, {}, b"body")
    stream = environ["wsgi.input"]

    call(site.wsgi, environ)

    assert stream.tell() == 0


def test_a_header_of_another_alphabet_is_no_error(site):
    environ = wsgi_environ("GET", "/_mp/banner.js", {"if-none-match": "\u0439"})

    assert call(site.wsgi, environ)[0] == "200 OK"


def test_without_our_middleware_the_remedy_is_named():
    app = mount_wsgi(wsgi_app, SETTINGS)

    with pytest.raises(LookupError, match="MixpanelWSGIMiddleware"):
        call(app, wsgi_environ("GET", CONSENT, {}))


def test_the_apps_own_stored_answer_is_told():
    settings = make_settings(mount="/_mp", consent_from=lambda environ: True)
    app = MixpanelWSGIMiddleware(mount_wsgi(wsgi_app, settings), settings=settings)

    _, _, text = call(app, wsgi_environ("GET", CONSENT, {}))

    assert b'"state":"granted"' in text


SETTINGS = make_settings(mount="/_mp")
