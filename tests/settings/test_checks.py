import dataclasses
import re
from functools import partial

import pytest

from mp_asgi.errors import SettingsError
from mp_asgi.settings import COOKIE_MAX_AGE, Settings, variable_names
from mp_asgi.settings.checks import find_problems

KEY = "k" * 32


def make(**overrides):
    return Settings(**{"token": "t0ken", "secret_keys": (KEY,), **overrides})


def problems_of(**overrides):
    with pytest.raises(SettingsError) as caught:
        make(**overrides)
    return caught.value.problems


def test_settings_that_work_have_no_problem():
    assert find_problems(make()) == []


async def ask(connection):
    return connection


async def ask_many(connection):
    yield connection


class Asking:
    async def __call__(self, connection):
        return connection


ACCOUNT = {
    "service_account_username": "u",
    "service_account_secret": "s",
    "project_id": "1",
}


REGION = {"opt_out_countries": ["US", "GB"], "trusted_proxies": ["10.0.0.0/8"]}
LEDGER = {"ledger": "sqlite:///consent.db", "ledger_keys": ["l" * 32]}
NOTICE = {"en": {"title": "May we count you?"}, "de": {}}
FIRST_PARTY = {"first_party": True, "mount": "/_mp"}


class Reading:
    """A reader as apps write them."""

    name = "ours"
    cookies = ("ours",)

    def read(self, cookies):
        return None


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param({"token": "A.b_c-1"}, id="token"),
        pytest.param({"token": "t" * 128}, id="longest-token"),
        pytest.param({"region": "eu"}, id="region"),
        pytest.param({"api_host": "api-eu.mixpanel.com"}, id="host"),
        pytest.param({"api_host": "https://proxy.example:8443/"}, id="host-with-scheme-and-port"),
        pytest.param({"api_host": "http://localhost:8000"}, id="http-localhost"),
        pytest.param({"api_host": "http://127.0.0.1"}, id="http-loopback"),
        pytest.param({"api_host": "http://127.8.9.1:80"}, id="http-anywhere-in-127"),
        pytest.param({"api_host": "http://[::1]:8000"}, id="http-ipv6-loopback"),
        pytest.param(ACCOUNT, id="service-account"),
        pytest.param({"secret_keys": (KEY, "é" * 16)}, id="keys-are-measured-in-bytes"),
        pytest.param({"secret_keys": [KEY]}, id="keys-in-a-list"),
        pytest.param({"identify_from": len, "consent_from": len}, id="callables"),
        pytest.param({"login_max_age": 60}, id="a-whole-number-of-seconds"),
        pytest.param({"cookie_domain": ".example.com"}, id="domain-with-a-dot"),
        pytest.param({"cookie_domain": "localhost"}, id="domain-of-one-label"),
        pytest.param({"cookie_path": "/a-b/c.d~e"}, id="path"),
        pytest.param({"cookie_samesite": "None", "cookie_secure": "auto"}, id="samesite-none"),
        pytest.param({"consent_header": ""}, id="no-consent-header"),
        pytest.param({"trusted_proxies": ["10.0.0.0/8", "::1", "10.0.0.1/8"]}, id="proxies"),
        pytest.param({"enabled": False, "token": "", "secret_keys": ()}, id="switched-off"),
        pytest.param(REGION, id="countries-behind-a-proxy"),
        pytest.param({"country_headers": ["X-Country"]}, id="country-header"),
        pytest.param({"country_headers": []}, id="no-country-header"),
        pytest.param({"policy": len}, id="policy"),
        pytest.param({"policy": len, "cookieless": "daily"}, id="cookieless"),
        pytest.param(LEDGER, id="ledger"),
        pytest.param({**LEDGER, "consent_scope": "account"}, id="account-scope"),
        pytest.param({"mount": "/_mp"}, id="mount"),
        pytest.param({"mount": "/a/b-c.d~e"}, id="deeper-mount"),
        pytest.param({"notice": NOTICE}, id="notice"),
        pytest.param({"notice": {}}, id="notice-of-no-language"),
        pytest.param({"gpc_since": "2026-11-01"}, id="gpc-since"),
        pytest.param({"consent_readers": ["klaro", Reading(), len]}, id="readers"),
        pytest.param({"identity": "legacy"}, id="legacy"),
        pytest.param({"ip": "coarse"}, id="ip"),
        pytest.param({"adopt_cookie": "visitor"}, id="adopt-cookie"),
        pytest.param({"adopt_browser_id": True, "share_id": True}, id="hybrid"),
        pytest.param(FIRST_PARTY, id="first-party"),
        pytest.param({**FIRST_PARTY, "first_party_names": ["track=t", "engage=e"]}, id="names"),
        pytest.param({**FIRST_PARTY, "first_party_groups": True}, id="group-updates"),
        pytest.param({**FIRST_PARTY, "cookie_path": "/_mp"}, id="cookies-of-the-mount"),
        pytest.param({**FIRST_PARTY, "mount": "/a/_mp", "cookie_path": "/a"}, id="cookies-above"),
        pytest.param({**FIRST_PARTY, "mount": "/a/_mp", "cookie_path": "/a/"}, id="a-slash-more"),
        pytest.param({"mount": "/_mp", "cookie_path": "/shop"}, id="cookies-beside-the-mount"),
        pytest.param({"url_parameters": []}, id="no-parameter"),
        pytest.param({"url_parameters": ["filter[a]", "gr%C3%B6%C3%9Fe", "a.b~c"]}, id="parameter"),
        pytest.param({"adopt_cookie": "sessions_seen"}, id="no-sessions-cookie"),
        pytest.param({"adopt_cookie": "mp_visitor"}, id="nobody-elses-cookie"),
        pytest.param({"exclude": ["/größe", "/a b"]}, id="exclude-in-any-spelling"),
        pytest.param({"exclude": ["/health", "/admin/*", "*.json"]}, id="exclude"),
        pytest.param({"before_send": len}, id="before-send"),
    ],
)
def test_what_can_work_is_taken(overrides):
    make(**overrides)


