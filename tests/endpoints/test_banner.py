"""A person answers the banner in Chromium."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from mp_asgi.endpoints.texts import notice_texts
from tests.endpoints.browsing import CHROMIUM, Shop, open_browser, open_pages, serve_shop

GPC = {"Sec-GPC": "1"}

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed on this machine"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def served() -> Iterator[Shop]:
    with serve_shop(notice={"en": {"policy_url": "/privacy"}, "de": {}}) as shop:
        yield shop


@pytest.fixture
def shop(served: Shop) -> Shop:
    served.reset()
    return served


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def open_page(browser: Any, complaints: list[str]) -> Iterator[Callable[..., Page]]:
    with open_pages(browser, complaints) as open_page:
        yield open_page
    assert complaints == []


def banner(page: Page) -> Any:
    return page.get_by_role("region", name="May we measure how this site is used?")


def press(page: Page, name: str) -> None:
    """Press a button of the banner and wait until the banner has gone."""
    banner(page).get_by_role("button", name=name, exact=True).click()
    expect(banner(page)).to_have_count(0)


def reopen(page: Page) -> None:
    page.get_by_role("button", name="Privacy settings").click()
    expect(banner(page).get_by_role("heading")).to_be_focused()  # unlike one that came by itself


def cookies(page: Page) -> set[str]:
    return {cookie["name"] for cookie in page.context.cookies()}


def state(page: Page) -> Any:
    return page.evaluate("fetch('/_mp/consent').then((response) => response.json())")


def test_a_new_visitor_is_asked(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)

    expect(banner(page)).to_be_visible()
    assert cookies(page) == set()


@pytest.mark.parametrize(
    ("button", "expected", "kept"),
    [
        pytest.param("Accept", "granted", {"mp_consent", "mp_id"}, id="accept"),
        pytest.param("Refuse", "denied", {"mp_consent"}, id="refuse"),
    ],
)
def test_an_answer_is_kept_and_not_asked_for_again(
    shop: Shop, open_page: Any, button: str, expected: str, kept: set[str]
) -> None:
    page = open_page(shop.url)

    press(page, button)

    assert cookies(page) == kept
    assert state(page)["state"] == expected
    page.reload()
    page.wait_for_load_state("networkidle")
    expect(banner(page)).to_have_count(0)


def test_a_choice_can_be_seen_and_withdrawn(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)
    press(page, "Accept")

    reopen(page)
    expect(banner(page)).to_contain_text("You have accepted so far.")
    press(page, "Refuse")

    assert state(page)["state"] == "denied"
    assert "mp_id" not in cookies(page)
    reopen(page)
    expect(banner(page)).to_contain_text("You have refused so far.")


def test_a_page_can_open_the_banner_itself(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)
    press(page, "Refuse")

    page.evaluate("mpAsgi.open()")

    expect(banner(page)).to_be_visible()


def test_the_page_hears_of_a_choice(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)
    page.evaluate(
        "document.addEventListener('mp-asgi:consent', (e) => { window.heard = e.detail.state; })"
    )

    press(page, "Accept")

    assert page.evaluate("window.heard") == "granted"


@pytest.fixture
def slow_grants(shop: Shop) -> None:
    """Let the server's answer to a grant wait until the page says `go()`."""
    shop.prelude = """
    const fetched = window.fetch;
    window.started = 0;
    const gate = new Promise((open) => { window.go = open; });
    window.fetch = async (url, options) => {
      const isGrant = options && options.body && options.body.includes("granted");
      if (isGrant) { window.started += 1; await gate; }
      return fetched(url, options);
    };
    """


@pytest.mark.parametrize(
    ("clicks", "expected"),
    [
        pytest.param(["Accept", "Refuse"], "denied", id="refused-last"),
        pytest.param(["Accept", "Refuse", "Accept"], "granted", id="accepted-last"),
        pytest.param(["Accept", "Accept"], "granted", id="twice"),
    ],
)
@pytest.mark.usefixtures("slow_grants")
def test_the_last_answer_counts_however_slow_the_first_one_is(
    shop: Shop, open_page: Any, clicks: list[str], expected: str
) -> None:
    page = open_page(shop.url)
    page.evaluate(
        """() => {
          window.heard = [];
          document.addEventListener("mp-asgi:consent", (event) => heard.push(event.detail.state));
        }"""
    )
    for name in clicks:
        banner(page).get_by_role("button", name=name, exact=True).click()
    expect(banner(page)).to_have_attribute("aria-busy", "true")
    assert page.evaluate("started") == 1

    page.evaluate("go()")

    expect(banner(page)).to_have_count(0)
    assert page.evaluate("heard") == [expected]
    assert page.evaluate("started") == 1
    assert state(page)["state"] == expected


