import json
import os
import time

import pytest

from mp_asgi.analytics import make_core, make_ledger
from mp_asgi.cli import main
from mp_asgi.cli.explain import _Nowhere
from mp_asgi.consent.choice import Choice
from mp_asgi.events import Act, ActState, Subject
from mp_asgi.identity import mint
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


def cookies(*, is_granted, is_secure=True):
    core = make_core(Settings(token="token", secret_keys=[KEY]), _Nowhere(), time.time, os.urandom)
    visitor = mint(os.urandom, time.time())
    choice = Choice(is_granted, "", int(time.time()), 1, "own")
    prefix = "__Host-" if is_secure else ""
    id_token = core.id_signer.sign(visitor.render(keeps_user=True)).decode()
    consent_token = core.consent_signer.sign(choice.render()).decode()
    header = f"Cookie: {prefix}mp_id={id_token}; {prefix}mp_consent={consent_token}"
    return visitor.device_id, header


def test_a_first_visit_is_unknown_and_sends_nothing(explain):
    answer = explain()
    answer.pop("signals")

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
