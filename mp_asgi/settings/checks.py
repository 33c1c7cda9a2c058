"""Find everything that is wrong with settings, each with variable, value and remedy."""

import inspect
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from datetime import date
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from .parsing import PolicyVersion

if TYPE_CHECKING:
    from .fields import Settings

PREFIX: Final = "MP_ASGI_"
COOKIE_MAX_AGE: Final = 395 * 86_400  # 13 months; browsers cut at 400 days (rfc6265bis 5.5)
MIN_KEY_BYTES: Final = 32  # the block a SHA-256 HMAC deserves; OWASP asks for 128 random bits

# RFC 9110 token, the grammar of cookie and header names.
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PROJECT_TOKEN: Final = re.compile(r"[A-Za-z0-9_.\-]{1,128}")
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


_CHOICES: Final[Mapping[str, Sequence[str]]] = {
    "region": ("us", "eu", "in"),
    "identity": ("simplified", "original"),
    "consent": ("opt-in", "opt-out"),
    "consent_scope": ("device", "account"),
    "cookieless": ("off", "daily"),
    "cookie_secure": ("auto", "on", "off"),
    "cookie_samesite": ("Lax", "Strict", "None"),
    "outbox": ("memory",),
}
_RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "login_max_age": (1, COOKIE_MAX_AGE),
    "consent_max_age": (1, COOKIE_MAX_AGE),
    "outbox_max_messages": (1, 100_000_000),
    "outbox_max_bytes": (1_000_000, 100_000_000_000),
    "flush_interval": (0.01, 3_600),
    "batch_size": (1, 2_000),
    "retry_budget": (1, 30 * 86_400),
    "close_timeout": (0, 600),
}


_TYPE_REMEDIES: Final[Mapping[type, str]] = {
    bool: "Use True or False.",
    int: "Use a whole number.",
    float: "Use seconds, as in 5.0.",
    str: "Use text.",
    tuple: "Use a list of texts.",
}


def variable_names(item: "Field[Any]") -> tuple[str, ...]:
    """Answer the environment variables of a field of `Settings`, the preferred one first."""
    return item.metadata["variables"] or (PREFIX + item.name.upper(),)


def find_problems(settings: "Settings") -> Sequence[str]:
    """Answer one sentence a problem, none if the settings can be used."""
    return _Problems(settings).found


