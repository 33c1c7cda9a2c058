import json

import pytest

from mp_asgi import Tracker
from mp_asgi.endpoints.message import Request
from mp_asgi.endpoints.mount import GPC_PATH, Mount
from mp_asgi.endpoints.notices import Notices
from mp_asgi.errors import SettingsError
from mp_asgi.events import ActState, Notice
from mp_asgi.head import RequestHead
from mp_asgi.place import NOWHERE
from tests.support import FakeClock, RecordingSink, make_core, make_settings

HERE = [(b"host", b"shop.test"), (b"sec-fetch-site", b"same-origin")]
SENT = [*HERE, (b"content-type", b"application/json")]
SINCE = {"gpc_since": "2026-11-01"}
ENDPOINTS = ["/_mp/consent", "/_mp/banner.js", "/_mp/bridge.js", GPC_PATH]


class Desk:
    """A mount and one request's tracker, without a door."""

    def __init__(self, *headers, **settings):
        self.sink = RecordingSink()
        self.headers = headers
        core = make_core(FakeClock(), self.sink, mount="/_mp", **settings)
        self.mount = Mount(core.settings)
        self.tracker = Tracker((core, RequestHead, 1.0, "https", None, [*headers]))

    def ask(self, method="GET", path="/_mp/consent", body=b""):
        request = Request(method, path, dict(self.headers).get, body)
        return self.mount.answer(request, self.tracker)

    def post(self, **decision):
        return self.ask("POST", body=json.dumps(decision).encode())


def said(response):
    return json.loads(response.body())


def headers(response):
    return dict(response.headers)


@pytest.mark.parametrize(
    ("settings", "path", "expected"),
    [
        pytest.param({"mount": "/_mp"}, "/_mp/consent", True, id="below-the-mount"),
        pytest.param({"mount": "/_mp"}, "/_mp/", True, id="the-mount-with-a-slash"),
        pytest.param({"mount": "/_mp"}, "/_mp", False, id="the-mount-alone"),
        pytest.param({"mount": "/_mp"}, "/_mpx/consent", False, id="a-longer-name"),
        pytest.param({"mount": "/_mp"}, "/a/_mp/consent", False, id="deeper"),
        pytest.param({"mount": "/_mp"}, "/consent", False, id="beside"),
        pytest.param({"mount": "/_mp"}, GPC_PATH, False, id="gpc-not-said"),
        pytest.param(SINCE, GPC_PATH, True, id="gpc-said"),
        pytest.param(SINCE, GPC_PATH + "/x", False, id="below-gpc"),
        pytest.param(SINCE, "/consent", False, id="gpc-alone"),
        pytest.param({}, "/consent", False, id="off"),
        pytest.param({}, "", False, id="off-and-empty"),
    ],
)
def test_a_mount_owns_its_paths(settings, path, expected):
    assert Mount(make_settings(**settings)).owns(path) is expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({}, True, id="off"),
        pytest.param({"mount": "/_mp"}, False, id="mounted"),
        pytest.param(SINCE, False, id="gpc-alone"),
    ],
)
def test_a_mount_is_empty_while_nothing_is_switched_on(settings, expected):
    assert Mount(make_settings(**settings)).is_empty is expected


def test_texts_that_cannot_be_shown_stop_the_start():
    settings = make_settings(notice={"fr": {"title": "Cookies?"}})

    with pytest.raises(SettingsError, match=r"MP_ASGI_NOTICE .* 'fr' lacks"):
        Mount(settings)


# --- methods ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "get", ""])
def test_other_methods_are_refused_and_the_known_ones_named(path, method):
    response = Desk(*SENT, **SINCE).ask(method, path)

    assert response.status == 405
    allowed = b"GET, HEAD, POST" if path == "/_mp/consent" else b"GET, HEAD"
    assert headers(response)[b"allow"] == allowed


@pytest.mark.parametrize("path", ENDPOINTS[1:])
def test_only_consent_can_be_posted(path):
    assert Desk(*SENT, **SINCE).ask("POST", path).status == 405


@pytest.mark.parametrize("path", ENDPOINTS)
def test_head_answers_as_get_without_a_body(path):
    got = Desk(*HERE, **SINCE).ask("GET", path)
    headed = Desk(*HERE, **SINCE).ask("HEAD", path)

    assert headed[:2] == got[:2]
    assert got.body() != b""
    assert headed.body() == b""


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
@pytest.mark.parametrize("path", [*ENDPOINTS, "/_mp/x"])
def test_no_other_origin_may_read_an_answer(path, method):
    response = Desk(*SENT, (b"origin", b"https://evil.test"), **SINCE).ask(method, path)

    assert not [name for name in headers(response) if name.startswith(b"access-control")]


@pytest.mark.parametrize("path", ["/_mp/", "/_mp/x", "/_mp/consent/", "/_mp/../x", "/_mp//consent"])
def test_an_unknown_path_is_not_found(path):
    response = Desk(*HERE).ask(path=path)

    assert response.status == 404
    assert "error" in said(response)


# --- state ------------------------------------------------------------------------------------


