import sys

import pytest

from mp_asgi import SettingsError
from mp_asgi.assembly import make_ledger
from mp_asgi.consent.policy import ConsentPolicy, Default, State
from mp_asgi.events import ActState
from mp_asgi.identity import IdentityMode
from mp_asgi.place import normalise_path
from mp_asgi.readers.mixpanel_browser import MixpanelBrowser
from mp_asgi.settings import PolicyVersion
from tests.delivery.test_keeper import pretend_uwsgi
from tests.ledger.acts import make_ledger as make_other_ledger
from tests.support import NOW, make_act, make_core, make_settings

# --- the rules ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "name", "expected"),
    [
        pytest.param({}, "mode", IdentityMode.SIMPLIFIED, id="simplified"),
        pytest.param({"identity": "original"}, "mode", IdentityMode.ORIGINAL, id="original"),
        pytest.param({}, "has_late_answers", False, id="nobody-to-ask"),
        pytest.param({"identify_from": len}, "has_late_answers", True, id="who"),
        pytest.param({"consent_from": len}, "has_late_answers", True, id="what-they-chose"),
    ],
)
def test_the_rules_follow_the_settings(settings, name, expected):
    assert getattr(make_core(**settings), name) == expected


@pytest.mark.parametrize(
    ("settings", "is_uwsgi", "expected"),
    [
        pytest.param({"durability": "strict", "outbox": "sqlite"}, False, True, id="strict"),
        pytest.param({}, True, True, id="ends-without-a-word"),
        pytest.param({}, False, False, id="relaxed"),
    ],
)
def test_where_a_journal_is_kept_the_answer_waits_for_it(monkeypatch, settings, is_uwsgi, expected):
    if is_uwsgi:
        pretend_uwsgi(monkeypatch, has_threads=True)

    assert make_core(**settings).hands_over_early is expected


@pytest.mark.parametrize(
    ("consent", "default"),
    [("opt-in", Default.OPT_IN), ("opt-out", Default.OPT_OUT)],
    ids=["opt-in", "opt-out"],
)
def test_the_policy_follows_the_settings(consent, default):
    core = make_core(
        consent=consent, consent_version="v1", consent_max_age=60.0, consent_readers=["klaro"]
    )

    assert core.defaults.constant is default
    assert core.policy == ConsentPolicy(PolicyVersion("v1"), 60.0, frozenset({"klaro"}))


def test_the_cookies_follow_the_settings():
    core = make_core(
        id_cookie="a",
        consent_cookie="b",
        cookie_domain="example.com",
        cookie_path="/p",
        cookie_samesite="Strict",
    )

    styles = (core.id_style, core.consent_style, core.script_style)
    assert [style.name for style in styles] == ["a", "b", "mp_choice"]
    assert [style.is_http_only for style in styles] == [True, False, False]
    assert {(style.domain, style.path, style.samesite) for style in styles} == {
        ("example.com", "/p", "Strict")
    }


@pytest.mark.parametrize(
    ("header", "expected"),
    [("X-Choice", b"x-choice"), ("", b"x-mp-consent")],
    ids=["named", "off-and-still-a-denial"],
)
def test_the_consent_header_is_always_read(header, expected):
    core = make_core(consent_header=header)

    assert core.heads.consent_header == expected


def test_neither_cookie_passes_for_the_other():
    core = make_core()

    assert core.consent_signer.unsign(core.id_signer.sign(b"x")) is None
    assert core.id_signer.unsign(core.consent_signer.sign(b"x")) is None


# --- what the site knows of pages -----------------------------------------------------------------

HYBRID = [
    pytest.param({"adopt_browser_id": True}, id="adopted"),
    pytest.param({"share_id": True}, id="shared"),
    pytest.param({"first_party": True, "mount": "/_mp"}, id="first-party"),
]
OPT_OUT = "__mp_opt_in_out_t0ken"
PAGE_COOKIE = b"mp_t0ken_mixpanel=%7B%22distinct_id%22%3A%22%24device%3AX%22%2C%22%24device_id%22%3A%22X%22%7D"


def adopted_by(core, header):
    found = None if core.adopter is None else core.adopter.find(header)
    return found and found.device_id


