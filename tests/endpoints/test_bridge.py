"""Consent managers as a page has them, obeying the interfaces that they document."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.endpoints.browsing import CHROMIUM, Shop, open_browser, open_pages, serve_shop

BRIDGE = '<script src="/_mp/bridge.js"></script>'
BANNER = '<script src="/_mp/banner.js"></script>'
GPC = {"Sec-GPC": "1"}

# What a visitor's click makes each manager do; `choose(true)` agrees, `choose(false)` refuses.
USERCENTRICS = """
window.__ucCmp = {};
window.choose = (given, type = "EXPLICIT", name = "Mixpanel") => {
  const services = { abc: { name, consent: { given, type } }, def: { name: "Other" } };
  window.dispatchEvent(new CustomEvent("UC_CONSENT", { detail: { services } }));
  window.dispatchEvent(new CustomEvent("UC_UI_CMP_EVENT", { detail: { type: "SAVE" } }));
};
"""
OLD_USERCENTRICS = """
let status = null;
window.UC_UI = { getServicesBaseInfo: () => [{ name: "Mixpanel", consent: { status } }] };
window.choose = (given, type) => {
  type = type || (given ? "ACCEPT_ALL" : "DENY_ALL");
  window.dispatchEvent(new CustomEvent("UC_UI_CMP_EVENT", { detail: { type } }));
  status = given; // the event comes first
};
"""
TERMLY = """
const handlers = [];
let analytics;
window.Termly = {
  on: (name, handler) => { if (name === "consent") handlers.push(handler); },
  getConsentState: () => ({ essential: true, analytics }),
};
window.choose = (given) => { analytics = given; handlers.forEach((handler) => handler({})); };
"""
OSANO = """
const handlers = [];
window.Osano = { cm: { addEventListener: (name, handler) => {
  if (name === "osano-cm-consent-saved") handlers.push(handler);
} } };
window.choose = (given) => handlers.forEach((handler) => handler(
  { ESSENTIAL: "ACCEPT", ANALYTICS: typeof given === "string" ? given : given ? "ACCEPT" : "DENY" },
));
"""
SOURCEPOINT = """
const handlers = [];
window._sp_ = {};
window.__tcfapi = (command, version, handler) => {
  if (command === "addEventListener" && version === 2) handlers.push(handler);
};
window.tell = (tc, isGood = true) => handlers.forEach((handler) => handler(tc, isGood));
window.choose = (given) => tell({
  eventStatus: "useractioncomplete", gdprApplies: true,
  purpose: { consents: given ? { 1: true, 8: true } : {} },
});
"""
MANAGERS = [
    pytest.param(USERCENTRICS, "usercentrics", id="usercentrics"),
    pytest.param(OLD_USERCENTRICS, "usercentrics", id="usercentrics-v2"),
    pytest.param(TERMLY, "termly", id="termly"),
    pytest.param(OSANO, "osano", id="osano"),
    pytest.param(SOURCEPOINT, "sourcepoint", id="sourcepoint"),
]
MIXPANEL = """
window.calls = [];
window.mixpanel = {
  opt_in_tracking: (options) => calls.push(["in", typeof options.track]),
  opt_out_tracking: (options) => calls.push(["out", options.delete_user]),
};
"""
POST_DENIAL = """fetch("/_mp/consent", {
  method: "POST", headers: { "Content-Type": "application/json" }, body: '{"analytics":"denied"}',
}).then((response) => response.status)"""
POST_GRANT = POST_DENIAL.replace("denied", "granted")
COMES_BACK = "dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true })), 0"
OPTED_OUT = "localStorage.setItem('__mp_opt_in_out_t0ken', '0');"

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed on this machine"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def served() -> Iterator[Shop]:
    with serve_shop() as shop:
        yield shop


@pytest.fixture
def shop(served: Shop) -> Shop:
    served.reset(scripts=BRIDGE)
    return served


@pytest.fixture
def visit(shop: Shop, browser: Any) -> Iterator[Callable[..., "Visit"]]:
    complaints: list[str] = []
    with open_pages(browser, complaints) as open_page:
        yield lambda prelude="", **options: Visit(shop, open_page, prelude, options)
    assert complaints == []


class Visit:
    """One visitor on one page, and the decisions that the page posts."""

    def __init__(self, shop: Shop, open_page: Any, prelude: str, options: Any) -> None:
        shop.prelude = prelude
        has_clock = options.pop("clock", False)
        self.page: Page = open_page("about:blank", **options)
        if has_clock:
            self.page.clock.install()
        self.posted: list[Any] = []
        self.page.on("request", self._note)
        self.page.goto(shop.url)
        self.rest()

    def _note(self, request: Any) -> None:
        if request.method == "POST":
            self.posted.append(json.loads(request.post_data))

    def rest(self) -> None:
        """Wait until what was said has been carried: a choice takes two calls of the server."""
        self.page.evaluate(
            """async () => {
              await new Promise((done) => setTimeout(done));
              for (let call = 0; call < 4; call += 1) await fetch("/_mp/consent");
            }"""
        )

    def run(self, script: str) -> Any:
        answer = self.page.evaluate(script)
        self.rest()
        return answer

    @property
    def state(self) -> str:
        told = "fetch('/_mp/consent').then((response) => response.json())"
        return str(self.page.evaluate(told)["state"])


@pytest.mark.parametrize(("manager", "name"), MANAGERS)
@pytest.mark.parametrize(
    ("given", "state"), [pytest.param("true", "granted"), pytest.param("false", "denied")]
)
def test_a_choice_reaches_the_server_once(
    visit: Any, manager: str, name: str, given: str, state: str
) -> None:
    visitor = visit(manager)
    assert visitor.posted == []

    visitor.run(f"choose({given})")
    visitor.run(f"choose({given})")

    [decision] = visitor.posted
    assert (decision["analytics"], decision["source"]) == (state, f"cmp:{name}")
    assert visitor.state == state


@pytest.mark.parametrize(("manager", "name"), MANAGERS)
def test_a_change_of_mind_reaches_the_server(visit: Any, manager: str, name: str) -> None:
    visitor = visit(manager)

    visitor.run("choose(true)")
    visitor.run("choose(false)")

    assert visitor.state == "denied"


@pytest.mark.parametrize("reloads", [False, True])
@pytest.mark.parametrize(("manager", "name"), MANAGERS)
def test_who_refused_can_agree_in_the_same_manager(
    visit: Any, manager: str, name: str, reloads: bool
) -> None:
    visitor = visit(manager)
    visitor.run("choose(false)")
    if reloads:
        visitor.page.reload()
    visitor.rest()

    visitor.run("choose(true)")

    assert visitor.posted[-1] == {"analytics": "granted", "source": f"cmp:{name}", "fresh": True}
    assert visitor.state == "granted"


# --- what Usercentrics says again at every page load ------------------------------------------

SAYS_YES_AT_LOAD = (
    USERCENTRICS
    + """
