import base64
import gc
import json
import sys
import time
from pathlib import Path

import pytest

from mp_asgi.context import ContextReader
from mp_asgi.context.campaign import CAMPAIGN_NAMES
from mp_asgi.context.reader import MAX_FIRST_TOUCH_BYTES
from mp_asgi.head import TrustedProxies
from tests.context.visits import make_context
from tests.support import make_settings

ATTACKS = Path(__file__).parents[1] / "fixtures" / "attacks.jsonl"
HOST = (b"host", b"shop.example")
PAGE = [HOST, (b"sec-fetch-mode", b"navigate"), (b"sec-fetch-dest", b"document")]
FETCH = [HOST, (b"sec-fetch-mode", b"cors")]
SEARCH = (b"referer", b"https://www.google.com/")
OWN_PAGE = (b"referer", b"https://shop.example/sale?utm_source=news&gclid=1&secret=1")
CHROME = (
    b"user-agent",
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0",
)
ROBOT = (b"user-agent", b"Googlebot/2.1")


def make_reader(*, proxies=(), **settings):
    return ContextReader(make_settings(**settings), TrustedProxies(proxies))


def read(*headers, is_cookieless=False, reader=None, **request):
    """Answer the properties of an event; those of the user agent are another room's."""
    context = make_context(*headers, **request)
    return (reader or make_reader()).event_properties(context, is_cookieless=is_cookieless)


def touch(*headers, **request):
    return make_reader().first_touch(make_context(*headers, **request))


def attacks(name):
    rows = [json.loads(line) for line in ATTACKS.read_bytes().splitlines()]
    found = [row for row in rows if row["where"] == "header" and row["name"] == name]
    assert found
    return [
        pytest.param(base64.b64decode(row["b64"]), id=f"{row['id']} {row['why']}") for row in found
    ]


# --- the properties of events -----------------------------------------------------------------


def test_a_page_that_was_opened_tells_itself_and_what_led_there():
    properties = read(*PAGE, SEARCH, CHROME, path="/sale", query="utm_source=news&gclid=1")

    assert properties == {
        "$current_url": "https://shop.example/sale?utm_source=news",
        "$referrer": "https://www.google.com/",
        "$referring_domain": "www.google.com",
        "$search_engine": "google",
        "utm_source": "news",
        "gclid": "1",
        "$browser": "Chrome",
        "$browser_version": 140,
        "$os": "Windows",
    }


def test_nothing_is_told_when_context_is_switched_off():
    assert read(*PAGE, SEARCH, CHROME, reader=make_reader(context=False)) == {}


def test_a_request_that_says_nothing_tells_nothing():
    assert read() == {}


def test_without_a_host_the_campaign_is_still_known():
    assert read(query="utm_source=news") == {"utm_source": "news"}


@pytest.mark.parametrize(
    ("request_line", "headers"),
    [
        pytest.param({"path": "/api/cart"}, [*FETCH, OWN_PAGE], id="a-script-asks"),
        pytest.param({"path": "/signup", "method": "POST"}, [*PAGE, OWN_PAGE], id="a-form-posts"),
    ],
)
def test_what_a_page_does_happens_on_that_page(request_line, headers):
    assert read(*headers, query="utm_source=other", **request_line) == {
        "$current_url": "https://shop.example/sale?utm_source=news",
        "utm_source": "news",
        "gclid": "1",
    }


@pytest.mark.parametrize(
    ("headers", "referrer"),
    [
        pytest.param(PAGE, {}, id="opened"),
        pytest.param(FETCH, {}, id="asked-by-a-script-that-does-not-say-where"),
        pytest.param(
            [*PAGE, OWN_PAGE],
            {
                "$referrer": "https://shop.example/sale",
                "$referring_domain": "shop.example",
            },
            id="opened-from-another-page-of-ours",
        ),
        pytest.param(
            [*FETCH, (b"referer", b"https://www.shop.example:81/sale?id=7")],
            {
                "$referrer": "https://www.shop.example:81/sale",
                "$referring_domain": "www.shop.example:81",
            },
            id="asked-by-a-page-of-another-host",
        ),
    ],
)
def test_any_other_request_tells_itself(headers, referrer):
    properties = read(*headers, path="/here")

    assert properties == {"$current_url": "https://shop.example/here", **referrer}