class _Problems:
    """Collect what is wrong with the values of one `Settings`, in the order of its fields."""

    def __init__(self, settings: "Settings") -> None:
        self.settings = settings
        self.found: list[str] = []
        if self._has_right_types():
            self._check_project()
            self._check_keys()
            self._check_choices()
            self._check_numbers()
            self._check_cookies()
            self._check_proxies()
            self._check_region()
            self._check_ledger()
            self._check_mount()

    def _add(self, name: str, remedy: str) -> None:
        item = self.settings.__dataclass_fields__[name]
        value = getattr(self.settings, name)
        shown = "not usable" if item.metadata["secret"] else repr(value)
        self.found.append(f"{variable_names(item)[0]} ({name}) is {shown}. {remedy}")

    def _has_right_types(self) -> bool:
        for item in fields(self.settings):
            value = getattr(self.settings, item.name)
            if item.name == "notice":
                remedy = "" if _is_notice(value) else "Map languages to texts by name."
            else:
                remedy = _type_problem(item.default, value)
            if remedy:
                self._add(item.name, remedy)
        return not self.found

    def _check_project(self) -> None:
        settings = self.settings
        if not settings.token and settings.enabled:
            self.found.append(
                "MIXPANEL_TOKEN is not set. Copy the project token from Mixpanel (Settings → "
                "Access keys), or set MIXPANEL_ENABLED=0 to switch tracking off."
            )
        if settings.token and not _PROJECT_TOKEN.fullmatch(settings.token):
            self._add("token", "Use the project token as Mixpanel shows it: letters and digits.")
        if settings.api_host and (remedy := _host_problem(settings.api_url)):
            self._add("api_host", remedy)
        account = (settings.service_account_username, settings.service_account_secret)
        if any(account) and not (all(account) and settings.project_id):
            self._add(
                "service_account_username",
                "A service account needs MIXPANEL_SERVICE_ACCOUNT_USERNAME, "
                "MIXPANEL_SERVICE_ACCOUNT_SECRET and MIXPANEL_PROJECT_ID; set all three or none.",
            )

    def _check_keys(self) -> None:
        keys: Sequence[object] = self.settings.secret_keys
        if not keys and self.settings.enabled:
            self.found.append(
                "MP_ASGI_SECRET_KEYS is not set. Print a key with `mp-asgi secret` and set it to "
                "the same value in every process."
            )
        self._check_lengths("MP_ASGI_SECRET_KEYS", keys)

    def _check_lengths(self, variable: str, keys: Sequence[object]) -> None:
        for number, key in enumerate(keys, 1):
            where = f"{variable}: key {number} of {len(keys)}"
            if not isinstance(key, str):
                self.found.append(f"{where} is not text. Use strings.")
            elif (size := len(key.encode("utf-8", "replace"))) < MIN_KEY_BYTES:
                self.found.append(
                    f"{where} has {size} bytes. Use at least {MIN_KEY_BYTES}; `mp-asgi secret` "
                    "prints one."
                )

    def _check_choices(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self.settings, name) not in choices:
                self._add(name, f"Use {' or '.join(choices)}.")
        try:
            PolicyVersion.parse(self.settings.consent_version)
        except ValueError as error:
            self._add("consent_version", str(error))

    def _check_numbers(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self.settings, name)
            if not low <= value <= high:
                self._add(name, f"Use a number from {low:g} to {high:g}.")

    def _check_cookies(self) -> None:
        settings = self.settings
        for name in ("id_cookie", "consent_cookie"):
            value = getattr(settings, name)
            if not _TOKEN.fullmatch(value) or value.startswith(("__Host-", "__Secure-")):
                self._add(name, "Use a plain cookie name; __Host- is put before it when it may be.")
        if settings.id_cookie == settings.consent_cookie:
            self._add("consent_cookie", "Use another name than MP_ASGI_ID_COOKIE.")
        if settings.consent_header and not _TOKEN.fullmatch(settings.consent_header):
            self._add("consent_header", "Use a header name.")
        if settings.cookie_domain and not re.fullmatch(
            r"\.?[A-Za-z0-9\-]+(\.[A-Za-z0-9\-]+)*", settings.cookie_domain
        ):
            self._add("cookie_domain", "Use a host name, as in example.com.")
        if not re.fullmatch(r"/[!#-+\--:<-~]*", settings.cookie_path):
            self._add("cookie_path", "Use a path that starts with / and has no ; or space.")
        if settings.cookie_samesite == "None" and settings.cookie_secure == "off":
            self._add("cookie_samesite", "SameSite=None needs MP_ASGI_COOKIE_SECURE=on or auto.")

    def _check_proxies(self) -> None:
        for proxy in self.settings.trusted_proxies:
            try:
                # As text: a number would be read as an address, too.
                ipaddress.ip_network(str(proxy), strict=False)
            except ValueError:
                self._add("trusted_proxies", "Use addresses or networks, as in 10.0.0.0/8, ::1.")

    def _check_region(self) -> None:
        settings = self.settings
        if not all(re.fullmatch(r"[A-Z]{2}", str(code)) for code in settings.opt_out_countries):
            self._add("opt_out_countries", "Use two-letter codes, as in US,GB.")
        if not all(_TOKEN.fullmatch(str(header)) for header in settings.country_headers):
            self._add("country_headers", "Use header names.")
        self._check_policy()

    def _check_policy(self) -> None:
        settings = self.settings
        if settings.opt_out_countries and settings.policy is not None:
            self._add("opt_out_countries", "MP_ASGI_POLICY answers for every country; unset one.")
        if settings.opt_out_countries and not settings.trusted_proxies:
            self._add(
                "opt_out_countries",
                "Only a trusted proxy is believed; set MP_ASGI_TRUSTED_PROXIES, too.",
            )
        has_other = settings.policy is not None or bool(settings.opt_out_countries)
        if settings.consent == "opt-out" and has_other:
            self._add("consent", "MP_ASGI_POLICY or MP_ASGI_OPT_OUT_COUNTRIES answers; unset one.")
        if settings.cookieless != "off" and settings.policy is None:
            self._add("cookieless", "Set MP_ASGI_POLICY, too: only it can say `cookieless`.")

    def _check_ledger(self) -> None:
        settings = self.settings
        if settings.ledger and not settings.ledger_keys:
            self.found.append(
                "MP_ASGI_LEDGER_KEYS is not set. The ledger has keys of its own; print one with "
                "`mp-asgi secret`."
            )
        self._check_lengths("MP_ASGI_LEDGER_KEYS", settings.ledger_keys)
        if settings.ledger_keys and not settings.ledger:
            self.found.append(
                "MP_ASGI_LEDGER_KEYS is set without MP_ASGI_LEDGER. Set both or none."
            )
        if settings.ledger and not re.search(r"[/.:]", settings.ledger):
            self._add("ledger", "Use a URL or a path, as in sqlite:////var/lib/shop/consent.db.")
        if not set(settings.ledger_keys).isdisjoint(settings.secret_keys):
            self.found.append(
                "MP_ASGI_LEDGER_KEYS has a key of MP_ASGI_SECRET_KEYS. The ledger needs its own: "
                "cookie keys are given up one day."
            )
        if settings.consent_scope == "account" and not settings.ledger:
            self._add("consent_scope", "Accounts are kept in the ledger; set MP_ASGI_LEDGER, too.")

    def _check_mount(self) -> None:
        settings = self.settings
        if settings.mount.startswith("/.well-known") or re.search(r"/\.+(/|$)", settings.mount):
            self._add("mount", "Use a path of your own, as in /_mp.")
        elif settings.mount and not re.fullmatch(r"(/[A-Za-z0-9._~\-]+)+", settings.mount):
            self._add("mount", "Use a path such as /_mp, without a slash at its end.")
        if settings.gpc_since:
            try:
                date.fromisoformat(settings.gpc_since)
            except ValueError:
                self._add("gpc_since", "Use a date, as in 2026-11-01.")


