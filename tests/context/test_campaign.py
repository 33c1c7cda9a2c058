"""What is expected was computed by mixpanel-browser 2.83.0's own functions in Node."""

import pytest

from mp_asgi.context.campaign import (
    CAMPAIGN_NAMES,
    CLICK_NAMES,
    read_campaign,
    read_clicks,
    read_search,
)
from mp_asgi.context.url import Url


def make_url(query="", host="www.example.com", path="/"):
    return Url("https", host, path, query)


@pytest.mark.parametrize("name", CAMPAIGN_NAMES)
def test_every_name_of_a_campaign_is_read(name):
    assert read_campaign(make_url(f"x=1&{name}=v&y=2")) == {name: "v"}


@pytest.mark.parametrize("name", CLICK_NAMES)
def test_every_click_id_is_read(name):
    assert read_clicks(make_url(f"x=1&{name}=v&y=2")) == {name: "v"}


def test_campaigns_and_clicks_are_told_apart():
    url = make_url("gclid=1&utm_source=a&utm_medium=b")

    assert read_campaign(url) == {"utm_source": "a", "utm_medium": "b"}
    assert read_clicks(url) == {"gclid": "1"}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param("utm_source=a&utm_source=b", {"utm_source": "a"}, id="the-first-counts"),
        pytest.param("utm_source=&utm_source=b", {}, id="also-if-it-is-empty"),
        pytest.param("utm_source", {}, id="no-value"),
        pytest.param("xutm_source=a&UTM_SOURCE=b&utm_source[]=c", {}, id="other-names"),
        pytest.param("utm%5Fsource=a", {}, id="encoded-name"),
        pytest.param("next=/b?utm_source=a", {"utm_source": "a"}, id="second-question-mark"),
        pytest.param(
            "utm_source=a?utm_medium=b",
            {"utm_source": "a?utm_medium=b", "utm_medium": "b"},
            id="question-mark-in-a-value",
        ),
        pytest.param("utm_source=a=b", {"utm_source": "a=b"}, id="equals-in-a-value"),
        pytest.param("utm_source=a%20b+c", {"utm_source": "a b c"}, id="spaces"),
        pytest.param("utm_source=a%2Bb", {"utm_source": "a b"}, id="encoded-plus"),
        pytest.param("utm_source=%E2%82%AC", {"utm_source": "€"}, id="utf-8"),
        pytest.param("utm_source=%20a%2", {"utm_source": "%20a%2"}, id="broken-escape"),
        pytest.param("utm_source=%20%E9+a", {"utm_source": "%20%E9 a"}, id="latin-1"),
        pytest.param("utm_source=%ED%A0%80", {"utm_source": "%ED%A0%80"}, id="surrogate"),
    ],
)
def test_a_query_is_read_as_mixpanel_browser_reads_it(query, expected):
    assert read_campaign(make_url(query)) == expected


def test_values_are_cut_to_mixpanels_limit():
    assert read_campaign(make_url("utm_source=" + "%E2%82%AC" * 99)) == {"utm_source": "€" * 85}


@pytest.mark.parametrize(
    ("host", "path", "query", "expected"),
    [
        pytest.param("www.google.com", "/", "", {"$search_engine": "google"}, id="google"),
        pytest.param("www.google.co.uk", "/", "", {"$search_engine": "google"}, id="country"),
        pytest.param("www.bing.com", "/", "", {"$search_engine": "bing"}, id="bing"),
        pytest.param("search.yahoo.com", "/", "", {"$search_engine": "yahoo"}, id="yahoo"),
        pytest.param("duckduckgo.com", "/", "", {"$search_engine": "duckduckgo"}, id="duckduckgo"),
        pytest.param("example.com", "/google.com", "", {"$search_engine": "google"}, id="in-path"),
        pytest.param("example.com", "/", "q=word", {}, id="another-site"),
        pytest.param(
            "www.bing.com",
            "/search",
            "p=no&q=two+words",
            {"$search_engine": "bing", "mp_keyword": "two words"},
            id="keyword",
        ),
        pytest.param(
            "search.yahoo.com",
            "/",
            "q=no&p=word",
            {"$search_engine": "yahoo", "mp_keyword": "word"},
            id="keyword-of-yahoo",
        ),
    ],
)
def test_a_search_is_told_by_its_referrer(host, path, query, expected):
    assert read_search(make_url(query, host, path)) == expected


@pytest.mark.parametrize("value", ["%E2%80%AE", "%00", "a%0Db", "%1B%5B2J"])
def test_what_cannot_be_printed_is_no_campaign(value):
    url = Url("https", "shop.example", "/", f"utm_source={value}&fbclid={value}&utm_term=ok")

    assert {**read_campaign(url), **read_clicks(url)} == {"utm_term": "ok"}
