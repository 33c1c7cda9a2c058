"""Type the settings that are given one by one: `MixpanelMiddleware(app, region="eu")`.

Of each field of `Settings`, what may stand there in code: a callable may be a name, and a duration
text or a `timedelta`.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from os import PathLike
from typing import Any, Literal, TypedDict


class OverridesBesideOutbox(TypedDict, total=False):
    """All but `outbox`, which `Analytics` takes in another shape, too."""

    token: str
    region: Literal["us", "eu", "in"]
    api_host: str
    project_id: str
    service_account_username: str
    service_account_secret: str
    oauth_token: str
    enabled: bool
    secret_keys: Sequence[str]
    identity: Literal["simplified", "original", "legacy"]
    identify_from: Callable[[Any], object] | str | None
    login_max_age: float | timedelta | str
    consent: Literal["opt-in", "opt-out"]
    policy: Callable[[Any], object] | str | None
    opt_out_countries: Sequence[str]
    country_headers: Sequence[str]
    cookieless: Literal["off", "daily"]
    consent_readers: Sequence[object]
    consent_from: Callable[[Any], object] | str | None
    consent_version: str
    consent_max_age: float | timedelta | str
    consent_header: str
    consent_property: bool
    consent_scope: Literal["device", "account"]
    honor_gpc: bool
    honor_dnt: bool
    ledger: str
    ledger_keys: Sequence[str]
    mount: str
    notice: Mapping[str, Mapping[str, str]] | None
    gpc_since: str
    id_cookie: str
    consent_cookie: str
    cookie_domain: str
    cookie_path: str
    cookie_secure: Literal["auto", "on", "off"]
    cookie_samesite: Literal["Lax", "Strict", "None"]
    adopt_cookie: str
    adopt_browser_id: bool
    share_id: bool
    first_party: bool
    first_party_names: Sequence[str]
    first_party_groups: bool
    context: bool
    url_parameters: Sequence[str]
    ip: Literal["off", "coarse", "full"]
    track_pageviews: bool
    exclude: Sequence[str]
    exclude_bots: bool
    before_send: Callable[[Any], object] | str | None
    trusted_proxies: Sequence[str]
    state_directory: str | PathLike[str]
    durability: Literal["relaxed", "strict"]
    outbox_max_messages: int
    outbox_max_bytes: int
    outbox_max_age: float | timedelta | str
    flush_interval: float | timedelta | str
    batch_size: int
    retry_budget: float | timedelta | str
    close_timeout: float | timedelta | str
    flush_on_response: bool
    metrics_token: str
    strict: bool


class Overrides(OverridesBesideOutbox, total=False):
    """All of them."""

    outbox: str
