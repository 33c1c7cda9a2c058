"""What a page gets: the cookies that its mixpanel-browser would have written itself."""

import json
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.adoption import read_browser_cookie
from mp_asgi.cookies import MAX_VALUE_BYTES
from mp_asgi.identity import IdentityMode, Origin, Visitor
from mp_asgi.sharing import BrowserCookies, find_browser_ids

A = "aaaaaaaa-aaaa-4aaa-aaaa-aaaaaaaaaaaa"
COOKIES = BrowserCookies("t0ken")
IDS = {"distinct_id": "$device:D", "$device_id": "D"}
VALUE = b"%7B%22distinct_id%22%3A%22%24device%3AD%22%2C%22%24device_id%22%3A%22D%22%7D"


def domain_of(host):
    """Answer the Domain of the cookie that holds the IDs; empty for this host only."""
    kept = COOKIES.render_id(IDS, host, is_secure=False)[0]
    domains = [part for part in kept.split(b"; ") if part.startswith(b"Domain=")]
    return b"".join(domains).removeprefix(b"Domain=").decode()


def value_of(cookie):
    return cookie.partition(b";")[0].partition(b"=")[2]


def test_the_names_are_the_librarys():
    assert COOKIES.id_name == "mp_t0ken_mixpanel"
    assert COOKIES.choice_name == "__mp_opt_in_out_t0ken"
    assert COOKIES.mark_name == "__mp_opt_in_out_t0ken_mp_asgi"


# --- cookies --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("is_secure", "end"),
    [
        pytest.param(False, b"SameSite=Lax", id="http"),
        pytest.param(True, b"Secure; SameSite=Lax", id="https"),
    ],
)
def test_ids_are_written_where_the_library_writes_them_and_no_copy_hides_them(is_secure, end):
    assert COOKIES.render_id(IDS, "shop.example.com", is_secure=is_secure) == [
        b"mp_t0ken_mixpanel=%b; Max-Age=31536000; Path=/; Domain=example.com; %b" % (VALUE, end),
        b"mp_t0ken_mixpanel=; Max-Age=0; Path=/; %b" % end,
    ]
    assert COOKIES.render_id(IDS, "localhost", is_secure=is_secure) == [
        b"mp_t0ken_mixpanel=%b; Max-Age=31536000; Path=/; %b" % (VALUE, end)
    ]


@pytest.mark.parametrize(
    ("is_secure", "end"),
    [
        pytest.param(False, b"SameSite=Lax", id="http"),
        pytest.param(True, b"Secure; SameSite=Lax", id="https"),
    ],
)
def test_ids_are_deleted_from_the_host_and_from_the_librarys_domain(is_secure, end):
    assert COOKIES.render_deletion("shop.example.com", is_secure=is_secure) == [
        b"mp_t0ken_mixpanel=; Max-Age=0; Path=/; %b" % end,
        b"mp_t0ken_mixpanel=; Max-Age=0; Path=/; Domain=example.com; %b" % end,
    ]
    assert COOKIES.render_deletion("localhost", is_secure=is_secure) == [
        b"mp_t0ken_mixpanel=; Max-Age=0; Path=/; %b" % end
    ]


@pytest.mark.parametrize(
    ("is_granted", "value", "mark"),
    [
        pytest.param(True, b"1", b"=; Max-Age=0; Path=/; ", id="granted-and-no-mark-stays"),
        pytest.param(False, b"0", b"=1; Max-Age=31536000; Path=/; ", id="denied-with-our-mark"),
    ],
)
def test_a_choice_is_written_where_the_library_writes_it_and_no_copy_hides_it(
    is_granted, value, mark
):
    rendered = COOKIES.render_choice("shop.example.com", is_granted=is_granted, is_secure=True)
    here = COOKIES.render_choice("localhost", is_granted=is_granted, is_secure=False)

    kept = b"__mp_opt_in_out_t0ken=%b; Max-Age=31536000; Path=/; " % value
    marked = b"__mp_opt_in_out_t0ken_mp_asgi" + mark
    assert rendered == [
        kept + b"Domain=example.com; Secure; SameSite=Lax",
        b"__mp_opt_in_out_t0ken=; Max-Age=0; Path=/; Secure; SameSite=Lax",
        marked + b"Domain=example.com; Secure; SameSite=Lax",
    ]
    assert here == [kept + b"SameSite=Lax", marked + b"SameSite=Lax"]


