"""Hold the banner's texts: ours in English and German, and a site's own over them."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

Texts = Mapping[str, str]

LANGUAGE: Final = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,4}")
"""As much of a BCP 47 tag as names a translation."""

_ENGLISH: Final = {
    "title": "May we measure how this site is used?",
    "text": "If you agree, this site sets a cookie and sends what you do here to its analytics "
    "service, Mixpanel. It helps us to improve the site. Nothing is sent before you agree, and "
    "you can change your mind at any time.",
    "account": "Your choice counts for your account, on every device where you are logged in.",
    "accept": "Accept",
    "refuse": "Refuse",
    "gpc": "Your browser asks sites not to track you (Global Privacy Control), so we do not. "
    "If you accept, you override this request of your browser for this site only.",
    "accept_gpc": "Accept and override GPC",
    "policy_label": "Privacy policy",
    "close": "Close without choosing",
    "granted": "You have accepted so far.",
    "denied": "You have refused so far.",
    "failed": "Your choice could not be saved. Please try again.",
}
_GERMAN: Final = {
    "title": "Dürfen wir messen, wie diese Website genutzt wird?",
    "text": "Wenn Sie zustimmen, setzt diese Website ein Cookie und sendet an ihren Analysedienst "
    "Mixpanel, was Sie hier tun. Das hilft uns, sie zu verbessern. Vorher wird nichts gesendet, "
    "und Sie können Ihre Wahl jederzeit ändern.",
    "account": "Ihre Wahl gilt für Ihr Konto, auf jedem Gerät, auf dem Sie angemeldet sind.",
    "accept": "Zustimmen",
    "refuse": "Ablehnen",
    "gpc": "Ihr Browser bittet Websites, Sie nicht zu verfolgen (Global Privacy Control); daran "
    "halten wir uns. Wenn Sie zustimmen, setzen Sie sich nur für diese Website darüber hinweg.",
    "accept_gpc": "Trotz GPC zustimmen",
    "policy_label": "Datenschutzerklärung",
    "close": "Schließen, ohne zu wählen",
    "granted": "Bisher haben Sie zugestimmt.",
    "denied": "Bisher haben Sie abgelehnt.",
    "failed": "Ihre Wahl konnte nicht gespeichert werden. Bitte versuchen Sie es noch einmal.",
}
_BUILT_IN: Final[Mapping[str, Texts]] = {"en": _ENGLISH, "de": _GERMAN}
_LINK: Final = frozenset({"policy_label", "policy_url"})
_REQUIRED: Final = frozenset(_ENGLISH) - _LINK
_KNOWN: Final = _REQUIRED | _LINK
# A path of this origin, or a page that nobody on the way can change.
_LINK_URL: Final = re.compile(r"(/(?![/\\])|https://[^/\\])[^\\\s]*")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")  # half a character: no UTF-8


def notice_texts(settings_notice: Mapping[str, Texts] | None) -> Mapping[str, Texts]:
    """Answer the texts by language, the first one for visitors of any other.

    Args:
        settings_notice: A site's own texts, which `check_notice` found right. They name the
            languages that are offered; what they leave out is ours, where we know the language.
    """
    if settings_notice is None:
        return _BUILT_IN
    return {
        language: {**_built_in(language), **texts} for language, texts in settings_notice.items()
    }


def check_notice(value: object) -> str:
    """Answer what is wrong with a site's texts and what to do about it; empty if nothing is."""
    if value is None:
        return ""
    if not isinstance(value, Mapping) or not value:
        return 'Use texts by language, as in {"en": {"title": "…"}}.'
    if twice := _find_twice(value):
        return f"{twice!r} is there twice, in another case. Give each language once."
    return next((remedy for item in value.items() for remedy in _find_problems(*item)), "")


def _find_twice(languages: Iterable[object]) -> str:
    seen: set[str] = set()
    for language in map(str, languages):
        if language.lower() in seen:
            return language
        seen.add(language.lower())
    return ""


def _find_problems(language: object, texts: object) -> Iterator[str]:
    if not isinstance(language, str) or not LANGUAGE.fullmatch(language):
        yield f"{language!r} is no language. Use a tag such as 'en' or 'pt-BR'."
    elif not isinstance(texts, Mapping):
        yield f"The texts of {language!r} are no mapping. Give them by key."
    else:
        yield from _find_text_problems(language, texts)


def _find_text_problems(language: str, texts: Mapping[object, object]) -> Iterator[str]:
    for key, text in texts.items():
        if key not in _KNOWN:
            yield f"{key!r} of {language!r} is unknown. The keys are {_listed(_KNOWN)}."
        elif not isinstance(text, str) or not text.strip() or _SURROGATE.search(text):
            yield f"{key!r} of {language!r} is no text. Write it out, or leave the key away."
        elif key == "policy_url" and not _LINK_URL.fullmatch(text):
            yield f"'policy_url' of {language!r} is {text!r}. Use https://… or a path: /privacy."
    needed = _REQUIRED | (_LINK & {"policy_label"} if "policy_url" in texts else frozenset())
    if missing := needed - _built_in(language).keys() - texts.keys():
        yield f"{language!r} lacks {_listed(missing)}. Only 'en' and 'de' are filled up by us."


def _built_in(language: str) -> Texts:
    return _BUILT_IN.get(language.lower().partition("-")[0], {})


def _listed(keys: frozenset[str]) -> str:
    return ", ".join(repr(key) for key in sorted(keys))