@pytest.mark.parametrize(
    ("overrides", "variable", "remedy"),
    [
        pytest.param({"token": ""}, "MIXPANEL_TOKEN is not set", "MIXPANEL_ENABLED=0", id="token"),
        pytest.param({"token": "a b"}, "MIXPANEL_TOKEN", "letters and digits", id="token-space"),
        pytest.param({"token": "t" * 129}, "MIXPANEL_TOKEN", "letters", id="token-too-long"),
        pytest.param({"token": 5}, "MIXPANEL_TOKEN", "Use text.", id="token-no-text"),
        pytest.param(
            {"enabled": False, "token": "a b"}, "MIXPANEL_TOKEN", "letters", id="even-switched-off"
        ),
        pytest.param(
            {"region": "uk"}, "MIXPANEL_REGION (region) is 'uk'", "us or eu or in", id="region"
        ),
        pytest.param({"api_host": "ftp://a"}, "MIXPANEL_API_HOST", "host name", id="scheme"),
        pytest.param({"api_host": "https://"}, "MIXPANEL_API_HOST", "only the host", id="no-host"),
        pytest.param({"api_host": "a:99999"}, "MIXPANEL_API_HOST", "port", id="port"),
        pytest.param({"api_host": "a:0"}, "MIXPANEL_API_HOST", "host name", id="port-zero"),
        pytest.param({"api_host": "a:b"}, "MIXPANEL_API_HOST", "port", id="port-no-number"),
        pytest.param({"api_host": "https://[::1"}, "MIXPANEL_API_HOST", "host", id="broken"),
        pytest.param({"api_host": "a b"}, "MIXPANEL_API_HOST", "host name", id="host-space"),
        pytest.param({"api_host": "a/track"}, "MIXPANEL_API_HOST", "no path", id="path"),
        pytest.param({"api_host": "a?b=c"}, "MIXPANEL_API_HOST", "no path, query", id="query"),
        pytest.param({"api_host": "a#b"}, "MIXPANEL_API_HOST", "no path", id="fragment"),
        pytest.param(
            {"api_host": "https://u:p@a"}, "MIXPANEL_API_HOST", "credentials", id="credentials"
        ),
        pytest.param(
            {"api_host": "http://api.mixpanel.com"},
            "MIXPANEL_API_HOST",
            "Use https",
            id="http-elsewhere",
        ),
        pytest.param(
            {"api_host": "http://10.0.0.1"}, "MIXPANEL_API_HOST", "Use https", id="http-in-a-lan"
        ),
        pytest.param(
            {"api_host": "http://localhost.evil.example"},
            "MIXPANEL_API_HOST",
            "Use https",
            id="http-look-alike",
        ),
        *[
            pytest.param(
                {**ACCOUNT, missing: ""},
                "MIXPANEL_SERVICE_ACCOUNT_USERNAME",
                "set all three or none",
                id=f"account-without-{missing}",
            )
            for missing in ACCOUNT
        ],
        pytest.param({"secret_keys": ()}, "MP_ASGI_SECRET_KEYS is not set", "secret", id="no-key"),
        pytest.param(
            {"secret_keys": (KEY, "k" * 31)}, "key 2 of 2 has 31 bytes", "at least 32", id="short"
        ),
        pytest.param(
            {"secret_keys": KEY}, "MP_ASGI_SECRET_KEYS", "Use a list of texts.", id="keys-in-text"
        ),
        pytest.param(
            {"secret_keys": (10**40,)}, "MP_ASGI_SECRET_KEYS", "text", id="key-that-is-a-number"
        ),
        pytest.param(
            {"identity": "v3"},
            "MP_ASGI_IDENTITY",
            "Use simplified or original or legacy.",
            id="identity",
        ),
        pytest.param({"ip": "on"}, "MP_ASGI_IP", "off or coarse or full", id="ip"),
        pytest.param(
            {"adopt_cookie": "a b"}, "MP_ASGI_ADOPT_COOKIE", "name of a cookie", id="adopt-space"
        ),
        pytest.param(
            {"adopt_cookie": "mp_id"}, "MP_ASGI_ADOPT_COOKIE", "not of one of ours", id="adopt-ours"
        ),
        *[
            pytest.param(
                {"adopt_cookie": name}, "MP_ASGI_ADOPT_COOKIE", "of one of ours", id=f"adopt-{name}"
            )
            for name in ("__Host-mp_id", "__Host-mp_consent", "__Secure-mp_id", "mp_choice")
        ],
        *[
            pytest.param(
                {"adopt_cookie": name},
                "MP_ASGI_ADOPT_COOKIE",
                "set MP_ASGI_ADOPT_BROWSER_ID=1",
                id=f"adopt-{name}",
            )
            for name in ("mp_t0ken_mixpanel", "mp_0ther_mixpanel", "__mp_opt_in_out_t0ken")
        ],
        *[
            pytest.param(
                {"adopt_cookie": name}, "_ADOPT_COOKIE", "is somebody's key", id=f"adopt-{name}"
            )
            for name in ("sessionid", "__Host-session", "__Secure-sid", "PHPSESSID")
        ],
        *[
            pytest.param({field: name}, f"MP_ASGI_{field.upper()}", "taken", id=f"{field}-{name}")
            for field in ("id_cookie", "consent_cookie")
            for name in ("mp_choice", "mp_t0ken_mixpanel", "__mp_opt_in_out_t0ken", "mp_optout")
        ],
        pytest.param(
            {"adopt_cookie": "choice", "consent_cookie": "choice"},
            "MP_ASGI_ADOPT_COOKIE",
            "the app's own cookie",
            id="adopt-our-consent",
        ),
        pytest.param(
            {"first_party": True}, "MP_ASGI_FIRST_PARTY", "set MP_ASGI_MOUNT", id="first-party"
        ),
        pytest.param(
            {**FIRST_PARTY, "first_party_names": ["trak=t"]},
            "MP_ASGI_FIRST_PARTY_NAMES",
            "Write KIND=NAME",
            id="endpoint",
        ),
        pytest.param(
            {**FIRST_PARTY, "first_party_names": ["track=engage"]},
            "MP_ASGI_FIRST_PARTY_NAMES",
            "one name",
            id="endpoints-of-one-name",
        ),
        pytest.param(
            {**FIRST_PARTY, "first_party_names": ["track=t", "track=u"]},
            "MP_ASGI_FIRST_PARTY_NAMES",
            "track is named twice",
            id="endpoint-twice",
        ),
        pytest.param(
            {"first_party_names": ["track=t"]},
            "MP_ASGI_FIRST_PARTY_NAMES",
            "set MP_ASGI_FIRST_PARTY=1, too",
            id="names-of-no-endpoint",
        ),
        pytest.param(
            {"first_party_groups": True},
            "MP_ASGI_FIRST_PARTY_GROUPS",
            "set MP_ASGI_FIRST_PARTY=1, too",
            id="groups-from-nowhere",
        ),
        *[
            pytest.param(
                {**FIRST_PARTY, "cookie_path": path},
                "MP_ASGI_COOKIE_PATH",
                "MP_ASGI_COOKIE_PATH=/",
                id=f"cookies-that-never-come-{path}",
            )
            for path in ("/shop", "/_m", "/_mp/below")
        ],
        pytest.param({"exclude": ["health"]}, "MP_ASGI_EXCLUDE", "paths such as", id="exclude"),
        pytest.param({"exclude": ["/a?b=c"]}, "MP_ASGI_EXCLUDE", "no query", id="exclude-query"),
        pytest.param({"exclude": ["/a#b"]}, "MP_ASGI_EXCLUDE", "no query", id="exclude-fragment"),
        *[
            pytest.param(
                {"url_parameters": ["q", item]},
                "MP_ASGI_URL_PARAMETERS",
                "Use names as they stand in a URL",
                id=f"parameter-{item}",
            )
            for item in ("?q", "a b", "q=", "a&b", "#q", "utm_*", "größe", " q", "q\n")
        ],
        pytest.param({"identify_from": "a.b"}, "MP_ASGI_IDENTIFY_FROM", "callable", id="no-code"),
        pytest.param({"consent_from": 5}, "FROM (consent_from) is 5", "callable", id="consent"),
        pytest.param({"consent": "yes"}, "MP_ASGI_CONSENT", "opt-in or opt-out", id="consent-mode"),
        pytest.param({"consent_version": "a b"}, "MP_ASGI_CONSENT_VERSION", "32", id="version"),
        pytest.param({"consent_header": "X Y"}, "MP_ASGI_CONSENT_HEADER", "header", id="header"),
        pytest.param({"consent_from": ask}, "CONSENT_FROM", "an async function", id="async"),
        pytest.param({"identify_from": Asking()}, "_FROM", "an async function", id="async-object"),
        pytest.param({"identify_from": partial(ask, 1)}, "_FROM", "async", id="async-partial"),
        pytest.param({"consent_from": ask_many}, "_FROM", "async", id="async-generator"),
        pytest.param({"honor_gpc": 1}, "HONOR_GPC (honor_gpc)", "True or False", id="switch"),
        pytest.param({"batch_size": True}, "BATCH_SIZE", "whole number", id="switch-for-one"),
        pytest.param({"batch_size": 5.0}, "BATCH_SIZE", "whole number", id="float-for-int"),
        pytest.param({"login_max_age": "soon"}, "LOGIN_MAX_AGE", "Use seconds (5", id="text"),
        pytest.param({"login_max_age": None}, "LOGIN_MAX_AGE", "seconds, as in 5.0", id="nothing"),
        pytest.param({"login_max_age": True}, "LOGIN_MAX_AGE", "as in 5.0", id="switch-for-time"),
        pytest.param({"trusted_proxies": "::1"}, "_PROXIES", "list of texts", id="proxy-in-text"),
        pytest.param({"trusted_proxies": ["7"]}, "_PROXIES", "networks", id="proxy-is-a-number"),
        pytest.param({"id_cookie": "a b"}, "MP_ASGI_ID_COOKIE", "plain", id="cookie-space"),
        pytest.param({"id_cookie": ""}, "MP_ASGI_ID_COOKIE", "plain", id="cookie-empty"),
        pytest.param({"id_cookie": "é"}, "MP_ASGI_ID_COOKIE", "plain", id="cookie-not-ascii"),
        pytest.param({"id_cookie": "__Host-a"}, "MP_ASGI_ID_COOKIE", "__Host-", id="host-prefix"),
        pytest.param(
            {"consent_cookie": "__Secure-a"}, "MP_ASGI_CONSENT_COOKIE", "plain", id="secure-prefix"
        ),
        pytest.param(
            {"consent_cookie": "mp_id"}, "MP_ASGI_CONSENT_COOKIE", "another name", id="same-name"
        ),
        pytest.param({"cookie_domain": "a b"}, "MP_ASGI_COOKIE_DOMAIN", "host", id="domain"),
        pytest.param({"cookie_domain": "a;b"}, "MP_ASGI_COOKIE_DOMAIN", "host", id="domain-header"),
        pytest.param({"cookie_domain": "https://a"}, "MP_ASGI_COOKIE_DOMAIN", "host", id="url"),
        pytest.param({"cookie_path": "a"}, "MP_ASGI_COOKIE_PATH", "starts with /", id="relative"),
        pytest.param({"cookie_path": "/a;b"}, "MP_ASGI_COOKIE_PATH", "no ;", id="path-header"),
        pytest.param({"cookie_path": "/a\nb"}, "MP_ASGI_COOKIE_PATH", "no ;", id="path-newline"),
        pytest.param({"cookie_path": ""}, "MP_ASGI_COOKIE_PATH", "starts with /", id="path-empty"),
        pytest.param({"cookie_secure": "yes"}, "MP_ASGI_COOKIE_SECURE", "auto or", id="secure"),
        pytest.param({"cookie_samesite": "lax"}, "MP_ASGI_COOKIE_SAMESITE", "Lax", id="samesite"),
        pytest.param(
            {"cookie_samesite": "None", "cookie_secure": "off"},
            "MP_ASGI_COOKIE_SAMESITE",
            "needs MP_ASGI_COOKIE_SECURE",
            id="samesite-none-off",
        ),
        pytest.param({"trusted_proxies": ["x"]}, "MP_ASGI_TRUSTED_PROXIES", "networks", id="proxy"),
        pytest.param(
            {"outbox": "redis"}, "MP_ASGI_OUTBOX (outbox)", "redis://host:6379/0", id="outbox"
        ),
        pytest.param(
            {"outbox": "memory", "durability": "strict"},
            "MP_ASGI_DURABILITY",
            "use MP_ASGI_OUTBOX=sqlite, or relaxed",
            id="strict-in-memory",
        ),
        pytest.param(
            {"metrics_token": "m" * 15, "mount": "/_mp"},
            "MP_ASGI_METRICS_TOKEN",
            "at least 16",
            id="metrics-token-too-short",
        ),
        pytest.param(
            {"metrics_token": "m" * 16},
            "MP_ASGI_METRICS_TOKEN",
            "set MP_ASGI_MOUNT, too",
            id="metrics-nowhere",
        ),
        pytest.param(
            {"flush_on_response": True, "close_timeout": 0},
            "MP_ASGI_FLUSH_ON_RESPONSE",
            "MP_ASGI_CLOSE_TIMEOUT, which is 0",
            id="flushing-for-no-time",
        ),
        *[
            pytest.param(
                {**LEDGER, "mount": "/_mp", "token": "t" * 32, "metrics_token": value},
                "MP_ASGI_METRICS_TOKEN",
                "Use one of its own",
                id=f"metrics-token-{name}",
            )
            for name, value in (("public", "t" * 32), ("key", KEY), ("ledgers-key", "l" * 32))
        ],
        pytest.param({"policy": "deny"}, "MP_ASGI_POLICY", "callable", id="policy-no-code"),
        pytest.param({"policy": ask}, "MP_ASGI_POLICY", "an async function", id="async-policy"),
        pytest.param(
            {**REGION, "opt_out_countries": ["us"]},
            "MP_ASGI_OPT_OUT_COUNTRIES",
            "as in US,GB",
            id="country-in-lower-case",
        ),
        pytest.param(
            {**REGION, "opt_out_countries": ["USA", "U"]},
            "MP_ASGI_OPT_OUT_COUNTRIES",
            "two-letter",
            id="countries-are-told-once",
        ),
        pytest.param(
            {**REGION, "policy": len}, "OPT_OUT_COUNTRIES", "MP_ASGI_POLICY", id="policy-as-well"
        ),
        pytest.param(
            {"opt_out_countries": ["US"]},
            "MP_ASGI_OPT_OUT_COUNTRIES",
            "set MP_ASGI_TRUSTED_PROXIES",
            id="countries-without-a-proxy",
        ),
        pytest.param(
            {"country_headers": ["X Y"]}, "_HEADERS", "Use header names.", id="country-header"
        ),
        pytest.param({"country_headers": ["é"]}, "_HEADERS", "names", id="header-not-ascii"),
        pytest.param({"cookieless": "daily"}, "MP_ASGI_COOKIELESS", "_POLICY", id="cookieless"),
        pytest.param(
            {"cookieless": "yes", "policy": len}, "COOKIELESS", "off or daily", id="counting-mode"
        ),
        pytest.param(
            {"ledger": "sqlite://"}, "MP_ASGI_LEDGER_KEYS is not set", "secret", id="no-ledger-key"
        ),
        pytest.param(
            {"ledger_keys": ["l" * 32]}, "MP_ASGI_LEDGER_KEYS", "Set both or none", id="keys-alone"
        ),
        pytest.param(
            {**LEDGER, "ledger_keys": [KEY]}, "MP_ASGI_LEDGER_KEYS", "its own", id="cookie-key"
        ),
        pytest.param({**LEDGER, "ledger": "on"}, "MP_ASGI_LEDGER", "Use a URL", id="ledger-word"),
        pytest.param(
            {"consent": "opt-out", "policy": len}, "MP_ASGI_CONSENT", "unset one", id="two-policies"
        ),
        pytest.param({"mount": "/.well-known"}, "MP_ASGI_MOUNT", "of your own", id="well-known"),
        pytest.param({"mount": "/a/../b"}, "MP_ASGI_MOUNT", "of your own", id="dots"),
        pytest.param(
            {**LEDGER, "ledger_keys": ["k" * 31]},
            "MP_ASGI_LEDGER_KEYS: key 1 of 1 has 31 bytes",
            "at least 32",
            id="short-ledger-key",
        ),
        pytest.param(
            {**LEDGER, "consent_scope": "user"}, "CONSENT_SCOPE", "device or account", id="scope"
        ),
        pytest.param(
            {"consent_scope": "account"}, "CONSENT_SCOPE", "set MP_ASGI_LEDGER", id="no-ledger"
        ),
        pytest.param({"mount": "_mp"}, "MP_ASGI_MOUNT", "Use a path", id="mount-relative"),
        pytest.param({"mount": "/_mp/"}, "MP_ASGI_MOUNT", "slash at its end", id="mount-slash"),
        pytest.param({"mount": "/"}, "MP_ASGI_MOUNT", "Use a path", id="mount-at-the-root"),
        pytest.param({"mount": "/a//b"}, "MP_ASGI_MOUNT", "Use a path", id="mount-empty-part"),
        pytest.param({"mount": "/a?b"}, "MP_ASGI_MOUNT", "Use a path", id="mount-query"),
        pytest.param({"gpc_since": "soon"}, "MP_ASGI_GPC_SINCE", "2026-11-01", id="gpc-no-date"),
        pytest.param({"gpc_since": "2026-13-01"}, "GPC_SINCE", "a date", id="gpc-no-such-month"),
        pytest.param({"notice": ["en"]}, "MP_ASGI_NOTICE", "Map languages", id="notice-list"),
        pytest.param({"notice": {5: {}}}, "NOTICE", "Map languages", id="notice-language"),
        pytest.param({"notice": {"en": "May we?"}}, "NOTICE", "to texts", id="notice-no-texts"),
        pytest.param({"notice": {"en": {"title": 5}}}, "NOTICE", "Map", id="notice-no-text"),
        pytest.param({"notice": {"en": {5: "t"}}}, "NOTICE", "by name", id="notice-no-name"),
        pytest.param({"consent_readers": [7]}, "_READERS", "7 is no reader", id="no-reader"),
        pytest.param(
            {"consent_readers": ["onetrst"]},
            "MP_ASGI_CONSENT_READERS",
            "Did you mean 'onetrust'?",
            id="reader-misspelt",
        ),
        pytest.param(
            {"consent_readers": ["cookiebot", "react-cookie-consent"]},
            "MP_ASGI_CONSENT_READERS",
            "read the same cookie",
            id="readers-that-clash",
        ),
        pytest.param({"consent_readers": 7}, "_READERS", "list", id="readers-no-list"),
    ],
)
def test_what_cannot_work_is_told_with_variable_and_remedy(overrides, variable, remedy):
    [problem] = problems_of(**overrides)

    assert variable in problem
    assert remedy in problem


