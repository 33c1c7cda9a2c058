import json
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.endpoints.message import MAX_BODY_BYTES, Request
from mp_asgi.endpoints.posted import MAX_PATH, Posted, Refusal, read_posted, read_return_path

DIGEST = "0a" * 32
JSON = b"application/json"
MANY_FIELDS = b"".join(b"&%d=x" % number for number in range(64))
FORM = b"application/x-www-form-urlencoded"


def read(body, content_type=JSON, **headers):
    found = {b"sec-fetch-site": b"same-origin", b"content-type": content_type, **headers}
    return read_posted(Request("POST", "/_mp/consent", found.get, body))


def read_json(**decision):
    return read(json.dumps(decision).encode())


def read_form(**decision):
    return read(urlencode(decision).encode(), FORM)


@pytest.mark.parametrize("read_decision", [read_json, read_form])
@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        pytest.param({"analytics": "granted"}, Posted(is_granted=True), id="grant"),
        pytest.param({"analytics": "denied"}, Posted(is_granted=False), id="denial"),
        pytest.param(
            {"analytics": "granted", "language": "pt-BR", "notice": DIGEST, "source": "banner"},
            Posted(is_granted=True, language="pt-BR", notice=DIGEST),
            id="with-its-notice",
        ),
        pytest.param(
            {"analytics": "denied", "source": "cmp:usercentrics"},
            Posted(is_granted=False, source="cmp:usercentrics"),
            id="of-a-manager",
        ),
        pytest.param(
            {"analytics": "denied", "csrf_token": "x" * 64},
            Posted(is_granted=False),
            id="with-a-field-of-the-page",
        ),
    ],
)
def test_a_decision_is_read(read_decision, decision, expected):
    assert read_decision(**decision) == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param("true", True, id="true"),
        pytest.param("1", True, id="one"),
        pytest.param("on", True, id="checked"),
        pytest.param("false", False, id="false"),
        pytest.param("0", False, id="zero"),
        pytest.param("", False, id="empty"),
    ],
)
def test_a_form_says_whether_gpc_is_overridden(said, expected):
    posted = read_form(analytics="granted", override_gpc=said)

    assert posted == Posted(is_granted=True, overrides_gpc=expected)


@pytest.mark.parametrize(
    ("read_decision", "said", "expected"),
    [
        pytest.param(read_json, True, True, id="json"),
        pytest.param(read_json, False, False, id="json-false"),
        pytest.param(read_form, "true", True, id="form"),
        pytest.param(read_form, "", False, id="form-empty"),
    ],
)
def test_a_decision_says_whether_a_manager_was_told_just_now(read_decision, said, expected):
    posted = read_decision(analytics="granted", source="cmp:termly", fresh=said)

    assert posted == Posted(is_granted=True, source="cmp:termly", is_fresh=expected)


@pytest.mark.parametrize("said", [True, False])
def test_json_says_whether_gpc_is_overridden(said):
    posted = read_json(analytics="granted", override_gpc=said)

    assert posted == Posted(is_granted=True, overrides_gpc=said)


def test_an_empty_field_of_a_form_says_nothing():
    assert read_form(analytics="denied", language="", notice="", source="") == Posted(False)


def test_a_form_is_answered_with_a_page():
    assert read_form(analytics="denied", return_to="/cart?a=1").return_to == "/cart?a=1"


@pytest.mark.parametrize("value", ["/cart", ["/cart"], None])
def test_json_is_never_answered_with_a_page(value):
    assert read_json(analytics="denied", return_to=value) == Posted(False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("analytics", "yes", id="another-word"),
        pytest.param("analytics", "GRANTED", id="capitals"),
        pytest.param("analytics", "granted\n", id="with-a-newline"),
        pytest.param("analytics", True, id="a-truth"),
        pytest.param("analytics", ["granted"], id="a-list"),
        pytest.param("analytics", None, id="null"),
        pytest.param("override_gpc", "true", id="override-as-text"),
        pytest.param("override_gpc", 1, id="override-as-number"),
        pytest.param("fresh", 1, id="fresh-as-number"),
        pytest.param("fresh", "yes", id="fresh-as-another-word"),
        pytest.param("override_gpc", None, id="override-as-null"),
        pytest.param("language", "en_GB", id="underscore"),
        pytest.param("language", "x" * 200, id="long-language"),
        pytest.param("language", "\ud800", id="half-a-character"),
        pytest.param("language", 1, id="language-as-number"),
        pytest.param("notice", DIGEST.upper(), id="capital-digits"),
        pytest.param("notice", DIGEST[1:], id="short-digest"),
        pytest.param("source", "gpc", id="another-source"),
        pytest.param("source", "cmp:", id="a-manager-without-name"),
        pytest.param("source", "cmp:" + "x" * 41, id="a-manager-with-a-long-name"),
        pytest.param("source", "cmp:a\r\nb", id="a-manager-with-a-line-break"),
    ],
)
def test_an_unknown_value_is_refused(name, value):
    decision = {"analytics": "granted", name: value}

    assert read_json(**decision) == Refusal(400, f"The value of {name} is unknown.")


def test_a_form_with_another_word_for_true_is_refused():
    assert read_form(analytics="granted", override_gpc="yes").status == 400


@pytest.mark.parametrize(
    "decision",
    [
        pytest.param({"analytics": "denied"}, id="a-denial"),
        pytest.param({"analytics": "granted", "source": "cmp:termly"}, id="of-a-manager"),
    ],
)
def test_only_a_grant_of_our_own_banner_overrides_gpc(decision):
    assert read_json(**decision, override_gpc=True).status == 400


