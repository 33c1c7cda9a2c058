import pytest

from mp_asgi.readers.base import DENIED, NOTHING, UNREADABLE, Reading, Said
from mp_asgi.readers.cookiebot import Cookiebot
from tests.readers.rows import read_header, rows_of, state_of

FULL = (
    "{stamp:'Zm9vYmFy+w/7Zm9v==',necessary:true,preferences:false,statistics:true,"
    "marketing:false,method:'explicit',ver:1,utc:5000,region:'pl'}"
)


@pytest.mark.parametrize(("header", "expected"), rows_of("cookiebot"))
def test_real_cookies_are_read(header, expected):
    assert state_of(read_header(Cookiebot(), header)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(FULL, Reading(Said.GRANTED, 5.0), id="yes"),
        pytest.param(
            FULL.replace("'pl'", "'pl',iab2:'CQ',gacm:'1~'"), Reading(Said.GRANTED, 5.0), id="iab"
        ),
        pytest.param(
            FULL.replace("statistics:true", "statistics:false"), Reading(Said.DENIED, 5.0), id="no"
        ),
        pytest.param(
            FULL.replace("statistics:true", "statistics:false").replace("5000", "x"),
            DENIED,
            id="no-without-a-time",
        ),
        pytest.param(FULL.replace("5000", "x"), UNREADABLE, id="yes-without-a-time"),
        pytest.param(FULL.replace("5000", "9" * 15), UNREADABLE, id="yes-beyond-all-time"),
        pytest.param("0", DENIED, id="declined"),
        pytest.param(FULL.replace("explicit", "implied"), NOTHING, id="implied"),
        pytest.param(FULL.replace("Zm9vYmFy+w/7Zm9v==", "-1"), NOTHING, id="no-banner"),
        pytest.param(FULL.replace("Zm9vYmFy+w/7Zm9v==", "1"), UNREADABLE, id="damaged-stamp"),
        pytest.param(FULL.replace("explicit", "guessed"), UNREADABLE, id="method-unknown"),
        pytest.param(FULL.replace("ver:1", "ver:1,more:true"), UNREADABLE, id="key-unknown"),
        pytest.param(FULL + ";", UNREADABLE, id="something-behind"),
        # What Cookiebot's own script takes as consent to everything.
        pytest.param("true", UNREADABLE, id="true"),
        pytest.param("false", UNREADABLE, id="false"),
        pytest.param("{broken", UNREADABLE, id="broken"),
        pytest.param("14beea29-cba4-435a-ab57-dad7b64a74a9", UNREADABLE, id="guid"),
    ],
)
def test_what_is_not_wholly_understood_is_no_consent(text, expected):
    assert Cookiebot().read({"CookieConsent": text}) == expected


@pytest.mark.parametrize(
    ("category", "expected"), [("marketing", Said.DENIED), ("statistics", Said.GRANTED)]
)
def test_a_site_may_choose_its_category(category, expected):
    assert Cookiebot(category=category).read({"CookieConsent": FULL}).said is expected


def test_an_unknown_category_is_a_mistake():
    with pytest.raises(ValueError, match="Use statistics"):
        Cookiebot(category="analytics")