def test_the_state_is_told():
    assert said(Desk(*HERE, consent_version="2026-11@2026-11-01").ask()) == {
        "state": "unknown",
        "reason": "no-choice",
        "needs_prompt": True,
        "gpc": False,
        "version": "2026-11",
    }


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({}, ("denied", True, False), id="honoured"),
        pytest.param({"honor_gpc": False}, ("unknown", False, True), id="not-honoured"),
    ],
)
def test_gpc_is_told_where_it_counts(settings, expected):
    told = said(Desk(*HERE, (b"sec-gpc", b"1"), **settings).ask())

    assert (told["state"], told["gpc"], told["needs_prompt"]) == expected


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda desk: desk.ask(), id="state"),
        pytest.param(lambda desk: desk.post(analytics="denied"), id="decision"),
        pytest.param(lambda desk: desk.post(analytics="maybe"), id="refused"),
        pytest.param(lambda desk: desk.ask(path="/_mp/x"), id="not-found"),
    ],
)
def test_nobody_may_keep_what_is_said_about_a_visitor(ask):
    found = headers(ask(Desk(*SENT)))

    assert found[b"content-type"] == b"application/json"
    assert found[b"cache-control"] == b"private, no-store"
    assert found[b"vary"] == b"Cookie, Sec-GPC"
    assert found[b"x-content-type-options"] == b"nosniff"


def test_the_state_is_the_one_after_the_start_of_the_response():
    desk = Desk(*HERE)
    response = desk.ask()

    desk.tracker.consent.grant()

    assert said(response)["state"] == "granted"


def test_asking_for_the_state_is_a_use_before_the_response_starts():
    desk = Desk(*HERE)

    desk.ask()

    assert desk.tracker.exchange is not None


@pytest.mark.parametrize("path", ENDPOINTS[1:])
def test_what_is_the_same_for_all_does_not_use_the_tracker(path):
    desk = Desk(*HERE, **SINCE)

    desk.ask(path=path).body()

    assert desk.tracker.exchange is None


# --- decisions --------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["granted", "denied"])
def test_a_decision_is_taken_and_the_state_after_it_told(state):
    desk = Desk(*SENT)

    response = desk.post(analytics=state)

    assert response.status == 200
    assert said(response)["state"] == state
    assert desk.tracker.consent.state == state


def test_a_grant_under_gpc_needs_an_override():
    response = Desk(*SENT, (b"sec-gpc", b"1")).post(analytics="granted")

    assert response.status == 409
    assert said(response) == {
        "state": "denied",
        "reason": "sec-gpc",
        "needs_prompt": False,
        "gpc": True,
        "version": "",
        "needs_override": True,
    }


def test_a_grant_that_names_the_override_counts():
    response = Desk(*SENT, (b"sec-gpc", b"1")).post(analytics="granted", override_gpc=True)

    assert response.status == 200
    assert said(response)["state"] == "granted"


@pytest.mark.parametrize(
    ("extra", "settings"),
    [
        pytest.param([(b"dnt", b"1")], {"honor_dnt": True}, id="dnt"),
        pytest.param([], {"enabled": False}, id="switched-off"),
    ],
)
def test_what_no_override_helps_asks_for_none(extra, settings):
    response = Desk(*SENT, *extra, **settings).post(analytics="granted", override_gpc=True)

    assert response.status == 409
    assert said(response)["needs_override"] is False


@pytest.mark.parametrize("word", ["consent", "refusal"])
def test_a_decision_that_cannot_be_read_changes_nothing(word):
    desk = Desk(*SENT)

    response = desk.post(analytics=word)

    assert response.status == 400
    assert "analytics" in said(response)["error"]
    assert desk.tracker.exchange is None
    assert not desk.sink.counts


def test_a_decision_from_elsewhere_changes_nothing_and_is_counted():
    desk = Desk((b"sec-fetch-site", b"cross-site"), (b"content-type", b"application/json"))

    response = desk.post(analytics="granted")

    assert response.status == 403
    assert desk.tracker.exchange is None
    assert desk.sink.counts == {("cross_site", ""): 1}


@pytest.mark.parametrize(
    ("return_to", "status", "location"),
    [
        pytest.param("/cart", 303, b"/cart", id="path"),
        pytest.param("//evil.test", 200, None, id="another-site"),
        pytest.param("", 200, None, id="none"),
    ],
)
@pytest.mark.parametrize("state", ["granted", "denied"])
def test_a_form_is_answered_with_the_page_it_came_from(state, return_to, status, location):
    desk = Desk(*HERE, (b"content-type", b"application/x-www-form-urlencoded"))

    body = f"analytics={state}&return_to={return_to}".encode()
    response = desk.ask("POST", body=body)

    assert response.status == status
    assert headers(response).get(b"location") == location
    assert desk.tracker.consent.state == state


@pytest.fixture
def recorded(tmp_path):
    """Answer a desk whose acts go to a ledger."""
    return Desk(
        *SENT,
        ledger=f"sqlite:///{tmp_path}/ledger.db",
        ledger_keys=("l" * 32,),
        consent_scope="account",
    )


