import json
import os
import time
from urllib.parse import quote

import pytest

from mp_asgi.assembly import make_core, make_ledger
from mp_asgi.cli import main
from mp_asgi.cli.explain import _Nowhere
from mp_asgi.consent.choice import Choice
from mp_asgi.events import Act, ActState, Subject
from mp_asgi.identity import Origin, Visitor, mint
from mp_asgi.settings import Settings

KEY = "k" * 32
FIELDS = {
    "state",
    "reason",
    "source",
    "sends",
    "sets_id_cookie",
    "deletes_id_cookie",
    "device_id",
    "user_id",
    "needs_prompt",
    "signals",
    "adopted_from",
    "sets_page_cookies",
    "deletes_page_cookies",
    "left_out",
}


@pytest.fixture
def environ(monkeypatch):
    monkeypatch.setenv("MIXPANEL_TOKEN", "token")
    monkeypatch.setenv("MP_ASGI_SECRET_KEYS", KEY)
    return monkeypatch


@pytest.fixture
def explain(environ, capsys):
    def call(*arguments):
        assert main(["explain", "--json", *arguments]) == 0
        return json.loads(capsys.readouterr().out)

    return call


@pytest.fixture
def set_all(environ):
    def set_all(variables):
        for name, value in variables.items():
            environ.setenv(name, value)

    return set_all


def cookies(*, is_granted, is_secure=True, visitor=None):
    core = make_core(Settings(token="token", secret_keys=[KEY]), _Nowhere(), time.time, os.urandom)
    visitor = visitor or mint(os.urandom, time.time())
    choice = Choice(is_granted, "", int(time.time()), 1, "own")
    prefix = "__Host-" if is_secure else ""
    id_token = core.id_signer.sign(visitor.render(keeps_user=True)).decode()
    consent_token = core.consent_signer.sign(choice.render()).decode()
    header = f"Cookie: {prefix}mp_id={id_token}; {prefix}mp_consent={consent_token}"
    return visitor.device_id, header


def test_a_first_visit_is_unknown_and_sends_nothing(explain):
    answer = explain()
    for name in ("signals", "adopted_from", "sets_page_cookies", "deletes_page_cookies"):
        answer.pop(name)
    answer.pop("left_out")

    assert answer == {
        "state": "unknown",
        "reason": "no-choice",
        "source": "policy",
        "sends": False,
        "sets_id_cookie": False,
        "deletes_id_cookie": False,
        "device_id": None,
        "user_id": None,
        "needs_prompt": True,
    }


def test_a_granted_visitor_keeps_the_id(explain):
    device_id, header = cookies(is_granted=True)

    answer = explain("--header", header)

    assert answer["state"] == "granted"
    assert answer["device_id"] == device_id
    assert (answer["sends"], answer["sets_id_cookie"]) == (True, False)


def test_a_denied_visitor_loses_the_id(explain):
    _, header = cookies(is_granted=False)

    answer = explain("--header", header)

    assert (answer["state"], answer["deletes_id_cookie"], answer["sends"]) == (
        "denied",
        True,
        False,
    )
    assert answer["device_id"] is None


def test_the_browsers_signal_beats_the_cookie(explain):
    _, header = cookies(is_granted=True)

    answer = explain("--header", header, "--header", "Sec-GPC: 1")

    assert (answer["state"], answer["reason"]) == ("denied", "sec-gpc")


def test_a_plain_cookie_is_not_believed_on_https(explain):
    _, header = cookies(is_granted=True, is_secure=False)

    on_https = explain("--header", header)
    on_http = explain("--header", header, "--url", "http://localhost/")

    assert (on_https["state"], on_http["state"]) == ("unknown", "granted")


def test_a_granted_newcomer_gets_a_cookie_and_a_user(explain):
    answer = explain("--header", "X-MP-Consent: granted", "--user", "17")

    assert (answer["sets_id_cookie"], answer["user_id"], answer["device_id"]) == (True, "17", None)


def test_everything_is_off_when_switched_off(explain, environ):
    environ.setenv("MIXPANEL_ENABLED", "0")

    answer = explain("--header", "X-MP-Consent: granted")

    assert (answer["state"], answer["reason"], answer["sends"]) == ("denied", "disabled", False)
    assert answer["deletes_id_cookie"] is False


def test_people_read_the_same_without_json(environ, capsys):
    assert main(["explain", "--header", "Sec-GPC: 1"]) == 0

    text = capsys.readouterr().out
    assert text.startswith("decision   denied: nothing is sent")
    assert "because    sec-gpc (source: sec-gpc)" in text


