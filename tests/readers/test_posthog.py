import pytest

from mp_asgi.readers.base import DENIED, GRANTED, NOTHING, UNREADABLE
from mp_asgi.readers.posthog import PostHog
from tests.readers.rows import read_header, rows_of, state_of

TOKEN = "phc_TESTTOKEN"
COOKIE = "__ph_opt_in_out_phc_TESTTOKEN"
OTHER = "__ph_opt_in_out_phc_OTHER"


@pytest.mark.parametrize("token", [TOKEN, ""], ids=["token", "no-token"])
@pytest.mark.parametrize(("header", "expected"), rows_of("posthog-js"))
def test_a_real_header_is_read(header, expected, token):
    assert state_of(read_header(PostHog(token=token), header)) == expected


@pytest.mark.parametrize(
    ("token", "cookies", "expected"),
    [
        pytest.param(TOKEN, {COOKIE: "1"}, GRANTED, id="opted-in"),
        pytest.param(TOKEN, {COOKIE: "0"}, DENIED, id="opted-out"),
        pytest.param(TOKEN, {COOKIE: ""}, UNREADABLE, id="empty"),
        pytest.param(TOKEN, {COOKIE: "yes"}, UNREADABLE, id="word"),
        pytest.param(TOKEN, {COOKIE: "1", OTHER: "0"}, GRANTED, id="another-project"),
        pytest.param(TOKEN, {OTHER: "1"}, NOTHING, id="only-another-project"),
        pytest.param("", {COOKIE: "1", OTHER: "1"}, GRANTED, id="all-projects-opted-in"),
        pytest.param("", {COOKIE: "1", OTHER: "0"}, DENIED, id="one-project-opted-out"),
        pytest.param("", {"ph_phc_TESTTOKEN_posthog": "1"}, NOTHING, id="no-choice"),
    ],
)
def test_the_projects_choice_is_read(token, cookies, expected):
    assert PostHog(token=token).read(cookies) is expected


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        pytest.param(TOKEN, COOKIE, id="one-project"),
        pytest.param("", "__ph_opt_in_out_*", id="all-projects"),
    ],
)
def test_the_cookies_are_those_of_the_project(token, expected):
    assert PostHog(token=token).cookies == (expected,)
