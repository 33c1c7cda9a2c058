import pytest

from mp_asgi.readers.base import DENIED, GRANTED, STALE, UNREADABLE, Reading, Said
from mp_asgi.readers.vanilla_cookieconsent import VanillaCookieConsent
from tests.readers.rows import read_header, rows_of, state_of

OURS = '{"categories":["analytics"]'


@pytest.mark.parametrize(("header", "expected"), rows_of("vanilla-cookieconsent"))
def test_real_cookies_of_version_3_are_read(header, expected):
    assert state_of(read_header(VanillaCookieConsent(), header)) == expected


@pytest.mark.parametrize(("header", "expected"), rows_of("vanilla-cookieconsent-v2"))
def test_real_cookies_of_version_2_are_read(header, expected):
    assert state_of(read_header(VanillaCookieConsent(), header)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(OURS + "}", GRANTED, id="yes"),
        pytest.param('{"categories":["necessary"]}', DENIED, id="no"),
        pytest.param(OURS + ',"services":{"analytics":[]}}', GRANTED, id="no-services-listed"),
        pytest.param(OURS + ',"services":{"analytics":["ga"]}}', DENIED, id="only-others"),
        pytest.param(OURS + ',"services":["mixpanel"]}', UNREADABLE, id="services-no-object"),
        pytest.param(OURS + ',"services":{"analytics":"mixpanel"}}', UNREADABLE, id="no-list"),
        pytest.param('{"categories":"analytics"}', UNREADABLE, id="categories-no-list"),
        pytest.param("{}", UNREADABLE, id="empty"),
        pytest.param("x", UNREADABLE, id="no-json"),
        pytest.param(OURS + ',"revision":true}', UNREADABLE, id="revision-no-number"),
        pytest.param(OURS + ',"consentTimestamp":"x"}', UNREADABLE, id="yes-time-unreadable"),
        pytest.param('{"categories":[],"consent_date":"x"}', DENIED, id="no-time-unreadable"),
        pytest.param(
            OURS + ',"consentTimestamp":"1970-01-01T00:00:05Z"'
            ',"lastConsentTimestamp":"1970-01-01T00:00:06Z"}',
            Reading(Said.GRANTED, 6.0),
            id="the-last-time-of-version-3",
        ),
        pytest.param(
            OURS + ',"consent_date":"1970-01-01T00:00:05Z"'
            ',"last_consent_update":"1970-01-01T00:00:06Z"}',
            Reading(Said.GRANTED, 6.0),
            id="the-last-time-of-version-2",
        ),
    ],
)
def test_category_and_service_decide(text, expected):
    assert VanillaCookieConsent().read({"cc_cookie": text}) == expected


@pytest.mark.parametrize(
    ("told", "expected"), [("", STALE), (',"revision":1', STALE), (',"revision":2', GRANTED)]
)
def test_a_choice_under_an_older_notice_is_stale(told, expected):
    assert VanillaCookieConsent(revision=2).read({"cc_cookie": OURS + told + "}"}) == expected


def test_a_site_whose_lists_do_not_have_us_names_no_service():
    text = '{"categories":["stats"],"services":{"stats":["ga"]}}'

    assert VanillaCookieConsent(category="stats", service="").read({"cc_cookie": text}) == GRANTED


def test_a_value_of_version_2_is_not_decoded_twice():
    text = OURS + ',"data":"%22"}'

    assert VanillaCookieConsent(cookie="mine").read({"mine": text}) == GRANTED