RANGES = {
    "login_max_age": (1, COOKIE_MAX_AGE),
    "consent_max_age": (1, COOKIE_MAX_AGE),
    "outbox_max_messages": (1, 100_000_000),
    "outbox_max_bytes": (1_000_000, 100_000_000_000),
    "flush_interval": (0.01, 3_600),
    "batch_size": (1, 2_000),
    "retry_budget": (1, 2_592_000),
    "close_timeout": (0, 600),
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, id=f"{name}-{end}")
        for name, ends in RANGES.items()
        for end, value in zip(("lowest", "highest"), ends, strict=True)
    ],
)
def test_both_ends_of_a_range_are_taken(name, value):
    assert getattr(make(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, id=f"{name}-{end}")
        for name, (low, high) in RANGES.items()
        for end, value in (("below", low - 1), ("above", high + 1), ("huge", 10**400))
    ],
)
def test_beyond_a_range_is_told(name, value):
    [problem] = problems_of(**{name: value})

    assert problem.startswith(f"MP_ASGI_{name.upper()} ({name}) is ")
    assert re.search(r"\. Use \d[\d.]*[smhd]? to \d+[smhd]?\.$", problem)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        pytest.param(
            {"outbox_max_age": "1d"},
            "MP_ASGI_OUTBOX_MAX_AGE (outbox_max_age) is 1d. It is shorter than "
            "MP_ASGI_RETRY_BUDGET (3d); use at least as much.",
            id="shorter-than-another",
        ),
        pytest.param(
            {"outbox_max_age": "10000d"},
            "MP_ASGI_OUTBOX_MAX_AGE (outbox_max_age) is 10000d. Use 1m to 400d.",
            id="too-long",
        ),
        pytest.param(
            {"outbox_max_age": 0},
            "MP_ASGI_OUTBOX_MAX_AGE (outbox_max_age) is 0s. Use 1m to 400d.",
            id="too-short-is-all",
        ),
        pytest.param(
            {"outbox_max_bytes": 10},
            "MP_ASGI_OUTBOX_MAX_BYTES (outbox_max_bytes) is 10. Use 1000000 to 100000000000.",
            id="bytes",
        ),
    ],
)
def test_numbers_are_told_as_a_variable_has_them(overrides, problem):
    assert problems_of(**overrides) == (problem,)