# --- an old tab, or an old copy of the script ----------------------------------------------------


def test_who_saw_an_older_notice_is_shown_the_present_one(
    shop: Shop, open_page: Any, complaints: list[str]
) -> None:
    page = open_page("about:blank")

    def answer_old_copy(route: Any) -> None:
        text = route.fetch().text().replace("If you agree,", "Once upon a time,")
        route.fulfill(body=re.sub(r"[0-9a-f]{64}", "0" * 64, text), content_type="text/javascript")

    page.route("**/_mp/banner.js", answer_old_copy)
    page.goto(shop.url)
    expect(banner(page)).to_contain_text("Once upon a time")

    banner(page).get_by_role("button", name="Accept").click()

    expect(banner(page)).to_contain_text("If you agree")
    expect(page.get_by_role("heading", name="May we measure")).to_be_focused()
    assert state(page)["state"] == "unknown"
    press(page, "Accept")
    assert state(page)["state"] == "granted"
    assert [text for text in complaints if "409" not in text] == []
    complaints.clear()


# --- keyboard ---------------------------------------------------------------------------------


def test_the_banner_is_answered_with_the_keyboard_alone(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)
    expect(banner(page)).to_be_visible()

    names = []
    for _ in range(3):
        page.keyboard.press("Tab")
        focused = page.locator("mp-asgi-consent :focus")
        names.append(focused.inner_text())
        assert focused.evaluate("element => getComputedStyle(element).outlineStyle") == "solid"
    page.keyboard.press("Enter")

    expect(banner(page)).to_have_count(0)
    assert names == ["Privacy policy", "Refuse", "Accept"]
    assert state(page)["state"] == "granted"


@pytest.mark.parametrize(
    "leave",
    [
        pytest.param(lambda page: page.keyboard.press("Escape"), id="escape"),
        pytest.param(
            lambda page: page.get_by_role("button", name="Close without choosing").click(),
            id="cross",
        ),
    ],
)
def test_leaving_chooses_nothing_and_goes_back_to_where_one_was(
    shop: Shop, open_page: Any, leave: Callable[[Page], None]
) -> None:
    page = open_page(shop.url)
    press(page, "Accept")
    reopen(page)
    expect(page.get_by_role("heading", name="May we measure")).to_be_focused()

    leave(page)

    expect(banner(page)).to_have_count(0)
    expect(page.get_by_role("button", name="Privacy settings")).to_be_focused()
    assert state(page)["state"] == "granted"


def test_after_the_first_answer_the_keyboard_goes_on_in_the_page(
    shop: Shop, open_page: Any
) -> None:
    page = open_page(shop.url)
    banner(page).get_by_role("button", name="Refuse").focus()

    page.keyboard.press("Enter")

    expect(page.get_by_role("main")).to_be_focused()


def test_who_was_elsewhere_in_the_page_goes_back_there(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)
    expect(banner(page)).to_be_visible()
    page.get_by_role("button", name="Privacy settings").focus()

    press(page, "Refuse")

    expect(page.get_by_role("button", name="Privacy settings")).to_be_focused()


def test_a_page_without_a_main_part_is_no_error(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)
    expect(banner(page)).to_be_visible()
    page.evaluate("document.querySelector('main').remove()")

    press(page, "Refuse")

    assert state(page)["state"] == "denied"


def test_the_end_of_the_page_can_be_scrolled_above_the_banner(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url, viewport={"width": 320, "height": 568}, reduced_motion="reduce")
    page.evaluate(
        """() => {
          const footer = document.createElement("footer");
          footer.append(Object.assign(document.createElement("a"), { href: "#", text: "Imprint" }));
          footer.style.marginTop = "150vh";
          document.body.append(footer);
        }"""
    )
    expect(banner(page)).to_be_visible()

    page.get_by_role("link", name="Imprint").focus()

    link = page.get_by_role("link", name="Imprint").bounding_box()
    assert link["y"] + link["height"] <= banner(page).bounding_box()["y"]
    page.get_by_role("button", name="Close without choosing").click()
    assert page.evaluate("getComputedStyle(document.documentElement).paddingBottom") == "0px"


