"""Find everything that is wrong with settings, each with variable, value and remedy."""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import Field, fields
from datetime import date
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from .foreign_cookies import is_of_mixpanel_browser, is_session
from .host import find_host_problem
from .outbox_place import OutboxKind, OutboxPlace
from .parsing import PolicyVersion, parse_names, parse_seconds, render_seconds
from .shapes import find_shape_problem

if TYPE_CHECKING:
    from .fields import Settings

PREFIX: Final = "MP_ASGI_"
COOKIE_MAX_AGE: Final = 395 * 86_400  # 13 months; browsers cut at 400 days (rfc6265bis 5.5)
MIN_KEY_BYTES: Final = 32  # the block a SHA-256 HMAC deserves; OWASP asks for 128 random bits

# RFC 9110 token, the grammar of cookie and header names.
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PROJECT_TOKEN: Final = re.compile(r"[A-Za-z0-9_.\-]{1,128}")
_SCRIPT_COOKIE: Final = "mp_choice"  # what a page without a server may write
# As it stands in a query: percent-encoded, without what ends a name. `*` is no wildcard there.
_PARAMETER: Final = re.compile(r"[A-Za-z0-9%._~!$'()+,;:@/\[\]{}|\\^`\-]+")


_CHOICES: Final[Mapping[str, Sequence[str]]] = {
    "region": ("us", "eu", "in"),
    "identity": ("simplified", "original", "legacy"),
    "ip": ("off", "coarse", "full"),
    "consent": ("opt-in", "opt-out"),
    "consent_scope": ("device", "account"),
    "cookieless": ("off", "daily"),
    "cookie_secure": ("auto", "on", "off"),
    "cookie_samesite": ("Lax", "Strict", "None"),
    "durability": ("relaxed", "strict"),
}
_RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "login_max_age": (1, COOKIE_MAX_AGE),
    "consent_max_age": (1, COOKIE_MAX_AGE),
    "outbox_max_messages": (1, 100_000_000),
    "outbox_max_bytes": (1_000_000, 100_000_000_000),
    "flush_interval": (0.01, 3_600),
    "batch_size": (1, 2_000),
    "outbox_max_age": (60, 400 * 86_400),
    "retry_budget": (1, 30 * 86_400),
    "close_timeout": (0, 600),
}


def variable_names(item: "Field[Any]") -> tuple[str, ...]:
    """Answer the environment variables of a field of `Settings`, the preferred one first."""
    return item.metadata["variables"] or (PREFIX + item.name.upper(),)


def find_problems(settings: "Settings") -> Sequence[str]:
    """Answer one sentence a problem, none if the settings can be used."""
    return _Problems(settings).found


