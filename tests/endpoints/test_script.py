import pytest

from mp_asgi.endpoints.script import Script


@pytest.fixture
def script():
    return Script("banner.js", {'"@NOTICES@"': '{"en":{}}'})


def headers(response):
    return dict(response.headers)


def tag(script):
    return headers(script.answer({}.get))[b"etag"]


def test_a_script_is_answered_with_what_caches_need(script):
    response = script.answer({}.get)

    assert response.status == 200
    assert headers(response) == {
        b"content-type": b"text/javascript; charset=utf-8",
        b"content-length": b"%d" % len(response.body()),
        b"etag": tag(script),
        b"cache-control": b"public, max-age=3600",
        b"x-content-type-options": b"nosniff",
    }


def test_the_marks_are_replaced(script):
    assert b'let notices = {"en":{}};' in script.body


@pytest.mark.parametrize("name", ["banner.js", "bridge.js"])
def test_what_only_people_read_is_left_out(name):
    lines = Script(name, {'"@NOTICES@"': '"https://a // b"'}).body.decode().splitlines()

    assert [line for line in lines if line != line.strip() or not line] == []
    assert [line for line in lines if "//" in line and "https://" not in line] == []


def test_what_a_site_writes_is_left_alone():
    assert b'let notices = "a // b  c";' in Script("banner.js", {'"@NOTICES@"': '"a // b  c"'}).body


def test_the_tag_is_strong_and_follows_the_text(script):
    other = Script("banner.js", {'"@NOTICES@"': '{"de":{}}'})

    assert tag(script).startswith(b'"')
    assert tag(script) == tag(Script("banner.js", {'"@NOTICES@"': '{"en":{}}'}))
    assert tag(script) != tag(other)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        pytest.param(b"%s", 304, id="the-same"),
        pytest.param(b"W/%s", 304, id="weakened-by-a-proxy"),
        pytest.param(b'"other" , %s', 304, id="one-of-several"),
        pytest.param(b'"other"', 200, id="another"),
        pytest.param(b"", 200, id="empty"),
        pytest.param(b"*", 304, id="any"),
    ],
)
def test_a_copy_that_is_still_right_is_not_sent_again(script, said, status):
    value = said.replace(b"%s", tag(script))

    response = script.answer({b"if-none-match": value}.get)

    assert response.status == status
    assert headers(response)[b"etag"] == tag(script)


def test_what_is_unchanged_has_no_body(script):
    response = script.answer({b"if-none-match": b"*"}.get)

    assert response.body() == b""
    assert b"content-type" not in headers(response)


def test_a_script_is_read_once(script):
    assert script.body is script.body