def test_escape_elsewhere_leaves_the_question_open(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)
    expect(banner(page)).to_be_visible()

    page.keyboard.press("Escape")

    expect(banner(page)).to_be_visible()


# --- GPC --------------------------------------------------------------------------------------


def test_gpc_is_an_answer_and_nobody_is_asked(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url, extra_http_headers=GPC)

    page.wait_for_load_state("networkidle")

    expect(banner(page)).to_have_count(0)


def test_who_accepts_under_gpc_is_told_what_that_means(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url, extra_http_headers=GPC)
    reopen(page)
    expect(banner(page)).to_contain_text("Your browser asks sites not to track you")
    expect(banner(page)).not_to_contain_text("so far")
    expect(banner(page).get_by_role("button", name="Accept", exact=True)).to_have_count(0)

    press(page, "Accept and override GPC")

    assert state(page)["state"] == "granted"


def test_gpc_turned_on_meanwhile_is_told_before_a_grant_counts(
    shop: Shop, open_page: Any, complaints: list[str]
) -> None:
    page = open_page(shop.url)
    expect(banner(page)).to_be_visible()
    page.context.set_extra_http_headers(GPC)

    banner(page).get_by_role("button", name="Accept", exact=True).click()

    expect(banner(page)).to_contain_text("Your browser asks sites not to track you")
    assert state(page)["state"] == "denied"
    assert [text for text in complaints if "409" not in text] == []
    complaints.clear()


@pytest.mark.parametrize(("honors", "told"), [(True, 1), (False, 0)])
def test_the_signal_is_told_only_where_it_counts(
    browser: Any, complaints: list[str], honors: bool, told: int
) -> None:
    with serve_shop(honor_gpc=honors) as shop, open_pages(browser, complaints) as open_page:
        shop.prelude = """Object.defineProperty(
          Navigator.prototype, "globalPrivacyControl", { get: () => true },
        );"""
        page = open_page(shop.url)
        expect(banner(page)).to_be_visible()
        page.context.set_offline(True)

        reopen(page)

        expect(page.locator("mp-asgi-consent .gpc")).to_have_count(told)
        page.context.set_offline(False)
        page.goto("about:blank")  # leave the server alone before it stops


# --- a server that does not answer ------------------------------------------------------------


def test_a_grant_that_was_not_kept_is_said_aloud(
    shop: Shop, open_page: Any, complaints: list[str]
) -> None:
    page = open_page(shop.url)
    expect(banner(page)).to_be_visible()
    page.context.set_offline(True)

    banner(page).get_by_role("button", name="Accept").click()

    expect(page.get_by_role("alert")).to_have_text(
        "Your choice could not be saved. Please try again."
    )
    complaints.clear()


def test_a_grant_that_the_browser_did_not_keep_is_said_aloud(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)
    expect(banner(page)).to_be_visible()

    def ask_without_cookies(route: Any) -> None:
        if route.request.method == "GET":
            route.fulfill(json=httpx.get(f"{shop.url}/_mp/consent").json())
        else:
            route.continue_()

    page.route("**/_mp/consent", ask_without_cookies)

    banner(page).get_by_role("button", name="Accept").click()

    expect(page.get_by_role("alert")).to_have_text(
        "Your choice could not be saved. Please try again."
    )
    expect(banner(page)).to_have_attribute("aria-busy", "false")


def test_a_refusal_needs_no_server(shop: Shop, open_page: Any, complaints: list[str]) -> None:
    page = open_page(shop.url)
    expect(banner(page)).to_be_visible()
    page.context.set_offline(True)
    press(page, "Refuse")
    page.context.set_offline(False)

    assert cookies(page) == {"mp_choice"}
    assert state(page)["reason"] == "script-denied"
    complaints.clear()


def test_a_later_grant_ends_a_refusal_without_a_server(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)
    page.evaluate("document.cookie = 'mp_choice=denied; path=/'")
    reopen(page)

    press(page, "Accept")

    assert cookies(page) == {"mp_consent", "mp_id"}
    assert state(page)["state"] == "granted"