def test_every_field_of_the_contract_is_there(explain):
    assert explain().keys() == FIELDS


def test_unusable_settings_are_one_message_and_exit_1(environ, capsys):
    environ.setenv("MIXPANEL_REGION", "mars")

    code = main(["explain"])

    assert code == 1
    assert "MIXPANEL_REGION (region) is 'mars'. Use us or eu or in." in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--header", "nonsense"], ["--url", "ftp://x"], ["--url", "http://["]],
    ids=["a header without a colon", "another scheme", "a broken address"],
)
def test_a_bad_argument_is_wrong_usage(environ, capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        main(["explain", *arguments])

    assert stop.value.code == 2
    assert "error: argument" in capsys.readouterr().err


# --- IDs of others, and the page's side -----------------------------------------------------------

GRANTED = ["--header", "X-MP-Consent: granted"]
PAGE = "e75fd028-ff86-441c-9375-424df8336f5e"
IDS, CHOICE = "mp_token_mixpanel", "__mp_opt_in_out_token"
PAGE_COOKIE = IDS + "=" + quote(json.dumps({"distinct_id": f"$device:{PAGE}", "$device_id": PAGE}))
ADOPTING = {"MP_ASGI_ADOPT_BROWSER_ID": "1", "MP_ASGI_ADOPT_COOKIE": "visitor"}


@pytest.mark.parametrize(
    ("cookie", "device_id", "adopted_from"),
    [
        pytest.param(PAGE_COOKIE, PAGE, "mixpanel-browser", id="the-page"),
        pytest.param("visitor=app-7", "app-7", "visitor", id="the-app"),
        pytest.param(
            f"{PAGE_COOKIE}; visitor=app-7", PAGE, "mixpanel-browser", id="the-page-first"
        ),
        pytest.param(f"{IDS}=broken; visitor=app-7", "app-7", "visitor", id="a-broken-page"),
        pytest.param("visitor=undefined", None, None, id="nothing-sound"),
    ],
)
def test_an_id_of_somebody_elses_is_told_with_where_it_comes_from(
    set_all, explain, cookie, device_id, adopted_from
):
    set_all(ADOPTING)

    answer = explain(*GRANTED, "--header", f"Cookie: {cookie}")

    assert (answer["device_id"], answer["adopted_from"]) == (device_id, adopted_from)
    assert answer["sets_id_cookie"]


def test_nothing_is_adopted_without_a_grant(set_all, explain):
    set_all(ADOPTING)

    answer = explain("--header", f"Cookie: {PAGE_COOKIE}")

    assert (answer["device_id"], answer["adopted_from"]) == (None, None)


@pytest.mark.parametrize(
    "visitor",
    [
        pytest.param(mint(os.urandom, time.time()), id="minted"),
        pytest.param(Visitor(PAGE, int(time.time()), origin=Origin.BROWSER), id="adopted-before"),
    ],
)
def test_an_id_of_ours_is_not_called_adopted_again(set_all, explain, visitor):
    set_all(ADOPTING)
    device_id, header = cookies(is_granted=True, visitor=visitor)

    answer = explain("--header", f"{header}; {PAGE_COOKIE}")

    assert (answer["device_id"], answer["adopted_from"]) == (device_id, None)


def test_a_device_that_met_somebody_else_is_not_gone_on_with(set_all, explain):
    set_all(ADOPTING)
    fields = {"distinct_id": "U1", "$device_id": PAGE, "$user_id": "U1"}
    cookie = f"{IDS}={quote(json.dumps(fields))}"

    answer = explain(*GRANTED, "--header", f"Cookie: {cookie}", "--user", "U2")

    assert (answer["device_id"], answer["adopted_from"]) == (None, None)


def test_a_page_whose_id_is_not_adopted_is_not_named(set_all, explain):
    set_all({"MP_ASGI_SHARE_ID": "1", "MP_ASGI_ADOPT_COOKIE": "visitor"})

    answer = explain(*GRANTED, "--header", f"Cookie: {PAGE_COOKIE}; visitor=$device:{PAGE}")

    assert (answer["device_id"], answer["adopted_from"]) == (PAGE, "visitor")


@pytest.mark.parametrize(
    "visitor",
    [
        pytest.param(Visitor("app-7", int(time.time()), origin=Origin.LITERAL), id="of-the-app"),
        pytest.param(Visitor(PAGE, int(time.time()), origin=Origin.BROWSER), id="of-the-page"),
        pytest.param(mint(os.urandom, time.time(), Origin.SUCCESSOR), id="successor"),
        pytest.param(
            mint(os.urandom, time.time()).with_first_touch('{"initial_utm_source":"news"}'),
            id="first-touch",
        ),
    ],
)
def test_every_id_that_our_cookie_holds_is_kept(explain, visitor):
    device_id, header = cookies(is_granted=True, visitor=visitor)

    answer = explain("--header", header)

    assert (answer["device_id"], answer["sets_id_cookie"]) == (device_id, False)


@pytest.mark.parametrize(
    ("settings", "arguments", "names"),
    [
        pytest.param({}, GRANTED, ([], []), id="no-page"),
        pytest.param(ADOPTING, GRANTED, ([], []), id="nothing-to-do"),
        pytest.param({"MP_ASGI_SHARE_ID": "1"}, GRANTED, ([IDS], []), id="shared"),
        pytest.param(
            {"MP_ASGI_SHARE_ID": "1"},
            [*GRANTED, "--url", "https://shop.example/"],
            ([IDS], []),
            id="shared-in-place-of-a-copy",
        ),
        pytest.param(
            ADOPTING,
            ["--header", f"Cookie: {PAGE_COOKIE}", "--header", "Sec-GPC: 1"],
            ([CHOICE], [IDS]),
            id="denied",
        ),
    ],
)
def test_the_pages_cookies_are_told_by_name(set_all, explain, settings, arguments, names):
    set_all(settings)

    answer = explain(*arguments)

    assert (answer["sets_page_cookies"], answer["deletes_page_cookies"]) == names


def test_people_read_which_of_the_pages_cookies_change(set_all, capsys):
    set_all(ADOPTING)

    assert main(["explain", "--header", f"Cookie: {PAGE_COOKIE}", "--header", "Sec-GPC: 1"]) == 0

    assert f"page       {CHOICE} set, {IDS} deleted" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("cookie", "line"),
    [
        pytest.param(
            PAGE_COOKIE, f"device ID  {PAGE}, adopted from mixpanel-browser", id="the-page"
        ),
        pytest.param(
            "visitor=app-7", "device ID  app-7, adopted from the cookie visitor", id="the-app"
        ),
    ],
)
def test_people_read_where_an_id_comes_from(set_all, capsys, cookie, line):
    set_all(ADOPTING)

    assert main(["explain", *GRANTED, "--header", f"Cookie: {cookie}"]) == 0

    assert line in capsys.readouterr().out.splitlines()


