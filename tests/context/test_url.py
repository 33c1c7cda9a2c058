import pytest

from mp_asgi.context.url import MAX_CHARACTERS, Url, read_own_url, read_referrer
from tests.context.visits import make_context


def read_host(*values, is_secure=True):
    headers = [(b"host", value) for value in values]
    return read_own_url(make_context(*headers, is_secure=is_secure)).host


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(b"example.com", "example.com", id="name"),
        pytest.param(b"Example.COM", "example.com", id="capitals"),
        pytest.param(b"example.com:8443", "example.com:8443", id="port"),
        pytest.param(b"example.com:443", "example.com", id="the-schemes-own-port"),
        pytest.param(b"example.com:80", "example.com:80", id="another-schemes-port"),
        pytest.param(b"xn--bcher-kva.example", "xn--bcher-kva.example", id="punycode"),
        pytest.param(b"my_service", "my_service", id="underscore"),
        pytest.param(b"203.0.113.9:1", "203.0.113.9:1", id="ipv4"),
        pytest.param(b"[2001:db8::1]:8443", "[2001:db8::1]:8443", id="ipv6"),
        pytest.param(b"", "", id="empty"),
        pytest.param(b"user@example.com", "", id="credentials"),
        pytest.param(b"example.com/path", "", id="path"),
        pytest.param(b"example.com:", "", id="no-port-behind-its-colon"),
        pytest.param(b"example.com:1234567", "", id="port-of-seven-digits"),
        pytest.param(b"example.com\r\nx: y", "", id="another-header"),
        pytest.param(b"b\xc3\xbccher.example", "", id="beyond-ascii"),
        pytest.param(b"2001:db8::1", "", id="ipv6-without-brackets"),
        pytest.param(b"a" * 300, "", id="longer-than-a-name-can-be"),
    ],
)
def test_a_host_is_a_name_or_an_address_with_maybe_a_port(value, expected):
    assert read_host(value) == expected


def test_the_port_of_plain_http_is_its_own():
    assert read_host(b"example.com:80", is_secure=False) == "example.com"


def test_without_a_host_or_with_two_there_is_none():
    assert (read_host(), read_host(b"a.example", b"b.example")) == ("", "")


@pytest.mark.parametrize(
    ("is_secure", "expected"),
    [pytest.param(True, "https", id="secure"), pytest.param(False, "http", id="plain")],
)
def test_the_scheme_is_what_the_browser_sees(is_secure, expected):
    assert read_own_url(make_context(is_secure=is_secure)).scheme == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("/a/b%20c;d=e@f", "/a/b%20c;d=e@f", id="as-it-stands"),
        pytest.param("", "/", id="empty"),
        pytest.param("*", "/", id="of-the-whole-server"),
        pytest.param("http://evil.example/x", "/", id="absolute"),
        pytest.param("@evil.example/x", "/", id="pretends-credentials"),
        pytest.param("/a#b?c d", "/a%23b%3Fc%20d", id="what-would-end-it"),
        pytest.param("/\x00\r\n", "/%00%0D%0A", id="control-characters"),
        pytest.param("/\xc3\xa9", "/%C3%A9", id="bytes-beyond-ascii"),
        pytest.param("/\u20ac", "/%3F", id="text-beyond-bytes"),
    ],
)
def test_a_path_is_as_a_browser_shows_it(path, expected):
    assert read_own_url(make_context(path=path)).path == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param("a=1&b=%20+?", "a=1&b=%20+?", id="as-it-stands"),
        pytest.param("a=#b c", "a=%23b%20c", id="what-would-end-it"),
        pytest.param("a=\xc3\xa9", "a=%C3%A9", id="bytes-beyond-ascii"),
    ],
)
def test_a_query_is_as_a_browser_shows_it(query, expected):
    assert read_own_url(make_context(query=query)).query == expected


def test_nobody_makes_us_read_endless_urls():
    url = read_own_url(make_context(path="/" * 99_999, query="&" * 99_999))

    assert (len(url.path), len(url.query)) == (MAX_CHARACTERS, MAX_CHARACTERS)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(
            b"https://example.com/a?b=c", Url("https", "example.com", "/a", "b=c"), id="whole"
        ),
        pytest.param(b"https://example.com", Url("https", "example.com", "/", ""), id="no-path"),
        pytest.param(b"HTTP://Example.com/A", Url("http", "example.com", "/A", ""), id="capitals"),
        pytest.param(b"http://a.example:80/", Url("http", "a.example", "/", ""), id="own-port"),
        pytest.param(b"http://a.example:81", Url("http", "a.example:81", "/", ""), id="port"),
        pytest.param(b"https://[::1]:1/x", Url("https", "[::1]:1", "/x", ""), id="ipv6"),
        pytest.param(b"https://a:b@c.example/", Url("https", "c.example", "/", ""), id="secrets"),
        pytest.param(b"https://c.example#d?e", Url("https", "c.example", "/", ""), id="fragment"),
        pytest.param(b"https://c.example?d/e", Url("https", "c.example", "/", "d/e"), id="query"),
        pytest.param(b"", None, id="empty"),
        pytest.param(b"android-app://com.example/", None, id="app"),
        pytest.param(b"javascript:alert(1)", None, id="script"),
        pytest.param(b"//example.com/", None, id="no-scheme"),
        pytest.param(b"https:///path", None, id="no-host"),
        pytest.param(b"https://a@b@c.example/", None, id="credentials-twice"),
        pytest.param(b"https://a\\b.example/", None, id="backslash"),
        pytest.param(b"https://example.com/a b", None, id="space"),
        pytest.param(b"https://example.com/\n", None, id="line-end"),
        pytest.param("https://example.com/é".encode(), None, id="beyond-ascii"),
        pytest.param(b"https://example.com/, https://b.example/", None, id="two"),
        pytest.param(b"https://example.com/" + b"a" * MAX_CHARACTERS, None, id="endless"),
    ],
)
def test_a_referrer_is_a_page_without_credentials_and_fragment(value, expected):
    assert read_referrer(make_context((b"referer", value))) == expected


def test_without_a_referer_there_is_no_referrer():
    assert read_referrer(make_context()) is None


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param(["a", "c"], "c=1&a=&a=2", id="in-their-order"),
        pytest.param(["b"], "b", id="without-a-value"),
        pytest.param(["d"], "", id="encoded-names-are-others"),
        pytest.param([], "", id="none"),
    ],
)
def test_only_listed_parameters_are_kept(names, expected):
    url = Url("https", "example.com", "/", "c=1&b&a=&%64=secret&aa=secret&a=2&")

    assert url.keep(names).query == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param(Url("https", "a:1", "/b", "c"), ("https://a:1/b?c", "?c", "a"), id="whole"),
        pytest.param(Url("http", "[::1]:1", "/", ""), ("http://[::1]:1/", "", "[::1]"), id="ipv6"),
        pytest.param(Url("http", "[::1]", "/", ""), ("http://[::1]/", "", "[::1]"), id="no-port"),
        pytest.param(Url("https", "", "/b", "c"), ("", "?c", ""), id="no-host"),
    ],
)
def test_a_url_is_text_again(url, expected):
    assert (url.render(), url.render_search(), url.render_hostname()) == expected