def test_the_cookie_of_such_a_refusal_ends_whatever_the_path_of_the_others(open_page: Any) -> None:
    with serve_shop(cookie_path="/_mp") as shop:
        page = open_page(shop.url)
        page.evaluate("document.cookie = 'mp_choice=denied; path=/'")
        reopen(page)

        press(page, "Accept")

        assert cookies(page) == {"mp_consent", "mp_id"}
        assert state(page)["state"] == "granted"
        page.goto("about:blank")  # leave the server alone before it stops


def test_the_banner_opens_where_the_state_cannot_be_told(
    shop: Shop, open_page: Any, complaints: list[str]
) -> None:
    page = open_page(shop.url)
    press(page, "Refuse")
    page.context.set_offline(True)

    reopen(page)

    expect(banner(page)).not_to_contain_text("so far")
    complaints.clear()


# --- how it is put into a page ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("lang", "attributes", "title"),
    [
        pytest.param("en", "", "May we measure", id="page"),
        pytest.param("de-AT", "", "Dürfen wir messen", id="page-of-a-region"),
        pytest.param("en", 'data-lang="DE"', "Dürfen wir messen", id="attribute"),
        pytest.param("de", 'data-lang="fr"', "Dürfen wir messen", id="attribute-not-offered"),
        pytest.param("fr", "", "May we measure", id="none-offered"),
        pytest.param("", "", "May we measure", id="none"),
    ],
)
def test_the_language_follows_the_page(
    shop: Shop, open_page: Any, lang: str, attributes: str, title: str
) -> None:
    shop.reset(lang=lang, scripts=f'<script src="/_mp/banner.js" {attributes}></script>')

    page = open_page(shop.url)

    expect(page.get_by_role("region")).to_contain_text(title)


def test_a_page_that_knows_asks_for_nothing(shop: Shop, open_page: Any) -> None:
    shop.reset(scripts='<script src="/_mp/banner.js" data-prompt="off" defer></script>')
    page = open_page(shop.url)
    page.wait_for_load_state("networkidle")

    asked = page.evaluate("performance.getEntriesByName(location.origin + '/_mp/consent').length")

    assert asked == 0
    expect(banner(page)).to_have_count(0)
    reopen(page)


def test_a_script_that_is_there_twice_asks_once(shop: Shop, open_page: Any) -> None:
    shop.reset(scripts='<script src="/_mp/banner.js" defer></script>' * 2)

    page = open_page(shop.url)

    expect(banner(page)).to_have_count(1)


@pytest.mark.parametrize(
    "scripts",
    [
        pytest.param('<script type="module" src="/_mp/banner.js"></script>', id="module"),
        pytest.param('<script type="module" src="/prelude.js"></script>', id="imported"),
        pytest.param(
            '<form name="currentScript"><input name="src"></form>'
            '<script src="/_mp/banner.js"></script>',
            id="name-taken",
        ),
        pytest.param(
            '<script type="module" src="/_mp/banner.js?v=2" data-lang="en"></script>', id="query"
        ),
    ],
)
def test_the_banner_finds_itself(shop: Shop, open_page: Any, scripts: str) -> None:
    shop.reset(scripts=scripts, prelude='import("/_mp/banner.js");' if "prelude" in scripts else "")

    page = open_page(shop.url)

    press(page, "Accept")
    assert state(page)["state"] == "granted"


SHADOWED = """() => {
  const host = document.body.appendChild(document.createElement("x-footer"));
  const button = Object.assign(document.createElement("button"), { textContent: "Cookies" });
  button.setAttribute("data-mp-consent", "");
  button.append(Object.assign(document.createElement("b"), { textContent: "!" }));
  host.attachShadow({ mode: "open" }).append(button);
}"""
STOPPED = """() => {
  const button = Object.assign(document.createElement("button"), { textContent: "Cookies!" });
  button.setAttribute("data-mp-consent", "");
  button.onclick = (event) => event.stopPropagation();
  document.body.append(button);
}"""


@pytest.mark.parametrize(
    "make_button",
    [pytest.param(SHADOWED, id="in-a-component"), pytest.param(STOPPED, id="click-stopped")],
)
def test_a_button_opens_the_banner_wherever_it_is(
    shop: Shop, open_page: Any, make_button: str
) -> None:
    page = open_page(shop.url)
    press(page, "Refuse")
    page.evaluate(make_button)

    page.get_by_role("button", name="Cookies").click()

    expect(banner(page)).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Cookies")).to_be_focused()


