from functools import partial

import pytest

from mp_asgi.readers.app_reader import AppReader
from mp_asgi.readers.base import DENIED, GRANTED, NOTHING, UNREADABLE


def read_our_choice(cookies):
    return {"yes": True, "no": False, "1": 1}.get(cookies["choice"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("yes", GRANTED), ("no", DENIED), ("later", NOTHING), ("1", UNREADABLE)],
)
def test_the_function_decides(text, expected):
    assert AppReader(read_our_choice).read({"choice": text}) == expected


@pytest.mark.parametrize(
    ("function", "name"),
    [
        pytest.param(read_our_choice, "app-read-our-choice", id="function"),
        pytest.param(partial(read_our_choice), "app-partial", id="object"),
        pytest.param(lambda cookies: None, "app-lambda", id="lambda"),
    ],
)
def test_its_name_can_be_mirrored(function, name):
    assert AppReader(function).name == name
