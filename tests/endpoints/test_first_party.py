import base64
import json
from urllib.parse import parse_qs, quote

import pytest

from mp_asgi.dev import StandIn
from mp_asgi.endpoints.browser_wire import MAX_BATCH_BYTES, MAX_MESSAGES
from mp_asgi.endpoints.limiter import ALL, EACH
from tests.doors import DirectTransport, WorldClock
from tests.endpoints.pages import (
    GRANTED,
    ROWS,
    TOKEN,
    TRACKING,
    Page,
    event,
    read_attacks,
    update,
)
from tests.endpoints.site import JSON, SAME_ORIGIN, Site
from tests.support import NOW, TIMEOUT

TAKING = ["track", "engage", "groups"]
EMPTY = {
    "record": {},
    "flags": {"flags": {}},
    "settings": {"sdk_config": {"config": {"record_sessions_percent": 0}}},
    "decide": {},
}
KINDS = [*TAKING, *EMPTY]
IDENTITY_EVENTS = {"$identify", "$create_alias"}
LIMITED = [{"event": "Seen"}] * EACH.burst
TWO = b'[{"event":"A"},{"event":"B"}]'


def headers(response):
    return dict(response.headers)


# --- where the endpoints are ------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_endpoint_is_there_with_and_without_a_slash(kind, slash, method):
    assert Page().ask(method, kind + slash).status == 200


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_setting_there_is_no_endpoint(kind):
    assert Page(first_party=False).ask("POST", kind).status == 404


def test_endpoints_may_have_other_names():
    page = Page(GRANTED, first_party_names=("track=t", "decide=d"))

    assert page.post("t/", event())["status"] == 1
    assert page.ask("GET", "d").status == 200
    assert page.ask("POST", "track/").status == 404
    assert page.ask("POST", "engage/").status == 200


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "DELETE", "post"])
def test_other_methods_are_refused(method):
    response = Page().ask(method, "track/")

    assert response.status == 405
    assert headers(response)[b"allow"] == b"GET, POST"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("/_mp/track", MAX_BATCH_BYTES, id="track"),
        pytest.param("/_mp/record/", MAX_BATCH_BYTES, id="record"),
        pytest.param("/_mp/consent", 16_384, id="consent"),
        pytest.param("/_mp/unknown", 16_384, id="unknown"),
    ],
)
def test_only_batches_may_be_long(path, expected):
    assert Page().mount.max_body_bytes(path) == expected


# --- who may ask ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "here",
    [
        pytest.param([], id="says-nothing"),
        pytest.param([(b"sec-fetch-site", b"cross-site")], id="cross-site"),
        pytest.param([(b"sec-fetch-site", b"same-site")], id="sibling"),
        pytest.param([(b"sec-fetch-site", b"none")], id="typed"),
        pytest.param([(b"host", b"shop.test"), (b"origin", b"https://evil.test")], id="foreign"),
    ],
)
def test_only_a_page_of_this_origin_is_answered(kind, method, here):
    page = Page(GRANTED, here=here)

    response = page.ask(method, kind, json.dumps([event()]).encode())

    assert response.status == 403
    assert page.tracker.exchange is None
    assert page.sink.counts == {("cross_site", ""): 1}


def sent_by(**headers):
    """Answer the headers of a request from this origin that fetches that."""
    named = {f"sec-fetch-{name}".encode(): text.encode() for name, text in headers.items()}
    return [*{b"host": b"shop.test", b"sec-fetch-site": b"same-origin", **named}.items()]


@pytest.mark.parametrize("kind", TAKING)
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "here",
    [
        pytest.param(sent_by(dest="image", mode="no-cors"), id="image"),
        pytest.param(sent_by(dest="script", mode="cors"), id="script-element"),
        pytest.param(sent_by(dest="", mode="cors"), id="nothing"),
        pytest.param(sent_by(dest="document", mode="navigate"), id="link"),
        pytest.param(sent_by(dest="empty", mode="navigate"), id="navigation"),
        pytest.param(sent_by(mode="navigate"), id="form"),
    ],
)
def test_what_is_written_in_a_page_sends_nothing(kind, method, here):
    page = Page(GRANTED, here=here, first_party_groups=True, identify_from=lambda _: "U1")

    response = page.ask(method, kind, b"{}", b"data=e30=")

    assert response.status == 403
    assert page.tracker.exchange is None
    assert page.sink.counts == {("cross_site", ""): 1}


