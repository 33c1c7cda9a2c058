import json
from hashlib import sha256

import pytest

from mp_asgi.endpoints.notices import Notices, notice_text
from mp_asgi.endpoints.texts import notice_texts
from mp_asgi.events import Notice

TEXTS = {"en": {"title": "T", "text": "Words.", "gpc": "Signal.", "account": "Everywhere."}}


def digest(text):
    return sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("has_gpc", "expected"),
    [
        pytest.param(False, "T\n\nWords.", id="without-gpc"),
        pytest.param(True, "T\n\nWords.\n\nSignal.", id="with-gpc"),
    ],
)
def test_the_notice_is_everything_that_tells_what_the_choice_means(has_gpc, expected):
    assert notice_text(TEXTS["en"], has_gpc=has_gpc) == expected


@pytest.mark.parametrize("text", ["T\n\nWords.", "T\n\nWords.\n\nSignal."])
def test_a_notice_is_found_by_its_language_and_digest(text):
    assert Notices(TEXTS, "device").find("en", digest(text)) == Notice("en", text)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        pytest.param("de", "T\n\nWords.", id="another-language"),
        pytest.param("en", "Something else.", id="another-text"),
        pytest.param("", "T\n\nWords.", id="no-language"),
    ],
)
def test_a_notice_that_is_none_of_ours_is_not_found(language, text):
    assert Notices(TEXTS, "device").find(language, digest(text)) is None


def test_a_choice_for_the_account_says_so_in_the_notice():
    text = "T\n\nWords. Everywhere."

    assert Notices(TEXTS, "account").find("en", digest(text)) == Notice("en", text)


@pytest.mark.parametrize("scope", ["device", "account"])
def test_the_page_is_told_the_digests_that_are_found(scope):
    notices = Notices(None, scope)

    shown = json.loads(notices.render())

    assert list(shown) == list(notice_texts(None))
    found = [
        notices.find(language, texts[key])
        for language, texts in shown.items()
        for key in ("digest", "digest_gpc")
    ]
    assert None not in found
    assert len(set(found)) == len(found)


def test_the_page_shows_the_words_of_the_notice():
    shown = json.loads(Notices(TEXTS, "account").render())["en"]

    assert shown["text"] == "Words. Everywhere."
    assert "account" not in shown