@pytest.mark.parametrize(
    ("is_secure", "end"),
    [
        pytest.param(False, b"SameSite=Lax", id="http"),
        pytest.param(True, b"Secure; SameSite=Lax", id="https"),
    ],
)
def test_a_choice_is_deleted_from_the_host_and_from_the_librarys_domain(is_secure, end):
    assert COOKIES.render_choice_deletion("shop.example.com", is_secure=is_secure) == [
        b"__mp_opt_in_out_t0ken=; Max-Age=0; Path=/; Domain=example.com; %b" % end,
        b"__mp_opt_in_out_t0ken=; Max-Age=0; Path=/; %b" % end,
        b"__mp_opt_in_out_t0ken_mp_asgi=; Max-Age=0; Path=/; Domain=example.com; %b" % end,
    ]
    assert COOKIES.render_choice_deletion("localhost", is_secure=is_secure) == [
        b"__mp_opt_in_out_t0ken=; Max-Age=0; Path=/; %b" % end,
        b"__mp_opt_in_out_t0ken_mp_asgi=; Max-Age=0; Path=/; %b" % end,
    ]


# --- values ---------------------------------------------------------------------------------------


def test_a_value_is_encoded_as_in_javascript():
    ids = {"distinct_id": "aZ09-_.!~*'() /:;,\"\\ë😀"}

    [cookie] = COOKIES.render_id(ids, "localhost", is_secure=False)

    # encodeURIComponent(JSON.stringify(ids)), as node 20 answers
    assert value_of(cookie) == (
        b"%7B%22distinct_id%22%3A%22aZ09-_.!~*'()%20%2F%3A%3B%2C%5C%22%5C%5C%C3%AB%F0%9F%98%80%22%7D"
    )


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_id_stays_one_value_and_is_read_back(text):
    ids = {"distinct_id": text, "$device_id": text}

    [cookie] = COOKIES.render_id(ids, "localhost", is_secure=False)

    assert cookie.count(b";") == 3
    assert json.loads(unquote(value_of(cookie).decode("ascii"))) == ids


@pytest.mark.parametrize("letter", ['"', "ë", "\\"])
def test_the_longest_id_fits_into_a_cookie(letter):
    device_id = letter * (255 // len(letter.encode()))
    ids = {"distinct_id": "$device:" + device_id, "$device_id": device_id}

    [cookie] = COOKIES.render_id(ids, "localhost", is_secure=False)

    assert len(value_of(cookie)) < MAX_VALUE_BYTES


# --- domains --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        pytest.param("example.com", "example.com", id="two-labels"),
        pytest.param("shop.example.com", "example.com", id="subdomain"),
        pytest.param("a.b.shop.example.org", "example.org", id="deep-subdomain"),
        pytest.param("x.com", "x.com", id="one-letter-in-com"),
        pytest.param("x.org", "x.org", id="one-letter-in-org"),
        pytest.param("www.x.local", "x.local", id="one-letter-before-five"),
        pytest.param("www.oxford.ac.uk", "oxford.ac.uk", id="second-level"),
        pytest.param("shop.example.co.uk", "example.co.uk", id="co-uk"),
        pytest.param("shop.example.de", "example.de", id="country"),
        pytest.param("www.shop.museum", "shop.museum", id="long-end"),
        pytest.param("www.shop.photography", "shop.photography", id="longer-end"),
        pytest.param("www.x.info", "www.x.info", id="short-name-and-four-letters"),
        pytest.param("www.ab.cd.io", "ab.cd.io", id="short-name-taken-for-a-second-level"),
        pytest.param("t.co", "", id="one-letter-in-a-country"),
        pytest.param("www.xn--bcher-kva.de", "xn--bcher-kva.de", id="international-name"),
        pytest.param("shop.example.xn--p1ai", "", id="international-end"),
        pytest.param("SHOP.Example.COM", "example.com", id="capitals"),
        pytest.param("shop.example.com:8443", "example.com", id="port"),
        pytest.param("my_shop.example.com", "example.com", id="underscore"),
        pytest.param("_shop.example.com", "example.com", id="underscore-first"),
        pytest.param("my_shop.com", "", id="underscore-in-the-domain"),
        pytest.param("localhost", "", id="localhost"),
        pytest.param("localhost:8000", "", id="localhost-with-port"),
        pytest.param("intranet", "", id="one-label"),
        pytest.param("127.0.0.1", "", id="ipv4"),
        pytest.param("127.0.0.1:8000", "", id="ipv4-with-port"),
        pytest.param("[::1]", "", id="ipv6"),
        pytest.param("[2001:db8::1]:8000", "", id="ipv6-with-port"),
        pytest.param("[::ffff:192.0.2.1]", "", id="ipv4-in-ipv6"),
    ],
)
def test_the_domain_is_the_one_that_the_library_guesses(host, domain):
    assert domain_of(host) == domain


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("", id="none"),
        pytest.param("example.com.", id="dot-at-the-end"),
        pytest.param(".example.com", id="dot-at-the-beginning"),
        pytest.param("a..example.com", id="empty-label"),
        pytest.param("-a.example.com", id="hyphen-first"),
        pytest.param("a-.example.com", id="hyphen-last"),
        pytest.param("example.com; Path=/x", id="attribute"),
        pytest.param("example.com\r\nX: y.com", id="line-break"),
        pytest.param("example.com\n", id="line-feed-at-the-end"),
        pytest.param("a\0.example.com", id="nul"),
        pytest.param("user@example.com", id="user"),
        pytest.param("example.com/x.com", id="path"),
        pytest.param("a.example.com, b.example.com", id="two-hosts"),
        pytest.param("example.com:", id="no-port"),
        pytest.param("example.com:x", id="port-of-letters"),
        pytest.param("example.com:123456", id="port-too-long"),
        pytest.param("\u212aey.example.com", id="kelvin-sign"),
        pytest.param("ex\xe4mple.com", id="not-ascii"),
        pytest.param("a" * 64 + ".example.com", id="label-too-long"),
        pytest.param("a." * 124 + "example.co:1", id="name-too-long"),
    ],
)
def test_a_host_that_is_none_gets_a_cookie_of_its_own(host):
    assert domain_of(host) == ""