@pytest.mark.parametrize(
    ("method", "kind", "status"),
    [
        pytest.param("GET", "track", 200, id="event"),
        pytest.param("POST", "track", 200, id="posted-event"),
        pytest.param("POST", "engage", 200, id="posted-update"),
        pytest.param("GET", "engage", 403, id="update"),
        pytest.param("GET", "groups", 403, id="update-of-a-group"),
    ],
)
def test_a_browser_that_does_not_say_what_it_fetches_for_may_not_get_a_profile_updated(
    method, kind, status
):
    assert Page(GRANTED, here=sent_by()).ask(method, kind).status == status


@pytest.mark.parametrize("mode", ["cors", "no-cors", "same-origin"])
@pytest.mark.parametrize("kind", TAKING)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_every_way_of_a_script_to_send_is_fine(method, kind, mode):
    assert Page(here=sent_by(dest="empty", mode=mode)).ask(method, kind).status == 200


@pytest.mark.parametrize(
    ("extra", "settings", "reason"),
    [
        pytest.param([], {}, "no-choice", id="not-asked"),
        pytest.param([(b"x-mp-consent", b"denied")], {}, "header-denied", id="denied"),
        pytest.param([(b"sec-gpc", b"1")], {"consent": "opt-out"}, "sec-gpc", id="gpc"),
        pytest.param([GRANTED], {"enabled": False}, "disabled", id="switched-off"),
        pytest.param([], {"consent_from": lambda connection: False}, "app-denied", id="late-no"),
        pytest.param([], {"consent_from": lambda connection: None}, "no-choice", id="late-nothing"),
    ],
)
@pytest.mark.parametrize(
    ("path", "message"), [("track/", event()), ("engage/", update(set={"a": 1}))]
)
def test_without_a_grant_nothing_is_taken_and_the_reason_told(
    extra, settings, reason, path, message
):
    page = Page(*extra, **settings)

    reply = page.post(path, message, message)

    assert reply == {"error": reason, "status": 0}
    assert page.handovers == []
    is_late = "consent_from" in settings
    assert page.sink.counts == {("refused", reason): 2 if is_late else 1}


def test_without_a_grant_not_even_the_body_is_read():
    page = Page()

    response = page.ask("POST", "track", b"!" * (MAX_BATCH_BYTES + 1), b"verbose=1")

    assert json.loads(response.body()) == {"error": "no-choice", "status": 0}
    assert page.sink.counts == {("refused", "no-choice"): 1}


def test_a_grant_that_the_app_tells_late_counts():
    page = Page(consent_from=lambda connection: True)

    assert page.post("track", event())["status"] == 1
    assert page.names == ["Seen"]


def test_a_plain_answer_waits_for_the_late_grant_too():
    page = Page(consent_from=lambda connection: False)
    response = page.ask("POST", "track", json.dumps(event()).encode())

    page.tracker.open().begin_response(None, TRACKING)

    assert response.body() == b"0"


def test_whose_the_events_are_is_known_once_the_app_has_told():
    page = Page(consent_from=lambda connection: True, identify_from=lambda connection: "U1")

    page.post("track", event())

    assert [item[4].user_id for item in page.items if item[1] == "Seen"] == ["U1"]


def test_a_pages_identify_is_true_once_the_app_has_told_the_same():
    users = [None]
    page = Page(identity="original", identify_from=lambda connection: users[-1])
    page.grant(NOW - 60)
    device = page.tracker.device_id
    page.open()
    users.append("U1")

    claim = {"$anon_distinct_id": device, "distinct_id": "U1"}
    reply = page.post("track", event("$identify", **claim))

    assert reply["status"] == 1
    assert {item[4].device_id for item in page.items} == {device}


def test_what_waits_for_the_app_is_refused_unless_the_answer_is_there():
    response = Page(consent_from=lambda connection: True).ask("POST", "track", TWO)

    assert response.body() == b"0"