def test_a_click_on_no_element_is_no_error(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)
    press(page, "Refuse")

    page.evaluate("document.dispatchEvent(new MouseEvent('click', { bubbles: true })), 0")

    expect(banner(page)).to_have_count(0)


def test_the_banner_can_be_answered_while_a_dialog_is_open(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)
    press(page, "Refuse")
    page.evaluate(
        """() => {
          const dialog = document.body.appendChild(document.createElement("dialog"));
          const button = dialog.appendChild(document.createElement("button"));
          button.textContent = "Cookies";
          button.setAttribute("data-mp-consent", "");
          dialog.showModal();
        }"""
    )
    page.get_by_role("button", name="Cookies").click()
    expect(page.get_by_role("heading", name="May we measure")).to_be_focused()
    page.keyboard.press("Escape")
    expect(banner(page)).to_have_count(0)
    page.get_by_role("button", name="Cookies").click()

    press(page, "Accept")

    assert state(page)["state"] == "granted"
    assert page.evaluate("document.querySelector('dialog').open")


def test_the_banner_outlives_the_dialog_that_it_was_opened_in(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)
    expect(banner(page)).to_be_visible()
    page.evaluate(
        """() => {
          document.body.append(document.createElement("dialog"));
          document.querySelector("dialog").showModal();
        }"""
    )
    page.evaluate("mpAsgi.open()")
    expect(page.locator("dialog mp-asgi-consent")).to_have_count(1)

    page.evaluate("document.querySelector('dialog').close()")

    expect(page.locator("body > mp-asgi-consent")).to_have_count(1)
    expect(banner(page)).to_be_visible()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("document.body.replaceWith(document.createElement('body'))", id="replaced"),
        pytest.param("document.body.innerHTML = ''", id="emptied"),
    ],
)
def test_a_page_that_changes_its_body_keeps_the_question(
    shop: Shop, open_page: Any, change: str
) -> None:
    page = open_page(shop.url)
    expect(banner(page)).to_be_visible()

    page.evaluate(change)
    expect(banner(page)).to_be_visible()
    page.evaluate(change)

    press(page, "Refuse")
    assert state(page)["state"] == "denied"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda page, other: press(other, "Refuse"), id="in-another-tab"),
        pytest.param(
            lambda page, other: page.evaluate(
                """async () => {
                  const detail = await (await fetch("/_mp/consent", {
                    method: "POST", headers: { "Content-Type": "application/json" },
                    body: '{"analytics": "denied"}',
                  })).json();
                  document.dispatchEvent(new CustomEvent("mp-asgi:consent", { detail }));
                }"""
            ),
            id="by-a-manager",
        ),
        pytest.param(
            lambda page, other: page.evaluate(
                """async () => {
                  await fetch("/_mp/consent", {
                    method: "POST", headers: { "Content-Type": "application/json" },
                    body: '{"analytics": "denied"}',
                  });
                  dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }));
                }"""
            ),
            id="while-the-page-was-away",
        ),
    ],
)
def test_a_question_that_is_answered_elsewhere_is_over(
    shop: Shop, open_page: Any, answer: Callable[[Page, Page], None]
) -> None:
    page = open_page(shop.url)
    expect(banner(page)).to_be_visible()
    other = page.context.new_page()
    other.goto(shop.url)
    expect(banner(other)).to_be_visible()

    answer(page, other)

    expect(banner(page)).to_have_count(0)


def test_who_is_changing_their_mind_is_not_interrupted(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)
    other = page.context.new_page()
    other.goto(shop.url)
    reopen(page)

    press(other, "Refuse")

    expect(banner(page)).to_be_visible()


def test_a_frame_does_not_ask(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)
    press(page, "Refuse")
    page.context.clear_cookies()
    page.evaluate(
        "() => { document.body.append(Object.assign("
        "document.createElement('iframe'), { src: '/' })); }"
    )
    frame = page.frame_locator("iframe")
    expect(frame.get_by_role("heading", name="Shop")).to_be_visible()
    page.wait_for_load_state("networkidle")

    expect(frame.locator("mp-asgi-consent")).to_have_count(0)
    frame.get_by_role("button", name="Privacy settings").click()
    expect(frame.locator("mp-asgi-consent")).to_have_count(1)


