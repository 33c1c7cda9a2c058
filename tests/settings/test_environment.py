from dataclasses import dataclass, field

import pytest

from mp_asgi.errors import SettingsError
from mp_asgi.integrations.starlette import find_user
from mp_asgi.readers.klaro import Klaro
from mp_asgi.readers.onetrust import OneTrust
from mp_asgi.settings import Settings, variable_names
from mp_asgi.settings.environment import read_variables
from mp_asgi.settings.parsing import parse_int

KEY = "k" * 32


def read(variables, **overrides):
    reading = read_variables(Settings, variables, overrides)
    return reading.values, reading.problems


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        pytest.param({}, {}, id="nothing"),
        pytest.param({"PATH": "/bin", "MIXPANEL_OTHER": "x"}, {}, id="not-ours"),
        pytest.param({"MIXPANEL_TOKEN": "t"}, {"token": "t"}, id="token"),
        pytest.param({"MIXPANEL_PROJECT_TOKEN": "t"}, {"token": "t"}, id="alias"),
        pytest.param(
            {"MIXPANEL_TOKEN": "t", "MIXPANEL_PROJECT_TOKEN": "u"},
            {"token": "t"},
            id="the-preferred-name-wins",
        ),
        pytest.param(
            {"MIXPANEL_TOKEN": "", "MIXPANEL_PROJECT_TOKEN": "u"},
            {"token": "u"},
            id="an-empty-one-does-not",
        ),
        pytest.param({"MIXPANEL_TOKEN": " t\n"}, {"token": "t"}, id="white-space-around"),
        pytest.param({"MIXPANEL_TOKEN": "  "}, {}, id="white-space-alone"),
        pytest.param({"MIXPANEL_ENABLED": "0"}, {"enabled": False}, id="switch"),
        pytest.param(
            {"MP_ASGI_SECRET_KEYS": "a, b"}, {"secret_keys": ("a", "b")}, id="list-in-its-order"
        ),
        pytest.param({"MP_ASGI_LOGIN_MAX_AGE": "12h"}, {"login_max_age": 43_200.0}, id="duration"),
        pytest.param({"MP_ASGI_BATCH_SIZE": "500"}, {"batch_size": 500}, id="number"),
        pytest.param({"MP_ASGI_COOKIE_SAMESITE": "none"}, {"cookie_samesite": "None"}, id="case"),
        pytest.param(
            {"MP_ASGI_IDENTIFY_FROM": "builtins.len"}, {"identify_from": len}, id="dotted-callable"
        ),
        pytest.param(
            {"MP_ASGI_IDENTIFY_FROM": "starlette"}, {"identify_from": find_user}, id="ready-name"
        ),
        pytest.param(
            {"MP_ASGI_BEFORE_SEND": "builtins.len"}, {"before_send": len}, id="before-send"
        ),
        pytest.param(
            {"MP_ASGI_EXCLUDE": "/health, /admin/*"},
            {"exclude": ("/health", "/admin/*")},
            id="paths",
        ),
        pytest.param({"MP_ASGI_SHARE_ID": "on"}, {"share_id": True}, id="hybrid"),
        pytest.param(
            {"MP_ASGI_CONSENT_HEADER": ""}, {"consent_header": ""}, id="empty-has-meaning"
        ),
        pytest.param({"MP_ASGI_URL_PARAMETERS": ""}, {"url_parameters": ()}, id="empty-keeps-none"),
        pytest.param(
            {"MP_ASGI_CONSENT_READERS": "onetrust, klaro?cookie=my-consent"},
            {"consent_readers": (OneTrust(), Klaro(cookie="my-consent"))},
            id="readers-by-name-with-options",
        ),
        pytest.param(
            {"MP_ASGI_OPT_OUT_COUNTRIES": "us,gb"},
            {"opt_out_countries": ("US", "GB")},
            id="countries-in-any-case",
        ),
        pytest.param({"MIXPANEL_OAUTH_TOKEN": "t"}, {"oauth_token": "t"}, id="oauth-token"),
        pytest.param({"MP_ASGI_ID_COOKIE": ""}, {}, id="empty-is-unset-elsewhere"),
    ],
)
def test_variables_become_values(variables, expected):
    assert read(variables) == (expected, [])