# --- replies ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "body", "expected", "media_type"),
    [
        pytest.param(b"", [event()], b"1", b"text/plain", id="plain"),
        pytest.param(b"", [event("$merge")], b"0", b"text/plain", id="plain-refusal"),
        pytest.param(b"", [], b"0", b"text/plain", id="plain-nothing"),
        pytest.param(
            b"verbose=1", [event()], b'{"error":null,"status":1}', b"application/json", id="verbose"
        ),
        pytest.param(
            b"verbose=1",
            [],
            b'{"error":"data, missing or empty","status":0}',
            b"application/json",
            id="verbose-nothing",
        ),
        pytest.param(b"callback=alert&img=1", [event()], b"1", b"text/plain", id="no-script"),
    ],
)
def test_the_reply_is_what_the_sdk_reads(query, body, expected, media_type):
    page = Page(GRANTED)
    response = page.ask("POST", "track/", json.dumps(body).encode(), query)
    page.tracker.open().begin_response(None, TRACKING)

    assert (response.status, response.body()) == (200, expected)
    found = headers(response)
    assert found[b"content-type"] == media_type
    assert found[b"cache-control"] == b"private, no-store"
    assert found[b"x-content-type-options"] == b"nosniff"


def test_what_cannot_be_read_is_counted_and_not_repeated():
    page = Page(GRANTED)

    response = page.ask("POST", "track/", b"data=!", b"verbose=1")

    assert (response.status, json.loads(response.body())["status"]) == (200, 0)
    assert page.sink.counts == {("refused", "unreadable"): 1}


@pytest.mark.parametrize("kind", EMPTY)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_goes_nowhere_is_answered_without_looking_at_anybody(kind, method):
    page = Page(GRANTED)

    response = page.ask(method, f"{kind}/", b"\x1f\x8b" * 600_000, b"data=e30=")

    assert response.status == 200
    assert json.loads(response.body()) == EMPTY[kind]
    assert headers(response)[b"cache-control"] == b"private, no-store"
    assert page.tracker.exchange is None
    assert not page.sink.counts


# --- limits -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" + b" " * MAX_BATCH_BYTES, id="bytes"),
        pytest.param(b"[" + b"{}," * MAX_MESSAGES + b"{}]", id="messages"),
    ],
)
def test_too_much_at_once_makes_the_sdk_send_less(body):
    page = Page(GRANTED)

    assert page.ask("POST", "track/", body).status == 413
    assert page.items == []


def test_too_much_in_a_row_makes_the_sdk_wait():
    page = Page()
    page.grant(NOW - 60)
    page.post("track", *LIMITED)

    response = page.ask("POST", "track/", TWO)

    assert response.status == 429
    assert page.sink.counts["refused", "rate_limited"] == 2
    assert len(page.items) == EACH.burst


def test_a_visitor_may_go_on_after_a_while():
    page = Page()
    page.grant(NOW - 60)
    page.post("track", *LIMITED)
    page.clock.advance(1)

    assert page.ask("POST", "track/", TWO).status == 200


def test_another_visitor_is_not_held_up():
    page = Page()
    page.grant(NOW - 60)
    page.post("track", *LIMITED)

    page.headers = Page(GRANTED).headers
    page.open()

    assert page.ask("POST", "track/", TWO).status == 200


def test_all_endpoints_share_a_visitors_limit():
    page = Page()
    page.grant(NOW - 60)
    page.post("track", *LIMITED)

    assert page.ask("POST", "engage/", b'{"$set":{}}').status == 429


