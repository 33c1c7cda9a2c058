"""Know the notices that a visitor can have been shown, word by word, and find one by its digest."""

import json
from collections.abc import Mapping, Sequence
from typing import Literal

from mp_asgi.events import Notice

from .texts import Texts, notice_texts


def notice_text(texts: Texts, *, has_gpc: bool) -> str:
    """Answer what is archived as the notice: everything that tells what the choice means."""
    parts = [texts["title"], texts["text"]]
    if has_gpc:
        parts.append(texts["gpc"])
    return "\n\n".join(parts)


class Notices:
    """The notices of one site.

    Args:
        notice: `Settings.notice`.
        scope: Whether a choice counts for the device or the account; only the second needs
            saying (RULES section 2, rule 1).
    """

    def __init__(
        self, notice: Mapping[str, Texts] | None, scope: Literal["device", "account"]
    ) -> None:
        self._texts = {
            language: _with_scope(texts, scope) for language, texts in notice_texts(notice).items()
        }
        self._notices = {
            (language, shown.digest): shown
            for language, texts in self._texts.items()
            for shown in _variants(language, texts)
        }

    def find(self, language: str, digest: str) -> Notice | None:
        """Answer the notice that a page says it showed; None if it was none of ours."""
        return self._notices.get((language, digest))

    def shown(self) -> Mapping[str, Texts]:
        """Answer the texts with their digests, as the banner shows them."""
        return {
            language: {**texts, **dict(zip(_DIGESTS, _digests(language, texts), strict=True))}
            for language, texts in self._texts.items()
        }

    def render(self) -> str:
        """Render what is shown as JSON, for the banner's script."""
        return json.dumps(self.shown(), ensure_ascii=False, separators=(",", ":"))


_DIGESTS = ("digest", "digest_gpc")


def _digests(language: str, texts: Texts) -> Sequence[str]:
    return [notice.digest for notice in _variants(language, texts)]


def _variants(language: str, texts: Texts) -> Sequence[Notice]:
    """Answer the notice without and with the words about GPC, in the order of `_DIGESTS`."""
    return [Notice(language, notice_text(texts, has_gpc=has_gpc)) for has_gpc in (False, True)]


def _with_scope(texts: Texts, scope: str) -> Texts:
    text = f"{texts['text']} {texts['account']}" if scope == "account" else texts["text"]
    return {key: value for key, value in texts.items() if key != "account"} | {"text": text}