@pytest.mark.parametrize("host", ["https://shop:hunter2@a", "a?key=hunter2", "shop:hunter2@a b"])
def test_a_host_that_may_hold_a_password_is_not_shown(host):
    (problem,) = problems_of(api_host=host)

    assert problem.startswith("MIXPANEL_API_HOST (api_host) is not usable. Use ")
    assert "hunter2" not in problem


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=["nan", "inf"])
def test_no_number_is_in_no_range(value):
    [problem] = problems_of(close_timeout=value)

    assert "MP_ASGI_CLOSE_TIMEOUT" in problem


def test_a_reader_that_cannot_be_made_hides_no_other_problem():
    problems = problems_of(consent_readers=["nobody"], batch_size=0)

    assert [problem.split(" ")[0] for problem in problems] == [
        "MP_ASGI_CONSENT_READERS",
        "MP_ASGI_BATCH_SIZE",
    ]


LISTS = [
    item.name
    for item in dataclasses.fields(Settings)
    if isinstance(item.default, tuple) and item.name != "consent_readers"
]


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize(
    "items",
    [
        pytest.param([1], id="number"),
        pytest.param([None], id="none"),
        pytest.param([b"a"], id="bytes"),
        pytest.param([["a"]], id="list"),
        pytest.param([re.compile("/admin/.*")], id="pattern"),
        pytest.param(["/a", 7], id="behind-a-text"),
    ],
)
def test_a_list_holds_texts(name, items):
    [problem] = problems_of(**{name: items})

    assert problem.startswith(f"MP_ASGI_{name.upper()} ({name}) is ")
    assert problem.endswith(". Use a list of texts.")


