"""Name the readers, and make them from text, from code and from callables."""

import dataclasses
import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import parse_qsl

from .app_reader import AppReader
from .axeptio import Axeptio
from .base import Reader
from .borlabs import Borlabs
from .complianz import Complianz
from .cookie_consent_js import CookieConsentJs
from .cookiebot import Cookiebot
from .cookieyes import CookieYes
from .didomi import Didomi
from .django_cookie_consent import DjangoCookieConsent
from .gpp import Gpp
from .hubspot import HubSpot
from .iubenda import Iubenda
from .klaro import Klaro
from .mixpanel_browser import MixpanelBrowser
from .onetrust import OneTrust
from .osano import Osano
from .posthog import PostHog
from .react_cookie_consent import ReactCookieConsent
from .shopify import Shopify
from .tarteaucitron import Tarteaucitron
from .tcf import Tcf
from .trustarc import TrustArc
from .usprivacy import UsPrivacy
from .vanilla_cookieconsent import VanillaCookieConsent

READERS: Final[Mapping[str, Callable[..., Any]]] = MappingProxyType(
    {
        reader.name: reader
        for reader in (
            *(OneTrust, CookieYes, Cookiebot, Tcf, Complianz, VanillaCookieConsent, Iubenda),
            *(Osano, Klaro, Tarteaucitron, Didomi, Axeptio, Borlabs, HubSpot, Shopify, TrustArc),
            *(ReactCookieConsent, CookieConsentJs, MixpanelBrowser, PostHog, DjangoCookieConsent),
            *(Gpp, UsPrivacy),
        )
    }
)
"""Readers by their name in `MP_ASGI_CONSENT_READERS`."""

_NAME = re.compile("[A-Za-z0-9-]+")
_COOKIE = re.compile(r"[!-+\--:<>-~]+")  # visible ASCII without what separates cookies
_SHARING = (Cookiebot, ReactCookieConsent)  # one cookie, two grammars that contradict


def parse_readers(text: str) -> tuple[Reader, ...]:
    """Read a comma list of `name`, `name?option=value&...` or `package.module:attribute`.

    Values are percent-encoded where they must be; an option of several values is repeated.

    Raises:
        ValueError: The message says what to write instead.
    """
    return make_readers(item for item in map(str.strip, text.split(",")) if item)


def make_readers(items: Iterable[object]) -> tuple[Reader, ...]:
    """Make a reader of each (see `make_reader`), and check that they get along.

    Raises:
        ValueError: Two have one name, or read one cookie in two ways.
    """
    readers = tuple(map(make_reader, items))
    names = [reader.name for reader in readers]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"Two readers have the name {name!r}. Keep one of them.")
    sharing = [reader for reader in readers if isinstance(reader, _SHARING)]
    cookies = [cookie for reader in sharing for cookie in reader.cookies]
    if len(cookies) > len(set(cookies)):
        first, second = (reader.name for reader in sharing)
        raise ValueError(
            f"{first!r} and {second!r} read the same cookie, {cookies[0]!r}. Keep the one that "
            "the site uses."
        )
    return readers


def make_reader(item: object) -> Reader:
    """Answer a reader for a text as in `parse_readers`, a reader, or a callable (`AppReader`).

    Raises:
        ValueError: The message says what to write instead.
    """
    if isinstance(item, str):
        return _parse_reader(item.strip())
    if isinstance(item, type):
        raise ValueError(  # noqa: TRY004  # start-up collects ValueError
            f"The reader {item.__name__} is a class. Make one: {item.__name__}(...)."
        )
    if callable(getattr(item, "read", None)):
        return _check(item)
    if inspect.iscoroutinefunction(item):
        raise ValueError(f"The reader {item.__name__} is an async function. Use a plain one.")
    if callable(item):
        return _check(AppReader(item))
    raise ValueError(
        f"{item!r} is no reader. Use a name, a reader or a callable that answers True, False or "
        "None."
    )


def with_token(readers: Iterable[Reader], token: str) -> tuple[Reader, ...]:
    """Fill the Mixpanel project's token in where a reader of its library waits for it."""
    return tuple(
        dataclasses.replace(reader, token=token)
        if isinstance(reader, MixpanelBrowser) and not reader.token
        else reader
        for reader in readers
    )


def _check(reader: Any) -> Reader:
    """Answer the reader, if its name and its cookies are what a reader's are."""
    name, cookies = getattr(reader, "name", None), getattr(reader, "cookies", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{reader!r} has the name {name!r}. Use letters, digits and '-'.")
    are_names = isinstance(cookies, tuple) and all(
        isinstance(cookie, str) and _COOKIE.fullmatch(cookie) for cookie in cookies
    )
    if not cookies or not are_names:
        raise ValueError(
            f"The reader {name!r} has the cookies {cookies!r}. Use a tuple of cookie names."
        )
    checked: Reader = reader
    return checked


def _parse_reader(text: str) -> Reader:
    name, question, query = text.partition("?")
    if ":" in name:
        if question:
            raise ValueError(f"{text!r} cannot have options. Set them where the reader is made.")
        return make_reader(_import(name))
    if name not in READERS:
        raise ValueError(f"There is no reader {name!r}.{_hint(name, READERS)}")
    try:
        return _check(READERS[name](**_parse_options(READERS[name], query)))
    except ValueError as error:
        raise ValueError(f"The reader {text!r}: {error}") from error


def _import(name: str) -> object:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # the module's own code may raise anything
        why = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{name!r} cannot be imported ({why}). Use package.module:attribute."
        ) from error


def _parse_options(reader: Callable[..., Reader], query: str) -> dict[str, object]:
    """Answer the arguments that a query names."""
    options = _options_of(reader)
    given: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError as error:
        raise ValueError(f"{query!r} is no option. Write option=value.") from error
    for option, value in pairs:
        if option not in options:
            raise ValueError(f"there is no option {option!r}.{_hint(option, options)}")
        given.setdefault(option, []).append(value)
    return {name: _parse_option(name, values, options[name]) for name, values in given.items()}


def _options_of(reader: Any) -> dict[str, Any]:
    """Answer the defaults of what text can set, by name."""
    return {
        item.name: item.default
        for item in dataclasses.fields(reader)
        if item.init and isinstance(item.default, str | int | tuple)
    }


def _parse_option(name: str, values: list[str], default: object) -> object:
    if isinstance(default, tuple):
        return tuple(_parse_value(name, value, default[0]) for value in values)
    if len(values) > 1:
        raise ValueError(f"{name} is there more than once. Keep one value.")
    return _parse_value(name, values[0], default)


def _parse_value(name: str, value: str, default: object) -> object:
    if isinstance(default, bool):
        if value not in {"true", "false"}:
            raise ValueError(f"{name} is {value!r}. Use true or false.")
        return value == "true"
    if not isinstance(default, int):
        return value
    if not re.fullmatch("[0-9]{1,9}", value):
        raise ValueError(f"{name} is {value!r}. Use a whole number.")
    return int(value)


def _hint(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f" Did you mean {near[0]!r}?"
    return f" There are: {', '.join(names)}." if names else " There are none."