@pytest.mark.parametrize(
    ("language", "direction"), [("ar", "rtl"), ("he-IL", "rtl"), ("arn", "ltr"), ("fr", "ltr")]
)
def test_the_direction_follows_the_language_of_the_texts(
    browser: Any, complaints: list[str], language: str, direction: str
) -> None:
    # A Latin brand at the beginning turns nothing around.
    texts = {**notice_texts(None)["en"], "title": "May we measure how this site is used?"}
    with (
        serve_shop(notice={language: texts}) as shop,
        open_pages(browser, complaints) as open_page,
    ):
        page = open_page(shop.url)

        found = banner(page).evaluate("element => getComputedStyle(element).direction")

        assert found == direction
        page.goto("about:blank")  # leave the server alone before it stops


# --- how it looks -----------------------------------------------------------------------------


@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("zoom", [100, 200])
def test_the_banner_fits_every_screen(
    shop: Shop, open_page: Any, scheme: str, width: int, zoom: int
) -> None:
    page = open_page(
        shop.url,
        color_scheme=scheme,
        viewport={"width": width, "height": 640},
        reduced_motion="reduce",
        extra_http_headers=GPC,
    )
    page.evaluate(f"document.documentElement.style.fontSize = '{zoom}%'")
    reopen(page)
    accept = banner(page).get_by_role("button", name="Accept and override GPC")
    accept.scroll_into_view_if_needed()

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box, button = banner(page).bounding_box(), accept.bounding_box()
    assert box["y"] >= 0
    assert box["y"] + box["height"] <= 640
    assert button["y"] + button["height"] <= 640
    assert banner(page).evaluate("element => element.scrollWidth <= element.clientWidth")


CONTRASTS = """section => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (text) => {
    const [r, g, b] = parse(text).slice(0, 3).map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (parse(color)[3] !== 0) return color;
    }
  };
  section.querySelector('.failed').textContent = 'Failed.';
  return Object.fromEntries([...section.querySelectorAll('h2, p, a, button')].map((element) => {
    const [high, low] = [getComputedStyle(element).color, ground(element)]
      .map(light).sort((a, b) => b - a);
    return [element.tagName + '.' + element.className, (high + 0.05) / (low + 0.05)];
  }));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read(shop: Shop, open_page: Any, scheme: str) -> None:
    page = open_page(shop.url, color_scheme=scheme, extra_http_headers=GPC)
    page.evaluate("document.cookie = 'mp_choice=denied; path=/'")
    reopen(page)

    contrasts = banner(page).evaluate(CONTRASTS)

    expected = {"H2.", "P.", "P.status", "P.gpc", "P.failed", "A.", "BUTTON.", "BUTTON.close"}
    assert contrasts.keys() == expected
    assert min(contrasts.values()) >= 4.5  # WCAG 2.2, 1.4.3


@pytest.mark.parametrize("headers", [{}, GPC])
def test_refusing_is_as_easy_as_accepting(
    shop: Shop, open_page: Any, headers: dict[str, str]
) -> None:
    page = open_page(shop.url, extra_http_headers=headers, reduced_motion="reduce")
    reopen(page)

    looks = banner(page).evaluate(
        """section => [...section.querySelectorAll('div button')].map((button) => {
          const { color, backgroundColor, fontSize, fontWeight, border } = getComputedStyle(button);
          const { width, height } = button.getBoundingClientRect();
          return { color, backgroundColor, fontSize, fontWeight, border, width, height };
        })"""
    )

    assert len(looks) == 2
    assert looks[0] == looks[1]
    assert looks[0]["height"] >= 44


@pytest.mark.parametrize(
    ("motion", "moves"), [pytest.param("reduce", False), pytest.param("no-preference", True)]
)
def test_nothing_moves_for_who_asks_for_that(
    shop: Shop, open_page: Any, motion: str, moves: bool
) -> None:
    page = open_page(shop.url, reduced_motion=motion)

    name = banner(page).evaluate("element => getComputedStyle(element).animationName")

    assert (name != "none") is moves


def test_everything_has_a_name(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)
    reopen(page)

    expect(banner(page)).to_match_aria_snapshot("""
      - region "May we measure how this site is used?":
        - heading "May we measure how this site is used?" [level=2]
        - paragraph: /If you agree/
        - paragraph:
          - link "Privacy policy":
            - /url: /privacy
        - button "Refuse"
        - button "Accept"
        - button "Close without choosing"
    """)
