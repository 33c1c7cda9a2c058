import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.readers.base import DENIED, GRANTED, NOTHING, UNREADABLE
from mp_asgi.readers.hubspot import HubSpot
from tests.readers.rows import read_header, rows_of, state_of

CATEGORIES = "__hs_cookie_cat_pref"


@pytest.mark.parametrize(("header", "expected"), rows_of("hubspot"))
def test_a_real_header_is_read(header, expected):
    assert state_of(read_header(HubSpot(), header)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("1:true,2:false,3:false", GRANTED, id="granted"),
        pytest.param("1:false_2:true_3:true", DENIED, id="denied"),
        pytest.param("1%3Atrue%2C2%3Afalse", GRANTED, id="escaped"),
        pytest.param("2:true,3:true", NOTHING, id="not-asked"),
        pytest.param("11:true", NOTHING, id="another-that-begins-so"),
        pytest.param("1:true,1:false", DENIED, id="told-twice"),
        pytest.param("", UNREADABLE, id="empty"),
        pytest.param("1:tru", UNREADABLE, id="cut"),
        pytest.param("1:true,2", UNREADABLE, id="cut-behind-the-grant"),
        pytest.param("1:false,2", DENIED, id="cut-behind-the-denial"),
        pytest.param("1:true2:true", UNREADABLE, id="no-separator"),
        pytest.param("1:True", UNREADABLE, id="another-case"),
    ],
)
def test_a_category_is_read(text, expected):
    assert HubSpot().read({CATEGORIES: text}) is expected


@pytest.mark.parametrize("name", ["__hs_opt_out", "__hs_do_not_track"])
@pytest.mark.parametrize(
    ("value", "alone", "beside_a_grant"),
    [
        pytest.param("yes", DENIED, DENIED, id="yes"),
        pytest.param("no", NOTHING, GRANTED, id="no"),
        pytest.param("", UNREADABLE, UNREADABLE, id="empty"),
        pytest.param("1", UNREADABLE, UNREADABLE, id="number"),
    ],
)
def test_opting_out_of_everything_beats_a_category(name, value, alone, beside_a_grant):
    assert HubSpot().read({name: value}) is alone
    assert HubSpot().read({name: value, CATEGORIES: "1:true"}) is beside_a_grant


def test_another_category_can_be_named():
    assert HubSpot(category=2).read({CATEGORIES: "1:true,2:false"}) is DENIED


@given(st.text(), st.text())
def test_no_text_raises(first, second):
    HubSpot().read({CATEGORIES: first, "__hs_opt_out": second})
