import pytest

from mp_asgi.place import (
    NOWHERE,
    Place,
    normalise_path,
    parse_place,
    read_asgi_place,
    read_wsgi_place,
)


def at_asgi(**scope):
    return parse_place(read_asgi_place({"type": "http", "method": "GET", **scope}))


def at_wsgi(**environ):
    return parse_place(read_wsgi_place({"REQUEST_METHOD": "GET", **environ}))


@pytest.mark.parametrize(
    ("scope", "environ", "path"),
    [
        pytest.param({"raw_path": b"/shop"}, {"PATH_INFO": "/shop"}, "/shop", id="plain"),
        pytest.param(
            {"raw_path": b"/caf%C3%A9"}, {"PATH_INFO": "/caf\xc3\xa9"}, "/caf%C3%A9", id="utf-8"
        ),
        pytest.param(
            {"raw_path": b"/a%20b%25%3F"}, {"PATH_INFO": "/a b%?"}, "/a%20b%25%3F", id="special"
        ),
        pytest.param(
            {"raw_path": b"/x/!$&'()*+,;=:@~-._"},
            {"PATH_INFO": "/x/!$&'()*+,;=:@~-._"},
            "/x/!$&'()*+,;=:@~-._",
            id="what-a-path-may-hold",
        ),
        pytest.param(
            {"raw_path": b"/api/v1"},
            {"SCRIPT_NAME": "/api", "PATH_INFO": "/v1"},
            "/api/v1",
            id="of-a-mounted-app",
        ),
    ],
)
def test_both_doors_tell_a_path_as_the_browser_shows_it(scope, environ, path):
    assert (at_asgi(**scope).path, at_wsgi(**environ).path) == (path, path)


@pytest.mark.parametrize("raw_path", [None, b""], ids=["none", "empty"])
def test_a_server_without_raw_paths_tells_the_decoded_one(raw_path):
    assert at_asgi(raw_path=raw_path, path="/café/a b").path == "/caf%C3%A9/a%20b"


def test_a_raw_path_with_its_query_loses_it():
    assert at_asgi(raw_path=b"/shop?a=b?c").path == "/shop"


def test_a_raw_path_may_hold_any_byte():
    assert at_asgi(raw_path=b"/\xff").path == "/\xff"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        pytest.param("/caf\xc3\xa9", "/caf%C3%A9", id="as-pep-3333-says"),
        pytest.param("/caf\xe9", "/caf%C3%A9", id="as-django-writes-it-anew"),
        pytest.param("/\u20ac", "/%E2%82%AC", id="beyond-latin-1"),
    ],
)
def test_a_wsgi_path_may_be_bytes_or_text(path, told):
    assert at_wsgi(PATH_INFO=path).path == told


def test_method_and_query_are_told_as_they_came():
    place = Place("POST", "/shop", "a=%C3%A9&b=\xff")

    assert at_asgi(method="POST", raw_path=b"/shop", query_string=b"a=%C3%A9&b=\xff") == place
    assert (
        at_wsgi(REQUEST_METHOD="POST", PATH_INFO="/shop", QUERY_STRING="a=%C3%A9&b=\xff") == place
    )


def test_what_a_door_leaves_out_is_empty():
    assert parse_place(read_asgi_place({})) == Place("GET", "", "")
    assert parse_place(read_wsgi_place({})) == Place("GET", "", "")


def test_a_place_is_its_own_answer():
    place = Place("GET", "/a?b", "c")

    assert parse_place(place) is place
    assert parse_place(NOWHERE) == ("GET", "/", "")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("/admin/x", "/admin/x", id="plain"),
        pytest.param("/%61dmin/x", "/admin/x", id="letter-in-digits"),
        pytest.param("/admin%2Fx", "/admin/x", id="slash-in-digits"),
        pytest.param("/gr%c3%b6%c3%9fe", "/gr%C3%B6%C3%9Fe", id="small-digits"),
        pytest.param("/größe", "/gr%C3%B6%C3%9Fe", id="text"),
        pytest.param("/gr\xc3\xb6\xc3\x9fe", "/gr%C3%B6%C3%9Fe", id="bytes-of-a-door"),
        pytest.param("/a b", "/a%20b", id="blank"),
        pytest.param("/100%/%zz", "/100%25/%25zz", id="lonely-percent-sign"),
        pytest.param("/*.json", "/*.json", id="star"),
        pytest.param("", "", id="empty"),
    ],
)
def test_every_spelling_of_a_path_becomes_the_same(path, expected):
    assert normalise_path(path) == expected
    assert normalise_path(expected) == expected