# --- what is left out ------------------------------------------------------------------------------

BOT = ["--header", "User-Agent: Mozilla/5.0 (compatible; Googlebot/2.1)"]
EXCLUDING = {"MP_ASGI_EXCLUDE": "/health,/admin/*"}
HEALTH = ["--url", "https://shop.example/health"]


@pytest.mark.parametrize(
    ("settings", "arguments", "left_out"),
    [
        pytest.param(EXCLUDING, HEALTH, "excluded", id="the-path"),
        pytest.param(EXCLUDING, ["--url", "https://a/%61dmin/x?q"], "excluded", id="any-spelling"),
        pytest.param(EXCLUDING, ["--url", "https://a/healthy"], None, id="another-path"),
        pytest.param({}, HEALTH, None, id="no-path-is-excluded"),
        pytest.param({}, BOT, "bot", id="a-bot"),
        pytest.param({"MP_ASGI_EXCLUDE_BOTS": "0"}, BOT, None, id="bots-are-welcome"),
        pytest.param(EXCLUDING, [*HEALTH, *BOT], "excluded", id="a-bot-on-the-path"),
        pytest.param({}, ["--header", "User-Agent: Mozilla/5.0 Firefox/150.0"], None, id="person"),
    ],
)
def test_what_is_left_out_is_not_sent(set_all, explain, settings, arguments, left_out):
    set_all(settings)

    answer = explain(*GRANTED, *arguments)

    assert (answer["left_out"], answer["sends"]) == (left_out, left_out is None)
    assert answer["state"] == "granted"


