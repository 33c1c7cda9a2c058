import re

from prometheus_client.parser import text_string_to_metric_families

from mp_asgi.delivery.outbox.base import OutboxStats
from mp_asgi.metrics import COUNTERS, GAUGES, REASONS, Reading, render, samples
from tests.docs.test_operations_page import PAGE, ROW

TOTALS = {
    ("accepted", ""): 20,
    ("delivered", ""): 9,
    ("buried", "rejected"): 3,
    ("buried", "expired"): 1,
    ("replayed", ""): 2,
    ("dropped", "overflow"): 2,
    ("dropped", "stopped"): 1,
    ("refused", "no-choice"): 7,
    ("ledger_failed", ""): 4,
}
OUTBOX = OutboxStats(
    depth=6,
    size_bytes=600,
    oldest_put_at=None,
    dead=4,
    behind_aliases=0,
    leased=5,
    totals=TOTALS,
)
READING = Reading(OUTBOX, used_ratio=0.25, age_seconds=12.5, is_healthy=True, is_blocked=False)
LABELS = {"version": "1.2.3", "outbox": "sqlite"}


def parse(text):
    """Answer the families that a scraper sees, by name."""
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(text):
    """Answer every sample, by its name and its reason."""
    return {
        (sample.name, sample.labels.get("reason", "")): sample.value
        for family in parse(text).values()
        for sample in family.samples
    }


def test_a_scraper_reads_every_counter_and_every_gauge():
    families = parse(render(READING, LABELS))

    counters = {name for name, family in families.items() if family.type == "counter"}
    gauges = {name for name, family in families.items() if family.type == "gauge"}
    assert counters == {f"mp_asgi_{name}" for name in COUNTERS}
    assert gauges == {
        "mp_asgi_info",
        "mp_asgi_waiting",
        "mp_asgi_leased",
        "mp_asgi_dead",
        "mp_asgi_oldest_age_seconds",
        "mp_asgi_outbox_bytes",
        "mp_asgi_outbox_used_ratio",
        "mp_asgi_blocked",
        "mp_asgi_healthy",
    }
    assert [name for name, family in families.items() if not family.documentation] == []


def test_every_number_arrives():
    found = values(render(READING, LABELS))

    assert {key: number for key, number in found.items() if number} == {
        ("mp_asgi_info", ""): 1,
        ("mp_asgi_accepted_total", ""): 20,
        ("mp_asgi_delivered_total", ""): 9,
        ("mp_asgi_buried_total", "rejected"): 3,
        ("mp_asgi_buried_total", "expired"): 1,
        ("mp_asgi_replayed_total", ""): 2,
        ("mp_asgi_dropped_total", "overflow"): 2,
        ("mp_asgi_dropped_total", "stopped"): 1,
        ("mp_asgi_refused_total", "no-choice"): 7,
        ("mp_asgi_ledger_failed_total", ""): 4,
        ("mp_asgi_waiting", ""): 6,
        ("mp_asgi_leased", ""): 5,
        ("mp_asgi_dead", ""): 4,
        ("mp_asgi_oldest_age_seconds", ""): 12.5,
        ("mp_asgi_outbox_bytes", ""): 600,
        ("mp_asgi_outbox_used_ratio", ""): 0.25,
        ("mp_asgi_healthy", ""): 1,
    }


def test_what_an_alert_looks_at_is_there_before_it_happens():
    found = values(render(READING, LABELS))

    reasons = [(f"mp_asgi_{name}_total", reason) for name in REASONS for reason in REASONS[name]]
    assert [key for key in reasons if key not in found] == []
    assert found["mp_asgi_dropped_total", "unstored"] == 0


def test_a_large_count_loses_no_digit():
    totals = {("accepted", ""): 123_456_789_012_345}
    outbox = OutboxStats(0, 0, None, 0, 0, totals=totals)

    text = render(Reading(outbox, 0.0, 0.0, is_healthy=False, is_blocked=True), {})

    assert values(text)["mp_asgi_accepted_total", ""] == 123_456_789_012_345


def test_a_label_may_hold_anything():
    nasty = 'a"b\\c\nd'

    [sample] = parse(render(READING, {"version": nasty}))["mp_asgi_info"].samples

    assert sample.labels == {"version": nasty}


def test_a_counter_without_reasons_is_one_number():
    counts = {("retried", "a"): 1, ("retried", "b"): 2}

    assert samples(counts, "retried") == {"": 3}
    assert samples({}, "retried") == {"": 0}


def test_the_help_of_every_metric_is_one_line():
    texts = [*COUNTERS.values(), *(gauge.text for gauge in GAUGES.values())]

    assert [text for text in texts if "\n" in text or "\\" in text] == []


def test_every_counter_of_the_operations_page_is_a_metric():
    table = PAGE.split("\n### ")[0]
    explained = {name for row in ROW.finditer(table) for name in re.findall("`([^`]+)`", row[1])}

    assert explained - COUNTERS.keys() == {"waiting", "other"}
