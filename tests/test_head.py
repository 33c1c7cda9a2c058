import pytest

from mp_asgi.head import MAX_QUICK_SECONDS, HeadReader, SchemeReader, TrustedProxies
from tests.support import NOW

READER = HeadReader("X-MP-Consent")


def make_head(*headers, scheme="https", client=("203.0.113.9", 1234)):
    return READER.read_asgi(NOW, scheme, client, list(headers))


def read_wsgi(environ, scheme="https", address="203.0.113.9"):
    fields = [environ.get(key) for key in READER.environ_keys]
    return READER.read_wsgi(NOW, scheme, address, fields)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([], b"", id="none"),
        pytest.param([(b"cookie", b"a=1")], b"a=1", id="one"),
        pytest.param([(b"cookie", b"a=1"), (b"cookie", b"b=2")], b"a=1; b=2", id="http2-several"),
        pytest.param([(b"cookies", b"a=1")], b"", id="another-name"),
    ],
)
def test_cookie_headers_are_joined(headers, expected):
    assert make_head(*headers).cookie == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([], None, id="none"),
        pytest.param([(b"accept", b"*/*"), (b"cookie", b"a=1")], None, id="nothing-of-consent"),
        pytest.param([(b"x-forwarded-proto", b"https")], None, id="the-proxys-is-no-signal"),
        pytest.param([(b"sec-gpc", b"1")], {b"sec-gpc": b"1"}, id="gpc"),
        pytest.param(
            [(b"dnt", b"1"), (b"x-mp-consent", b"denied")],
            {b"dnt": b"1", b"x-mp-consent": b"denied"},
            id="dnt-and-the-apps",
        ),
        pytest.param([(b"sec-gpc", b"0"), (b"sec-gpc", b"1")], {b"sec-gpc": b"0,1"}, id="repeated"),
    ],
)
def test_headers_that_speak_of_consent_are_signals(headers, expected):
    assert make_head(*headers).signals == expected


def test_the_consent_header_may_have_another_name():
    head = HeadReader("X-Choice").read_asgi(
        NOW, "https", None, [(b"x-choice", b"denied"), (b"x-mp-consent", b"granted")]
    )

    assert head.signals == {b"x-choice": b"denied"}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([], None, id="absent"),
        pytest.param([(b"origin", b"")], b"", id="empty"),
        pytest.param([(b"origin", b"a"), (b"x", b"y"), (b"origin", b"b")], b"a,b", id="several"),
    ],
)
def test_any_header_can_be_read(headers, expected):
    assert make_head(*headers).header(b"origin") == expected


def test_wsgi_tells_the_same_as_asgi():
    headers = {
        b"cookie": b"a=1",
        b"sec-gpc": b"1",
        b"dnt": b"0",
        b"x-forwarded-proto": b"https",
        b"x-mp-consent": b"granted",
        b"accept": b"text/html",
        b"host": b"example.com",
        b"origin": b"https://example.com",
        b"sec-fetch-dest": b"document",
        b"sec-fetch-mode": b"navigate",
        b"sec-fetch-site": b"same-origin",
        b"referer": b"https://example.com/",
        b"user-agent": b"Mozilla/5.0",
        b"forwarded": b"for=203.0.113.9",
        b"x-forwarded-for": b"203.0.113.9",
        b"purpose": b"prefetch",
        b"sec-purpose": b"prefetch;prerender",
        b"x-purpose": b"preview",
        b"x-moz": b"prefetch",
        b"x-requested-with": b"XMLHttpRequest",
        b"hx-request": b"true",
        b"turbo-frame": b"cart",
        b"x-pjax": b"true",
    }
    environ = {
        "HTTP_" + name.decode().upper().replace("-", "_"): value.decode()
        for name, value in headers.items()
    }

    ours, theirs = read_wsgi(environ), make_head(*headers.items(), client=("203.0.113.9",))

    for name in ("started", "scheme", "client", "cookie", "forwarded_proto", "signals"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert {name: ours.header(name) for name in headers} == headers


def test_an_empty_environ_is_an_empty_head():
    head = read_wsgi({}, scheme=None, address=None)

    assert (head.scheme, head.client, head.cookie, head.signals) == (None, None, b"", None)
    assert head.header(b"accept") is None


def test_a_server_that_decodes_beyond_latin1_breaks_nothing():
    assert read_wsgi({"HTTP_COOKIE": "a=€"}).cookie == b"a=?"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param(
            [(b"sec-fetch-mode", b"navigate"), (b"sec-fetch-dest", b"document")], True, id="page"
        ),
        pytest.param(
            [(b"sec-fetch-mode", b"navigate"), (b"sec-fetch-dest", b"iframe")], False, id="frame"
        ),
        pytest.param([(b"sec-fetch-mode", b"navigate")], False, id="no-destination"),
        pytest.param(
            [(b"sec-fetch-mode", b"cors"), (b"accept", b"text/html")], False, id="a-scripts-fetch"
        ),
        pytest.param([(b"accept", b"text/html,*/*")], True, id="page-on-plain-http"),
        pytest.param([(b"accept", b"*/*")], False, id="anything-on-plain-http"),
        pytest.param([], False, id="says-nothing"),
    ],
)
def test_a_navigation_is_a_person_opening_a_page(headers, expected):
    assert make_head(*headers).is_navigation() is expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        pytest.param(0, True, id="at-once"),
        pytest.param(MAX_QUICK_SECONDS, True, id="at-two-seconds"),
        pytest.param(MAX_QUICK_SECONDS + 0.001, False, id="later"),
    ],
)
def test_an_answer_within_two_seconds_is_quick(seconds, expected):
    assert make_head().is_quick(NOW + seconds) is expected