class _Problems:
    """Collect what is wrong with the values of one `Settings`: types first, then what they say.

    Where a value has a wrong type, its default stands in for it, and nothing is said of what that
    leads to.
    """

    def __init__(self, settings: "Settings") -> None:
        self.found: list[str] = []
        self._unusable: set[str] = set()
        self.settings = copy(settings)
        self._check_shapes()
        self._check_project()
        self._check_keys()
        self._check_choices()
        self._check_numbers()
        self._check_cookie_names()
        self._check_cookies()
        self._check_proxies()
        self._check_region()
        self._check_ledger()
        self._check_outbox()
        self._check_times()
        self._check_mount()
        self._check_metrics()
        self._check_adopted()
        self._check_first_party()
        self._check_pages()

    def _add(self, name: str, remedy: str, *others: str) -> None:
        """Tell what is wrong with a field, given the other fields that it depends on."""
        item = self.settings.__dataclass_fields__[name]
        value = getattr(self.settings, name)
        # A URL with a user or a query may hold a password, wherever it was meant for.
        is_secret = item.metadata["secret"] or (
            name == "api_host" and re.search("[@?]", str(value))
        )
        shown = "not usable" if is_secret else _render(item, value)
        self._say(f"{variable_names(item)[0]} ({name}) is {shown}. {remedy}", name, *others)

    def _say(self, problem: str, *names: str) -> None:
        if self._unusable.isdisjoint(names):
            self.found.append(problem)

    def _check_shapes(self) -> None:
        for item in fields(self.settings):
            if remedy := find_shape_problem(item, getattr(self.settings, item.name)):
                self._add(item.name, remedy)
                self._unusable.add(item.name)
                object.__setattr__(self.settings, item.name, item.default)

    def _check_project(self) -> None:
        settings = self.settings
        if not settings.token and settings.enabled:
            self._say(
                "MIXPANEL_TOKEN is not set. Copy the project token from Mixpanel (Settings → "
                "Access keys), or set MIXPANEL_ENABLED=0 to switch tracking off.",
                "token",
                "enabled",
            )
        if settings.token and not _PROJECT_TOKEN.fullmatch(settings.token):
            self._add("token", "Use the project token as Mixpanel shows it: letters and digits.")
        if settings.api_host and (remedy := find_host_problem(settings.api_url)):
            self._add("api_host", remedy)
        account = (settings.service_account_username, settings.service_account_secret)
        if any(account) and not (all(account) and settings.project_id):
            self._add(
                "service_account_username",
                "A service account needs MIXPANEL_SERVICE_ACCOUNT_USERNAME, "
                "MIXPANEL_SERVICE_ACCOUNT_SECRET and MIXPANEL_PROJECT_ID; set all three or none.",
                "service_account_secret",
                "project_id",
            )

    def _check_keys(self) -> None:
        keys = self.settings.secret_keys
        if not keys and self.settings.enabled:
            self._say(
                "MP_ASGI_SECRET_KEYS is not set. Print a key with `mp-asgi secret` and set it to "
                "the same value in every process.",
                "secret_keys",
                "enabled",
            )
        self._check_lengths("MP_ASGI_SECRET_KEYS", keys)

    def _check_lengths(self, variable: str, keys: Sequence[str]) -> None:
        for number, key in enumerate(keys, 1):
            if (size := len(key.encode("utf-8", "replace"))) < MIN_KEY_BYTES:
                self.found.append(
                    f"{variable}: key {number} of {len(keys)} has {size} bytes. Use at least "
                    f"{MIN_KEY_BYTES}; `mp-asgi secret` prints one."
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
                item = self.settings.__dataclass_fields__[name]
                self._add(name, f"Use {_render(item, low)} to {_render(item, high)}.")

    def _check_cookie_names(self) -> None:
        settings = self.settings
        for name in ("id_cookie", "consent_cookie"):
            value = getattr(settings, name)
            if not _TOKEN.fullmatch(value) or value.startswith(("__Host-", "__Secure-")):
                self._add(name, "Use a plain cookie name; __Host- is put before it when it may be.")
            elif value == _SCRIPT_COOKIE or is_of_mixpanel_browser(value):
                self._add(name, "This name is taken; use another, as in mp_id or mp_consent.")
        if settings.id_cookie == settings.consent_cookie:
            self._add("consent_cookie", "Use another name than MP_ASGI_ID_COOKIE.", "id_cookie")

    def _check_cookies(self) -> None:
        settings = self.settings
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
                ipaddress.ip_network(proxy, strict=False)
            except ValueError:
                self._add("trusted_proxies", "Use addresses or networks, as in 10.0.0.0/8, ::1.")

    def _check_region(self) -> None:
        settings = self.settings
        if not all(re.fullmatch(r"[A-Z]{2}", code) for code in settings.opt_out_countries):
            self._add("opt_out_countries", "Use two-letter codes, as in US,GB.")
        if not all(_TOKEN.fullmatch(header) for header in settings.country_headers):
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
                "trusted_proxies",
            )
        has_other = settings.policy is not None or bool(settings.opt_out_countries)
        if settings.consent == "opt-out" and has_other:
            self._add("consent", "MP_ASGI_POLICY or MP_ASGI_OPT_OUT_COUNTRIES answers; unset one.")
        if settings.cookieless != "off" and settings.policy is None:
            remedy = "Set MP_ASGI_POLICY, too: only it can say `cookieless`."
            self._add("cookieless", remedy, "policy")

    def _check_ledger(self) -> None:
        settings = self.settings
        if settings.ledger and not settings.ledger_keys:
            self._say(
                "MP_ASGI_LEDGER_KEYS is not set. The ledger has keys of its own; print one with "
                "`mp-asgi secret`.",
                "ledger_keys",
            )
        self._check_lengths("MP_ASGI_LEDGER_KEYS", settings.ledger_keys)
        if settings.ledger_keys and not settings.ledger:
            self._say(
                "MP_ASGI_LEDGER_KEYS is set without MP_ASGI_LEDGER. Set both or none.", "ledger"
            )
        if settings.ledger and not re.search(r"[/.:]", settings.ledger):
            self._add("ledger", "Use a URL or a path, as in sqlite:////var/lib/shop/consent.db.")
        if not set(settings.ledger_keys).isdisjoint(settings.secret_keys):
            self.found.append(
                "MP_ASGI_LEDGER_KEYS has a key of MP_ASGI_SECRET_KEYS. The ledger needs its own: "
                "cookie keys are given up one day."
            )
        if settings.consent_scope == "account" and not settings.ledger:
            remedy = "Accounts are kept in the ledger; set MP_ASGI_LEDGER, too."
            self._add("consent_scope", remedy, "ledger")

    def _check_outbox(self) -> None:
        settings = self.settings
        try:
            kind = OutboxPlace.parse(settings.outbox).kind
        except ValueError as error:
            self._add("outbox", str(error))
            return
        if kind is OutboxKind.REDIS and find_spec("redis") is None:
            self._add("outbox", 'Redis needs an extra: pip install "mp-asgi[redis]".')
        if kind is OutboxKind.MEMORY and settings.durability == "strict":
            remedy = "Memory is gone with the process; use MP_ASGI_OUTBOX=sqlite, or relaxed."
            self._add("durability", remedy, "outbox")

    def _check_times(self) -> None:
        settings = self.settings
        shortest, longest = _RANGES["outbox_max_age"][0], _RANGES["retry_budget"][1]
        if shortest <= settings.outbox_max_age < settings.retry_budget <= longest:
            budget = render_seconds(settings.retry_budget)
            remedy = f"It is shorter than MP_ASGI_RETRY_BUDGET ({budget}); use at least as much."
            self._add("outbox_max_age", remedy, "retry_budget")
        if settings.flush_on_response and settings.close_timeout == 0:
            remedy = "It waits for MP_ASGI_CLOSE_TIMEOUT, which is 0; use some seconds there."
            self._add("flush_on_response", remedy, "close_timeout")

    def _check_metrics(self) -> None:
        settings = self.settings
        if not settings.metrics_token:
            return
        if not re.fullmatch(r"[!-~]{16,}", settings.metrics_token):
            self._add("metrics_token", "Use at least 16 characters, as `mp-asgi secret` prints.")
        elif settings.metrics_token in {
            settings.token,
            *settings.secret_keys,
            *settings.ledger_keys,
        }:
            remedy = (
                "It is the project token, which pages may show, or a key, which nobody may know. "
                "Use one of its own, as `mp-asgi secret` prints."
            )
            self._add("metrics_token", remedy, "token", "secret_keys", "ledger_keys")
        if not settings.mount:
            remedy = "The endpoints are under the mount; set MP_ASGI_MOUNT, too."
            self._add("metrics_token", remedy, "mount")

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

    def _check_adopted(self) -> None:
        settings = self.settings
        name = re.sub("^__(Host|Secure)-", "", settings.adopt_cookie)
        if not name:
            return
        if not _TOKEN.fullmatch(name):
            self._add("adopt_cookie", "Use the name of a cookie.")
        elif name in {settings.id_cookie, settings.consent_cookie, _SCRIPT_COOKIE}:
            self._add(
                "adopt_cookie",
                "Use the name of the app's own cookie, not of one of ours.",
                "id_cookie",
                "consent_cookie",
            )
        elif is_of_mixpanel_browser(name):
            self._add(
                "adopt_cookie",
                "It is mixpanel-browser's; set MP_ASGI_ADOPT_BROWSER_ID=1 to go on with its ID.",
            )
        elif is_session(name):
            self._add(
                "adopt_cookie",
                "Its value would go to Mixpanel, and a session ID is somebody's key. Use a cookie "
                "that holds a random visitor ID and opens nothing.",
            )

    def _check_first_party(self) -> None:
        settings = self.settings
        if settings.first_party and not settings.mount:
            self._add("first_party", "Pages post to the mount; set MP_ASGI_MOUNT, too.", "mount")
        # RFC 6265 section 5.1.4: a path covers what is below it, part by part.
        elif settings.first_party and not f"{settings.mount}/".startswith(
            f"{settings.cookie_path.rstrip('/')}/"
        ):
            self._add(
                "cookie_path",
                f"Browsers send no cookie of ours to MP_ASGI_MOUNT ({settings.mount}), where pages "
                "post. Use MP_ASGI_COOKIE_PATH=/ or a mount below it.",
            )
        for name in ("first_party_names", "first_party_groups"):
            if getattr(settings, name) and not settings.first_party:
                self._add(
                    name, "It changes nothing; set MP_ASGI_FIRST_PARTY=1, too.", "first_party"
                )
        try:
            parse_names(settings.first_party_names)
        except ValueError as error:
            self._add("first_party_names", str(error))

    def _check_pages(self) -> None:
        settings = self.settings
        if any(not path.startswith(("/", "*")) for path in settings.exclude):
            self._add("exclude", "Use paths such as /health or /admin/*.")
        if any(re.search("[?#]", path) for path in settings.exclude):
            self._add("exclude", "Use paths only, with no query and no fragment.")
        if not all(_PARAMETER.fullmatch(name) for name in settings.url_parameters):
            self._add(
                "url_parameters",
                "Use names as they stand in a URL, percent-encoded, without ?, = or *.",
            )


def _render(item: "Field[Any]", value: object) -> str:
    """Write a value as a variable would have it."""
    if item.metadata["parse"] is parse_seconds and isinstance(value, int | float):
        return render_seconds(value)
    return repr(value)
