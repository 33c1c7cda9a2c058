import dataclasses
import math
from datetime import timedelta
from pathlib import Path

import pytest

from mp_asgi.errors import MixpanelASGIError, SettingsError
from mp_asgi.readers.klaro import Klaro
from mp_asgi.settings import PolicyVersion, Settings, variable_names

KEY = "k" * 32
ENVIRON = {"MIXPANEL_TOKEN": "t0ken", "MP_ASGI_SECRET_KEYS": KEY}


def from_env(**variables):
    return Settings.from_env({**ENVIRON, **variables})


# --- values ---------------------------------------------------------------------------------------


def test_token_and_key_are_all_that_must_be_set():
    settings = Settings(token="t0ken", secret_keys=(KEY,))

    assert settings == from_env()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("region", "us"),
        ("enabled", True),
        ("identity", "simplified"),
        ("login_max_age", 43_200.0),
        ("consent", "opt-in"),
        ("consent_max_age", 15_552_000.0),
        ("consent_header", "X-MP-Consent"),
        ("honor_gpc", True),
        ("honor_dnt", False),
        ("id_cookie", "mp_id"),
        ("consent_cookie", "mp_consent"),
        ("cookie_secure", "auto"),
        ("cookie_samesite", "Lax"),
        ("retry_budget", 259_200.0),
        ("consent_readers", ()),
        ("policy", None),
        ("opt_out_countries", ()),
        ("country_headers", ("CF-IPCountry", "CloudFront-Viewer-Country", "X-Vercel-IP-Country")),
        ("cookieless", "off"),
        ("consent_scope", "device"),
        ("ledger", ""),
        ("ledger_keys", ()),
        ("mount", ""),
        ("notice", None),
        ("gpc_since", ""),
        ("oauth_token", ""),
        ("strict", False),
        ("adopt_cookie", ""),
        ("adopt_browser_id", False),
        ("share_id", False),
        ("first_party", False),
        ("first_party_names", ()),
        ("first_party_groups", False),
        ("context", True),
        (
            "url_parameters",
            ("utm_source", "utm_medium", "utm_campaign", "utm_content", "utm_term"),
        ),
        ("ip", "off"),
        ("track_pageviews", False),
        ("exclude", ()),
        ("exclude_bots", True),
        ("before_send", None),
    ],
)
def test_defaults_are_the_documented_ones(name, expected):
    assert getattr(from_env(), name) == expected


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        from_env().token = "other"


def test_lists_are_kept_as_tuples():
    keys = [KEY]
    settings = Settings(
        token="t0ken",
        secret_keys=keys,
        trusted_proxies=["::1"],
        consent_readers=["klaro"],
        opt_out_countries=["US"],
    )
    keys.clear()

    assert (settings.secret_keys, settings.trusted_proxies) == ((KEY,), ("::1",))
    assert (settings.consent_readers, settings.opt_out_countries) == ((Klaro(),), ("US",))


def test_one_key_in_place_of_a_list_is_told():
    with pytest.raises(SettingsError, match="MP_ASGI_SECRET_KEYS"):
        Settings(token="t0ken", secret_keys=KEY)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        pytest.param({}, "https://api.mixpanel.com", id="us"),
        pytest.param({"MIXPANEL_REGION": "eu"}, "https://api-eu.mixpanel.com", id="eu"),
        pytest.param({"MIXPANEL_REGION": "in"}, "https://api-in.mixpanel.com", id="in"),
        pytest.param({"MIXPANEL_API_HOST": "p.example"}, "https://p.example", id="host"),
        pytest.param({"MIXPANEL_API_HOST": "https://p.example/"}, "https://p.example", id="slash"),
        pytest.param(
            {"MIXPANEL_API_HOST": "http://127.0.0.1:8000"}, "http://127.0.0.1:8000", id="stand-in"
        ),
        pytest.param(
            {"MIXPANEL_REGION": "eu", "MIXPANEL_API_HOST": "p.example"},
            "https://p.example",
            id="host-before-region",
        ),
    ],
)
def test_batches_go_to_the_host_of_the_region_or_the_one_that_is_set(variables, expected):
    assert from_env(**variables).api_url == expected


def test_the_notice_is_read():
    settings = from_env(MP_ASGI_CONSENT_VERSION="v1@1970-01-02")

    assert settings.policy_version == PolicyVersion("v1", 86_400.0)


# --- secrets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("render", [repr, str, "{}".format], ids=["repr", "str", "format"])
def test_secrets_print_masked(render):
    settings = Settings(
        token="s3cret-token",
        secret_keys=("s3cret" * 6,),
        service_account_username="robot",
        service_account_secret="s3cret-account",
        project_id="1",
    )

    text = render(settings)

    assert "s3cret" not in text
    assert text.startswith("Settings(token='**********', region='us', ")
    assert "service_account_secret='**********'" in text
    assert "secret_keys='**********'" in text
    assert "service_account_username='robot'" in text


def test_a_secret_that_is_not_set_prints_as_such():
    assert "token='', " in repr(Settings(enabled=False))


# --- the environment ------------------------------------------------------------------------------


def test_the_processs_environment_is_read(monkeypatch):
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)

    assert Settings.from_env() == from_env()


def test_an_empty_environment_tells_what_must_be_set():
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({})

    assert [problem.split(" ")[0] for problem in caught.value.problems] == [
        "MIXPANEL_TOKEN",
        "MP_ASGI_SECRET_KEYS",
    ]