def test_other_headers_are_read_for_whoever_asks_for_them():
    reader = HeadReader("X-MP-Consent", ["CF-IPCountry"])
    fields = ["US" if key == "HTTP_CF_IPCOUNTRY" else None for key in reader.environ_keys]

    head = reader.read_wsgi(NOW, "https", None, fields)

    assert (head.header(b"cf-ipcountry"), head.signals) == (b"US", None)


@pytest.mark.parametrize("sees_pages", [False, True])
def test_what_tells_pages_is_read_for_whoever_sees_pages(sees_pages):
    reader = HeadReader("X-MP-Consent", sees_pages=sees_pages)

    assert ("HTTP_X_MOZ" in reader.environ_keys) is sees_pages


@pytest.mark.parametrize("keeps_all", [False, True])
def test_whether_an_app_may_ask_for_any_header_is_told_to_the_door(keeps_all):
    assert HeadReader("X-MP-Consent", keeps_all=keeps_all).keeps_all is keeps_all


def test_a_whole_environ_tells_every_header():
    fields = {
        "HTTP_COOKIE": "a=1",
        "HTTP_SEC_GPC": "1",
        "HTTP_X_FORWARDED_PROTO": "https",
        "HTTP_X_OUR_REGION": "é",
        "HTTP_BEYOND_LATIN": "€",
    }

    head = READER.read_whole_wsgi(NOW, "https", "203.0.113.9", fields)

    assert (head.started, head.scheme, head.client) == (NOW, "https", ("203.0.113.9",))
    assert (head.cookie, head.forwarded_proto) == (b"a=1", b"https")
    assert head.signals == {b"sec-gpc": b"1"}
    assert head.header(b"x-our-region") == b"\xe9"
    assert head.header(b"beyond-latin") == b"?"
    assert head.header(b"accept") is None


def test_a_whole_environ_may_name_no_address():
    assert READER.read_whole_wsgi(NOW, None, None, {}).client is None


@pytest.mark.parametrize(
    ("networks", "client", "expected"),
    [
        pytest.param(["10.0.0.0/8"], ("10.255.0.1", 1), True, id="in-the-network"),
        pytest.param(["10.0.0.0/8"], ("11.0.0.1", 1), False, id="outside"),
        pytest.param(["10.0.0.1/8"], ("10.9.9.9", 1), True, id="network-with-host-bits"),
        pytest.param(["::1", "10.0.0.1"], ("10.0.0.1",), True, id="address-without-a-port"),
        pytest.param(["10.0.0.0/8"], ("::ffff:11.0.0.1", 1), False, id="another-family"),
        pytest.param(["0.0.0.0/0"], ("unix", 0), False, id="no-address"),
        pytest.param(["0.0.0.0/0"], None, False, id="nobody"),
        pytest.param([], ("10.0.0.1", 1), False, id="nobody-is-trusted"),
    ],
)
def test_a_proxy_is_trusted_by_its_address(networks, client, expected):
    assert TrustedProxies(networks).trust(client) is expected


