import pytest

from mp_asgi.cookies import CookieStyle, Scanner

NAMES = ("__Host-mp_id", "mp_id", "mp_choice")


def make_style(**overrides):
    values = {
        "name": "mp_id",
        "domain": "",
        "path": "/",
        "samesite": "Lax",
        "is_http_only": True,
        **overrides,
    }
    return CookieStyle(**values)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param(b"", (), id="empty"),
        pytest.param(b"mp_id=a", (("mp_id", b"a"),), id="one"),
        pytest.param(b"x=1; mp_id=a; y=2", (("mp_id", b"a"),), id="between-others"),
        pytest.param(b"x=1;mp_id=a;y=2", (("mp_id", b"a"),), id="without-spaces"),
        pytest.param(
            b"mp_choice=denied; mp_id=a; __Host-mp_id=b",
            (("mp_choice", b"denied"), ("mp_id", b"a"), ("__Host-mp_id", b"b")),
            id="in-their-order",
        ),
        pytest.param(
            b"mp_id=a; mp_id=b; mp_id=a",
            (("mp_id", b"a"), ("mp_id", b"b"), ("mp_id", b"a")),
            id="every-copy",
        ),
        pytest.param(b"mp_id", (("mp_id", b""),), id="name-alone"),
        pytest.param(b"mp_id=a=b==", (("mp_id", b"a=b=="),), id="equals-signs"),
        pytest.param(b'mp_id="a"', (("mp_id", b'"a"'),), id="quotes-have-no-meaning"),
        pytest.param(b'x="1; mp_id=a; y=2"', (("mp_id", b"a"),), id="quotes-hide-nothing"),
        pytest.param(b"xmp_id=a; mp_id2=b; MP_ID=c", (), id="other-names"),
        pytest.param(b"=mp_id; ;;; =", (), id="noise"),
        pytest.param(b"mp_id=\xff\x00", (("mp_id", b"\xff\x00"),), id="any-bytes"),
    ],
)
def test_a_scan_finds_our_names_only(header, expected):
    found = Scanner(NAMES).scan(header)

    assert found == expected


PATTERNS = ("mp_id", "_iub_cs-*", "_iub_cs-other")


@pytest.mark.parametrize(
    ("names", "header", "expected"),
    [
        pytest.param(PATTERNS, b"_iub_cs-1=a", (("_iub_cs-1", b"a"),), id="at-the-start"),
        pytest.param(PATTERNS, b"x=1; _iub_cs-1=a", (("_iub_cs-1", b"a"),), id="behind-a-space"),
        pytest.param(PATTERNS, b"x=1;_iub_cs-1=a", (("_iub_cs-1", b"a"),), id="without-a-space"),
        pytest.param(PATTERNS, b"_iub_cs-=a", (("_iub_cs-", b"a"),), id="nothing-behind-it"),
        pytest.param(PATTERNS, b"x_iub_cs-1=a; _iub_cs1=b", (), id="another-beginning"),
        pytest.param(
            PATTERNS,
            b"_iub_cs-1=a; mp_id=b; _iub_cs-other=c; _iub_cs-1=d",
            (("_iub_cs-1", b"a"), ("mp_id", b"b"), ("_iub_cs-other", b"c"), ("_iub_cs-1", b"d")),
            id="in-their-order-and-every-copy",
        ),
        pytest.param(PATTERNS, b"_iub_cs-\xff=\xff", (("_iub_cs-\xff", b"\xff"),), id="any-bytes"),
        pytest.param(("*",), b"a=1; b; =c", (("a", b"1"), ("b", b""), ("", b"c")), id="all"),
    ],
)
def test_a_scan_finds_all_names_that_begin_as_asked(names, header, expected):
    assert Scanner(names).scan(header) == expected


def test_a_huge_header_of_quotes_is_one_linear_pass():
    header = b'x="' + b"\\" * 1_000_000 + b'; mp_id=a; y="' + b'"' * 1_000_000

    found = Scanner(NAMES).scan(header)

    assert found == (("mp_id", b"a"),)


@pytest.mark.parametrize(
    ("style", "is_secure", "expected"),
    [
        pytest.param({}, True, "__Host-mp_id", id="secure"),
        pytest.param({}, False, "mp_id", id="plain-http"),
        pytest.param({"domain": "example.com"}, True, "mp_id", id="with-a-domain"),
        pytest.param({"path": "/shop"}, True, "mp_id", id="with-a-path"),
    ],
)
def test_the_prefix_is_put_wherever_browsers_allow_it(style, is_secure, expected):
    assert make_style(**style).wire_name(is_secure=is_secure) == expected


@pytest.mark.parametrize(
    ("style", "is_secure", "expected"),
    [
        pytest.param(
            {},
            True,
            b"__Host-mp_id=v; Max-Age=60; Path=/; Secure; HttpOnly; SameSite=Lax",
            id="secure",
        ),
        pytest.param(
            {}, False, b"mp_id=v; Max-Age=60; Path=/; HttpOnly; SameSite=Lax", id="plain-http"
        ),
        pytest.param(
            {"is_http_only": False},
            False,
            b"mp_id=v; Max-Age=60; Path=/; SameSite=Lax",
            id="readable-by-scripts",
        ),
        pytest.param(
            {"domain": "example.com", "path": "/a", "samesite": "Strict"},
            True,
            b"mp_id=v; Max-Age=60; Path=/a; Domain=example.com; Secure; HttpOnly; SameSite=Strict",
            id="every-attribute",
        ),
        pytest.param(
            {"samesite": "None"},
            True,
            b"__Host-mp_id=v; Max-Age=60; Path=/; Secure; HttpOnly; SameSite=None",
            id="none-when-secure",
        ),
        pytest.param(
            {"samesite": "None"},
            False,
            b"mp_id=v; Max-Age=60; Path=/; HttpOnly",
            id="none-is-unsaid-without-secure",
        ),
    ],
)
def test_a_cookie_is_rendered_with_the_deployments_attributes(style, is_secure, expected):
    assert make_style(**style).render(b"v", 60, is_secure=is_secure) == expected


@pytest.mark.parametrize(
    ("wire_name", "is_secure", "expected"),
    [
        pytest.param(
            "mp_id", False, b"mp_id=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax", id="plain"
        ),
        pytest.param(
            "mp_id",
            True,
            b"mp_id=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax",
            id="plain-name-on-https",
        ),
        pytest.param(
            "__Host-mp_id",
            False,
            b"__Host-mp_id=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax",
            id="browsers-take-the-prefix-only-with-secure",
        ),
    ],
)
def test_a_deletion_names_exactly_what_arrived(wire_name, is_secure, expected):
    assert make_style().render_deletion(wire_name, is_secure=is_secure) == expected


@pytest.mark.parametrize(
    "style",
    [
        pytest.param({"domain": "example.com"}, id="domain"),
        pytest.param({"path": "/shop"}, id="path"),
    ],
)
def test_the_deletion_of_a_prefixed_cookie_is_one_that_browsers_accept(style):
    # rfc6265bis 4.1.3.2: __Host- needs Secure, Path=/ and no Domain, a deletion too.
    deletion = make_style(**style).render_deletion("__Host-mp_id", is_secure=True)

    assert deletion == b"__Host-mp_id=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax"