def write(path, content):
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b"one", ("one",), id="one-key"),
        pytest.param(b"one\n", ("one",), id="line-end"),
        pytest.param(b"one\ntwo\n", ("one", "two"), id="a-key-a-line"),
        pytest.param(b"one, two\r\n", ("one", "", "two"), id="both-separators-are-refused-later"),
        pytest.param(b"one,two", ("one", "two"), id="comma-list"),
    ],
)
def test_a_secret_may_be_a_mounted_file(tmp_path, content, expected):
    variables = {"MP_ASGI_SECRET_KEYS_FILE": write(tmp_path / "keys", content)}

    assert read(variables) == ({"secret_keys": expected}, [])


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("MIXPANEL_TOKEN_FILE", "token"),
        ("MIXPANEL_PROJECT_TOKEN_FILE", "token"),
        ("MIXPANEL_SERVICE_ACCOUNT_SECRET_FILE", "service_account_secret"),
    ],
)
def test_every_secret_has_a_file_form(tmp_path, name, field):
    assert read({name: write(tmp_path / "secret", b"s\n")}) == ({field: "s"}, [])


def test_a_file_beside_its_variable_is_told(tmp_path):
    path = write(tmp_path / "token", b"mounted")

    problems = problems_of(MIXPANEL_TOKEN="t0ken", MIXPANEL_TOKEN_FILE=path)

    assert problems == ("MIXPANEL_TOKEN and MIXPANEL_TOKEN_FILE are both set. Unset one.",)


def test_an_empty_name_of_a_file_is_none():
    assert read({"MIXPANEL_TOKEN_FILE": " ", "MIXPANEL_TOKEN": "t"}) == ({"token": "t"}, [])


def test_an_empty_file_is_an_unset_variable(tmp_path):
    assert read({"MIXPANEL_TOKEN_FILE": write(tmp_path / "empty", b"\n")}) == ({}, [])


def test_only_secrets_have_a_file_form():
    _, [problem] = read({"MP_ASGI_ID_COOKIE_FILE": "/x"})

    assert problem == "MP_ASGI_ID_COOKIE_FILE is no setting. Did you mean MP_ASGI_ID_COOKIE?"


@pytest.mark.parametrize(
    "content", [None, b"\xff\xfes3cret"], ids=["that-is-missing", "that-is-no-text"]
)
def test_a_file_is_told(tmp_path, content):
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)

    values, [problem] = read({"MIXPANEL_TOKEN_FILE": str(path)})

    assert list(values) == ["token"]  # a stand-in, so that it is not missing as well
    assert problem.startswith("MIXPANEL_TOKEN_FILE cannot be read (")
    assert problem.endswith("). Name a readable file.")
    assert "s3cret" not in problem


KNOWN = {"MIXPANEL_TOKEN": "t0ken", "MP_ASGI_SECRET_KEYS": KEY}
SECRETS = [
    name
    for item in Settings.__dataclass_fields__.values()
    if item.metadata["secret"]
    for name in variable_names(item)
]


def problems_of(**variables):
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({**KNOWN, **variables})
    return caught.value.problems


COMPLETE = {
    **KNOWN,
    "MIXPANEL_PROJECT_ID": "1",
    "MIXPANEL_SERVICE_ACCOUNT_USERNAME": "u",
    "MIXPANEL_SERVICE_ACCOUNT_SECRET": "s",
    "MP_ASGI_LEDGER": "sqlite:///consent.db",
    "MP_ASGI_LEDGER_KEYS": "l" * 32,
    "MP_ASGI_MOUNT": "/_mp",
    "MP_ASGI_METRICS_TOKEN": "m" * 32,
}


@pytest.mark.parametrize("name", SECRETS)
def test_nothing_else_is_said_of_a_file_that_cannot_be_read(name):
    preferred = name.replace("PROJECT_TOKEN", "TOKEN")
    hidden = dict.fromkeys((name, preferred), "")

    [problem] = problems_of(**{**COMPLETE, **hidden, f"{name}_FILE": "/no/such/file"})

    assert problem.startswith(f"{name}_FILE cannot be read (")


@pytest.mark.parametrize(
    ("name", "content", "rest"),
    [
        pytest.param("MP_ASGI_OUTBOX_FILE", b"sqllite", " (outbox) is not usable. ", id="value"),
        pytest.param("MP_ASGI_SECRET_KEYS_FILE", b"s3cret", ": key 1 of 1 has ", id="key"),
        pytest.param("MIXPANEL_PROJECT_TOKEN_FILE", b"a@b", " (token) is not usable", id="alias"),
    ],
)
def test_a_wrong_value_is_a_problem_of_what_was_read(tmp_path, name, content, rest):
    hidden = {"MIXPANEL_TOKEN": ""} if "TOKEN" in name else {}
    hidden |= {"MP_ASGI_SECRET_KEYS": ""} if "KEYS" in name else {}

    [problem] = problems_of(**hidden, **{name: write(tmp_path / "secret", content)})

    assert problem.startswith(name + rest)


