import sys

import pytest

from mp_asgi.context.agent import MAX_AGENT_CHARACTERS, MAX_REMEMBERED
from mp_asgi.context.bots import BotFinder

CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/153.0.0.0"
# mixpanel-browser 2.83, BLOCKED_UA_STRS
REFUSED = [
    "AhrefsBot",
    "AhrefsSiteAudit",
    "Amazonbot",
    "Baiduspider",
    "bingbot",
    "BingPreview",
    "Chrome-Lighthouse",
    "facebookexternalhit",
    "PetalBot",
    "Pinterest",
    "Screaming Frog",
    "Yahoo! Slurp",
    "YandexBot",
    "AdsBot-Google",
    "APIs-Google",
    "DuplexWeb-Google",
    "FeedFetcher-Google",
    "Google Favicon",
    "Google Web Preview",
    "Google-Read-Aloud",
    "Googlebot",
    "googleweblight",
    "Mediapartners-Google",
    "Storebot-Google",
]


@pytest.fixture
def without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "crawleruseragents", None)


@pytest.mark.parametrize("name", REFUSED)
def test_what_mixpanel_browser_refuses_is_a_bot_without_the_extra_too(name, without_the_extra):
    assert BotFinder().is_bot(f"Mozilla/5.0 (compatible; {name}/1.0)")


def test_what_mixpanel_browser_refuses_is_a_bot_whatever_the_extra_says():
    assert BotFinder().is_bot(f"{CHROME} [Pinterest/Android]")


@pytest.mark.parametrize(
    "agent", ["GPTBot/1.2", "ClaudeBot/1.0", "UptimeRobot/2.0", f"{CHROME} HeadlessChrome/153"]
)
def test_the_extra_knows_more_bots(agent):
    assert BotFinder().is_bot(agent)


@pytest.mark.parametrize(
    "agent", ["okhttp/4.12.0", "axios/1.7.2", "python-httpx/0.28.1", "curl/8.5.0"]
)
def test_the_library_that_an_app_speaks_http_with_is_no_bot(agent):
    assert not BotFinder().is_bot(agent)


@pytest.mark.parametrize("agent", ["", CHROME, "testclient", "\u202eMozilla", "%n%n%n"])
def test_a_person_is_no_bot(agent):
    assert not BotFinder().is_bot(agent)


def test_what_only_the_extra_knows_is_no_bot_without_it(without_the_extra):
    assert not BotFinder().is_bot("GPTBot/1.2")


def test_nobody_makes_us_search_endless_agents():
    assert not BotFinder().is_bot("x" * MAX_AGENT_CHARACTERS + "Googlebot")


def test_only_so_many_agents_are_remembered():
    finder = BotFinder()

    for number in range(MAX_REMEMBERED + 10):
        finder.is_bot(f"Googlebot/{number}")

    assert finder._is_bot.cache_info().currsize == MAX_REMEMBERED


def test_an_agent_is_judged_once():
    finder = BotFinder()

    answers = [finder.is_bot(CHROME), finder.is_bot(CHROME)]

    assert answers == [False, False]
    assert finder._is_bot.cache_info().hits == 1
