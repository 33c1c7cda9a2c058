import pytest

from mp_asgi.head import RequestHead
from mp_asgi.pages import ROUTE_PROPERTY, is_opened_by_person, see_page
from mp_asgi.place import NOWHERE
from mp_asgi.route import ROUTE_KEY
from mp_asgi.tracker import Tracker
from mp_asgi.wire import PAGE_VIEW
from tests.support import NOW, RecordingSink, make_core

GRANTED = (b"x-mp-consent", b"granted")
NAVIGATION = [(b"sec-fetch-mode", b"navigate"), (b"sec-fetch-dest", b"document")]
ACCEPTING = [(b"accept", b"text/html,*/*;q=0.8")]
HTML = [(b"content-type", b"text/html; charset=utf-8")]


class Desk:
    """A request of a consenting visitor, and what came of it."""

    def __init__(self, *headers, **settings):
        self.sink = RecordingSink()
        self.core = make_core(sink=self.sink, **settings)
        seed = (self.core, RequestHead, NOW, "https", None, [GRANTED, *headers])
        self.tracker = Tracker(seed)

    def see(self, method="GET", status=200, headers=HTML, connection=None):
        return see_page(self.tracker, connection or {}, method, status, headers)

    def views(self):
        """Answer the properties of the page views of the request."""
        if self.tracker.exchange is not None:
            self.tracker.exchange.close(None, NOWHERE)
        items = [item for handover in self.sink.accepted for item in handover.items]
        return [item[5] for item in items if item[1] == PAGE_VIEW]


# --- what a page is -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "is_person"),
    [
        pytest.param(NAVIGATION, True, id="navigation"),
        pytest.param(ACCEPTING, True, id="navigation-by-http"),
        pytest.param([*ACCEPTING, (b"x-requested-with", b"XMLHttpRequest")], False, id="ajax"),
        pytest.param([*ACCEPTING, (b"x-requested-with", b"com.example.app")], True, id="android"),
        pytest.param([*ACCEPTING, (b"hx-request", b"true")], False, id="htmx"),
        pytest.param([*ACCEPTING, (b"turbo-frame", b"cart")], False, id="turbo-frame"),
        pytest.param([*ACCEPTING, (b"x-pjax", b"true")], False, id="pjax"),
        pytest.param([], False, id="nothing-says-so"),
        pytest.param([(b"accept", b"*/*")], False, id="fetched"),
        pytest.param(
            [(b"sec-fetch-mode", b"navigate"), (b"sec-fetch-dest", b"iframe")], False, id="iframe"
        ),
        pytest.param(
            [(b"sec-fetch-mode", b"cors"), (b"sec-fetch-dest", b"empty")], False, id="script"
        ),
        pytest.param(
            [(b"sec-fetch-mode", b"cors"), (b"accept", b"text/html")], False, id="script-for-html"
        ),
        pytest.param([*NAVIGATION, (b"sec-purpose", b"prefetch")], False, id="prefetch"),
        pytest.param(
            [*NAVIGATION, (b"sec-purpose", b"prefetch;prerender")], False, id="prerendered"
        ),
        pytest.param([*NAVIGATION, (b"purpose", b"Prefetch")], False, id="prefetch-of-old"),
        pytest.param([*NAVIGATION, (b"purpose", b"preview")], False, id="preview"),
        pytest.param([*NAVIGATION, (b"x-purpose", b"preview")], False, id="preview-of-old"),
        pytest.param([*NAVIGATION, (b"x-moz", b"prefetch")], False, id="prefetch-of-firefox"),
        pytest.param([*NAVIGATION, (b"sec-purpose", b"prerender")], False, id="prerender-alone"),
        pytest.param([*NAVIGATION, (b"sec-purpose", b"?1")], True, id="another-purpose"),
    ],
)
def test_a_page_is_what_a_browser_opens_for_somebody(headers, is_person):
    desk = Desk(*headers)

    desk.see()

    assert is_opened_by_person(desk.tracker.open().head) is is_person
    assert len(desk.views()) == is_person


@pytest.mark.parametrize("status", [200, 203, 299])
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([(b"content-type", b"text/html")], id="html"),
        pytest.param([(b"Content-Type", b" TEXT/HTML;charset=utf-8")], id="in-any-case"),
        pytest.param([(b"content-type", b"application/xhtml+xml")], id="xhtml"),
        pytest.param([(b"vary", b"Cookie"), *HTML, (b"etag", b"1")], id="among-others"),
        pytest.param([*HTML, (b"content-disposition", b"inline")], id="inline"),
        pytest.param(tuple(HTML), id="any-iterable"),
    ],
)
def test_a_document_that_worked_is_seen(status, headers):
    desk = Desk(*NAVIGATION)

    desk.see(status=status, headers=headers)

    assert desk.views() == [{}]


