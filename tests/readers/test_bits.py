import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.readers.bits import read_bits

ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"


@given(st.text(ALPHABET, max_size=80))
def test_each_character_is_its_place_in_the_alphabet_as_six_bits(text):
    expected = "".join(f"{ALPHABET.index(character):06b}" for character in text)

    assert read_bits(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("AB+A", id="plus-of-base64"),
        pytest.param("AB/A", id="slash-of-base64"),
        pytest.param("QQ==", id="filled-up"),
        pytest.param("QUE=A", id="filled-up-inside"),
        pytest.param("AB A", id="space"),
        pytest.param("ABAA\n", id="line-end"),
        pytest.param("AB.A", id="dot"),
        pytest.param("ABé", id="beyond-ascii"),
        pytest.param("AB\x00A", id="nul"),
    ],
)
def test_any_other_character_is_refused(text):
    with pytest.raises(ValueError, match=r"base64|ASCII|[Dd]ata"):
        read_bits(text)
