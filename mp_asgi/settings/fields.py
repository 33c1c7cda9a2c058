"""Say what can be configured: one field is one variable is one keyword argument.

Fields marked secret print masked, and no message quotes one.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from datetime import timedelta
from typing import Any, Final, Literal, Unpack

from mp_asgi.errors import SettingsError
from mp_asgi.readers import Reader, make_readers, parse_readers

from .checks import find_problems, variable_names
from .environment import read_variables
from .outbox_place import OutboxPlace, parse_outbox
from .overrides import Overrides
from .parsing import (
    PolicyVersion,
    parse_bool,
    parse_callable,
    parse_codes,
    parse_identify_from,
    parse_int,
    parse_list,
    parse_notice,
    parse_path,
    parse_seconds,
)

HOSTS: Final = {  # Mixpanel docs: privacy/eu-residency, privacy/in-residency
    "us": "https://api.mixpanel.com",
    "eu": "https://api-eu.mixpanel.com",
    "in": "https://api-in.mixpanel.com",
}

_READ_FROM_TEXT: Final = (
    parse_callable,
    parse_identify_from,
    parse_outbox,
    parse_path,
    parse_seconds,
)


def _setting(
    default: Any,
    help_text: str,
    parse: Callable[[str], Any] = str,
    *,
    variables: Sequence[str] = (),
    is_secret: bool = False,
) -> Any:
    metadata = {
        "help": help_text,
        "parse": parse,
        "variables": tuple(variables),
        "secret": is_secret,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """Everything that can be configured. Immutable, checked when made.

    Every field is a keyword argument here and a variable in the environment: `MIXPANEL_*` for
    facts of the Mixpanel project, `MP_ASGI_*` for the behaviour of this package. The table in
    `docs/configuration.md` is generated from this class.

    Raises:
        SettingsError: Lists every problem at once, each with variable, value and remedy.
    """

    token: str = _setting(
        "",
        "Project token (Mixpanel: Settings → Access keys).",
        variables=("MIXPANEL_TOKEN", "MIXPANEL_PROJECT_TOKEN"),
        is_secret=True,
    )
    region: Literal["us", "eu", "in"] = _setting(
        "us",
        "Data residency of the project. The wrong one loses every event: `us`, `eu` or `in`.",
        variables=("MIXPANEL_REGION",),
    )
    api_host: str = _setting(
        "",
        "Ingestion host instead of the region's, scheme optional. Plain http only on loopback.",
        variables=("MIXPANEL_API_HOST",),
    )
    project_id: str = _setting(
        "",
        "Project ID, needed with a service account.",
        variables=("MIXPANEL_PROJECT_ID",),
    )
    service_account_username: str = _setting(
        "",
        "Service account to authenticate with instead of the project token.",
        variables=("MIXPANEL_SERVICE_ACCOUNT_USERNAME",),
    )
    service_account_secret: str = _setting(
        "",
        "Its secret.",
        variables=("MIXPANEL_SERVICE_ACCOUNT_SECRET",),
        is_secret=True,
    )
    oauth_token: str = _setting(
        "",
        "Personal OAuth token of an owner or admin, for deletions and retrievals (Mixpanel: "
        "Settings → Data & Privacy). It expires after a year.",
        variables=("MIXPANEL_OAUTH_TOKEN",),
        is_secret=True,
    )
    enabled: bool = _setting(
        True,
        "`0` switches everything off: no cookie is read or written, nothing is sent.",
        parse_bool,
        variables=("MIXPANEL_ENABLED",),
    )
    secret_keys: Sequence[str] = _setting(
        (),
        "Keys that sign the cookies, oldest first; the last one signs. At least 32 bytes each "
        "(`mp-asgi secret` prints one).",
        parse_list,
        is_secret=True,
    )
    identity: Literal["simplified", "original", "legacy"] = _setting(
        "simplified",
        "The project's ID merge: `simplified` (default since April 2024), `original` or `legacy` "
        "(docs/identity.md).",
    )
    identify_from: Callable[[Any], object] | None = _setting(
        None,
        "`starlette`, `django`, `flask-login`, or a callable (or its dotted name) that answers the "
        "user ID, `ANONYMOUS` or None for a scope or environ, evaluated once when the response "
        "starts.",
        parse_identify_from,
    )
    login_max_age: float = _setting(
        43_200.0,
        "How long a user kept in the ID cookie counts after the last `identify` (without "
        "`identify_from`).",
        parse_seconds,
    )
    consent: Literal["opt-in", "opt-out"] = _setting(
        "opt-in",
        "What holds for visitors who have not chosen: `opt-in` or `opt-out`.",
    )
    policy: Callable[[Any], object] | None = _setting(
        None,
        "Callable (or its dotted name) that answers `opt-in`, `opt-out`, `deny`, `minor` or "
        "`cookieless` for a request's head, instead of `MP_ASGI_CONSENT` (docs/consent.md).",
        parse_callable,
    )
    opt_out_countries: Sequence[str] = _setting(
        (),
        "Countries (ISO 3166-1 alpha-2) whose visitors are under `opt-out`, as a trusted proxy "
        "tells them; all others, and unknown ones, are under `opt-in`.",
        parse_codes,
    )
    country_headers: Sequence[str] = _setting(
        ("CF-IPCountry", "CloudFront-Viewer-Country", "X-Vercel-IP-Country"),
        "Headers in which a trusted proxy tells the country.",
        parse_list,
    )
    cookieless: Literal["off", "daily"] = _setting(
        "off",
        "`daily`: count visitors who have not chosen by a keyed hash that changes every day, "
        "where `MP_ASGI_POLICY` answers `cookieless` (docs/consent.md).",
    )
    consent_readers: Sequence[object] = _setting(
        (),
        "Consent managers whose cookies are read: names such as `onetrust,cookieyes`, with "
        "options as in `klaro?cookie=my-consent` (docs/consent.md).",
        parse_readers,
    )
    consent_from: Callable[[Any], object] | None = _setting(
        None,
        "Callable (or its dotted name) that answers the app's own stored choice for a scope or "
        "environ: True, False, None or a `StoredConsent`.",
        parse_callable,
    )
    consent_version: str = _setting(
        "",
        "Version of your notice, `NAME` or `NAME@TIME`. Grants for another version, or older "
        "than its time, must be asked for again.",
    )
    consent_max_age: float = _setting(
        180 * 86_400.0,
        "How long a choice counts before it is asked for again.",
        parse_seconds,
    )
    consent_header: str = _setting(
        "X-MP-Consent",
        "Request header that carries the app's own decision: `granted`, `denied` or "
        "`analytics=granted`. Empty: `granted` is not believed.",
    )
    consent_property: bool = _setting(
        True,
        "Put the kind of consent and the notice's version on every event as `$mp_asgi_consent` "
        "and `$mp_asgi_consent_version`.",
        parse_bool,
    )
    consent_scope: Literal["device", "account"] = _setting(
        "device",
        "Whether a grant while logged in counts for the `device` or for the whole `account`; the "
        "notice must say so. A denial always goes to both.",
    )
    honor_gpc: bool = _setting(True, "`Sec-GPC: 1` is a denial.", parse_bool)
    honor_dnt: bool = _setting(False, "`DNT: 1` is a denial.", parse_bool)
    ledger: str = _setting(
        "",
        "Where choices are recorded: `sqlite:///path`, `postgresql://…` or `mysql://…`. Off when "
        "empty.",
        is_secret=True,
    )
    ledger_keys: Sequence[str] = _setting(
        (),
        "Keys of the ledger, oldest first; the last one writes. At least 32 bytes each, and "
        "never dropped while records name them.",
        parse_list,
        is_secret=True,
    )
    mount: str = _setting(
        "",
        "Path under which the endpoints for consent and for mixpanel-browser answer, such as "
        "`/_mp`. Off when empty.",
    )
    notice: Mapping[str, Mapping[str, str]] | None = _setting(
        None,
        "JSON file with the banner's texts by language, instead of the built-in ones "
        "(docs/consent.md).",
        parse_notice,
    )
    gpc_since: str = _setting(
        "",
        "Date from which the site honours GPC: served as `/.well-known/gpc.json`. Off when empty.",
    )
    id_cookie: str = _setting(
        "mp_id", "Name of the ID cookie; `__Host-` is put before it when it may be."
    )
    consent_cookie: str = _setting(
        "mp_consent", "Name of the consent cookie; `__Host-` is put before it when it may be."
    )
    cookie_domain: str = _setting("", "Domain of both cookies; empty: this host only.")
    cookie_path: str = _setting("/", "Path of both cookies.")
    cookie_secure: Literal["auto", "on", "off"] = _setting(
        "auto",
        "`Secure` on both cookies: `auto` (as the request came), `on` or `off`.",
    )
    cookie_samesite: Literal["Lax", "Strict", "None"] = _setting(
        "Lax",
        "SameSite of both cookies: `Lax`, `Strict` or `None`.",
        lambda text: text.capitalize(),
    )
    adopt_cookie: str = _setting(
        "",
        "Cookie in which the app already keeps a random visitor ID: consenting visitors without an "
        "ID of ours go on with it. Nobody checks it, so it must not be guessable; and it is sent "
        "to Mixpanel, so it must open nothing. A session's cookie is refused by its name.",
    )
    adopt_browser_id: bool = _setting(
        False,
        "Consenting visitors without an ID of ours go on with mixpanel-browser's "
        "(docs/identity.md).",
        parse_bool,
    )
    share_id: bool = _setting(
        False,
        "Hand our ID to mixpanel-browser in the cookie that it reads (docs/identity.md).",
        parse_bool,
    )
    first_party: bool = _setting(
        False,
        "Take mixpanel-browser's events under the mount (`api_host: '/_mp'`) into our delivery; "
        "`MP_ASGI_COOKIE_PATH` must cover it.",
        parse_bool,
    )
    first_party_names: Sequence[str] = _setting(
        (),
        "Other names for the endpoints of `MP_ASGI_FIRST_PARTY`, as in `track=t,engage=e`; the "
        "page's `api_routes` say the same.",
        parse_list,
    )
    first_party_groups: bool = _setting(
        False,
        "Let `MP_ASGI_FIRST_PARTY` take updates of group profiles from pages, too.",
        parse_bool,
    )
    context: bool = _setting(
        True,
        "Put page, referrer, campaign and browser on every event, named as mixpanel-browser does.",
        parse_bool,
    )
    url_parameters: Sequence[str] = _setting(
        ("utm_source", "utm_medium", "utm_campaign", "utm_content", "utm_term"),
        "Query parameters that `$current_url` keeps, as they stand in a URL; all others are left "
        "out. Empty: none is kept.",
        parse_list,
    )
    ip: Literal["off", "coarse", "full"] = _setting(
        "off",
        "Whether Mixpanel gets the visitor's address to place them: `off`, `coarse` (/24, /48) or "
        "`full`.",
    )
    track_pageviews: bool = _setting(
        False,
        "Track a page view for every HTML page that a person opens successfully.",
        parse_bool,
    )
    exclude: Sequence[str] = _setting(
        (),
        "Paths on which nothing is tracked, as in `/health,/admin/*`: without a query, `*` is any "
        "text.",
        parse_list,
    )
    exclude_bots: bool = _setting(
        True,
        "Leave out and count what bots and crawlers do, by their user agent.",
        parse_bool,
    )
    before_send: Callable[[Any], object] | None = _setting(
        None,
        "Callable (or its dotted name) that gets each event as a dictionary before it is stored, "
        "and answers it, changed or not, or None to drop it.",
        parse_callable,
    )
    trusted_proxies: Sequence[str] = _setting(
        (),
        "Addresses or networks (CIDR) whose `X-Forwarded-Proto`, `X-Forwarded-For` and "
        "`Forwarded` are believed.",
        parse_list,
    )
    outbox: str = _setting(
        "sqlite",
        "Where accepted events wait for delivery: `sqlite` (a file in the state directory), "
        "`sqlite:///path`, `redis://…`, `rediss://…` or `memory` (docs/reliability.md).",
        parse_outbox,
        is_secret=True,
    )
    state_directory: str = _setting(
        "",
        "Directory of the outbox's files. Empty: `$STATE_DIRECTORY` (systemd), "
        "`$XDG_STATE_HOME/mp-asgi` or `~/.local/state/mp-asgi`.",
        parse_path,
    )
    durability: Literal["relaxed", "strict"] = _setting(
        "relaxed",
        "`relaxed`: events are stored within milliseconds after they are tracked. `strict`: before "
        "the response starts (docs/reliability.md).",
    )
    outbox_max_messages: int = _setting(
        100_000,
        "How many messages may wait; beyond it the newest are dropped and counted.",
        parse_int,
    )
    outbox_max_bytes: int = _setting(
        100_000_000,
        "How many bytes may wait, and how many the dead letters may take.",
        parse_int,
    )
    outbox_max_age: float = _setting(
        30 * 86_400.0,
        "How long anything is kept, waiting or as a dead letter, and how long a stop mark holds.",
        parse_seconds,
    )
    flush_interval: float = _setting(
        5.0,
        "How long events gather before they are sent; a full batch leaves at once.",
        parse_seconds,
    )
    batch_size: int = _setting(2_000, "Messages in a request to Mixpanel, at most 2000.", parse_int)
    retry_budget: float = _setting(
        72 * 3_600.0,
        "How long a message is tried, about once a minute, before it is buried.",
        parse_seconds,
    )
    close_timeout: float = _setting(
        2.5,
        "How long a shutdown waits for delivery, and each request with "
        "`MP_ASGI_FLUSH_ON_RESPONSE`.",
        parse_seconds,
    )
    flush_on_response: bool = _setting(
        False,
        "Deliver before a request ends, for hosts on which nothing runs after the answer, such as "
        "AWS Lambda.",
        parse_bool,
    )
    metrics_token: str = _setting(
        "",
        "Bearer token under which `{mount}/metrics` and `{mount}/health` answer; at least 16 "
        "characters, and neither the project token nor a key. Off when empty.",
        is_secret=True,
    )
    strict: bool = _setting(
        False,
        "Raise in the request what would be counted and logged. For tests.",
        parse_bool,
    )

    def __post_init__(self) -> None:
        for item in fields(self):
            object.__setattr__(self, item.name, _as_kept(item, getattr(self, item.name)))
        problems = self._parse_texts()
        problems.extend(self._make_readers())
        problems.extend(find_problems(self))
        if problems:
            raise SettingsError(problems)

    def _parse_texts(self) -> list[str]:
        """Read dotted names, durations and paths where they are given in code, too."""
        problems = []
        for item in fields(self):
            value, parse = getattr(self, item.name), item.metadata["parse"]
            if parse not in _READ_FROM_TEXT or not isinstance(value, str):
                continue
            try:
                parsed = parse(value.strip())
            except ValueError as error:
                problems.append(f"{variable_names(item)[0]} ({item.name}) is {value!r}. {error}")
                parsed = item.default  # so that nothing else is said about it
            object.__setattr__(self, item.name, parsed)
        return problems

    def _make_readers(self) -> list[str]:
        """Turn names and callables into readers."""
        given = self.consent_readers
        if not isinstance(given, tuple):
            return []  # its type is a problem that is found with the others
        try:
            readers = make_readers(given)
        except ValueError as error:
            object.__setattr__(self, "consent_readers", ())
            return [f"MP_ASGI_CONSENT_READERS (consent_readers): {error}"]
        object.__setattr__(self, "consent_readers", readers)
        return []

    def __repr__(self) -> str:  # type: ignore[explicit-override]  # typing.override is 3.12
        shown = (f"{item.name}={_shown(item, getattr(self, item.name))}" for item in fields(self))
        return f"Settings({', '.join(shown)})"

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, **overrides: Unpack[Overrides]
    ) -> "Settings":
        """Read the environment; keyword arguments win over it.

        Surrounding white space is not part of a value, and an empty variable is an unset one,
        except `MP_ASGI_CONSENT_HEADER` and `MP_ASGI_URL_PARAMETERS`, where empty has a meaning.

        Args:
            environ: Variables by name; the process's own if None.
            overrides: Values for fields by name.

        Raises:
            SettingsError: Lists every problem at once, unknown `MP_ASGI_` names included.
        """
        variables = os.environ if environ is None else environ
        reading = read_variables(cls, variables, overrides)
        try:
            settings = cls(**reading.values)
        except SettingsError as error:
            problems = reading.problems + reading.name_sources(error.problems)
            raise SettingsError(problems) from None
        if reading.problems:
            raise SettingsError(reading.problems)
        return settings

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Settings":
        """Read the environment and an app's own configuration, which wins.

        Args:
            config: Keys named like the variables; text is parsed like a variable, any other
                value is taken as the field's.

        Raises:
            SettingsError: Lists every problem at once.
        """
        items = {name: item for item in fields(cls) for name in variable_names(item)}
        # What the app names is not looked for elsewhere, under no other name and in no file.
        fields_named = {key.removesuffix("_FILE") for key in config} & items.keys()
        named = {name for key in fields_named for name in variable_names(items[key])}
        hidden = named | {f"{name}_FILE" for name in named}
        variables = {name: text for name, text in os.environ.items() if name not in hidden}
        values: dict[str, Any] = {}
        for key, value in config.items():
            if key in items and not isinstance(value, str):
                values[items[key].name] = value
            elif key.startswith(("MIXPANEL_", "MP_ASGI_")):
                variables[key] = str(value)
        return cls.from_env(variables, **values)

    @property
    def api_url(self) -> str:
        """Scheme and authority that batches go to, without a trailing slash."""
        if not self.api_host:
            return HOSTS[self.region]
        host = self.api_host.removesuffix("/")
        return host if "://" in host else f"https://{host}"

    @property
    def outbox_place(self) -> OutboxPlace:
        """Where events wait, from `outbox`."""
        return OutboxPlace.parse(self.outbox)

    @property
    def readers(self) -> tuple[Reader, ...]:
        """Of the consent managers, from `consent_readers`."""
        return make_readers(self.consent_readers)

    @property
    def policy_version(self) -> PolicyVersion:
        """The notice visitors agree to, from `consent_version`."""
        return PolicyVersion.parse(self.consent_version)


def _as_kept(item: "Field[Any]", value: object) -> object:
    """Answer what is pleasant to write in code as the type that is kept."""
    if isinstance(value, list) and isinstance(item.default, tuple):
        return tuple(value)
    if isinstance(value, timedelta) and item.metadata["parse"] is parse_seconds:
        return value.total_seconds()
    if isinstance(value, os.PathLike) and item.name == "state_directory":
        return os.fspath(value)
    return value


def _shown(item: "Field[Any]", value: object) -> str:
    return "'**********'" if item.metadata["secret"] and value else repr(value)
