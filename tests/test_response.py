import pytest

from mp_asgi.response import CookiePlan

ID, ACT = b"mp_id=1", b"mp_consent=1"
HTML = (b"content-type", b"text/html")


def make_plan(*, acts=(), others=(), is_personal=False):
    plan = CookiePlan()
    plan.acts.extend(acts)
    plan.others.extend(others)
    plan.is_personal = is_personal
    return plan


def cache(value):
    return (b"cache-control", value)


VENDORS = [
    b"CDN-Cache-Control",
    b"Cloudflare-CDN-Cache-Control",
    b"vercel-cdn-cache-control",
    b"surrogate-control",
    b"Edge-Control",
    b"X-Accel-Expires",
]
SHARED = [
    *[pytest.param(200, [(name, b"max-age=60")], id=name.decode()) for name in VENDORS],
    pytest.param(200, [cache(b"public")], id="public"),
    pytest.param(200, [cache(b"max-age=60, public")], id="public-in-a-list"),
    pytest.param(200, [cache(b"s-maxage=60")], id="s-maxage"),
    pytest.param(200, [cache(b"S-MaxAge = 60")], id="any-case"),
    pytest.param(200, [cache(b"immutable")], id="immutable"),
    pytest.param(200, [(b"Cache-Control", b"PUBLIC")], id="name-in-any-case"),
    pytest.param(200, [cache(b"no-cache"), cache(b"public")], id="second-header"),
    pytest.param(200, [(b"cdn-cache-control", b"max-age=60")], id="cdn-cache-control"),
    pytest.param(200, [(b"CDN-Cache-Control", b"")], id="cdn-in-any-case"),
    pytest.param(304, [], id="not-modified"),
    pytest.param(100, [], id="continue"),
    pytest.param(199, [], id="any-1xx"),
]
NOT_SHARED = [
    pytest.param(200, [], id="says-nothing"),
    pytest.param(200, [cache(b"max-age=60")], id="max-age"),
    pytest.param(200, [cache(b"private, max-age=60")], id="private"),
    pytest.param(200, [cache(b"no-cache")], id="no-cache"),
    pytest.param(200, [cache(b"publicity")], id="another-word"),
    pytest.param(200, [(b"x-cache-controls", b"1")], id="another-name"),
    pytest.param(500, [], id="error"),
    pytest.param(303, [], id="redirect"),
    pytest.param(None, [], id="websocket"),
]


@pytest.mark.parametrize(("status", "headers"), SHARED)
def test_a_minted_cookie_stays_off_what_a_cache_may_share(status, headers):
    assert make_plan(others=[ID]).write(status, headers) is None


@pytest.mark.parametrize(("status", "headers"), NOT_SHARED)
def test_a_minted_cookie_goes_out_elsewhere(status, headers):
    assert (b"set-cookie", ID) in make_plan(others=[ID]).write(status, headers)


@pytest.mark.parametrize(("status", "headers"), [*SHARED, *NOT_SHARED])
def test_an_act_always_goes_out(status, headers):
    written = make_plan(acts=[ACT], others=[ID]).write(status, headers)

    assert [value for name, value in written if name == b"set-cookie"] == [ACT, ID]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="says-nothing"),
        pytest.param([cache(b"public, max-age=60")], id="public"),
        pytest.param([(b"Cache-Control", b"public"), cache(b"s-maxage=1")], id="twice"),
    ],
)
def test_a_response_with_an_act_becomes_private(headers):
    written = make_plan(acts=[ACT]).write(200, [HTML, *headers])

    assert written == [
        HTML,
        cache(b"private, no-store"),
        (b"vary", b"Cookie"),
        (b"set-cookie", ACT),
    ]


@pytest.mark.parametrize(("status", "headers"), [*SHARED, NOT_SHARED[0]])
@pytest.mark.parametrize("others", [[], [ID]], ids=["no-cookie", "a-minted-one"])
def test_a_response_that_names_the_visitor_is_kept_by_no_cache(status, headers, others):
    written = make_plan(others=others, is_personal=True).write(status, headers)

    assert [item for item in written if item[0] != b"set-cookie"] == [
        cache(b"private, no-store"),
        (b"vary", b"Cookie"),
    ]
    assert [value for name, value in written if name == b"set-cookie"] == others


def test_a_websocket_that_names_the_visitor_needs_no_word_to_caches():
    assert make_plan(is_personal=True).write(None, [HTML]) == [HTML]


@pytest.mark.parametrize("name", VENDORS)
def test_no_other_word_to_caches_remains_beside_an_act(name):
    # RFC 9213 2.2: a cache that a targeted field addresses ignores Cache-Control.
    written = make_plan(acts=[ACT]).write(200, [HTML, (name, b"max-age=3600")])

    assert name not in [found for found, _ in written]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([], [b"private"], id="added"),
        pytest.param([cache(b"max-age=60")], [b"max-age=60", b"private"], id="added-to-others"),
        pytest.param([cache(b"no-cache")], [b"no-cache", b"private"], id="no-cache-is-not-enough"),
        pytest.param([cache(b"private")], [b"private"], id="private-is-kept"),
        pytest.param([cache(b"No-Store")], [b"No-Store"], id="no-store-is-kept"),
        pytest.param(
            [cache(b'private="set-cookie", max-age=60')],
            [b'private="set-cookie", max-age=60'],
            id="private-with-fields",
        ),
    ],
)
def test_a_response_with_a_minted_cookie_is_private(headers, expected):
    written = make_plan(others=[ID]).write(200, headers)

    assert [value for name, value in written if name.lower() == b"cache-control"] == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([], [b"Cookie"], id="added"),
        pytest.param([(b"vary", b"Accept")], [b"Accept", b"Cookie"], id="added-to-others"),
        pytest.param([(b"Vary", b"Accept, cookie")], [b"Accept, cookie"], id="already-there"),
        pytest.param(
            [(b"vary", b"Accept"), (b"VARY", b" COOKIE ")], [b"Accept", b" COOKIE "], id="any-case"
        ),
        pytest.param([(b"vary", b"*")], [b"*"], id="star-says-it-all"),
        pytest.param([(b"vary", b"Cookies")], [b"Cookies", b"Cookie"], id="another-word"),
    ],
)
def test_vary_is_merged(headers, expected):
    written = make_plan(others=[ID]).write(200, headers)

    assert [value for name, value in written if name.lower() == b"vary"] == expected


def test_an_accepted_websocket_gets_the_cookie_alone():
    written = make_plan(others=[ID], acts=[ACT]).write(None, [HTML])

    assert written == [HTML, (b"set-cookie", ACT), (b"set-cookie", ID)]


def test_the_apps_headers_are_copied_and_kept():
    headers = [HTML, (b"set-cookie", b"session=1"), (b"X-Odd", b"\xff")]
    before = list(headers)

    written = make_plan(others=[ID]).write(200, headers)

    assert headers == before
    assert written[:3] == before


def test_headers_may_be_any_iterable_of_pairs():
    written = make_plan(others=[ID]).write(200, iter([[b"content-type", b"text/html"]]))

    assert written[0] == HTML


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        pytest.param(make_plan(), False, id="empty"),
        pytest.param(make_plan(acts=[ACT]), True, id="act"),
        pytest.param(make_plan(others=[ID]), True, id="other"),
        pytest.param(make_plan(is_personal=True), True, id="personal"),
    ],
)
def test_a_plan_is_true_if_it_has_something_to_write(plan, expected):
    assert bool(plan) is expected