def test_the_longest_host_has_a_domain():
    assert domain_of("a." * 121 + "example.com:65535") == "example.com"


@given(st.text() | st.from_regex(r"[a-z0-9._-]{1,20}\.[a-z.]{1,8}(:[0-9]{1,3})?", fullmatch=True))
def test_a_domain_is_the_host_or_above_it(host):
    domain = domain_of(host)
    name = host.partition(":")[0].lower()

    assert not domain or name == domain or name.endswith("." + domain)


# --- what a page starts with ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "origin", "distinct_id"),
    [
        pytest.param(IdentityMode.SIMPLIFIED, Origin.MINTED, "$device:" + A, id="simplified"),
        pytest.param(
            IdentityMode.SIMPLIFIED, Origin.LITERAL, "$device:" + A, id="simplified-adopted"
        ),
        pytest.param(IdentityMode.ORIGINAL, Origin.MINTED, A, id="original"),
        pytest.param(IdentityMode.ORIGINAL, Origin.BROWSER, "$device:" + A, id="original-adopted"),
        pytest.param(IdentityMode.LEGACY, Origin.MINTED, A, id="legacy"),
    ],
)
def test_a_page_starts_with_the_device_and_never_with_its_user(mode, origin, distinct_id):
    visitor = Visitor(A, 0, user_id="U1", origin=origin)

    assert find_browser_ids(visitor, mode) == {"distinct_id": distinct_id, "$device_id": A}


@pytest.mark.parametrize(
    ("mode", "origin"),
    [
        pytest.param(IdentityMode.SIMPLIFIED, Origin.MINTED, id="simplified"),
        pytest.param(IdentityMode.SIMPLIFIED, Origin.BROWSER, id="simplified-adopted"),
        pytest.param(IdentityMode.ORIGINAL, Origin.BROWSER, id="original-adopted"),
        pytest.param(IdentityMode.LEGACY, Origin.BROWSER, id="legacy-adopted"),
    ],
)
def test_what_a_page_starts_with_is_adopted_again_as_the_same_visitor(mode, origin):
    visitor = Visitor(A, 0, origin=origin)
    [cookie] = COOKIES.render_id(find_browser_ids(visitor, mode), "localhost", is_secure=False)

    adopted = read_browser_cookie(value_of(cookie))

    again = Visitor(adopted.device_id, 1, origin=adopted.origin)
    assert again.device_id == A
    assert again.anonymous_id(mode) == visitor.anonymous_id(mode)


@pytest.mark.parametrize("mode", [IdentityMode.ORIGINAL, IdentityMode.LEGACY])
def test_an_id_of_ours_without_a_prefix_is_not_taken_back_because_it_looks_like_a_users(mode):
    visitor = Visitor(A, 0)
    [cookie] = COOKIES.render_id(find_browser_ids(visitor, mode), "localhost", is_secure=False)

    assert read_browser_cookie(value_of(cookie)) is None