const send = (name, detail, later) => {
  const event = new CustomEvent(name, { detail });
  if (later) Object.defineProperty(event, "timeStamp", { value: event.timeStamp + later });
  window.dispatchEvent(event);
};
window.say = (given, type = "EXPLICIT", later = 0) => send(
  "UC_CONSENT", { services: { abc: { name: "Mixpanel", consent: { given, type } } } }, later,
);
window.press = (type, later = 0) => send("UC_UI_CMP_EVENT", { type }, later);
addEventListener("load", () => say(true));
"""
)


@pytest.fixture
def refused(visit: Any) -> "Visit":
    """Answer a visitor who agreed in Usercentrics once, and refused elsewhere since."""
    visitor: Visit = visit(SAYS_YES_AT_LOAD)
    assert visitor.state == "granted"
    visitor.run(POST_DENIAL)
    visitor.posted.clear()
    visitor.page.reload()
    visitor.rest()
    return visitor


def test_an_old_yes_does_not_undo_a_later_no(refused: "Visit") -> None:
    assert refused.posted == []
    assert refused.state == "denied"


@pytest.mark.parametrize(
    "event",
    [
        pytest.param("say(false); say(true)", id="changed"),
        pytest.param("say(false, 'IMPLICIT'); say(true)", id="after-nobody-had-chosen"),
        pytest.param("press('ACCEPT_ALL'); say(true)", id="pressed-before"),
        pytest.param("say(true); press('ACCEPT_ALL')", id="pressed-after"),
        pytest.param("say(true); press('SAVE')", id="saved"),
    ],
)
def test_a_yes_of_this_page_view_counts(refused: "Visit", event: str) -> None:
    refused.run(f"{{ {event} }}")

    assert refused.posted[-1]["fresh"] is True
    assert refused.state == "granted"


@pytest.mark.parametrize(
    "event",
    [
        pytest.param("say(true)", id="said-again"),
        pytest.param("say(true); press('DENY_ALL')", id="a-button-that-says-no"),
        pytest.param("say(true); press('SAVE', 1500)", id="pressed-long-after"),
        pytest.param("press('SAVE', 1500); say(true, 'EXPLICIT', 3000)", id="pressed-long-before"),
        pytest.param("say(true); press('CMP_SHOWN')", id="only-shown"),
        pytest.param("say(true, 'IMPLICIT'); press('SAVE')", id="nobody-chose"),
    ],
)
def test_a_yes_that_nobody_said_now_does_not_count(refused: "Visit", event: str) -> None:
    refused.run(f"{{ {event} }}")

    assert refused.posted == []
    assert refused.state == "denied"


def test_a_button_before_anything_was_said_is_no_choice(visit: Any) -> None:
    visitor = visit(SAYS_YES_AT_LOAD.replace("say(true));", "press('ACCEPT_ALL'));"))

    assert visitor.posted == []


def test_old_usercentrics_that_is_not_there_any_more_is_no_error(visit: Any) -> None:
    visitor = visit(OLD_USERCENTRICS)

    visitor.run("delete window.UC_UI; choose(true)")

    assert visitor.posted == []


# --- managers that come late ------------------------------------------------------------------


@pytest.mark.parametrize(
    "manager",
    [
        pytest.param(m, id=m_id)
        for m_id, m in (("termly", TERMLY), ("osano", OSANO), ("sourcepoint", SOURCEPOINT))
    ],
)
@pytest.mark.parametrize(
    ("waits", "count"), [pytest.param(9_000, 1, id="in-time"), pytest.param(11_000, 0, id="never")]
)
def test_a_manager_is_heard_once_if_it_comes_in_time(
    visit: Any, manager: str, waits: int, count: int
) -> None:
    arrive = f"window.arrive = () => {{ {manager} window.hooked = () => handlers.length; }};"
    visitor = visit(arrive, clock=True)
    visitor.page.clock.run_for(waits)

    visitor.run("arrive()")
    visitor.page.clock.run_for(900)

    assert visitor.run("hooked()") == count
    visitor.run("choose(true)")
    assert visitor.state == ("granted" if count else "unknown")


@pytest.mark.parametrize(("manager", "name"), MANAGERS)
def test_a_choice_that_the_server_knows_is_not_posted_again(
    visit: Any, manager: str, name: str
) -> None:
    visitor = visit(manager)
    visitor.run("choose(true)")
    visitor.posted.clear()

    visitor.page.reload()
    visitor.run("choose(true)")

    assert visitor.posted == []


@pytest.mark.parametrize(
    ("manager", "event"),
    [
        pytest.param(USERCENTRICS, "choose(true, 'IMPLICIT')", id="nobody-chose"),
        pytest.param(USERCENTRICS, "choose(true, 'EXPLICIT', 'Matomo')", id="another-service"),
        pytest.param(
            USERCENTRICS, "dispatchEvent(new CustomEvent('UC_CONSENT'))", id="without-detail"
        ),
        pytest.param(OLD_USERCENTRICS, "choose(true, 'CMP_SHOWN')", id="only-shown"),
        pytest.param(
            OLD_USERCENTRICS, "UC_UI.getServicesBaseInfo = () => []; choose(true)", id="not-listed"
        ),
        pytest.param(
            OLD_USERCENTRICS,
            "dispatchEvent(new CustomEvent('UC_UI_CMP_EVENT'))",
            id="event-without-detail",
        ),
        pytest.param(TERMLY, "choose(undefined)", id="no-analytics"),
        pytest.param(TERMLY, "Termly.getConsentState = () => null; choose(true)", id="no-state"),
        pytest.param(OSANO, "choose('LATER')", id="another-word"),
        pytest.param(SOURCEPOINT, "tell({ eventStatus: 'tcloaded' })", id="only-loaded"),
        pytest.param(SOURCEPOINT, "tell(null, false)", id="no-success"),
        pytest.param(
            SOURCEPOINT,
            "tell({ eventStatus: 'useractioncomplete', gdprApplies: false })",
            id="gdpr-does-not-apply",
        ),
    ],
)
def test_what_is_no_choice_is_not_posted(visit: Any, manager: str, event: str) -> None:
    visitor = visit(manager)

    visitor.run(f"{{ {event} }}")

    assert visitor.posted == []


@pytest.mark.parametrize(
    ("consents", "one_treatment", "state"),
    [
        pytest.param("{ 1: true }", "false", "denied", id="no-measurement"),
        pytest.param("{ 8: true }", "false", "denied", id="no-storage"),
        pytest.param("{ 8: true }", "true", "granted", id="storage-disclosed-otherwise"),
    ],
)
def test_a_tcf_grant_needs_storage_and_measurement(
    visit: Any, consents: str, one_treatment: str, state: str
) -> None:
    visitor = visit(SOURCEPOINT)

    visitor.run(
        "tell({ eventStatus: 'useractioncomplete', gdprApplies: true,"
        f" purposeOneTreatment: {one_treatment}, purpose: {{ consents: {consents} }} }})"
    )

    assert visitor.state == state


def test_the_service_in_usercentrics_may_have_another_name(visit: Any, shop: Shop) -> None:
    shop.reset(scripts=BRIDGE.replace("></", ' data-service="Product analytics"></'))
    visitor = visit(USERCENTRICS)

    visitor.run("choose(true, 'EXPLICIT', 'Product analytics')")

    assert visitor.state == "granted"


@pytest.mark.parametrize(
    "prelude",
    [
        pytest.param("", id="nothing"),
        pytest.param("window.Termly = {}; window.Osano = {}; window._sp_ = {};", id="unfinished"),
        pytest.param("window.Osano = { cm: {} }; window.__tcfapi = () => {};", id="other-shapes"),
    ],
)
def test_a_page_without_managers_is_left_alone(visit: Any, prelude: str) -> None:
    assert visit(prelude).posted == []


def test_a_manager_does_not_override_gpc(visit: Any) -> None:
    visitor = visit(OSANO, extra_http_headers=GPC)

    visitor.run("choose(true)")

    assert visitor.posted == []
    assert visitor.state == "denied"


def test_a_refusal_is_posted_though_gpc_says_the_same(visit: Any) -> None:
    visitor = visit(OSANO, extra_http_headers=GPC)

    visitor.run("choose(false)")

    visitor.page.context.set_extra_http_headers({})
    assert visitor.state == "denied"


def test_after_a_failure_the_next_choice_is_carried(visit: Any) -> None:
    visitor = visit(OSANO)
    visitor.page.route("**/_mp/consent", lambda route: route.fulfill(status=204), times=1)

    visitor.run("choose(true)")
    assert visitor.state == "unknown"
    visitor.run("choose(true)")

    assert visitor.state == "granted"


def test_without_an_answer_at_the_start_the_next_choice_is_carried(visit: Any) -> None:
    visitor = visit(OSANO)
    visitor.page.route("**/_mp/consent", lambda route: route.fulfill(status=204), times=1)
    visitor.page.evaluate(COMES_BACK)
    visitor.rest()

    visitor.run("choose(true)")

    assert visitor.state == "granted"


# --- mixpanel-browser -------------------------------------------------------------------------


def test_an_opt_out_in_the_pages_storage_is_a_denial(visit: Any) -> None:
    visitor = visit(OPTED_OUT + MIXPANEL)

    assert visitor.posted == [{"analytics": "denied", "source": "cmp:mixpanel-browser"}]
    assert visitor.state == "denied"
    assert visitor.run("calls") == []


@pytest.mark.parametrize(
    ("prelude", "posts"),
    [
        pytest.param(OPTED_OUT.replace("'0'", "'1'"), False, id="opt-in-is-no-news"),
        pytest.param("localStorage.setItem('other', '0');", False, id="another-key"),
        pytest.param(OPTED_OUT.replace("t0ken", "0ther"), False, id="another-project"),
        pytest.param(
            OPTED_OUT + "window.mixpanel = { get_config: (name) => name.includes('default') };",
            False,
            id="the-library-wrote-it",
        ),
        pytest.param(
            OPTED_OUT + "window.mixpanel = { get_config: () => false };", True, id="a-person-did"
        ),
        pytest.param(
            "Object.defineProperty(window, 'localStorage', { get() { throw new Error(); } });",
            False,
            id="storage-forbidden",
        ),
    ],
)
def test_only_a_persons_opt_out_is_posted(visit: Any, prelude: str, posts: bool) -> None:
    assert bool(visit(prelude).posted) is posts


@pytest.mark.parametrize(
    ("button", "call"),
    [
        pytest.param("Accept", ["in", "function"], id="accept"),
        pytest.param("Refuse", ["out", False], id="refuse"),
    ],
)
def test_a_choice_in_the_banner_reaches_the_page(
    visit: Any, shop: Shop, button: str, call: list[Any]
) -> None:
    shop.reset(scripts=BRIDGE + BANNER)
    visitor = visit(MIXPANEL)

    visitor.page.get_by_role("button", name=button).click()
    expect(visitor.page.get_by_role("region")).to_have_count(0)
    visitor.rest()

    assert visitor.run("calls") == [call]
    assert len(visitor.posted) == 1


def test_a_choice_in_a_manager_reaches_the_page(visit: Any) -> None:
    visitor = visit(MIXPANEL + OSANO)

    visitor.run("choose(true)")

    assert visitor.run("calls") == [["in", "function"]]


ONCE = "if (!localStorage.once) { localStorage.once = 1; %s }"


def test_an_opt_out_is_news_once(visit: Any) -> None:
    visitor = visit(ONCE % OPTED_OUT)
    assert visitor.state == "denied"
    visitor.run(POST_GRANT)  # by a page of the site, which tells nobody here
    visitor.posted.clear()

    visitor.page.reload()
    visitor.rest()

    assert visitor.posted == []
    assert visitor.state == "granted"


def test_an_opt_out_after_a_grant_is_news_again(visit: Any) -> None:
    visitor = visit(ONCE % OPTED_OUT)
    visitor.run(POST_GRANT)
    visitor.run(OPTED_OUT.replace("'0'", "'1'"))  # as the library does when it is opted in
    visitor.page.reload()
    visitor.rest()
    assert visitor.state == "granted"

    visitor.run(OPTED_OUT)
    visitor.page.reload()
    visitor.rest()

    assert visitor.state == "denied"


def test_an_opt_out_that_could_not_be_carried_is_carried_later(visit: Any) -> None:
    visitor = visit()
    visitor.page.route("**/_mp/consent", lambda route: route.fulfill(status=204), times=2)
    visitor.run(OPTED_OUT)
    visitor.page.evaluate(COMES_BACK)
    visitor.rest()
    visitor.page.unroute("**/_mp/consent")

    visitor.page.reload()
    visitor.rest()

    assert visitor.state == "denied"


WITH_STATE = (
    MIXPANEL
    + """