def test_a_page_of_ours_is_known_behind_a_proxy_that_does_not_say_https():
    properties = read(*FETCH, OWN_PAGE, is_secure=False)

    assert properties["$current_url"] == "https://shop.example/sale?utm_source=news"


def test_a_referer_without_a_host_header_is_not_taken_for_a_page_of_ours():
    assert read(OWN_PAGE)["$referrer"] == "https://shop.example/sale"


def test_a_referrers_query_never_leaves_but_for_the_keyword():
    properties = read(*PAGE, (b"referer", b"https://www.bing.com/search?q=shoes&secret=1"))

    assert properties == {
        "$current_url": "https://shop.example/",
        "$referrer": "https://www.bing.com/search",
        "$referring_domain": "www.bing.com",
        "$search_engine": "bing",
        "mp_keyword": "shoes",
    }


def test_a_site_says_which_parameters_its_urls_keep():
    reader = make_reader(url_parameters=("page",))

    properties = read(*PAGE, query="utm_source=news&page=2&secret=1", reader=reader)

    assert properties["$current_url"] == "https://shop.example/?page=2"
    assert properties["utm_source"] == "news"


def test_values_are_cut_to_mixpanels_limit():
    long = b"a" * 300
    referer = (b"referer", b"https://b.example/" + long)

    properties = read(*PAGE, referer, path="/" + "a" * 300)

    assert len(properties["$current_url"]) == len(properties["$referrer"]) == 255


def test_a_host_is_cut_to_mixpanels_limit():
    properties = read(*PAGE, (b"referer", b"https://" + b"a" * 253 + b":8443/"))

    assert properties["$referring_domain"] == "a" * 253 + ":8"


def test_without_cookies_nothing_that_tells_visitors_apart_is_told():
    referer = (b"referer", b"https://www.bing.com/search?q=shoes")

    properties = read(*PAGE, referer, query="utm_source=news&gclid=1", is_cookieless=True)

    assert properties == {
        "$current_url": "https://shop.example/",
        "$referrer": "https://www.bing.com/search",
        "$referring_domain": "www.bing.com",
        "$search_engine": "bing",
    }


def test_without_cookies_there_may_be_no_referrer():
    properties = read(*PAGE, is_cookieless=True)

    assert properties == {"$current_url": "https://shop.example/"}


@pytest.mark.parametrize(
    ("is_cookieless", "expected"),
    [
        pytest.param(False, {"$user_agent": "\u202eMozilla"}, id="cookie"),
        pytest.param(True, {}, id="cookieless"),
    ],
)
def test_a_raw_user_agent_is_told_of_visitors_with_a_cookie_only(
    is_cookieless, expected, monkeypatch
):
    monkeypatch.setitem(sys.modules, "ua_parser", None)
    agent = (b"user-agent", "\u202eMozilla".encode())

    assert read(agent, is_cookieless=is_cookieless) == expected


# --- page views -------------------------------------------------------------------------------


@pytest.mark.parametrize("has_context", [True, False])
def test_a_page_view_tells_its_page(has_context):
    context = make_context(
        *PAGE[1:], (b"host", b"shop.example:81"), path="/a%20b", query="secret=1&utm_source=news"
    )

    assert make_reader(context=has_context).page_properties(context) == {
        "current_domain": "shop.example",
        "current_url_path": "/a%20b",
        "current_url_protocol": "https:",
        "current_url_search": "?utm_source=news",
    }


