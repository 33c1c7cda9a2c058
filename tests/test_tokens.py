"""A token carries a visitor and their grant, as long as it says, to those with its keys."""

import json
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from mp_asgi import tracker_from_token
from mp_asgi.signing import CookieSigner
from tests.desk import DAY, take_token
from tests.doors import START, Act, Row, World, deny, grant, identify, reset
from tests.support import NOW

SECRET = "k" * 32


@pytest.fixture(params=["asgi", "wsgi-validated"])
def world(request) -> Iterator[World]:
    with World(request.param) as world:
        yield world


def test_a_token_carries_who_it_is_into_another_process(world):
    browser = world.browser()
    browser.visit(grant())
    browser.visit(identify("U1"))
    [token] = browser.visit(take_token()).notes
    device = browser.device_id
    world.clock.advance(3600)

    with World("asgi", standin=world.standin, clock=world.clock, seed="job") as worker:
        job = worker.analytics.tracker_from_token(token)
        job.track("Mailed")

        assert (job.user_id, job.device_id) == ("U1", device)
        assert worker.rows() == [Row("Mailed", device, "U1")]


def log_out() -> Act:
    return reset(new_device=False)


@pytest.mark.parametrize(
    ("script", "has_device", "user_id"),
    [
        pytest.param([identify("U1")], False, "U1", id="before-the-response"),
        pytest.param([START, identify("U1")], False, "U1", id="behind-its-start"),
        pytest.param([identify("U1"), START], True, "U1", id="once-it-carries-the-mark"),
        pytest.param([identify("U1"), log_out()], True, None, id="who-has-left-again"),
        pytest.param([], True, None, id="nobody"),
    ],
)
def test_a_token_leaves_a_device_out_that_may_have_to_stay_anothers(
    world, script, has_device, user_id
):
    browser = world.browser()
    browser.visit(grant())
    device = browser.device_id

    [token] = browser.visit(*script, take_token()).notes

    job = world.analytics.tracker_from_token(token)
    assert (job.device_id or None, job.user_id) == (device if has_device else None, user_id)


def read_fields(token: str) -> dict[str, Any]:
    text = token.partition(".")[0]
    return json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def test_a_token_can_be_read_by_whoever_has_it(world):
    [token] = world.browser().visit(grant(), identify("U1"), take_token()).notes

    fields = read_fields(token)

    assert fields["user_id"] == "U1"
    assert fields["until"] == NOW + DAY
    assert token.isascii()


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        pytest.param({"consent": "opt-in"}, "explicit", id="explicit"),
        pytest.param({"consent": "opt-out"}, "opt-out-default", id="opt-out-default"),
    ],
)
def test_a_token_carries_the_kind_of_the_grant(settings, kind):
    with World("asgi", **settings) as world:
        script = [grant()] if kind == "explicit" else []
        [token] = world.browser().visit(*script, take_token()).notes
        world.analytics.tracker_from_token(token).track("Mailed")
        world.flush()

    assert world.standin.events[0]["properties"]["$mp_asgi_consent"] == kind


def test_a_token_knows_how_mixpanel_knows_the_device():
    with World("asgi", identity="original", adopt_browser_id=True) as world:
        cookie = '{"distinct_id":"$device:B","$device_id":"B"}'
        headers = (("cookie", f"mp_t0ken_mixpanel={cookie}"), ("x-mp-consent", "granted"))
        [token] = world.browser().visit(take_token(), headers=headers).notes

        assert world.analytics.tracker_from_token(token).distinct_id == "$device:B"


@pytest.mark.parametrize(
    ("settings", "script"),
    [
        pytest.param({}, (), id="no-choice"),
        pytest.param({}, (grant(), deny()), id="denied"),
        pytest.param({"enabled": False}, (grant(),), id="switched-off"),
        pytest.param(
            {"policy": lambda head: "cookieless", "cookieless": "daily"}, (), id="only-counted"
        ),
    ],
)
def test_without_a_grant_of_their_own_there_is_no_token(settings, script):
    with World("asgi", **settings) as world:
        [token] = world.browser().visit(*script, take_token()).notes

        assert token == ""
        assert world.analytics.tracker_from_token(token).track("Mailed") is None
    assert world.stats().refused["no_consent"] == 1
    assert "failed_call" not in world.stats().refused


@pytest.mark.parametrize(
    ("max_age", "seconds"),
    [
        pytest.param(90, 90, id="seconds"),
        pytest.param(0.5, 0.5, id="half-a-second"),
        pytest.param("90", 90, id="seconds-as-text"),
        pytest.param("30m", 1_800, id="minutes"),
        pytest.param(" 2d ", 2 * DAY, id="days"),
    ],
)
def test_the_age_of_a_token_is_written_as_in_a_setting(max_age, seconds):
    with World("asgi") as world:
        [token] = world.browser().visit(grant(), take_token(max_age=max_age)).notes

    assert read_fields(token)["until"] == NOW + seconds