@pytest.mark.parametrize(
    ("client", "forwarded", "expected"),
    [
        pytest.param(None, [], "", id="unknown"),
        pytest.param("203.0.113.9", [], "203.0.113.9", id="no-proxy"),
        pytest.param("203.0.113.9", [b"198.51.100.1"], "203.0.113.9", id="a-liar"),
        pytest.param("10.0.0.1", [b"198.51.100.1"], "198.51.100.1", id="proxy"),
        pytest.param("10.0.0.1", [b"1.1.1.1, 198.51.100.1, 10.0.0.2"], "198.51.100.1", id="hops"),
        pytest.param("10.0.0.1", [b"1.1.1.1", b"198.51.100.1"], "198.51.100.1", id="two-headers"),
        pytest.param("10.0.0.1", [], "10.0.0.1", id="proxy-is-silent"),
        pytest.param("10.0.0.1", [b" , "], "10.0.0.1", id="proxy-says-nothing"),
        pytest.param("10.0.0.1", [b"10.0.0.3"], "10.0.0.3", id="nothing-but-proxies"),
        pytest.param("10.0.0.1", [b"1.1.1.1, what"], "what", id="no-address"),
    ],
)
def test_a_visitors_address_is_the_nearest_that_is_no_proxy_of_ours(client, forwarded, expected):
    headers = [(b"x-forwarded-for", value) for value in forwarded]
    head = make_head(*headers, client=client and (client, 1))

    assert TrustedProxies(["10.0.0.0/8"]).find_client(head) == expected


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        pytest.param([b"for=198.51.100.1"], "198.51.100.1", id="address"),
        pytest.param([b'FOR="198.51.100.1:4711"'], "198.51.100.1", id="port"),
        pytest.param([b"for=198.51.100.1:4711"], "198.51.100.1", id="port-without-quotes"),
        pytest.param([b'for="[2001:db8::7]:4711"'], "2001:db8::7", id="ipv6"),
        pytest.param([b"for=[2001:db8::7]"], "2001:db8::7", id="ipv6-without-quotes"),
        pytest.param(
            [b'proto=https;for=198.51.100.1;by="a\\"b, for=1.1.1.1"'], "198.51.100.1", id="pairs"
        ),
        pytest.param([b"by=_us; \tFor=198.51.100.1 ; "], "198.51.100.1", id="space"),
        pytest.param([b"for=1.1.1.1, for=198.51.100.1 , for=10.0.0.2"], "198.51.100.1", id="hops"),
        pytest.param([b"for=1.1.1.1", b"for=198.51.100.1"], "198.51.100.1", id="two-headers"),
        pytest.param([b"for=10.0.0.3"], "10.0.0.3", id="nothing-but-proxies"),
        pytest.param([b"for=1.1.1.1, for=unknown"], "unknown", id="unknown"),
        pytest.param([b"for=1.1.1.1, for=_hidden"], "_hidden", id="obfuscated"),
        pytest.param([b"for=1.1.1.1, proto=https"], "", id="hop-that-tells-nobody"),
        pytest.param([b"for=1.1.1.1, ;"], "", id="hop-that-tells-nothing"),
        pytest.param([b"for=1.1.1.1,"], "", id="nothing-behind-a-comma"),
        pytest.param([b""], "", id="empty"),
        pytest.param([b"198.51.100.1"], "", id="no-pair"),
        pytest.param([b"for="], "", id="no-value"),
        pytest.param([b'for=";"; for"'], "", id="no-grammar"),
        pytest.param([b'for="_', b"for=198.51.100.1"], "", id="quote-that-swallows"),
        pytest.param([b'for="_', b'for="[2001:db8::7]"'], "", id="quote-that-meets-another"),
        pytest.param([b"for=198.51.100.1;" + b";" * 4_096], "", id="endless"),
    ],
)
def test_a_proxy_may_write_the_standards_header(forwarded, expected):
    head = make_head(*[(b"forwarded", value) for value in forwarded], client=("10.0.0.1", 1))

    assert TrustedProxies(["10.0.0.0/8"]).find_client(head) == expected