def test_what_is_left_out_is_told_without_a_grant_too(explain):
    assert explain(*BOT)["left_out"] == "bot"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        pytest.param(HEALTH, "left out   the path, by MP_ASGI_EXCLUDE", id="the-path"),
        pytest.param(BOT, "left out   a bot's user agent, by MP_ASGI_EXCLUDE_BOTS", id="a-bot"),
    ],
)
def test_people_read_why_it_is_left_out(set_all, capsys, arguments, line):
    set_all(EXCLUDING)

    assert main(["explain", *GRANTED, *arguments]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "decision   granted: but nothing is sent"
    assert line in lines


# --- what each signal said ------------------------------------------------------------------------

REFUSED = "klaro=%7B%22mixpanel%22%3Afalse%7D"
AGREED = (
    "OptanonConsent=groups=C0002%3A1&interactionCount=1; "
    "OptanonAlertBoxClosed=2026-11-21T19:30:13.493Z"
)


def said(answer):
    return {item["source"]: item["said"] for item in answer["signals"]}


def decided(answer):
    return [item["source"] for item in answer["signals"] if item["decided"]]


def test_every_signal_is_listed_and_the_one_that_decided_is_marked(environ, explain):
    environ.setenv("MP_ASGI_CONSENT_READERS", "onetrust,klaro,iab-tcf")

    answer = explain("--header", f"Cookie: {REFUSED}; {AGREED}", "--header", "Sec-GPC: 1")

    assert said(answer) == {
        "cookie": "nothing",
        "script": "nothing",
        "header": "nothing",
        "cmp:onetrust": "granted",
        "cmp:klaro": "denied",
        "cmp:iab-tcf": "nothing",
        "sec-gpc": "denied",
        "dnt": "nothing",
        "policy": "opt-in",
    }
    assert decided(answer) == ["cmp:klaro"]


@pytest.mark.parametrize(
    ("settings", "headers", "line"),
    [
        pytest.param(
            {"MP_ASGI_CONSENT_READERS": "onetrust"},
            [f"Cookie: {AGREED}"],
            (
                "cmp:onetrust",
                "granted",
                "2026-11-21T19:30:13+00:00",
                "OptanonConsent, OptanonAlertBoxClosed",
            ),
            id="a-manager-tells-its-time",
        ),
        pytest.param({}, ["DNT: 1"], ("dnt", "nothing", None, "not honoured here"), id="dnt"),
        pytest.param(
            {"MP_ASGI_HONOR_DNT": "1"}, ["DNT: 1"], ("dnt", "denied", None, ""), id="honoured-dnt"
        ),
        pytest.param(
            {}, ["Cookie: mp_choice=denied"], ("script", "denied", None, "mp_choice"), id="script"
        ),
        pytest.param(
            {},
            ["X-MP-Consent: granted"],
            ("header", "granted", None, "X-MP-Consent"),
            id="header",
        ),
        pytest.param(
            {}, ["Cookie: __Host-mp_consent=x"], ("cookie", "unreadable", None, ""), id="forged"
        ),
    ],
)
def test_a_line_tells_what_was_said_and_when(environ, explain, settings, headers, line):
    for name, value in settings.items():
        environ.setenv(name, value)

    answer = explain(*(part for header in headers for part in ("--header", header)))

    item = next(item for item in answer["signals"] if item["source"] == line[0])
    assert (item["source"], item["said"], item["at"], item["detail"]) == line


def test_our_own_choice_is_told_with_its_time_and_source(explain):
    _, header = cookies(is_granted=False)

    item = explain("--header", header)["signals"][0]

    assert (item["source"], item["said"], item["detail"]) == ("cookie", "denied", "own")
    assert item["at"].endswith("+00:00")
    assert item["decided"]


@pytest.mark.parametrize(
    ("user", "line"),
    [
        pytest.param(["--user", "U1"], ("denied", "own", True), id="who-denied"),
        pytest.param(["--user", "U2"], ("nothing", "", False), id="who-never-chose"),
        pytest.param([], ("nothing", "nobody is logged in", False), id="nobody"),
    ],
)
def test_the_account_speaks_for_the_user_who_is_named(environ, explain, tmp_path, user, line):
    environ.setenv("MP_ASGI_LEDGER", f"sqlite:///{tmp_path / 'ledger.db'}")
    environ.setenv("MP_ASGI_LEDGER_KEYS", "l" * 32)
    settings = Settings.from_env()
    key = make_core(settings, _Nowhere(), time.time, os.urandom).keys.user_key("U1")
    ledger = make_ledger(settings)
    ledger.append([Act(key=key, subject=Subject.USER, state=ActState.DENIED, at=time.time())])
    ledger.close()

    answer = explain(*user)

    item = next(item for item in answer["signals"] if item["source"] == "account")
    assert (item["said"], item["detail"], item["decided"]) == line


def test_people_read_one_line_a_signal(environ, capsys):
    environ.setenv("MP_ASGI_CONSENT_READERS", "klaro")

    assert main(["explain", "--header", f"Cookie: {REFUSED}"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert "what each signal said, the strongest first" in lines
    assert "> cmp:klaro  denied     klaro" in lines
    assert "  policy     opt-in" in lines