@pytest.mark.parametrize("name", LISTS)
def test_an_empty_item_is_told_as_such(name):
    [problem] = problems_of(**{name: [KEY, ""]})

    assert problem.startswith(f"MP_ASGI_{name.upper()} ({name}) is ")
    assert problem.endswith(". An item is empty: take it out, or the comma beside it.")


def test_an_outbox_that_is_none_hides_no_other_problem():
    problems = problems_of(outbox="sqllite", outbox_max_age="1d", metrics_token="short")

    assert [problem.split(" ")[0] for problem in problems] == [
        "MP_ASGI_OUTBOX",
        "MP_ASGI_OUTBOX_MAX_AGE",
        "MP_ASGI_METRICS_TOKEN",
        "MP_ASGI_METRICS_TOKEN",
    ]


def test_a_value_of_a_wrong_type_hides_no_other_problem():
    problems = problems_of(exclude=[7], batch_size=0, honor_gpc="yes", mount="x")

    assert [problem.split(" ")[0] for problem in problems] == [
        "MP_ASGI_HONOR_GPC",
        "MP_ASGI_EXCLUDE",
        "MP_ASGI_BATCH_SIZE",
        "MP_ASGI_MOUNT",
    ]


@pytest.mark.parametrize(
    ("overrides", "variable"),
    [
        pytest.param({"token": 5}, "MIXPANEL_TOKEN", id="token"),
        pytest.param({"enabled": "no", "token": ""}, "MIXPANEL_ENABLED", id="switch"),
        pytest.param({"enabled": "no", "secret_keys": ()}, "MIXPANEL_ENABLED", id="switch-of-keys"),
        pytest.param({**ACCOUNT, "project_id": 1}, "MIXPANEL_PROJECT_ID", id="account"),
        pytest.param(
            {**ACCOUNT, "service_account_secret": 5},
            "MIXPANEL_SERVICE_ACCOUNT_SECRET",
            id="account-secret",
        ),
        pytest.param({**FIRST_PARTY, "mount": 7}, "MP_ASGI_MOUNT", id="mount"),
        pytest.param(
            {"first_party": "1", "first_party_groups": True}, "MP_ASGI_FIRST_PARTY", id="groups"
        ),
        pytest.param(
            {"first_party": 1, "first_party_names": ["track=t"]}, "MP_ASGI_FIRST_PARTY", id="names"
        ),
        pytest.param({**LEDGER, "ledger": 5}, "MP_ASGI_LEDGER", id="ledger"),
        pytest.param({**LEDGER, "ledger_keys": 5}, "MP_ASGI_LEDGER_KEYS", id="ledger-keys"),
        pytest.param({"ledger": 5, "consent_scope": "account"}, "MP_ASGI_LEDGER", id="scope"),
        pytest.param({**REGION, "trusted_proxies": [7]}, "MP_ASGI_TRUSTED_PROXIES", id="proxies"),
        pytest.param({"policy": 5, "cookieless": "daily"}, "MP_ASGI_POLICY", id="policy"),
        pytest.param({"id_cookie": 5, "consent_cookie": "mp_id"}, "MP_ASGI_ID_COOKIE", id="cookie"),
        pytest.param({"id_cookie": 5, "adopt_cookie": "mp_id"}, "MP_ASGI_ID_COOKIE", id="adopted"),
        pytest.param(
            {"consent_cookie": 5, "adopt_cookie": "mp_consent"},
            "MP_ASGI_CONSENT_COOKIE",
            id="adopted-choice",
        ),
    ],
)
def test_nothing_is_said_of_what_follows_from_a_wrong_type(overrides, variable):
    [problem] = problems_of(**overrides)

    assert problem.startswith(f"{variable} (")