def test_a_page_view_leaves_out_what_is_not_known():
    properties = make_reader().page_properties(make_context(query="secret=1", is_secure=False))

    assert properties == {"current_url_path": "/", "current_url_protocol": "http:"}


def test_a_page_view_without_cookies_has_no_query():
    context = make_context(*PAGE, query="utm_source=news")

    properties = make_reader().page_properties(context, is_cookieless=True)

    assert "current_url_search" not in properties


def test_a_page_views_values_are_cut_to_mixpanels_limit():
    properties = make_reader().page_properties(make_context(*PAGE, path="/" + "a" * 300))

    assert len(properties["current_url_path"]) == 255


# --- the first touch --------------------------------------------------------------------------

DIRECT = {"$initial_referrer": "$direct", "$initial_referring_domain": "$direct"}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param(PAGE, DIRECT, id="typed"),
        pytest.param([*PAGE, (b"referer", b"")], DIRECT, id="empty-referer"),
        pytest.param(
            [*PAGE, (b"referer", b"https://www.google.com/search?q=shoes#x")],
            {
                "$initial_referrer": "https://www.google.com/search",
                "$initial_referring_domain": "www.google.com",
            },
            id="found",
        ),
        pytest.param([*PAGE, (b"referer", b"android-app://com.example/")], {}, id="from-an-app"),
        pytest.param(FETCH, {}, id="asked-by-who-knows"),
        pytest.param(
            [*FETCH, (b"referer", b"https://shop.example/")], {}, id="asked-by-a-page-of-ours"
        ),
    ],
)
def test_a_first_touch_tells_what_led_to_the_site(headers, expected):
    assert touch(*headers) == expected


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        pytest.param(PAGE, "utm_source=news&gclid=1", id="opened"),
        pytest.param([*FETCH, OWN_PAGE], "", id="on-the-page-that-asks"),
    ],
)
def test_a_first_campaign_is_told_whole(headers, query):
    campaign = {
        name: value for name, value in touch(*headers, query=query).items() if "$" not in name
    }

    assert list(campaign) == [f"initial_{name}" for name in CAMPAIGN_NAMES]
    assert {name: value for name, value in campaign.items() if value} == {
        "initial_utm_source": "news"
    }


def measure(properties):
    return len(json.dumps(properties, separators=(",", ":")))


def test_a_first_touch_just_within_its_limit_is_told_whole():
    query = f"utm_term={'a' * 255}&utm_content={'b' * 255}"
    room = MAX_FIRST_TOUCH_BYTES - measure(touch(*PAGE, query=query + "&utm_id=c"))

    whole = touch(*PAGE, query=query + "&utm_id=" + "c" * (room + 1))
    cut = touch(*PAGE, query=query + "&utm_id=" + "c" * (room + 2))

    assert measure(whole) == MAX_FIRST_TOUCH_BYTES
    # Of the two longest the first; the name of the one that grew is still there.
    assert (whole["initial_utm_content"], cut["initial_utm_content"]) == ("b" * 255, None)
    assert cut["initial_utm_id"] == "c" * (room + 2)


def test_a_first_touch_gives_up_its_longest_values():
    query = "&".join(f"{name}={'%F0%9F%98%80' * 60}" for name in CAMPAIGN_NAMES)
    referer = (b"referer", b"https://b.example/" + b"a" * 300)

    found = touch(*PAGE, referer, query=query + "&utm_id=short")

    assert measure(found) <= MAX_FIRST_TOUCH_BYTES
    assert found["$initial_referring_domain"] == "b.example"
    assert len(found["$initial_referrer"]) == 255


def test_a_first_touch_gives_up_a_long_referrer_whole():
    host = b"a" * 200 + b".example"
    query = "&".join(f"{name}={'a' * 40}" for name in CAMPAIGN_NAMES)

    found = touch(*PAGE, (b"referer", b"https://" + host + b"/" + b"b" * 99), query=query)

    assert "$initial_referrer" not in found
    assert found["$initial_referring_domain"] == host.decode()
    assert found["initial_utm_source"] == "a" * 40


