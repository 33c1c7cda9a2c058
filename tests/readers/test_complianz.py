import pytest

from mp_asgi.readers.base import DENIED, UNREADABLE
from mp_asgi.readers.complianz import Complianz
from tests.readers.rows import read_header, rows_of, state_of


@pytest.mark.parametrize(("header", "expected"), rows_of("complianz"))
def test_real_cookies_are_read(header, expected):
    assert state_of(read_header(Complianz(), header)) == expected


def test_another_word_is_unreadable():
    assert Complianz().read({"cmplz_statistics": "Allow"}) == UNREADABLE


def test_a_site_of_a_multisite_has_its_own_prefix():
    reader = Complianz(prefix="cmplz_7_", category="marketing")

    assert reader.cookies == ("cmplz_7_marketing",)
    assert reader.read({"cmplz_7_marketing": "deny"}) == DENIED