def test_all_problems_come_at_once_in_the_order_of_the_fields():
    problems = problems_of(
        token="", secret_keys=("short",), region="uk", batch_size=0, cookie_path="x"
    )

    assert [problem.split(" ")[0].rstrip(":") for problem in problems] == [
        "MIXPANEL_TOKEN",
        "MP_ASGI_SECRET_KEYS",
        "MIXPANEL_REGION",
        "MP_ASGI_BATCH_SIZE",
        "MP_ASGI_COOKIE_PATH",
    ]


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param({"token": "s3cret value"}, id="token"),
        pytest.param({"secret_keys": ("s3cret",)}, id="key"),
        pytest.param({"secret_keys": "s3cret"}, id="key-of-another-type"),
        pytest.param({"service_account_secret": "s3cret"}, id="account"),
        pytest.param({"oauth_token": b"s3cret"}, id="oauth-token"),
        pytest.param({"ledger": "mysql://user:s3cret@host/db"}, id="ledger"),
        pytest.param({**LEDGER, "ledger_keys": ("s3cret",)}, id="ledger-key"),
    ],
)
def test_no_message_quotes_a_secret(overrides):
    assert "s3cret" not in str(problems_of(**overrides))


def test_every_variable_is_one_fields():
    names = [
        name for item in Settings.__dataclass_fields__.values() for name in variable_names(item)
    ]

    assert len(names) == len(set(names))
    assert all(name.startswith(("MIXPANEL_", "MP_ASGI_")) for name in names)