# --- addresses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        pytest.param("off", "", id="off"),
        pytest.param("coarse", "203.0.113.0", id="coarse"),
        pytest.param("full", "203.0.113.9", id="full"),
    ],
)
def test_an_address_leaves_as_the_site_wants_it(policy, expected):
    assert make_reader(ip=policy).address(make_context()) == expected


def test_an_address_is_the_visitors_not_the_proxys():
    reader = make_reader(ip="full", proxies=["10.0.0.0/8"])
    context = make_context((b"x-forwarded-for", b"198.51.100.7"), address="10.0.0.1")

    assert reader.address(context) == "198.51.100.7"


# --- bots -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "agent", "expected"),
    [
        pytest.param({}, ROBOT, True, id="bot"),
        pytest.param({}, CHROME, False, id="person"),
        pytest.param({"exclude_bots": False}, ROBOT, False, id="bots-are-welcome"),
    ],
)
def test_bots_are_told_where_they_are_left_out(settings, agent, expected):
    assert make_reader(**settings).is_bot(make_context(agent)) is expected


def test_who_names_no_agent_is_no_bot():
    assert not make_reader().is_bot(make_context())


# --- hostile requests -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reader():
    """Answer one whose parsers are loaded: that is paid once a process, in the worker."""
    reader = make_reader(ip="full", proxies=["203.0.113.9"])
    reader.event_properties(make_context(CHROME), is_cookieless=False)
    reader.is_bot(make_context(CHROME))
    return reader


def read_all(reader, context):
    """Answer all that a request can make us say, and the CPU milliseconds that it took."""
    gc.disable()  # the rest of the test run is no cost of ours
    started = time.thread_time()
    said = [
        reader.event_properties(context, is_cookieless=False),
        reader.page_properties(context),
        reader.first_touch(context),
        {"ip": reader.address(context), "is_bot": reader.is_bot(context)},
    ]
    milliseconds = (time.thread_time() - started) * 1_000
    gc.enable()
    return said, milliseconds


def check_values(said):
    for properties in said:
        for value in properties.values():
            if isinstance(value, str):
                assert len(value.encode()) <= 255


@pytest.mark.parametrize("value", attacks("referer"))
def test_a_hostile_referer_is_cut_to_its_page_or_dropped(reader, value):
    said, milliseconds = read_all(reader, make_context(*PAGE, CHROME, (b"referer", value)))

    assert milliseconds < 5
    check_values(said)
    assert said[0].get("$referrer") in {None, "http://evil.example/", "https://x.example/"}


@pytest.mark.parametrize("value", attacks("user-agent"))
def test_a_hostile_user_agent_breaks_nothing(reader, value):
    said, milliseconds = read_all(reader, make_context(*PAGE, (b"user-agent", value)))

    assert milliseconds < 5
    check_values(said)


@pytest.mark.parametrize("name", [b"forwarded", b"x-forwarded-for"])
@pytest.mark.parametrize("value", attacks("forwarded"))
def test_a_hostile_address_breaks_nothing(reader, name, value):
    said, milliseconds = read_all(reader, make_context(*PAGE, (name, value)))

    assert milliseconds < 5
    check_values(said)


@pytest.mark.parametrize(
    "filler",
    ["&", "?", "utm_source=", "?utm_source=", "%", "%41", "\xff", "a.-", "@", '"', "for=,"],
)
def test_endless_input_costs_little(reader, filler):
    long = (filler * 65_536)[:65_536]
    raw = long.encode("latin-1")
    names = (b"referer", b"user-agent", b"host", b"forwarded", b"x-forwarded-for")
    context = make_context(*[(name, raw) for name in names], path="/" + long, query=long)

    said, milliseconds = read_all(reader, context)

    assert milliseconds < 25
    check_values(said)
