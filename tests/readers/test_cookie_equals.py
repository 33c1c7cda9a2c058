import pytest

from mp_asgi.readers import CookieEquals
from mp_asgi.readers.base import DENIED, GRANTED, UNREADABLE


@pytest.mark.parametrize(
    ("text", "expected"), [("1", GRANTED), ("0", DENIED), ("2", UNREADABLE), ("", UNREADABLE)]
)
def test_the_whole_value_decides(text, expected):
    reader = CookieEquals("our_choice", granted={"1"}, denied={"0"})

    assert reader.cookies == ("our_choice",)
    assert reader.read({"our_choice": text}) == expected


def test_its_name_can_be_mirrored():
    assert CookieEquals("__our.choice", granted={"1"}, denied={"0"}).name == "cookie-our-choice"


def test_equal_ones_are_equal():
    first, second = (CookieEquals("c", granted=["1"], denied=values) for values in (["0"], {"0"}))

    assert first == second


@pytest.mark.parametrize(
    ("granted", "denied", "remedy"),
    [
        pytest.param("yes", {"no"}, "Use a set", id="text-for-yes"),
        pytest.param({"yes"}, "no", "Use a set", id="text-for-no"),
        pytest.param({"1", "2"}, {"2"}, "by '2'", id="both"),
    ],
)
def test_values_that_cannot_be_meant_are_a_mistake(granted, denied, remedy):
    with pytest.raises(ValueError, match=remedy):
        CookieEquals("c", granted=granted, denied=denied)