@pytest.mark.parametrize(
    "max_age",
    [
        *(0, -1, float("nan"), float("inf"), 10**400, "0s", "soon", "", "1e3"),
        *(None, True, timedelta(minutes=30), b"30m", [60]),
    ],
    ids=repr,
)
def test_a_token_needs_an_age_that_ends(max_age, caplog):
    with World("asgi") as world:
        assert world.browser().visit(grant(), take_token(max_age=max_age)).notes == [""]
        assert world.stats().refused == {"invalid_max_age": 1}

    assert "max_age is a positive number of seconds, or text with a unit, as in 30m" in caplog.text


def sign_other(payload: bytes) -> str:
    signer = CookieSigner([SECRET], "mp_asgi.job.v1.t0ken", lambda: NOW)
    return signer.sign(payload).decode()


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda token: "x" + token, id="forged"),
        pytest.param(lambda token: token[:-1], id="cut"),
        pytest.param(lambda token: "garbage", id="garbage"),
        pytest.param(lambda token: "€", id="not-ascii"),
        pytest.param(lambda token: None, id="none-of-text"),
        pytest.param(lambda token: b"bytes", id="bytes"),
        pytest.param(lambda token: "x" * 10_000, id="huge"),
        pytest.param(lambda token: sign_other(b"bm8ganNvbg"), id="signed-garbage"),
        pytest.param(lambda token: sign_other(b"e30"), id="of-another-form"),
        pytest.param(lambda token: sign_other(b"W10"), id="a-list"),
    ],
)
def test_what_we_did_not_make_is_refused_and_counted(world, spoil):
    [token] = world.browser().visit(grant(), take_token()).notes

    job = tracker_from_token(spoil(token), world.analytics)

    assert job.track("Mailed") is None
    reason = "no_consent" if spoil(token) is None else "token_invalid"
    assert world.stats().refused == {reason: 1}


@pytest.mark.parametrize(
    ("settings", "is_read"),
    [
        pytest.param({}, True, id="same"),
        pytest.param({"secret_keys": (SECRET, "n" * 32)}, True, id="older-key-still-listed"),
        pytest.param({"secret_keys": ("n" * 32,)}, False, id="other-key"),
        pytest.param({"token": "0ther"}, False, id="other-project"),
    ],
)
def test_a_token_is_for_its_own_keys_and_project(settings, is_read):
    with World("asgi") as world, World("asgi", **settings) as worker:
        [token] = world.browser().visit(grant(), take_token()).notes

        assert bool(worker.analytics.tracker_from_token(token).track("Mailed")) == is_read
    assert worker.stats().refused == ({} if is_read else {"token_invalid": 1})


# --- what a deployment does wrong -----------------------------------------------------------------


def test_a_worker_under_other_keys_says_so_once(caplog):
    with World("asgi") as world, World("asgi", secret_keys=("n" * 32,)) as worker:
        [token] = world.browser().visit(grant(), take_token()).notes
        for _ in range(2):
            worker.analytics.tracker_from_token(token).track("Mailed")

    [line] = [line for line in caplog.messages if "token_invalid" in line]
    assert "the same MP_ASGI_SECRET_KEYS and MIXPANEL_TOKEN" in line
    assert token not in line
    assert worker.stats().refused == {"token_invalid": 2}


def test_a_job_that_comes_too_late_says_so_once(world, caplog):
    [token] = world.browser().visit(grant(), take_token(max_age=60)).notes
    world.clock.advance(61)

    for _ in range(2):
        world.analytics.tracker_from_token(token).track("Mailed")

    [line] = [line for line in caplog.messages if "token_expired" in line]
    assert "max_age" in line
    assert world.stats().refused == {"token_expired": 2}


@pytest.mark.parametrize("keys", [(SECRET,), ()], ids=["with-keys", "without-keys"])
def test_a_worker_that_is_switched_off_blames_no_key(caplog, keys):
    with World("asgi") as world, World("asgi", enabled=False, secret_keys=keys) as worker:
        [token] = world.browser().visit(grant(), take_token()).notes
        worker.analytics.tracker_from_token(token).track("Mailed")

    assert worker.stats().refused == {"disabled": 1}
    assert caplog.messages == []


def test_a_job_without_consent_is_nobodys_mistake(world, caplog):
    world.analytics.tracker_from_token("").track("Mailed")

    assert world.stats().refused == {"no_consent": 1}
    assert caplog.messages == []


def test_an_id_cookie_is_no_token(world):
    browser = world.browser()
    browser.visit(grant())

    job = world.analytics.tracker_from_token(browser.jar["__Host-mp_id"].value)

    assert job.track("Mailed") is None


def test_a_token_does_not_outlive_its_grant(world):
    browser = world.browser()
    browser.visit(grant())
    world.clock.advance(180 * DAY - 60)
    [token] = browser.visit(take_token()).notes

    assert read_fields(token)["until"] == NOW + 180 * DAY