@pytest.mark.parametrize("settings", HYBRID)
def test_a_hybrid_site_knows_the_pages_cookies(settings):
    core = make_core(**settings)

    assert core.browser.id_name == "mp_t0ken_mixpanel"
    assert list(core.page_ids.device_ids(PAGE_COOKIE)) == ["X"]


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="not-hybrid"),
        pytest.param({"adopt_cookie": "theirs"}, id="the-apps-own-cookie-is-no-page"),
        pytest.param({"share_id": True, "enabled": False}, id="switched-off"),
    ],
)
def test_any_other_site_knows_none(settings):
    core = make_core(**settings)

    assert (core.browser, core.page_ids) == (None, None)


@pytest.mark.parametrize(
    ("settings", "page", "app"),
    [
        pytest.param({}, None, None, id="nobody"),
        pytest.param({"adopt_browser_id": True}, "X", None, id="the-page"),
        pytest.param({"adopt_cookie": "theirs"}, None, "v-7", id="the-app"),
        pytest.param({"share_id": True}, None, None, id="sharing-adopts-nobody"),
        pytest.param(
            {"adopt_browser_id": True, "adopt_cookie": "theirs"}, "X", "v-7", id="either-of-them"
        ),
        pytest.param(
            {"adopt_browser_id": True, "adopt_cookie": "theirs", "enabled": False},
            None,
            None,
            id="switched-off",
        ),
    ],
)
def test_only_who_is_named_is_adopted(settings, page, app):
    core = make_core(**settings)

    assert (adopted_by(core, PAGE_COOKIE), adopted_by(core, b"theirs=v-7")) == (page, app)


@pytest.mark.parametrize("settings", HYBRID)
@pytest.mark.parametrize(
    ("cookies", "state"),
    [
        pytest.param(f"{OPT_OUT}=0", "denied", id="opted-out"),
        pytest.param("mp_optout=1", "denied", id="opted-out-of-old"),
        pytest.param(f"{OPT_OUT}=1", "unknown", id="an-opt-in-is-not-ours-to-believe"),
    ],
)
def test_an_opt_out_of_the_page_counts_where_we_talk_to_it(settings, cookies, state):
    core = make_core(**settings)
    jar = core.jars.read(cookies.encode(), is_secure=True)

    decision = jar.decide(core.policy, Default.OPT_IN, NOW, is_lasting=False)

    assert decision.state.value == state


def test_elsewhere_an_opt_out_of_the_page_is_nobodys():
    assert make_core().policy.managers == frozenset()


def test_a_reader_of_the_pages_choice_that_the_site_chose_is_the_only_one():
    core = make_core(share_id=True, consent_readers=[MixpanelBrowser()])
    jar = core.jars.read(f"{OPT_OUT}=1".encode(), is_secure=True)

    decision = jar.decide(core.policy, Default.OPT_IN, NOW, is_lasting=False)

    assert (decision.state, core.policy.managers) == (State.GRANTED, {"mixpanel-browser"})


def test_a_reader_that_the_site_chose_knows_the_name_of_its_cookie():
    core = make_core(share_id=True, consent_readers=[MixpanelBrowser(prefix="own_")])
    jar = core.jars.read(f"{OPT_OUT}=0".encode(), is_secure=True)

    decision = jar.decide(core.policy, Default.OPT_IN, NOW, is_lasting=False)

    assert decision.state is State.UNKNOWN


@pytest.mark.parametrize(
    ("settings", "sees_pages"),
    [
        pytest.param({}, False, id="by-default"),
        pytest.param({"track_pageviews": True}, True, id="wanted"),
        pytest.param({"track_pageviews": True, "enabled": False}, False, id="switched-off"),
    ],
)
def test_pages_are_seen_where_the_site_wants_it(settings, sees_pages):
    assert make_core(**settings).sees_pages is sees_pages