Object.assign(window.mixpanel, { has_opted_out_tracking: () => true });
"""
)


@pytest.mark.parametrize(
    ("prelude", "posted", "calls"),
    [
        pytest.param(MIXPANEL, POST_DENIAL, [["out", False]], id="denied"),
        pytest.param(WITH_STATE, POST_DENIAL, [], id="denied-and-opted-out"),
        pytest.param(MIXPANEL, POST_GRANT, [], id="granted"),
        pytest.param(WITH_STATE, POST_GRANT, [["in", "function"]], id="granted-and-opted-out"),
        pytest.param(WITH_STATE, "0", [], id="nobody-chose"),
    ],
)
def test_the_library_is_told_at_every_page_what_the_server_knows(
    visit: Any, prelude: str, posted: str, calls: list[Any]
) -> None:
    visitor = visit(prelude)
    visitor.run(posted)

    visitor.page.reload()
    visitor.rest()

    assert visitor.run("calls") == calls


def test_what_we_told_the_library_is_no_news_of_a_visitor(visit: Any) -> None:
    keeps = f"mixpanel.opt_out_tracking = () => {{ {OPTED_OUT} }};"
    visitor = visit(MIXPANEL + keeps)
    visitor.run(POST_DENIAL)
    visitor.page.reload()
    visitor.rest()
    visitor.run(POST_GRANT)

    visitor.page.reload()
    visitor.rest()

    assert visitor.state == "granted"
    assert visitor.run("calls") == [["in", "function"]]


def test_an_opt_out_after_a_grant_of_the_same_page_is_news(visit: Any) -> None:
    visitor = visit(MIXPANEL + OSANO)
    visitor.run("choose(false)")
    visitor.run("choose(true)")

    visitor.run(OPTED_OUT)
    visitor.page.reload()
    visitor.rest()

    assert visitor.state == "denied"


def test_the_library_is_told_when_a_page_comes_back(visit: Any) -> None:
    visitor = visit(MIXPANEL)
    visitor.run(POST_DENIAL)

    visitor.run(COMES_BACK)

    assert visitor.run("calls") == [["out", False]]


def test_a_default_does_not_end_an_opt_out(browser: Any) -> None:
    with serve_shop(consent="opt-out") as shop, open_pages(browser, []) as open_page:
        shop.reset(scripts=BRIDGE)
        visitor = Visit(shop, open_page, WITH_STATE, {})

        assert visitor.state == "granted"
        assert visitor.run("calls") == []
        visitor.page.goto("about:blank")  # leave the server alone before it stops


def test_gpc_opts_the_library_out(visit: Any) -> None:
    assert visit(MIXPANEL, extra_http_headers=GPC).run("calls") == [["out", False]]


def test_a_library_that_comes_late_is_told(visit: Any, shop: Shop) -> None:
    visitor = visit(f"window.arrive = () => {{ {MIXPANEL} }};", clock=True)
    visitor.run(POST_DENIAL)
    visitor.run(COMES_BACK)
    visitor.page.clock.run_for(9_000)

    visitor.run("arrive()")
    visitor.page.clock.run_for(900)

    assert visitor.run("calls") == [["out", False]]


def test_another_tab_tells_its_library(visit: Any) -> None:
    visitor = visit(MIXPANEL + OSANO)
    other = visitor.page.context.new_page()
    other.goto(visitor.page.url)
    other.wait_for_load_state("networkidle")

    visitor.run("choose(false)")

    other.wait_for_function("calls.length === 1")
    assert other.evaluate("calls") == [["out", False]]
    assert visitor.run("calls") == [["out", False]]


def test_a_page_without_the_library_is_no_error(visit: Any) -> None:
    visitor = visit(OSANO)

    visitor.run("choose(false)")

    assert visitor.state == "denied"


def test_a_grant_ends_an_older_opt_out(visit: Any, shop: Shop) -> None:
    shop.reset(scripts=BRIDGE)
    visitor = visit(OPTED_OUT + OSANO)
    shop.prelude = OSANO

    visitor.run("choose(true)")
    visitor.page.reload()
    visitor.rest()

    assert visitor.state == "granted"


@pytest.mark.parametrize(
    "scripts",
    [
        pytest.param('<script type="module" src="/_mp/bridge.js"></script>', id="module"),
        pytest.param(
            f'<form name="currentScript"><input name="src"></form>{BRIDGE}', id="name-taken"
        ),
    ],
)
def test_the_bridge_finds_itself(visit: Any, shop: Shop, scripts: str) -> None:
    shop.reset(scripts=scripts)
    visitor = visit(OSANO)

    visitor.run("choose(true)")

    assert visitor.state == "granted"


def test_a_script_that_is_there_twice_carries_once(visit: Any, shop: Shop) -> None:
    shop.reset(scripts=BRIDGE * 2)
    visitor = visit(OSANO + MIXPANEL)

    visitor.run("choose(true)")

    assert visitor.run("calls") == [["in", "function"]]