@pytest.mark.parametrize("headers", [[], HTML], ids=["without-a-type", "html"])
def test_a_page_that_the_browser_still_has_is_seen(headers):
    desk = Desk(*NAVIGATION)

    desk.see(status=304, headers=headers)

    assert desk.views() == [{}]


@pytest.mark.parametrize(
    ("method", "status", "headers"),
    [
        pytest.param("POST", 200, HTML, id="a-form"),
        pytest.param("HEAD", 200, HTML, id="no-body"),
        pytest.param("get", 200, HTML, id="another-method"),
        pytest.param("GET", 199, HTML, id="an-announcement"),
        pytest.param("GET", 204, HTML, id="no-content"),
        pytest.param("GET", 205, HTML, id="nothing-to-show"),
        pytest.param("GET", 300, HTML, id="a-redirect"),
        pytest.param("GET", 303, [], id="a-redirect-without-a-type"),
        pytest.param("GET", 304, [(b"content-type", b"text/css")], id="a-style-of-before"),
        pytest.param("GET", 404, HTML, id="not-found"),
        pytest.param("GET", 500, HTML, id="an-error"),
        pytest.param("GET", 200, [], id="no-type"),
        pytest.param("GET", 200, [(b"content-type", b"application/json")], id="json"),
        pytest.param("GET", 200, [(b"content-type", b"text/plain;a=text/html")], id="text"),
        pytest.param("GET", 200, [(b"x-content-type", b"text/html")], id="another-header"),
        pytest.param("GET", 200, HTML * 2, id="two-types"),
        pytest.param("GET", 200, [(b"content-type", b"text/html-sandboxed")], id="alike"),
        pytest.param(
            "GET", 200, [*HTML, (b"Content-Disposition", b"Attachment; filename=a")], id="download"
        ),
    ],
)
def test_what_is_no_page_leaves_the_tracker_untouched(method, status, headers):
    desk = Desk(*NAVIGATION)

    desk.see(method, status, headers)

    assert desk.tracker.exchange is None


# --- what is tracked ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("connection", "expected"),
    [
        pytest.param({ROUTE_KEY: "/orders/{id}"}, {ROUTE_PROPERTY: "/orders/{id}"}, id="known"),
        pytest.param({}, {}, id="unknown"),
    ],
)
def test_a_page_is_named_by_its_route(connection, expected):
    desk = Desk(*NAVIGATION)

    desk.see(connection=connection)

    assert desk.views() == [expected]


def test_what_the_app_tracked_itself_is_not_tracked_twice():
    desk = Desk(*NAVIGATION)
    desk.tracker.track_pageview({"page": "mine"})

    desk.see(connection={ROUTE_KEY: "/"})

    assert desk.views() == [{"page": "mine"}]


def test_whoever_asks_is_told_which_event_the_page_view_is():
    desk = Desk(*NAVIGATION)

    insert_id = desk.see()

    desk.tracker.open().take_back(insert_id)
    assert desk.views() == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param(NAVIGATION, 404, id="no-page"),
        pytest.param([], 200, id="no-person"),
        pytest.param([*NAVIGATION, (b"sec-gpc", b"1")], 200, id="no-consent"),
    ],
)
def test_where_there_is_no_page_view_no_event_is_it(headers, status):
    assert Desk(*headers).see(status=status) == ""


def test_another_event_of_the_app_is_no_page_view():
    desk = Desk(*NAVIGATION)
    desk.tracker.track("Seen")

    desk.see()

    assert desk.views() == [{}]


def test_without_consent_nothing_is_seen():
    desk = Desk(*NAVIGATION, (b"sec-gpc", b"1"))

    desk.see()

    assert desk.views() == []


class Exploding(dict):
    def get(self, *_):
        raise RuntimeError("code of a framework")


def test_a_failure_is_counted_and_never_reaches_the_response():
    desk = Desk(*NAVIGATION)

    desk.see(connection=Exploding(a=1))

    assert desk.views() == []
    assert desk.sink.counts["refused", "failed_call"] == 1
    assert [topic for topic, _ in desk.sink.warnings] == ["failed_call a page view"]


@pytest.mark.parametrize(
    "header",
    [(b"content-type",), (b"content-type", "text/html"), (None, b"text/html")],
    ids=["half", "text", "nameless"],
)
def test_headers_that_are_none_are_the_servers_matter(header):
    desk = Desk(*NAVIGATION)

    desk.see(headers=[header])

    assert desk.views() == []


def test_a_failure_is_raised_where_tests_want_it():
    desk = Desk(*NAVIGATION, strict=True)

    with pytest.raises(RuntimeError):
        desk.see(connection=Exploding(a=1))