def test_each_operation_of_an_update_counts():
    page = Page(identify_from=lambda connection: "U1")
    page.grant(NOW - 60)
    both = {"$set": {"a": 1}, "$unset": ["b"]}
    page.post("engage", *[both] * (EACH.burst // 2))

    assert page.ask("POST", "engage", TWO).status == 429


def exhaust(page, client):
    """Send what a network may send at once, each time as a new visitor."""
    page.client = client
    for number in (2_000, 2_000, 1_000):
        page.open()
        page.post("track", *LIMITED[:number])
    page.open()


@pytest.mark.parametrize(
    ("client", "settings", "headers", "status"),
    [
        pytest.param(("203.0.113.8", 1), {}, [], 429, id="the-same-network"),
        pytest.param(("203.0.114.7", 1), {}, [], 200, id="another-network"),
        pytest.param(
            ("203.0.113.7", 1),
            {"trusted_proxies": ["203.0.113.7"]},
            [(b"x-forwarded-for", b"198.51.100.1")],
            200,
            id="another-network-behind-the-same-proxy",
        ),
        pytest.param(
            ("203.0.113.7", 1),
            {},
            [(b"x-forwarded-for", b"198.51.100.1")],
            429,
            id="what-no-proxy-of-ours-has-said",
        ),
    ],
)
def test_a_new_id_with_each_request_is_no_way_round_the_limit(client, settings, headers, status):
    page = Page(consent="opt-out", **settings)
    exhaust(page, ("203.0.113.7", 1))

    page.client, page.headers = client, [*page.headers, *headers]
    page.open()

    assert page.ask("POST", "track", TWO).status == status


def test_a_known_visitor_is_not_held_up_by_new_ones_of_the_same_network():
    page = Page(consent="opt-out")
    strange = page.headers
    page.grant(NOW - 60)
    known, page.headers = page.headers, strange
    exhaust(page, page.client)

    page.headers = known
    page.open()

    assert page.ask("POST", "track", TWO).status == 200


def test_nobody_gets_an_id_only_to_be_limited_by():
    page = Page(consent="opt-out")
    exhaust(page, page.client)

    assert page.ask("POST", "track", TWO).status == 429
    assert page.tracker.open().begin_response(None, TRACKING) is False


@pytest.mark.parametrize(
    ("settings", "messages"),
    [
        pytest.param({}, LIMITED, id="no-consent"),
        pytest.param({"consent_from": lambda connection: False}, LIMITED, id="late-refusal"),
        pytest.param({"consent": "opt-out"}, [7] * EACH.burst, id="no-messages"),
    ],
)
def test_what_is_not_taken_uses_up_nobodys_room(settings, messages):
    page = Page(**settings)
    for _ in range(ALL.burst // EACH.burst + 1):
        page.post("track", *messages)
        page.open()

    page.headers = [*page.headers, GRANTED]
    page.open()

    assert page.ask("POST", "track", TWO).status == 200
    assert page.sink.counts["refused", "rate_limited"] == 0


# --- both doors -------------------------------------------------------------------------------

DOORS = ["asgi", "wsgi"]
ATTACKS = read_attacks("json")
GPC_ROWS = [row for row in ROWS if row.values[0]["scenario"] == "gpc"]
#: What is said of the visitor, the project and the moment, by whom it should be said.
OURS = {
    "token", "distinct_id", "$device_id", "$user_id", "$anon_distinct_id", "ip", "time",
    "$insert_id", "$mp_asgi_consent",
}  # fmt: skip


class Shop(Site):
    """A site that mixpanel-browser posts to, and the Mixpanel behind it.

    Args:
        kind: `asgi` or `wsgi`.
        now: What all its clocks say.
        settings: Of the analytics.
    """

    def __init__(self, kind, now=NOW, **settings):
        self.clock = WorldClock()
        self.clock.now = self.clock.began = now
        self.standin = StandIn(clock=self.clock)
        self.standin.mode = settings.get("identity", "simplified")
        # The recordings were made by a headless browser, which is taken for a bot.
        own = {"token": TOKEN, "first_party": True, "context": False, "exclude_bots": False}
        values = {**own, **settings}
        super().__init__(kind, clock=self.clock, transport=DirectTransport(self.standin), **values)

    def replay(self, request):
        """Send a recorded request, as a page of this site would have."""
        there = {"host", "origin", "cookie", "content-length", "connection", "referer"}
        sent = {name: text for name, text in request["headers"] if name not in there}
        path = f"/_mp{request['path']}?{request['query']}"
        body = base64.b64decode(request["body_b64"])
        return self.ask(request["method"], path, {**sent, **SAME_ORIGIN}, body)

    def send(self, *events, path="/_mp/track/?verbose=1", headers=SAME_ORIGIN):
        """Send events as a page of this site does when it closes."""
        encoded = base64.b64encode(json.dumps(events).encode())
        body = b"data=" + quote(encoded, safe="").encode()
        return self.ask("POST", path, {**headers, "content-type": "text/plain"}, body)

    @property
    def device_id(self):
        """What the visitor's ID cookie holds."""
        return self.cookies.get("mp_id", "..").split(".")[1]

    def close(self):
        """Deliver everything. Mixpanel must have liked it all."""
        assert self.analytics.close(TIMEOUT)
        assert self.standin.rejected == []


def find_end(row):
    """Answer when the last request of a recording was sent."""
    queries = [parse_qs(request["query"]) for request in row["requests"]]
    return max([int(query["_"][0]) / 1000 for query in queries], default=NOW)


def find_meant(row, path):
    """Answer what a recording's page said to its own project."""
    requests = [request for request in row["requests"] if request["path"] == path]
    messages = [message for request in requests for message in request["decoded"]]
    return [item for item in messages if find_token(item) == TOKEN]


def find_token(message):
    return message.get("$token") or message["properties"]["token"]


def tell_events(events):
    """Answer names and what pages may say, in any order: Mixpanel sorts by time."""
    return sorted(
        json.dumps([item["event"], without_ours(item["properties"])], sort_keys=True)
        for item in events
    )


def without_ours(properties):
    return {name: value for name, value in properties.items() if name not in OURS}


def tell_times(events):
    """Answer the milliseconds of the events that are known by an ID of the page's."""
    named = [item["properties"] for item in events if "$insert_id" in item["properties"]]
    return {item["$insert_id"]: milliseconds(item["time"]) for item in named if "time" in item}


def milliseconds(time):
    return int(time if time > 1e11 else time * 1000)


def tell_updates(updates):
    """Answer each operation with its values; `$delete` has none that count."""
    return [
        (name, None if name == "$delete" else values)
        for item in updates
        for name, values in item.items()
        if name in {"$set", "$set_once", "$add", "$append", "$union", "$delete"}
    ]


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("kind", DOORS)
def test_what_a_real_page_sends_arrives_as_the_sdk_meant_it(kind, row):
    settings = {"consent": "opt-out", "honor_gpc": False, "identify_from": lambda _: "user-42"}
    shop = Shop(kind, find_end(row) + 0.25, **settings)

    answers = [shop.replay(request) for request in row["requests"]]
    shop.close()

    meant = [item for item in find_meant(row, "/track/") if item["event"] not in IDENTITY_EVENTS]
    arrived, times = shop.standin.events, tell_times(meant)
    assert {answer.status for answer in answers} <= {200}
    assert tell_events(arrived) == tell_events(meant)
    assert {name: at for name, at in tell_times(arrived).items() if name in times} == times
    assert tell_updates(shop.standin.people) == tell_updates(find_meant(row, "/engage/"))


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("kind", DOORS)
def test_what_a_real_page_sends_is_the_visitors_own(kind, row):
    shop = Shop(kind, find_end(row), consent="opt-out", honor_gpc=False)

    for request in row["requests"]:
        shop.replay(request)
    shop.close()

    found = [
        (item["properties"]["$device_id"], item["properties"].get("$user_id"))
        for item in shop.standin.events
    ]
    assert set(found) <= {(shop.device_id, None)}
    assert shop.standin.people == []


@pytest.mark.parametrize("row", GPC_ROWS)
@pytest.mark.parametrize("kind", DOORS)
def test_a_browser_that_objects_is_heard_although_the_sdk_does_not_listen(kind, row):
    shop = Shop(kind, find_end(row), consent="opt-out")

    answers = [shop.replay(request).json for request in row["requests"]]
    shop.close()

    assert answers == [{"error": "sec-gpc", "status": 0}]
    assert shop.standin.events == []


@pytest.mark.parametrize("kind", DOORS)
def test_what_a_page_kept_from_before_the_grant_is_never_sent(kind):
    shop = Shop(kind)
    shop.send(event("Unheard", time=NOW))
    shop.clock.advance(60)
    shop.post(analytics="granted")
    shop.clock.advance(5)

    answer = shop.send(event("Before", time=NOW + 59), event("After", time=NOW + 61))
    shop.close()

    assert answer.json == {"error": None, "status": 1}
    assert [item["event"] for item in shop.standin.events] == ["After"]
    assert shop.analytics.stats().refused == {"no-choice": 1, "before_grant": 1}


@pytest.mark.parametrize("kind", DOORS)
def test_after_a_denial_a_page_sends_nothing(kind):
    shop = Shop(kind)
    shop.post(analytics="granted")
    shop.send(event("Waiting"))
    shop.post(analytics="denied")

    answer = shop.send(event("After"))
    shop.close()

    assert answer.json == {"error": "cookie-denied", "status": 0}
    assert shop.standin.events == []


@pytest.mark.parametrize("kind", DOORS)
def test_an_event_that_a_page_sends_again_leaves_as_it_was(kind):
    shop = Shop(kind, consent="opt-out")
    beacon = event(time=NOW - 2.125, **{"$insert_id": "acryr04xsh90pgla"})

    shop.send(beacon)
    shop.send(beacon)
    shop.close()

    first, second = shop.standin.events
    assert first == second
    assert first["properties"]["time"] == int((NOW - 2.125) * 1000)


@pytest.mark.parametrize("kind", DOORS)
def test_nothing_that_a_page_claims_reaches_mixpanel(kind):
    shop = Shop(kind, consent="opt-out")
    claims = ("distinct_id", "$device_id", "$user_id", "$distinct_id", "$anon_id", "$identified_id")

    shop.send(event(**dict.fromkeys(claims, "CLAIMED"), ip="203.0.113.7", mp_lib="web"))
    shop.close()

    [arrived] = shop.standin.events
    assert "CLAIMED" not in json.dumps(arrived)
    assert arrived["properties"]["distinct_id"] == f"$device:{shop.device_id}"
    assert arrived["properties"]["ip"] == 0
    assert arrived["properties"]["mp_lib"] == "web"


@pytest.mark.parametrize("kind", DOORS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_hostile_properties_spoil_nothing_beside_them(kind, attack):
    shop = Shop(kind, consent="opt-out")
    events = (b'{"event":"%s","properties":%s}' % item for item in
              [(b"Before", b"{}"), (b"Attack", attack), (b"After", b"{}")])  # fmt: skip

    answer = shop.ask("POST", "/_mp/track/", SAME_ORIGIN, b"[" + b",".join(events) + b"]")
    shop.close()

    arrived = shop.standin.events
    assert (answer.status, answer.body) == (200, b"1")
    assert {item["event"] for item in arrived} - {"Attack"} == {"Before", "After"}
    assert {item["properties"]["$device_id"] for item in arrived} == {shop.device_id}
    assert {item["properties"]["token"] for item in arrived} == {TOKEN}


@pytest.mark.parametrize("kind", DOORS)
def test_neither_cookies_nor_headers_reach_mixpanel(kind):
    shop = Shop(kind, consent="opt-out")
    shop.cookies["session"] = "SECRET"

    shop.send(event(), headers={**SAME_ORIGIN, "authorization": "SECRET", "x-secret": "SECRET"})
    shop.close()

    [arrived] = shop.standin.events
    assert "SECRET" not in json.dumps(arrived)


@pytest.mark.parametrize("kind", DOORS)
def test_a_page_that_keeps_nothing_has_one_id_all_the_same(kind):
    shop = Shop(kind, consent="opt-out")

    shop.send(event("A", distinct_id="$device:first", **{"$device_id": "first"}))
    shop.send(event("B", distinct_id="$device:second", **{"$device_id": "second"}))
    shop.close()

    found = [item["properties"]["$device_id"] for item in shop.standin.events]
    assert found == [shop.device_id] * 2


@pytest.mark.parametrize("kind", DOORS)
@pytest.mark.parametrize(
    ("size", "status"),
    [
        pytest.param(MAX_BATCH_BYTES, 200, id="as-long-as-allowed"),
        pytest.param(MAX_BATCH_BYTES + 1, 413, id="longer"),
        pytest.param(2 * MAX_BATCH_BYTES, 413, id="twice-as-long"),
    ],
)
def test_a_batch_may_be_longer_than_a_decision(kind, size, status):
    shop = Shop(kind, consent="opt-out")

    answer = shop.ask("POST", "/_mp/track/", SAME_ORIGIN, b"{}".ljust(size))

    assert answer.status == status


@pytest.mark.parametrize("kind", DOORS)
def test_a_page_may_say_who_it_is_where_the_server_says_the_same(kind):
    settings = {"identity": "original", "identify_from": lambda connection: "U1"}
    shop = Shop(kind, consent="opt-out", adopt_browser_id=True, **settings)
    device = "0ee4420c-8699-457a-940f-fec4205e64f4"
    ids = {"distinct_id": f"$device:{device}", "$device_id": device}
    shop.ask("POST", "/_mp/identity", {**JSON, **SAME_ORIGIN}, json.dumps(ids).encode())
    claim = {"distinct_id": "U1", "$anon_distinct_id": f"$device:{device}"}

    shop.send(event("$identify", **claim), event("After"))
    shop.close()

    names = [item["event"] for item in shop.standin.events]
    assert sorted(set(names)) == ["$identify", "After"]
    assert {item["properties"]["distinct_id"] for item in shop.standin.events} == {"U1"}
