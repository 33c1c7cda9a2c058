import json

import pytest

from mp_asgi.readers import (
    READERS,
    AppReader,
    CookieEquals,
    make_reader,
    make_readers,
    parse_readers,
    with_token,
)
from mp_asgi.readers.cookiebot import Cookiebot
from mp_asgi.readers.iubenda import Iubenda
from mp_asgi.readers.klaro import Klaro
from mp_asgi.readers.mixpanel_browser import MixpanelBrowser
from mp_asgi.readers.onetrust import OneTrust
from mp_asgi.readers.posthog import PostHog
from mp_asgi.readers.react_cookie_consent import ReactCookieConsent
from mp_asgi.readers.tcf import Tcf
from tests.readers.rows import MEASURED

# Rows whose cookies another reader reads, and one that no server can read.
ELSEWHERE = {"vanilla-cookieconsent-v2", "onetrust-gpp", "osano"}


OWN = CookieEquals("own", granted={"1"}, denied={"0"})


def ask(cookies):
    return None


class Odd:
    """A reader that was not written with care."""

    def __init__(self, name, cookies):
        self.name = name
        self.cookies = cookies

    def read(self, cookies):
        raise AssertionError


def test_every_manager_of_the_fixtures_has_a_reader():
    managers = {json.loads(line)["cmp"] for line in MEASURED.read_text().splitlines()}

    assert managers - ELSEWHERE <= set(READERS)


@pytest.mark.parametrize("name", READERS)
def test_every_reader_is_made_by_its_name(name):
    assert make_reader(name).name == name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", (), id="none"),
        pytest.param("onetrust, klaro,", (OneTrust(), Klaro()), id="names"),
        pytest.param("klaro?cookie=a&service=b", (Klaro(cookie="a", service="b"),), id="options"),
        pytest.param("klaro?service=a%2Cb%20c", (Klaro(service="a,b c"),), id="escapes"),
        pytest.param("klaro?service=", (Klaro(service=""),), id="empty-value"),
        pytest.param(
            "onetrust?groups=A&groups=B", (OneTrust(groups=("A", "B")),), id="several-values"
        ),
        pytest.param("iab-tcf?purposes=1&vendor_id=5", (Tcf(purposes=(1,), vendor_id=5),), id="n"),
        pytest.param(f"{__name__}:OWN", (OWN,), id="dotted-reader"),
        pytest.param(f"{__name__}:ask", (AppReader(ask),), id="dotted-callable"),
    ],
)
def test_a_list_is_read(text, expected):
    assert parse_readers(text) == expected


@pytest.mark.parametrize("value", ["true", "false"])
def test_a_switch_is_read(value):
    [reader] = parse_readers(f"iab-gpp?targeted={value}")

    assert reader.targeted is (value == "true")


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        pytest.param("onetrus", "Did you mean 'onetrust'", id="near"),
        pytest.param("§", "There are: axeptio, ", id="far"),
        pytest.param("klaro?cooky=a", "Did you mean 'cookie'", id="option-near"),
        pytest.param("klaro?x=a", "There are: cookie, service", id="option-far"),
        pytest.param("hubspot?name=a", "There are: category", id="not-an-option"),
        pytest.param("usprivacy?x=a", "There are none", id="no-options"),
        pytest.param("iab-gpp?tcf=a", "no option 'tcf'", id="not-by-text"),
        pytest.param("klaro?cookie", "klaro", id="no-value"),
        pytest.param("klaro?cookie=a&cookie=b", "Keep one value", id="one-value-only"),
        pytest.param("iab-gpp?targeted=1", "Use true or false", id="no-switch"),
        pytest.param("iab-tcf?vendor_id=x", "Use a whole number", id="no-number"),
        pytest.param("cookiebot?category=x", "Use statistics", id="refused-by-the-reader"),
        pytest.param("klaro?cookie=a%3Bb", "a tuple of cookie names", id="no-cookie-name"),
        pytest.param("klaro?cookie=", "a tuple of cookie names", id="empty-cookie-name"),
        pytest.param("no.such:thing", "Use package.module:attribute", id="no-module"),
        pytest.param("json:thing", "Use package.module:attribute", id="no-attribute"),
        pytest.param(":thing", "Use package.module:attribute", id="no-module-at-all"),
        pytest.param("json:loads?a=b", "cannot have options", id="dotted-with-options"),
        pytest.param("klaro,klaro?cookie=a", "Two readers have the name 'klaro'", id="twice"),
        pytest.param("cookiebot,react-cookie-consent", "the same cookie", id="one-cookie"),
    ],
)
def test_a_mistake_is_told_with_its_remedy(text, remedy):
    with pytest.raises(ValueError, match=remedy):
        parse_readers(text)


def test_a_renamed_cookie_can_stand_beside_cookiebots():
    readers = parse_readers("cookiebot,react-cookie-consent?cookie=mine")

    assert readers == (Cookiebot(), ReactCookieConsent(cookie="mine"))


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        pytest.param(" iubenda?site=5 ", Iubenda(site="5"), id="text"),
        pytest.param(OWN, OWN, id="reader"),
        pytest.param(ask, AppReader(ask), id="callable"),
    ],
)
def test_code_gives_texts_readers_and_callables(item, expected):
    assert make_reader(item) == expected


@pytest.mark.parametrize(
    ("item", "remedy"),
    [
        pytest.param(5, "is no reader", id="number"),
        pytest.param(Klaro, r"Klaro\(\.\.\.\)", id="class"),
        pytest.param(Odd("my_name", ("a",)), "letters, digits", id="name"),
        pytest.param(Odd(None, ("a",)), "letters, digits", id="no-name"),
        pytest.param(Odd("odd", "abc"), "a tuple", id="cookies-as-text"),
        pytest.param(Odd("odd", ()), "a tuple", id="no-cookies"),
        pytest.param(Odd("odd", (5,)), "a tuple", id="no-text"),
    ],
)
def test_what_is_no_reader_is_refused(item, remedy):
    with pytest.raises(ValueError, match=remedy):
        make_reader(item)


def test_names_are_compared_in_code_too():
    with pytest.raises(ValueError, match="Two readers"):
        make_readers([Klaro(), "klaro"])


def test_the_project_token_is_filled_in_where_it_is_missing():
    given = (MixpanelBrowser(), MixpanelBrowser(token="own"), PostHog(), Klaro())

    assert with_token(given, "t0ken") == (
        MixpanelBrowser(token="t0ken"),
        MixpanelBrowser(token="own"),
        PostHog(),
        Klaro(),
    )