def test_who_chose_nothing_is_refused():
    assert "analytics is missing" in read_json(language="en").message


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="broken"),
        pytest.param(b'{"analytics": "granted"', id="cut-off"),
        pytest.param(b'["analytics", "granted"]', id="a-list"),
        pytest.param(b'"granted"', id="a-text"),
        pytest.param(b'{"analytics": "granted", "analytics": "denied"}', id="twice"),
        pytest.param(b'{"analytics": "granted", "analytics": "granted"}', id="twice-the-same"),
        pytest.param(b'{"analytics": "gr\xff"}', id="no-utf8"),
        pytest.param(b"[" * 10_000, id="deep"),
        pytest.param(b'{"a": ' + b"9" * 5_000 + b"}", id="a-long-number"),
        pytest.param(b"analytics=granted", id="a-form"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(body):
    assert read(body).status == 400


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"analytics", id="no-value"),
        pytest.param(b"analytics=granted&analytics=denied", id="twice"),
        pytest.param(b"analytics=denied&analytics=denied", id="twice-the-same"),
        pytest.param(b"analytics=granted&x=%ff", id="no-utf8"),
        pytest.param(b"analytics=granted" + MANY_FIELDS, id="many-fields"),
        pytest.param(b'{"analytics": "granted"}', id="json"),
    ],
)
def test_a_body_that_is_no_form_is_refused(body):
    assert read(body, FORM).status == 400


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        pytest.param(b"application/json", 0, id="json"),
        pytest.param(b"Application/JSON ; charset=utf-8", 0, id="json-with-a-charset"),
        pytest.param(b"text/plain", 415, id="text-as-cross-site-forms-send"),
        pytest.param(b"multipart/form-data; boundary=x", 415, id="multipart"),
        pytest.param(b"application/jsonp", 415, id="almost"),
        pytest.param(b"application/json,text/plain", 415, id="two"),
        pytest.param(None, 415, id="none"),
        pytest.param(b"", 415, id="empty"),
    ],
)
def test_the_content_type_must_be_known(content_type, status):
    posted = read(b'{"analytics": "granted"}', content_type)

    assert (posted.status if isinstance(posted, Refusal) else 0) == status


@pytest.mark.parametrize(
    ("excess", "is_read"),
    [pytest.param(0, True, id="as-long-as-allowed"), pytest.param(1, False, id="a-byte-more")],
)
def test_a_body_has_an_end(excess, is_read):
    decision = b'{"analytics": "granted"}'

    posted = read(decision.ljust(MAX_BODY_BYTES + excess))

    assert isinstance(posted, Posted) is is_read
    assert is_read or posted.status == 413


def test_another_origin_is_refused_before_anything_is_read():
    posted = read(b"{", b"text/plain", **{"sec-fetch-site": b"x"})
    foreign = read_posted(Request("POST", "/", {b"sec-fetch-site": b"cross-site"}.get, b"{"))

    assert posted.status == 415
    assert foreign.status == 403


@given(st.binary(max_size=200), st.sampled_from([JSON, FORM]))
def test_no_bytes_raise_and_a_grant_says_so(body, content_type):
    posted = read(body, content_type)

    assert isinstance(posted, Refusal) or not posted.is_granted or b"granted" in body


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("/", "/", id="home"),
        pytest.param("/cart?a=1&b=%20#top", "/cart?a=1&b=%20#top", id="query-and-fragment"),
        pytest.param("/café au lait", "/caf%C3%A9%20au%20lait", id="as-a-template-writes-it"),
        pytest.param("/a//b", "/a//b", id="two-slashes-later"),
        pytest.param("/@evil.test", "/@evil.test", id="at-sign"),
        pytest.param("/?to=https://evil.test", "/?to=https://evil.test", id="url-as-parameter"),
        pytest.param("/\u2028", "/%E2%80%A8", id="unicode-line"),
        pytest.param("/\x85", "/%C2%85", id="c1-control"),
        pytest.param("", "", id="empty"),
        pytest.param("cart", "", id="relative"),
        pytest.param("https://evil.test/", "", id="url"),
        pytest.param("HTTPS:evil.test", "", id="scheme-without-slashes"),
        pytest.param("javascript:alert(1)", "", id="script"),
        pytest.param("//evil.test", "", id="scheme-relative"),
        pytest.param("///evil.test", "", id="three-slashes"),
        pytest.param("/\\evil.test", "", id="backslash"),
        pytest.param("\\\\evil.test", "", id="two-backslashes"),
        pytest.param("/a\\..\\\\evil.test", "", id="backslash-later"),
        pytest.param("/\t/evil.test", "", id="tab-that-browsers-drop"),
        pytest.param("/\n/evil.test", "", id="newline-that-browsers-drop"),
        pytest.param("/\r\nSet-Cookie: a=b", "", id="header-injection"),
        pytest.param("/a\x00", "", id="null"),
        pytest.param("/a\x7f", "", id="delete"),
        pytest.param(" /cart", "", id="space-before"),
        pytest.param("\x01//evil.test", "", id="control-before"),
        pytest.param("/cart\n", "", id="newline-at-the-end"),
        pytest.param("/" + "a" * MAX_PATH, "", id="long"),
    ],
)
def test_only_a_path_of_this_origin_is_returned_to(path, expected):
    assert read_return_path(path) == expected


@given(st.text(alphabet="/\\:@.?#ab\t\n %\x01é", max_size=12))
def test_no_text_leads_to_another_origin(text):
    path = read_return_path(text)

    assert path == "" or (path.isascii() and path[0] == "/" and path[1:2] not in {"/", "\\"})
