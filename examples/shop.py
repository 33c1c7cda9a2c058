"""What the shop is whichever framework carries it: goods, pages, forms. Tracks nothing."""

import json
import os
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Fields = Mapping[str, str]
Header = Callable[[str], str | None]  # `request.headers.get` of either framework

PRODUCTS = (
    ("Walnut desk", "€ 240", "Oiled by hand, wide enough for two screens."),
    ("Reading lamp", "€ 48", "Warm light that you can dim."),
    ("Wool blanket", "€ 75", "For the evenings on the balcony."),
)
# `make managers` brings the library from npm; without it the page shows what needs no library.
LIBRARY = max(
    Path(__file__).parents[1].glob(".cache/managers/mixpanel-browser-*/dist/mixpanel.umd.js"),
    default=None,
)
TEMPLATES = dict(
    part.split("-->\n", 1)
    for part in Path(__file__).with_name("shop.html").read_text("utf-8").split("<!-- part: ")[1:]
)


class BadInputError(ValueError):
    """A form that cannot be used; the message is for its sender."""


def is_cross_site(header: Header) -> bool:
    """Tell whether another site's page sent this request; curl sends neither header."""
    if site := header("Sec-Fetch-Site"):
        return site == "cross-site"
    origin = header("Origin")
    try:
        return origin is not None and urlsplit(origin).netloc != header("Host")
    except ValueError:  # no page of ours has an address that cannot be read
        return True


def wants_json(header: Header) -> bool:
    """Tell a script from a form."""
    return any("json" in (header(name) or "") for name in ("Content-Type", "Accept"))


def parse_fields(header: Header, body: bytes) -> Fields:
    """Read a form or a JSON object; what is neither has no fields."""
    try:
        text = body.decode("utf-8")
        if "json" not in (header("Content-Type") or ""):
            return dict(parse_qsl(text))
        fields = json.loads(text)
        json.dumps(fields, ensure_ascii=False).encode("utf-8")  # a lone surrogate is no text
    except (ValueError, RecursionError):
        return {}
    if not isinstance(fields, dict):
        return {}
    shown = {name: "1" if value is True else value for name, value in fields.items()}
    return {name: value for name, value in shown.items() if isinstance(value, str)}


def require(fields: Fields, name: str) -> str:
    """Answer a field that must not be empty."""
    value = fields.get(name, "")
    if not value.strip():
        raise BadInputError(f"Send {name}, and not an empty one.")
    return value


def event_properties(fields: Fields) -> dict[str, str]:
    """Answer what the shop tells about an event."""
    return {"product": fields["product"]} if fields.get("product") else {}


def decide(consent: Any, fields: Fields) -> None:
    """Carry out the visitor's decision.

    Only the button that names the browser's GPC signal sends `override_gpc`.
    """
    match fields.get("decision"):
        case "grant":
            consent.grant(override_gpc=fields.get("override_gpc") == "1")
        case "deny":
            consent.deny()
        case "withdraw":
            consent.withdraw()
        case _:
            raise BadInputError("Send decision as grant, deny or withdraw.")


def describe(tracker: Any, user: str | None) -> dict[str, Any]:
    """Say what Mixpanel may know about the visitor, and about who is logged in."""
    consent = tracker.consent
    return {
        "device_id": tracker.device_id,
        "user_id": user if consent.state == "granted" else None,
        "consent": {"state": consent.state, "reason": consent.reason},
    }


def render_home(user: str | None, tracker: Any, header: Header) -> str:
    """Render the shop for one visitor."""
    products = "".join(
        _render("product", name=name, price=price, text=text) for name, price, text in PRODUCTS
    )
    return _render_page(_render("home", products=products), user, tracker, header)


def render_browser(user: str | None, tracker: Any, header: Header) -> str:
    """Render the page that tracks, too. The library keeps an ID: it is for those who agreed."""
    token = os.environ.get("MIXPANEL_TOKEN", "")
    is_granted = tracker.consent.state == "granted"
    library = _render("library", token=token) if is_granted and LIBRARY else ""
    main = _render(
        "browser",
        device_id=tracker.device_id or "none: you have not agreed",
        token=token,
        library=library,
        library_state=_describe_library(is_loaded=bool(library)),
    )
    return _render_page(main, user, tracker, header)


def _describe_library(*, is_loaded: bool) -> str:
    if is_loaded:
        return "This page has loaded mixpanel-browser."
    if LIBRARY:
        return "This page loads mixpanel-browser once you have agreed."
    return (
        "mixpanel-browser is not here (“make managers” brings it from npm), so this page sends its "
        "event by itself, in the library's form."
    )


def _render_page(main: str, user: str | None, tracker: Any, header: Header) -> str:
    has_gpc = (header("Sec-GPC") or "").strip() == "1"
    accept = "Accept despite my browser's GPC signal" if has_gpc else "Accept"
    return _render(
        "page",
        account=_render("user", user=user) if user else _render("guest"),
        main=main,
        state=tracker.consent.state,
        banner=_render("banner", accept=accept, override="true" if has_gpc else "false"),
        standin=_render_standin(os.environ.get("MIXPANEL_API_HOST", "")),
    )


def _render_standin(api_host: str) -> str:
    # Only a stand-in runs on this machine; Mixpanel's own host has no page to look at.
    is_local = urlsplit(api_host).hostname in {"127.0.0.1", "localhost"}
    return _render("standin", url=api_host) if is_local else ""


def _render(part: str, **values: str) -> str:
    # Parts are HTML already; everything else is text.
    html = {"account", "banner", "library", "main", "products", "standin"}
    shown = {name: text if name in html else escape(text) for name, text in values.items()}
    return Template(TEMPLATES[part]).substitute(shown)
