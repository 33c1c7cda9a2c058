"""ASGI and WSGI tell the same story: the same journeys, the same headers, the same messages."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mp_asgi import Stats
from mp_asgi.dev import StandIn
from tests.doors import (
    CHUNK,
    END,
    FAIL,
    START,
    Answer,
    World,
    deny,
    grant,
    look,
    read_consent,
    read_session_consent,
    read_session_user,
    set_person,
    track,
)
from tests.scripts import Visit, journeys

OURS = {"set-cookie", "vary", "cache-control"}

worlds = st.fixed_dictionaries(
    {
        "identity": st.sampled_from(["simplified", "original", "legacy"]),
        "consent": st.sampled_from(["opt-in", "opt-out"]),
        "identify_from": st.sampled_from([None, read_session_user]),
        "consent_from": st.sampled_from([None, None, read_session_consent]),
        "honor_dnt": st.booleans(),
        "cookie_domain": st.sampled_from(["", "", "shop.example"]),
        "trusted_proxies": st.sampled_from([(), ("203.0.113.0/24",)]),
        "adopt_browser_id": st.booleans(),
        "share_id": st.booleans(),
        "adopt_cookie": st.sampled_from(["", "theirs"]),
        "ip": st.sampled_from(["off", "coarse"]),
        "exclude": st.sampled_from([(), (), ("*",)]),
    }
)


def live(kind: str, journey: Sequence[Visit], rules: dict[str, Any]) -> dict[str, Any]:
    """Answer everything that a browser, Mixpanel and an operator see of a journey.

    Where the app has late answers, each request uses the tracker before its response starts: a
    first use behind that asks when it tracks, but one that only reads or acts waits for the next
    message in ASGI and for the end in WSGI.
    """
    answers = []
    has_late_answers = rules.get("identify_from") or rules.get("consent_from")
    first = (read_consent(),) if has_late_answers else ()
    with World(kind, **rules) as world:
        browser = world.browser()
        for visit in journey:
            if visit.is_flushed:
                world.flush()
            world.clock.advance(visit.before)
            browser.session |= visit.session
            answer = browser.visit(
                *first, *visit.script, headers=visit.headers, scheme=visit.scheme
            )
            answers.append(tell(answer))
        world.flush()
        standin = world.standin
        return {
            "answers": answers,
            "jar": browser.jar,
            "events": [without_kind(event) for event in in_order(standin)],
            "people": standin.people,
            "groups": standin.groups,
            "rejected": standin.rejected,
            "stats": tell_stats(world.stats()),
        }


def in_order(standin: StandIn) -> Sequence[dict[str, Any]]:
    """Answer what arrived; how many events an alias overtakes is chance, so then by insert ID."""
    if standin.mode != "legacy":
        return standin.events
    return sorted(standin.events, key=lambda event: event["properties"]["$insert_id"])


def without_kind(event: dict[str, Any]) -> dict[str, Any]:
    """Leave out the kind of consent, which has a test of its own below."""
    kept = {k: v for k, v in event["properties"].items() if k != "$mp_asgi_consent"}
    return {"event": event["event"], "properties": kept}


def tell_stats(stats: Stats) -> dict[str, Any]:
    """Answer what both doors count alike.

    WSGI has no moment between a response's start and its end, so what a denial takes back while
    a body streams may not be handed over yet there: it is `refused`, not `dropped`.
    """
    taken_back = sum(stats.dropped.values()) + sum(stats.refused.values())
    accepted = stats.accepted - sum(stats.dropped.values())
    counts = (stats.delivered, stats.unpersisted, stats.cross_site, stats.cookie_invalid)
    return {"taken back": taken_back, "accepted": accepted, "counts": counts, "else": stats.other}


def tell(answer: Answer) -> dict[str, Any]:
    """Answer what both doors must have in common, which is everything."""
    return {
        "status": answer.status,
        "ours": [item for item in answer.headers if item[0].lower() in OURS],
        "others": [item for item in answer.headers if item[0].lower() not in OURS],
        "error": type(answer.error),
        "notes": answer.notes,
    }


@given(journeys(), worlds)
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_both_doors_give_the_same_headers_and_send_the_same_messages(journey, rules):
    assert live("asgi", journey, rules) == live("wsgi", journey, rules)


@given(journeys(max_size=3), worlds)
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
def test_a_body_without_a_length_changes_nothing(journey, rules):
    assert live("wsgi", journey, rules) == live("wsgi-validated", journey, rules)


@pytest.mark.parametrize(
    "script",
    [
        (grant(), track("Seen")),
        (track("Before"), grant(), set_person(plan="pro")),
        (grant(), track("Seen"), START, CHUNK, track("Streamed"), CHUNK, END, track("Later")),
        (grant(), START, track("Streamed"), deny(), END),
        (grant(), track("Seen"), FAIL),
        (grant(), track("Seen"), START, CHUNK, track("Streamed"), FAIL),
        (grant(), START, END, look(), track("Later")),
        (START, END, grant(), track("Later")),
    ],
    ids=[
        "plain",
        "held profile",
        "stream",
        "denied while streaming",
        "failed before",
        "failed while streaming",
        "background",
        "granted in the background",
    ],
)
def test_each_shape_of_a_response_is_the_same_behind_both_doors(script):
    journey = [Visit(script), Visit((track("Next"), look()))]

    assert live("asgi", journey, {}) == live("wsgi", journey, {})


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
@pytest.mark.parametrize(
    "script",
    [
        (track("Before"), grant(), track("After")),
        (START, track("Before"), CHUNK, END, grant(), track("After")),
    ],
    ids=["in the handler", "after the start"],
)
def test_an_event_names_the_kind_of_consent_that_it_was_tracked_under(kind, script):
    with World(kind, consent="opt-out") as world:
        world.browser().visit(*script)
        world.flush()

        kinds = {e["event"]: e["properties"]["$mp_asgi_consent"] for e in world.standin.events}

    assert kinds == {"Before": "opt-out-default", "After": "explicit"}