def _is_notice(value: object) -> bool:
    if value is None:
        return True
    return isinstance(value, Mapping) and all(
        isinstance(language, str)
        and isinstance(texts, Mapping)
        and all(isinstance(text, str) for item in texts.items() for text in item)
        for language, texts in value.items()
    )


def _type_problem(default: object, value: object) -> str:
    """Answer what to use instead of a value of another type than the default's; empty if right."""
    if default is MISSING or default is None:
        return _callable_problem(value)
    if isinstance(default, float):
        is_right = isinstance(value, (int, float)) and not isinstance(value, bool)
    else:
        is_right = isinstance(value, type(default)) and isinstance(value, bool) is isinstance(
            default, bool
        )
    return "" if is_right else _TYPE_REMEDIES[type(default)]


def _callable_problem(value: object) -> str:
    if value is None:
        return ""
    if not callable(value):
        return "Use a callable."
    call = getattr(value, "__call__", None)  # noqa: B004  # an object's own, which may be async
    for function in (value, call):
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            return "This is an async function; use a plain one."
    return ""


def _host_problem(url: str) -> str:
    try:
        parts = urlsplit(url)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        return "Use a host name, with a port if it needs one."
    if parts.scheme not in {"http", "https"} or not parts.hostname or not has_port:
        return "Use a host name, as in api-eu.mixpanel.com."
    if parts.path or parts.query or parts.fragment or parts.username or parts.password:
        return "Use only the host (and port): no path, query or credentials."
    if not re.fullmatch(r"[A-Za-z0-9.\-:]+", parts.hostname):
        return "Use a host name, as in api-eu.mixpanel.com."
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        return "Use https; plain http is only for a stand-in on this machine."
    return ""


def _is_loopback(host: str) -> bool:
    if host in _LOOPBACK:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