@pytest.mark.parametrize(
    ("x_forwarded_for", "forwarded", "expected"),
    [
        pytest.param(b"198.51.100.1", b"for=198.51.100.1", "198.51.100.1", id="agree"),
        pytest.param(
            b"1.1.1.1, 198.51.100.1",
            b"for=198.51.100.1;proto=http",
            "198.51.100.1",
            id="in-the-end",
        ),
        pytest.param(b"198.51.100.1", b"for=1.1.1.1", "", id="differ"),
        pytest.param(b"198.51.100.1", b"broken", "", id="one-is-broken"),
        pytest.param(b"", b"for=198.51.100.1", "", id="one-is-empty"),
    ],
)
def test_two_headers_of_proxies_must_agree(x_forwarded_for, forwarded, expected):
    head = make_head(
        (b"x-forwarded-for", x_forwarded_for), (b"forwarded", forwarded), client=("10.0.0.1", 1)
    )

    assert TrustedProxies(["10.0.0.0/8"]).find_client(head) == expected


def test_a_liars_standard_header_is_not_read():
    head = make_head((b"forwarded", b"for=198.51.100.1"), client=("203.0.113.9", 1))

    assert TrustedProxies(["10.0.0.0/8"]).find_client(head) == "203.0.113.9"


PROXIES = TrustedProxies(("10.0.0.0/8", "2001:db8::1"))
FORWARDED = (b"x-forwarded-proto", b"https")


@pytest.mark.parametrize(
    ("cookie_secure", "head", "expected"),
    [
        pytest.param("on", make_head(scheme="http"), True, id="on"),
        pytest.param("off", make_head(scheme="https"), False, id="off"),
        pytest.param("auto", make_head(scheme="https"), True, id="https"),
        pytest.param("auto", make_head(scheme="wss"), True, id="wss"),
        pytest.param("auto", make_head(scheme="http"), False, id="http"),
        pytest.param("auto", make_head(scheme="ws"), False, id="ws"),
        pytest.param("auto", make_head(scheme=None), False, id="server-does-not-say"),
        pytest.param(
            "auto",
            make_head(FORWARDED, scheme="http", client=("10.1.2.3", 1)),
            True,
            id="trusted-proxy",
        ),
        pytest.param(
            "auto",
            make_head(FORWARDED, scheme="http", client=("2001:db8::1", 1)),
            True,
            id="trusted-address",
        ),
        pytest.param(
            "auto", make_head(FORWARDED, scheme="http", client=("203.0.113.9", 1)), False, id="liar"
        ),
        pytest.param(
            "auto", make_head(FORWARDED, scheme="http", client=None), False, id="unknown-client"
        ),
        pytest.param(
            "auto", make_head(FORWARDED, scheme="http", client=("unix", 0)), False, id="no-address"
        ),
        pytest.param(
            "auto", make_head(scheme="http", client=("10.1.2.3", 1)), False, id="proxy-is-silent"
        ),
        pytest.param(
            "auto",
            make_head(
                (b"x-forwarded-proto", b"https, http"), scheme="http", client=("10.1.2.3", 1)
            ),
            False,
            id="the-nearest-proxy-counts",
        ),
        pytest.param(
            "auto",
            make_head(
                (b"x-forwarded-proto", b"https"),
                (b"x-forwarded-proto", b"http"),
                scheme="http",
                client=("10.1.2.3", 1),
            ),
            False,
            id="the-last-header-counts",
        ),
        pytest.param(
            "auto",
            make_head((b"x-forwarded-proto", b"http, WSS "), scheme="ws", client=("10.1.2.3", 1)),
            True,
            id="any-case-and-space",
        ),
    ],
)
def test_secure_is_what_the_browser_sees(cookie_secure, head, expected):
    assert SchemeReader(cookie_secure, PROXIES).is_secure(head) is expected


@pytest.mark.parametrize(
    ("client", "is_trusted"),
    [
        pytest.param("::ffff:10.0.0.1", True, id="our-proxy"),
        pytest.param("::ffff:192.0.2.1", False, id="somebody-else"),
    ],
)
def test_an_ipv4_proxy_is_known_where_the_server_listens_on_ipv6(client, is_trusted):
    assert TrustedProxies(["10.0.0.0/8"]).trust((client, 1)) is is_trusted
