import pytest

from mp_asgi.readers.base import GRANTED, NOTHING, UNREADABLE
from mp_asgi.readers.osano import Osano
from tests.readers.rows import read_header, rows_of, state_of


@pytest.mark.parametrize(("header", "expected"), rows_of("osano-cookieconsent-oss"))
def test_real_cookies_are_read(header, expected):
    assert state_of(read_header(Osano(), header)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("allow", GRANTED), ("dismiss", NOTHING), ("ALLOW", UNREADABLE), ("", UNREADABLE)],
)
def test_only_the_exact_words_count(text, expected):
    assert Osano(cookie="mine").read({"mine": text}) == expected