def test_the_notice_that_was_shown_goes_into_the_record(recorded):
    texts = json.loads(Notices(None, "account").render())["de"]
    shown = {"language": "de", "notice": texts["digest"]}

    recorded.post(analytics="granted", **shown)
    recorded.post(analytics="denied", **shown)
    recorded.tracker.open().begin_response(None, NOWHERE)

    notice = Notice("de", f"{texts['title']}\n\n{texts['text']}")
    assert texts["text"].endswith("auf dem Sie angemeldet sind.")
    acts = [(act.state, act.notice) for act in recorded.sink.records]
    assert acts == [(ActState.GRANTED, notice), (ActState.DENIED, notice)]


UNKNOWN_NOTICE = {"language": "de", "notice": "0" * 64}


@pytest.mark.parametrize(
    "decision",
    [
        pytest.param({"analytics": "granted"}, id="a-grant-that-names-none"),
        pytest.param({"analytics": "denied", **UNKNOWN_NOTICE}, id="a-denial-that-names-another"),
    ],
)
def test_a_notice_that_is_not_known_is_not_recorded(recorded, decision):
    recorded.tracker.consent.grant()

    assert recorded.post(**decision).status == 200

    assert recorded.sink.records[-1].state.value == decision["analytics"]
    assert recorded.sink.records[-1].notice is None


def test_a_grant_to_a_notice_that_is_none_of_ours_does_not_count():
    desk = Desk(*SENT)

    response = desk.post(analytics="granted", **UNKNOWN_NOTICE)

    told = said(response)
    assert response.status == 409
    assert (told["state"], told["needs_reload"]) == ("unknown", True)
    assert told["notices"] == json.loads(Notices(None, "device").render())


# --- what a manager says again ----------------------------------------------------------------

REPLAYED = {"analytics": "granted", "source": "cmp:usercentrics"}


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="nobody-chose"),
        pytest.param({"policy": lambda head: "opt-out"}, id="opt-out"),
        pytest.param({"policy": lambda head: "cookieless", "cookieless": "daily"}, id="cookieless"),
    ],
)
def test_what_a_manager_was_told_before_counts_while_nobody_has_chosen(settings):
    desk = Desk(*SENT, **settings)

    assert desk.post(**REPLAYED).status == 200

    assert desk.tracker.consent.reason == "granted-now"


def test_a_manager_that_repeats_a_grant_records_nothing(recorded):
    recorded.post(analytics="granted")
    before = len(recorded.sink.records)

    response = recorded.post(**REPLAYED)

    assert (response.status, said(response)["state"]) == (200, "granted")
    assert len(recorded.sink.records) == before


@pytest.mark.parametrize("sent", [{}, {"fresh": True}])
def test_a_manager_never_overrides_gpc(sent):
    desk = Desk(*SENT, (b"sec-gpc", b"1"))

    assert desk.post(**REPLAYED, **sent).status == 409
    assert desk.tracker.consent.state == "denied"


@pytest.mark.parametrize("sent", [{}, {"fresh": True}])
def test_a_managers_denial_always_counts(sent):
    desk = Desk(*SENT)
    desk.tracker.consent.grant()

    response = desk.post(analytics="denied", source="cmp:usercentrics", **sent)

    assert (response.status, said(response)["state"]) == (200, "denied")


@pytest.mark.parametrize("analytics", ["granted", "denied"])
def test_the_manager_that_the_bridge_heard_goes_into_the_record(recorded, analytics):
    recorded.post(analytics="granted")

    recorded.post(analytics=analytics, source="cmp:usercentrics", fresh=True)

    assert recorded.sink.records[-1].source == "cmp:usercentrics"


# --- what the scripts know --------------------------------------------------------------------


@pytest.mark.parametrize("honors", [True, False])
def test_the_banner_knows_whether_gpc_counts(honors):
    script = Desk(*HERE, honor_gpc=honors).ask(path="/_mp/banner.js").body()

    assert f"const gpc = {str(honors).lower()} &&".encode() in script


@pytest.mark.parametrize("name", ["banner.js", "bridge.js"])
def test_the_scripts_know_where_they_are(name):
    script = Desk(*HERE).ask(path=f"/_mp/{name}").body()

    assert f'"/_mp" + "/{name}"'.encode() in script


def test_the_bridge_knows_its_project():
    desk = Desk(*HERE)

    token = json.dumps(desk.tracker.core.settings.token)

    assert b'"__mp_opt_in_out_" + ' + token.encode() in desk.ask(path="/_mp/bridge.js").body()


@pytest.mark.parametrize("name", ["banner.js", "bridge.js"])
def test_no_mark_is_left_in_a_script(name):
    assert b"@" not in Desk(*HERE).ask(path=f"/_mp/{name}").body().replace(b"@media", b"").replace(
        b"@keyframes", b""
    )


# --- GPC support ------------------------------------------------------------------------------


@pytest.mark.parametrize("since", ["2026-11-01", "20261101"])
def test_the_site_says_since_when_it_follows_gpc(since):
    response = Desk(gpc_since=since).ask(path=GPC_PATH)

    assert headers(response)[b"content-type"] == b"application/json"
    assert said(response) == {"gpc": True, "lastUpdate": "2026-11-01"}
