"""The same visitor goes through both real middlewares."""

from collections.abc import Iterator

import pytest

from mp_asgi import ANONYMOUS
from tests.endpoints.site import (
    CONSENT,
    FORM,
    GPC,
    HOST,
    JSON,
    MOUNT,
    SAME_ORIGIN,
    Site,
    open_site,
)
from tests.support import TIMEOUT

DOORS = ["asgi", "wsgi"]


@pytest.fixture(params=DOORS)
def site(request) -> Iterator[Site]:
    with open_site(request.param) as site:
        yield site


def test_a_new_visitor_is_to_be_asked(site):
    answer = site.ask()

    assert answer.status == 200
    assert answer.json["state"] == "unknown"
    assert answer.json["needs_prompt"] is True
    assert answer.header("set-cookie") is None


def test_a_grant_sets_both_cookies_and_counts_from_the_next_request_on(site):
    assert site.seen() == 0

    answer = site.post(analytics="granted")

    assert answer.json["state"] == "granted"
    assert site.cookies.keys() == {"mp_consent", "mp_id"}
    assert site.ask().json["state"] == "granted"
    assert site.seen() == 1


def test_a_refusal_sets_only_the_consent_cookie(site):
    answer = site.post(analytics="denied")

    assert answer.json["state"] == "denied"
    assert site.cookies.keys() == {"mp_consent"}
    assert site.ask().json["needs_prompt"] is False
    assert site.seen() == 0


def test_a_withdrawal_deletes_the_id(site):
    site.post(analytics="granted")
    assert site.seen() == 1

    site.post(analytics="denied")

    assert site.cookies.keys() == {"mp_consent"}
    assert site.seen() == 1


@pytest.mark.parametrize("state", ["granted", "denied"])
def test_no_cache_keeps_a_decision(site, state):
    answer = site.post(analytics=state)

    assert answer.header("cache-control") == "private, no-store"
    assert answer.header("vary") == "Cookie, Sec-GPC"


def test_gpc_is_overridden_only_on_purpose_and_then_it_sticks(site):
    refused = site.post(GPC, analytics="granted")
    assert refused.status == 409
    assert refused.json["needs_override"] is True
    assert site.cookies == {}

    assert site.post(GPC, analytics="granted", override_gpc=True).json["state"] == "granted"

    assert site.ask(headers=GPC).json["state"] == "granted"


REPLAYED = {"analytics": "granted", "source": "cmp:usercentrics"}
CHOSEN = ["cookie-denied", "notice-changed", "script-denied"]


@pytest.fixture(params=CHOSEN)
def chosen(request, site) -> Iterator[tuple[str, Site]]:
    """Answer a visitor of another version of the site, who chose, and why they are not granted."""
    if request.param == "script-denied":
        site.cookies["mp_choice"] = "denied"
    else:
        site.post(analytics="granted" if request.param == "notice-changed" else "denied")
    with open_site("asgi", consent_version="v2") as later:
        later.cookies = dict(site.cookies)
        yield request.param, later


def test_what_a_manager_was_told_before_does_not_undo_a_later_choice(chosen):
    reason, site = chosen

    answer = site.post(**REPLAYED)

    assert (answer.status, answer.json["reason"]) == (409, reason)
    assert answer.json["needs_choice"] is True
    assert site.seen() == 0


def test_what_a_manager_is_told_now_counts(chosen):
    _, site = chosen

    answer = site.post(**REPLAYED, fresh=True)

    assert (answer.status, answer.json["state"]) == (200, "granted")
    assert site.seen() == 1


def test_a_manager_does_not_lift_an_accounts_denial_by_repeating_itself(tmp_path):
    ledger = {"ledger": f"sqlite:///{tmp_path}/ledger.db", "ledger_keys": ("l" * 32,)}
    account = {**ledger, "identify_from": lambda connection: "u1"}
    with open_site("wsgi", **account) as laptop, open_site("asgi", **account) as phone:
        laptop.post(**REPLAYED)
        laptop.analytics.flush(TIMEOUT)
        phone.post(analytics="denied")
        phone.analytics.flush(TIMEOUT)
        cookies = dict(laptop.cookies)
    with open_site("wsgi", **account) as laptop:
        laptop.cookies = cookies
        laptop.seen()  # from here on this process knows what the ledger says

        answer = laptop.post(**REPLAYED)

        assert (answer.json["state"], answer.json["reason"]) == ("denied", "account-denied")
        assert laptop.seen() == 0


def test_a_form_without_script_is_answered_with_its_page(site):
    answer = site.ask(
        "POST", headers={**FORM, **SAME_ORIGIN}, body=b"analytics=granted&return_to=/cart"
    )

    assert (answer.status, answer.header("location")) == (303, "/cart")
    assert site.cookies.keys() == {"mp_consent", "mp_id"}


