"""The live page in Chromium: who is who, wide and narrow, by keyboard, after a failure."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from mp_asgi.dev import StandIn, run_in_thread
from tests.endpoints.browsing import CHROMIUM, open_browser, open_pages

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed on this machine"
)

DEVICE = "0ee4420c-8699-457a-940f-fec4205e64f4"
OTHERS = [f"{number}ee4420c-8699-457a-940f-fec4205e64f4" for number in range(1, 6)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[StandIn, str]]:
    standin = StandIn()
    with run_in_thread(standin) as server:
        yield standin, server.url


@pytest.fixture
def url(served: tuple[StandIn, str]) -> str:
    served[0].reset()
    return served[1]


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def open_page(browser: Any, complaints: list[str]) -> Iterator[Callable[..., Page]]:
    with open_pages(browser, complaints) as open_page:
        yield open_page
    assert complaints == []


def track(url: str, **ids: str) -> None:
    properties = {"token": "T"} | {f"${name}": value for name, value in ids.items()}
    httpx.post(f"{url}/track", json={"event": "Seen", "properties": properties}).raise_for_status()


def panel(page: Page) -> Locator:
    return page.locator("#visitors")


def test_without_events_there_is_no_panel(url: str, open_page: Any) -> None:
    page = open_page(url)

    expect(page.get_by_text("No event has arrived.")).to_be_visible()
    expect(panel(page)).to_be_hidden()


def test_a_person_is_one_line_with_every_id_and_count(url: str, open_page: Any) -> None:
    track(url, device_id=DEVICE)
    track(url, device_id=DEVICE, user_id="user-42")

    page = open_page(url)

    expect(panel(page).get_by_role("heading")).to_have_text("1 visitor, simplified ID merge")
    expect(panel(page).get_by_role("listitem")).to_have_text(
        ["user-42 $device:0ee442…5e64f4 2 events"], use_inner_text=True
    )
    expect(panel(page).get_by_text("…")).to_have_attribute("title", f"$device:{DEVICE}")


def test_the_line_follows_what_arrives(url: str, open_page: Any) -> None:
    page = open_page(url)

    track(url, device_id=DEVICE)
    expect(panel(page).get_by_role("listitem")).to_have_count(1)
    track(url, user_id="user-42")

    expect(panel(page).get_by_role("listitem")).to_contain_text(["user-42", "$device:"])


def test_a_failure_is_counted_and_named(url: str, open_page: Any) -> None:
    track(url, device_id=DEVICE, user_id="user-42")
    for _ in range(2):
        track(url, device_id=DEVICE, user_id="user-43")

    page = open_page(url)

    expect(panel(page).locator("li.wrong")).to_contain_text(
        ["2 failures: errAnonDistinctIdAssignedAlready"]
    )


def test_of_many_ids_some_are_shown_and_the_rest_is_counted(url: str, open_page: Any) -> None:
    for device_id in [DEVICE, *OTHERS]:
        track(url, device_id=device_id, user_id="user-42")

    page = open_page(url)

    expect(panel(page).locator("code")).to_have_count(4)
    expect(panel(page)).to_contain_text("and 3 other IDs")


def test_no_id_is_markup_or_cut_within_a_letter(url: str, open_page: Any) -> None:
    track(url, user_id="<b>" + "😀" * 30)

    page = open_page(url)

    expect(panel(page).locator("code")).to_have_text("<b>" + "😀" * 11 + "…" + "😀" * 6)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows_at_360_pixels(url: str, open_page: Any, scheme: str) -> None:
    track(url, device_id=DEVICE, user_id="W" * 200)
    track(url, device_id=DEVICE, user_id="漢" * 80)

    page = open_page(url, viewport={"width": 360, "height": 640}, color_scheme=scheme)

    expect(panel(page).get_by_role("listitem")).to_have_count(2)
    too_wide = "all => all.filter(one => one.scrollWidth > one.clientWidth).length"
    assert panel(page).locator("li > div, p").evaluate_all(too_wide) == 0


def test_the_panel_folds_by_keyboard(url: str, open_page: Any) -> None:
    track(url, device_id=DEVICE)
    page = open_page(url)
    expect(panel(page).get_by_role("listitem")).to_be_visible()

    page.get_by_role("button", name="Clear").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")

    expect(panel(page).get_by_role("listitem")).to_be_hidden()


def test_clear_takes_the_panel_away(url: str, open_page: Any) -> None:
    track(url, device_id=DEVICE)
    page = open_page(url)
    expect(panel(page)).to_be_visible()

    page.get_by_role("button", name="Clear").click()

    expect(panel(page)).to_be_hidden()


def test_an_answer_that_failed_is_asked_for_again(
    url: str, open_page: Any, complaints: list[str]
) -> None:
    page = open_page(url)
    page.route("**/_mp/visitors", lambda route: route.abort(), times=1)

    track(url, device_id=DEVICE)

    expect(panel(page).get_by_role("listitem")).to_have_count(1)
    assert [text for text in complaints if "ERR_FAILED" in text] == complaints
    complaints.clear()
