"""Say what holds for a visitor who has not chosen: by setting, by country, by the app's callable.

A country is believed only from a trusted proxy; whoever is nowhere known is asked first.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from mp_asgi.head import RequestHead, TrustedProxies
from mp_asgi.settings import Settings

from .policy import Default

_WORDS: Final = {default.value: default for default in Default}
_NOWHERE: Final = frozenset({"", "XX", "T1"})  # Cloudflare's words for unknown and for Tor


class _WrongAnswer(TypeError):
    """An answer that is none of the words."""


class CountryPolicy:
    """Answer `opt-out` for visitors from some countries and `opt-in` for all others.

    Args:
        opt_out: Two-letter codes (ISO 3166-1 alpha-2).
        headers: In which a trusted proxy tells the country.
        proxies: Who is trusted.
    """

    def __init__(
        self, opt_out: Collection[str], headers: Sequence[str], proxies: TrustedProxies
    ) -> None:
        self._opt_out = frozenset(opt_out)
        self._names = tuple(header.lower().encode("ascii") for header in headers)
        self._proxies = proxies

    def __call__(self, head: RequestHead) -> str:
        """Answer for one request."""
        is_opt_out = self.country(head) in self._opt_out
        return Default.OPT_OUT.value if is_opt_out else Default.OPT_IN.value

    def country(self, head: RequestHead) -> str:
        """Answer the visitor's country; empty if nobody who is trusted tells one."""
        if not self._proxies.trust(head.client):
            return ""
        values = [head.header(name) for name in self._names]
        told = {value.decode("latin-1").strip().upper() for value in values if value is not None}
        # Two that differ: one of them was sent from outside.
        return told.pop() if len(told) == 1 and told.isdisjoint(_NOWHERE) else ""


class Defaults:
    """Answer what holds without a choice, for one deployment.

    Attributes:
        constant: The answer, if it is the same for every request; None if it is asked for.
    """

    def __init__(self, settings: Settings, proxies: TrustedProxies) -> None:
        countries = settings.opt_out_countries
        self._by_country = CountryPolicy(countries, settings.country_headers, proxies)
        self._is_cookieless = settings.cookieless != "off"
        self._policy: Callable[[Any], object] | None = settings.policy
        if self._policy is None and countries:
            self._policy = self._by_country
        self.constant = None if self._policy is not None else Default(settings.consent)

    def read(self, head: RequestHead, on_failed: Callable[[str], None]) -> Default:
        """Answer for one request. A policy that fails means opt-in, and `on_failed` hears why."""
        if self._policy is None:
            return self.constant or Default.OPT_IN
        try:
            default = _read_answer(self._policy(head))
        except Exception as error:  # noqa: BLE001  # the app's code; never a grant
            # Our own words hold no value; the app's may.
            on_failed(str(error) if isinstance(error, _WrongAnswer) else type(error).__name__)
            return Default.OPT_IN
        is_off = default is Default.COOKIELESS and not self._is_cookieless
        return Default.OPT_IN if is_off else default

    def country(self, head: RequestHead) -> str:
        """Answer the country for the record; empty if unknown."""
        return self._by_country.country(head)


def _read_answer(answer: object) -> Default:
    if isinstance(answer, Default):
        return answer
    if isinstance(answer, str) and answer in _WORDS:
        return _WORDS[answer]
    raise _WrongAnswer(f"it answers {', '.join(_WORDS)}, not a {type(answer).__name__} of its own")