# RULES section 4, journey 30
@pytest.mark.parametrize("content_type", [JSON, FORM, {"content-type": "text/plain"}])
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param({"sec-fetch-site": "cross-site"}, id="says-so"),
        pytest.param({"sec-fetch-site": "same-site"}, id="sibling"),
        pytest.param({"origin": "https://evil.test"}, id="old-browser"),
        pytest.param({"origin": "null"}, id="opaque-origin"),
        pytest.param({}, id="says-nothing"),
    ],
)
@pytest.mark.parametrize("state", ["granted", "denied"])
def test_a_form_of_another_site_changes_nothing(site, state, sent, content_type):
    site.post(analytics="denied" if state == "granted" else "granted")
    cookies = dict(site.cookies)
    seen = site.seen()
    body = f"analytics={state}" if content_type is FORM else f'{{"analytics": "{state}"}}'

    answer = site.ask("POST", headers={**content_type, **sent}, body=body.encode())

    assert answer.status == 403
    assert answer.header("set-cookie") is None
    assert site.cookies == cookies
    assert site.seen() == (seen + 1 if state == "denied" else 0)
    assert site.analytics.stats().cross_site == 1


def test_an_old_browser_is_heard_by_its_origin(site):
    sent = {**JSON, "origin": f"http://{HOST}"}

    answer = site.ask("POST", headers=sent, body=b'{"analytics": "granted"}')

    assert answer.json["state"] == "granted"


@pytest.mark.parametrize("name", ["banner.js", "bridge.js"])
def test_a_script_is_kept_by_caches_and_never_carries_a_cookie(site, name):
    site.post(analytics="granted")

    answer = site.ask(path=f"{MOUNT}/{name}")

    assert answer.status == 200
    assert answer.header("content-type") == "text/javascript; charset=utf-8"
    assert answer.header("cache-control") == "public, max-age=3600"
    assert answer.header("set-cookie") is None
    assert answer.header("vary") is None
    tag = answer.header("etag")
    again = site.ask(path=f"{MOUNT}/{name}", headers={"if-none-match": tag})
    assert (again.status, again.body, again.header("etag")) == (304, b"", tag)


@pytest.mark.parametrize("kind", DOORS)
def test_the_scripts_are_small(kind):
    with open_site(kind) as site:
        sizes = [len(site.ask(path=f"{MOUNT}/{name}.js").body) for name in ("banner", "bridge")]

    assert max(sizes) < 12_000


def test_an_unknown_path_below_the_mount_never_reaches_the_app(site):
    answer = site.ask(path=f"{MOUNT}/other")

    assert answer.status == 404
    assert answer.header("x-app") is None


@pytest.mark.parametrize("path", ["/", "/cart", "/_mp", "/.well-known/gpc.json"])
def test_other_paths_are_the_apps(site, path):
    answer = site.ask(path=path)

    assert answer.header("x-app") == "yes"
    assert answer.body == path.encode()


@pytest.mark.parametrize("kind", DOORS)
@pytest.mark.parametrize("mount", ["", MOUNT])
def test_gpc_support_is_told_with_and_without_a_mount(kind, mount):
    with open_site(kind, mount=mount, gpc_since="2026-11-01") as site:
        answer = site.ask(path="/.well-known/gpc.json")
        other = site.ask(path=CONSENT)

    assert answer.json == {"gpc": True, "lastUpdate": "2026-11-01"}
    assert (other.header("x-app") == "yes") is (mount == "")


@pytest.mark.parametrize("method", ["OPTIONS", "PUT"])
def test_a_method_that_is_not_known_is_refused_without_cors(site, method):
    answer = site.ask(method, headers={"origin": "https://evil.test"})

    assert answer.status == 405
    assert answer.header("allow") == "GET, HEAD, POST"
    assert answer.header("access-control-allow-origin") is None


@pytest.mark.parametrize("path", [CONSENT, f"{MOUNT}/banner.js", f"{MOUNT}/bridge.js"])
def test_head_has_no_body(site, path):
    answer = site.ask("HEAD", path)

    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("kind", DOORS)
def test_nobody_has_left_because_the_endpoints_are_outside_of_the_apps_session(kind):
    users: list[object] = ["U1"]
    settings = {"first_party": True, "identify_from": lambda connection: users[-1]}
    with open_site(kind, **settings) as site:
        site.post(analytics="granted")
        site.seen()
        users.append(ANONYMOUS)

        answer = site.ask("POST", "/_mp/track", SAME_ORIGIN, b'{"event":"Clicked"}')
        site.seen()

        assert answer.body == b"1"
        there, clicked, gone = [message["properties"] for message in site.transport.messages]
        assert clicked["$device_id"] == there["$device_id"] != gone["$device_id"]
