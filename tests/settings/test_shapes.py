import dataclasses

import pytest

from mp_asgi.settings import Settings
from mp_asgi.settings.shapes import find_shape_problem


async def ask(connection):
    return connection


async def ask_many(connection):
    yield connection


class Asking:
    async def __call__(self, connection):
        return connection


def find(name, value):
    return find_shape_problem(Settings.__dataclass_fields__[name], value)


@pytest.mark.parametrize("item", dataclasses.fields(Settings), ids=lambda item: item.name)
def test_every_default_has_its_shape(item):
    assert find_shape_problem(item, item.default) == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("login_max_age", 60, id="a-whole-number-of-seconds"),
        pytest.param("policy", len, id="callable"),
        pytest.param("exclude", ("/a", "/b"), id="texts"),
        pytest.param("consent_readers", (len,), id="readers-are-not-texts"),
        pytest.param("notice", {"en": {"title": "May we?"}}, id="notice"),
    ],
)
def test_a_value_of_the_shape_has_no_problem(name, value):
    assert find(name, value) == ""


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        pytest.param("token", 5, "Use text.", id="text"),
        pytest.param("honor_gpc", 1, "Use True or False.", id="switch"),
        pytest.param("batch_size", True, "Use a whole number.", id="switch-for-a-number"),
        pytest.param("batch_size", 5.0, "Use a whole number.", id="float-for-a-whole-number"),
        pytest.param("login_max_age", None, "Use seconds, as in 5.0.", id="no-time"),
        pytest.param("login_max_age", True, "Use seconds, as in 5.0.", id="switch-for-a-time"),
        pytest.param("exclude", "/a", "Use a list of texts.", id="text-for-a-list"),
        pytest.param("exclude", (1,), "Use a list of texts.", id="numbers"),
        pytest.param(
            "exclude",
            ("/a", ""),
            "An item is empty: take it out, or the comma beside it.",
            id="empty-item",
        ),
        pytest.param("policy", 5, "Use a callable.", id="no-callable"),
        pytest.param("policy", ask, "This is an async function; use a plain one.", id="async"),
        pytest.param("policy", Asking(), "This is an async function; use a plain one.", id="call"),
        pytest.param("policy", ask_many, "This is an async function; use a plain one.", id="many"),
        pytest.param("notice", ["en"], "Map languages to texts by name.", id="notice"),
        pytest.param("notice", {5: {}}, "Map languages to texts by name.", id="notice-language"),
        pytest.param("notice", {"en": 5}, "Map languages to texts by name.", id="notice-texts"),
        pytest.param("notice", {"en": {"t": 5}}, "Map languages to texts by name.", id="no-text"),
    ],
)
def test_another_shape_is_told_with_the_remedy(name, value, remedy):
    assert find(name, value) == remedy