@pytest.mark.parametrize(
    ("paths", "path", "is_excluded"),
    [
        pytest.param(["/health"], "/health", True, id="the-path"),
        pytest.param(["/health"], "/healthy", False, id="no-more-of-it"),
        pytest.param(["/health"], "/a/health", False, id="not-below-another"),
        pytest.param(["/a", "/b"], "/b", True, id="any-of-them"),
        pytest.param(["/a", "/b"], "/ab", False, id="none-of-them"),
        pytest.param(["/admin/*"], "/admin/users/7", True, id="all-below"),
        pytest.param(["/admin/*"], "/admin/", True, id="a-star-is-also-nothing"),
        pytest.param(["/admin/*"], "/admin", False, id="not-the-path-itself"),
        pytest.param(["*.json"], "/api/users.json", True, id="a-star-in-front"),
        pytest.param(["/*/health"], "/eu/health", True, id="a-star-inside"),
        pytest.param(["/a*b*c"], "/aXbYc", True, id="two-stars"),
        pytest.param(["/a*b*c"], "/aXcYb", False, id="two-stars-in-another-order"),
        pytest.param(["*"], "/", True, id="everything"),
        pytest.param(["*"], "/a\nb", True, id="everything-is-everything"),
        pytest.param(["/a.b"], "/aXb", False, id="a-dot-is-a-dot"),
        pytest.param(["/(a|b)[c]"], "/(a|b)[c]", True, id="what-means-something-to-others"),
        pytest.param(["/caf%C3%A9/*"], "/caf%C3%A9/x", True, id="percent-encoded"),
        pytest.param(["/café/*"], "/caf%c3%a9/x", True, id="as-people-write-it"),
        pytest.param(["/a b"], "/a%20b", True, id="with-a-blank"),
        pytest.param(["/%61dmin"], "/admin", True, id="encoded-without-need"),
    ],
)
def test_paths_are_excluded_as_they_are_written(paths, path, is_excluded):
    pattern = make_core(exclude=paths).excluded

    assert (pattern.fullmatch(normalise_path(path)) is not None) is is_excluded


def test_by_default_no_path_is_excluded():
    assert make_core().excluded is None


# --- the ledger -----------------------------------------------------------------------------------


LEDGER_KEY = "l" * 32
DOWN = "postgresql://shop:s3cret@127.0.0.1:1/consent"


@pytest.fixture
def in_ledger(tmp_path):
    """Answer the settings that name a ledger."""
    return {"ledger": f"sqlite:///{tmp_path / 'ledger.db'}", "ledger_keys": (LEDGER_KEY,)}


def test_a_ledger_without_threads_stops_the_start(in_ledger, monkeypatch):
    pretend_uwsgi(monkeypatch, has_threads=False)

    with pytest.raises(SettingsError, match=r"MP_ASGI_LEDGER is set.*`enable-threads = true`"):
        make_ledger(make_settings(**in_ledger))


def test_without_threads_nobody_misses_a_ledger_that_is_not_named(monkeypatch):
    pretend_uwsgi(monkeypatch, has_threads=False)

    assert make_ledger(make_settings()) is None


def test_settings_without_a_ledger_make_none():
    assert make_ledger(make_settings()) is None


@pytest.mark.parametrize("why", ["no-such-directory", "a-key-is-missing"])
def test_a_ledger_that_cannot_be_used_is_told_without_a_secret(tmp_path, in_ledger, why):
    if why == "no-such-directory":
        in_ledger["ledger"] = f"sqlite:///{tmp_path / 'nowhere' / 'ledger.db'}"
    else:
        other = make_other_ledger(in_ledger["ledger"], "o" * 32, project=b"t0ken")
        other.open()
        other.append([make_act(ActState.DENIED)])
        other.close()

    with pytest.raises(SettingsError) as caught:
        make_ledger(make_settings(**in_ledger))

    assert "MP_ASGI_LEDGER cannot be used." in str(caught.value)
    assert LEDGER_KEY not in str(caught.value)


def test_a_ledger_without_its_extra_is_told_with_the_remedy(monkeypatch, in_ledger):
    monkeypatch.delitem(sys.modules, "mp_asgi.ledger")
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)

    with pytest.raises(SettingsError) as caught:
        make_ledger(make_settings(**in_ledger))

    assert "MP_ASGI_LEDGER is set. The ledger needs" in str(caught.value)
    assert 'pip install "mp-asgi[ledger]"' in str(caught.value)


def test_a_process_may_wait_for_a_ledger_that_is_down(caplog):
    settings = make_settings(ledger=DOWN, ledger_keys=[LEDGER_KEY])

    assert make_ledger(settings, must_answer=False) is not None
    assert "Nothing is sent until it answers" in caplog.text


def test_a_command_that_needs_the_ledger_is_told_that_it_is_down():
    settings = make_settings(ledger=DOWN, ledger_keys=[LEDGER_KEY])

    with pytest.raises(SettingsError, match="does not answer") as caught:
        make_ledger(settings)

    assert "s3cret" not in str(caught.value)
