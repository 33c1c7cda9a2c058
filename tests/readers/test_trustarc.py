import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.readers.base import DENIED, GRANTED, NOTHING, UNREADABLE
from mp_asgi.readers.trustarc import TrustArc
from tests.readers.rows import read_header, rows_of, state_of


@pytest.mark.parametrize(("header", "expected"), rows_of("trustarc"))
def test_a_real_header_is_read(header, expected):
    assert state_of(read_header(TrustArc(), header)) == expected


@pytest.mark.parametrize(
    ("cookies", "expected"),
    [
        pytest.param({"notice_gdpr_prefs": "0,1:"}, GRANTED, id="level-listed"),
        pytest.param({"notice_gdpr_prefs": "0,2:"}, DENIED, id="level-not-listed"),
        pytest.param({"notice_gdpr_prefs": "0,11:"}, DENIED, id="another-that-begins-so"),
        pytest.param({"notice_gdpr_prefs": "0%2C1%2C2%3A"}, GRANTED, id="escaped"),
        pytest.param({"notice_gdpr_prefs": "0,1"}, UNREADABLE, id="cut"),
        pytest.param({"notice_gdpr_prefs": ""}, UNREADABLE, id="empty"),
        pytest.param({"notice_gdpr_prefs": "0,1,:"}, UNREADABLE, id="level-missing"),
        pytest.param({"cmapi_cookie_privacy": "permit 1,2"}, GRANTED, id="permitted"),
        pytest.param({"cmapi_cookie_privacy": "permit_1,2,3"}, GRANTED, id="underscored"),
        pytest.param({"cmapi_cookie_privacy": "permit 1,3"}, DENIED, id="not-permitted"),
        pytest.param({"cmapi_cookie_privacy": "permit 1 required"}, DENIED, id="required-only"),
        pytest.param({"cmapi_cookie_privacy": "permit"}, UNREADABLE, id="permit-cut"),
        pytest.param({"notice_preferences": "0:"}, DENIED, id="highest-below"),
        pytest.param({"notice_preferences": "2:"}, NOTHING, id="highest-above"),
        pytest.param({"notice_preferences": "x"}, UNREADABLE, id="highest-is-no-number"),
        pytest.param(
            {"notice_gdpr_prefs": "0,1:", "cmapi_cookie_privacy": "permit 1"},
            DENIED,
            id="one-of-two-denies",
        ),
        pytest.param({"notice_behavior": "expressed,eu"}, NOTHING, id="behavior-alone"),
        pytest.param({"notice_gdpr_prefs": "0,1::implied,us"}, NOTHING, id="implied-in-the-list"),
        pytest.param(
            {"notice_gdpr_prefs": "0,1:", "notice_behavior": "implied|us"}, NOTHING, id="implied"
        ),
        pytest.param(
            {"notice_gdpr_prefs": "0:", "notice_behavior": "implied,us"},
            DENIED,
            id="denied-where-consent-is-implied",
        ),
        pytest.param(
            {"notice_gdpr_prefs": "0,1:", "notice_behavior": "expressed,eu"},
            GRANTED,
            id="expressed",
        ),
    ],
)
def test_a_level_is_read(cookies, expected):
    assert TrustArc().read(cookies) is expected


def test_another_level_can_be_named():
    cookies = {"notice_gdpr_prefs": "0,1:", "cmapi_cookie_privacy": "permit 1,2"}

    assert TrustArc(level=2).read(cookies) is DENIED


@given(st.text(), st.text(), st.text())
def test_no_text_raises(levels, highest, permit):
    TrustArc().read(
        {
            "notice_gdpr_prefs": levels,
            "notice_preferences": highest,
            "cmapi_cookie_privacy": permit,
        }
    )