@pytest.mark.parametrize("name", ["MP_ASGI_REDIS_URL", "MP_ASGI_REDIS"])
def test_redis_is_an_outbox(name):
    assert problems_of(**{name: "redis://x"}) == (
        f"{name} is no setting. Did you mean MP_ASGI_OUTBOX?",
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MIXPANEL_TOKN", "MIXPANEL_TOKEN"),
        ("MIXPANEL_REGOIN", "MIXPANEL_REGION"),
        ("MIXPANEL_ENABLE", "MIXPANEL_ENABLED"),
        ("MIXPANEL_SERVICE_ACCOUNT_USER", "MIXPANEL_SERVICE_ACCOUNT_USERNAME"),
    ],
)
def test_a_misspelt_fact_of_the_project_is_told(name, meant):
    assert read({name: "x"}) == ({}, [f"{name} is no setting. Did you mean {meant}?"])


@pytest.mark.parametrize(
    "name",
    [
        "MIXPANEL_API_SECRET",
        "MIXPANEL_API_KEY",
        "MIXPANEL_PROJECT_NAME",
        "MIXPANEL_TOKEN_EU",
        "MIXPANEL_HOST",
        "MIXPANEL_",
    ],
)
def test_another_tools_variable_is_left_alone(name):
    assert read({name: "x"}) == ({}, [])


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        pytest.param(
            {"MP_ASGI_BATCH_SIZE": "5k"},
            "MP_ASGI_BATCH_SIZE is '5k'. Use a whole number.",
            id="shown",
        ),
        pytest.param(
            {"MP_ASGI_HONOR_GCP": "1"},
            "MP_ASGI_HONOR_GCP is no setting. Did you mean MP_ASGI_HONOR_GPC?",
            id="did-you-mean",
        ),
        pytest.param(
            {"MP_ASGI_ZZZZZZZZZZZZZZZZZZZZ": "1"},
            "MP_ASGI_ZZZZZZZZZZZZZZZZZZZZ is no setting. Remove it.",
            id="nothing-near",
        ),
        pytest.param(
            {"MP_ASGI_TOKEN": "t"},
            "MP_ASGI_TOKEN is no setting. Remove it.",
            id="the-wrong-prefix",
        ),
    ],
)
def test_what_cannot_be_read_is_told(variables, expected):
    _, [problem] = read(variables)

    assert (
        problem.split(" Did")[0].split(" Remove")[0]
        == expected.split(" Did")[0].split(" Remove")[0]
    )
    if "Did you mean" in expected:
        assert problem == expected


def test_all_that_cannot_be_read_is_told_at_once():
    _, problems = read(
        {"MP_ASGI_HONOR_GPC": "maybe", "MP_ASGI_FLUSH_INTERVAL": "soon", "MP_ASGI_NO": "1"},
        no_such_field=1,
    )

    assert [problem.split(" ")[0] for problem in problems] == [
        "MP_ASGI_HONOR_GPC",
        "MP_ASGI_FLUSH_INTERVAL",
        "MP_ASGI_NO",
        "no_such_field",
    ]


def test_overrides_win_and_spare_the_variable():
    assert read({"MP_ASGI_BATCH_SIZE": "5k"}, batch_size=7) == ({"batch_size": 7}, [])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("batchsize", "batchsize is no setting. Did you mean batch_size?"),
        ("redis_url", "redis_url is no setting. Did you mean outbox?"),
        ("zzzzzzzz", "zzzzzzzz is no setting. Remove it."),
    ],
)
def test_an_override_that_is_no_field_is_told(name, expected):
    values, [problem] = read({}, **{name: 1})

    assert (values, problem) == ({}, expected)


def test_these_are_the_secrets():
    fields = Settings.__dataclass_fields__
    secrets = [name for name, item in fields.items() if item.metadata["secret"]]

    assert secrets == [
        "token",
        "service_account_secret",
        "oauth_token",
        "secret_keys",
        "ledger",
        "ledger_keys",
        "outbox",
        "metrics_token",
    ]


@dataclass
class PinSettings:
    """Settings with a secret that can be unreadable; none of ours can."""

    pin: int = field(default=0, metadata={"variables": (), "parse": parse_int, "secret": True})


def test_no_problem_quotes_a_secret():
    reading = read_variables(PinSettings, {"MP_ASGI_PIN": "s3cret"}, {})

    assert reading.values == {}
    assert reading.problems == ["MP_ASGI_PIN is a value that is not shown. Use a whole number."]