def test_what_cannot_be_read_and_what_cannot_work_is_told_at_once():
    with pytest.raises(SettingsError) as caught:
        from_env(MP_ASGI_BATCH_SIZE="5k", MP_ASGI_HONOR_GCP="1", MIXPANEL_REGION="uk")

    assert [problem.split(" ")[0] for problem in caught.value.problems] == [
        "MP_ASGI_BATCH_SIZE",
        "MP_ASGI_HONOR_GCP",
        "MIXPANEL_REGION",
    ]
    assert isinstance(caught.value, (MixpanelASGIError, ValueError))
    assert str(caught.value).count("\n  - ") == 3


def test_what_cannot_be_read_is_told_where_the_rest_works():
    with pytest.raises(SettingsError) as caught:
        from_env(MP_ASGI_BATCH_SIZE="5k")

    assert caught.value.problems == ("MP_ASGI_BATCH_SIZE is '5k'. Use a whole number.",)


def test_keyword_arguments_win_over_the_environment():
    settings = Settings.from_env({**ENVIRON, "MIXPANEL_REGION": "eu"}, region="in", strict=True)

    assert (settings.region, settings.strict) == ("in", True)


def test_every_field_but_the_facts_of_the_project_has_its_variable():
    names = {item.name: variable_names(item) for item in dataclasses.fields(Settings)}

    assert names["token"] == ("MIXPANEL_TOKEN", "MIXPANEL_PROJECT_TOKEN")
    assert names["honor_gpc"] == ("MP_ASGI_HONOR_GPC",)
    assert all(item.metadata["help"].endswith(".") for item in dataclasses.fields(Settings))


# --- an app's own configuration -------------------------------------------------------------------


@pytest.fixture
def environ(monkeypatch):
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.parametrize(
    ("config", "name", "expected"),
    [
        pytest.param({"MP_ASGI_BATCH_SIZE": "7"}, "batch_size", 7, id="text-is-parsed"),
        pytest.param({"MP_ASGI_BATCH_SIZE": 7}, "batch_size", 7, id="a-value-is-taken"),
        pytest.param({"MP_ASGI_IDENTIFY_FROM": math.floor}, "identify_from", math.floor, id="code"),
        pytest.param({"MIXPANEL_TOKEN": "mine"}, "token", "mine", id="wins-over-the-environment"),
        pytest.param({"MIXPANEL_PROJECT_TOKEN": "mine"}, "token", "mine", id="an-alias-wins-too"),
        pytest.param({"SECRET_KEY": "x", "DEBUG": True}, "token", "t0ken", id="not-ours"),
        pytest.param(
            {"MIXPANEL_TOKEN": "mine", "MIXPANEL_PROJECT_TOKEN": "other"},
            "token",
            "mine",
            id="the-preferred-name-first",
        ),
        pytest.param({}, "token", "t0ken", id="the-environment-alone"),
    ],
)
def test_an_apps_configuration_is_read(environ, config, name, expected):
    assert getattr(Settings.from_config(config), name) == expected


def test_an_apps_configuration_wins_over_a_mounted_file(environ, tmp_path):
    environ.setenv("MIXPANEL_TOKEN_FILE", str(tmp_path / "missing"))

    assert Settings.from_config({"MIXPANEL_TOKEN": "mine"}).token == "mine"


@pytest.mark.parametrize("value", ["0", False], ids=["text", "value"])
def test_a_misspelt_name_in_an_apps_configuration_is_told(environ, value):
    with pytest.raises(SettingsError, match="Did you mean MP_ASGI_HONOR_GPC"):
        Settings.from_config({"MP_ASGI_HONOR_GCP": value})


def test_reading_a_configuration_leaves_the_environment_alone(environ):
    Settings.from_config({"MP_ASGI_BATCH_SIZE": "7"})

    assert Settings.from_env().batch_size == 2_000


def test_text_in_code_is_read_as_in_a_variable():
    settings = from_env_with(login_max_age="12h", identify_from="builtins.len")

    assert settings == from_env_with(login_max_age=43_200.0, identify_from=len)


def test_a_ready_name_in_code_is_read_as_in_a_variable():
    settings = from_env_with(identify_from="starlette")

    assert settings == from_env(MP_ASGI_IDENTIFY_FROM="starlette")
    assert callable(settings.identify_from)


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("flush_interval", "soon", "Use seconds (5, 0.5) or a number with its unit"),
        ("consent_from", "no.such", "Use the dotted name of a callable"),
        ("identify_from", "flask", "Use starlette, django or flask-login, or the dotted name"),
    ],
)
def test_text_in_code_that_cannot_be_read_is_told_once(name, value, remedy):
    with pytest.raises(SettingsError) as caught:
        from_env_with(**{name: value})

    [problem] = caught.value.problems
    assert problem.startswith(f"MP_ASGI_{name.upper()} ({name}) is {value!r}. {remedy}")


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        pytest.param("state_directory", Path("/var/lib/shop"), "/var/lib/shop", id="path"),
        pytest.param("login_max_age", timedelta(hours=12), 43_200.0, id="duration"),
        pytest.param("close_timeout", timedelta(milliseconds=500), 0.5, id="fraction"),
    ],
)
def test_pleasant_types_are_kept_as_plain_ones(name, value, kept):
    assert getattr(from_env_with(**{name: value}), name) == kept


def test_a_file_in_an_apps_configuration_wins_over_the_environment(environ, tmp_path):
    path = tmp_path / "token"
    path.write_text("mine")

    assert Settings.from_config({"MIXPANEL_TOKEN_FILE": str(path)}).token == "mine"


def from_env_with(**overrides):
    return Settings.from_env(ENVIRON, **overrides)
