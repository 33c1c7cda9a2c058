import pytest

from mp_asgi import Health
from mp_asgi.delivery.outbox.base import OutboxStats
from mp_asgi.health import LOG_BYTES, NEARLY_FULL, OLD_SECONDS, Signs, examine
from tests.support import NOW, make_settings

SQLITE = {"outbox": "sqlite"}
STRICT = {"outbox": "sqlite", "durability": "strict"}
BOUNDS = {"outbox_max_messages": 100, "outbox_max_bytes": 1_000_000}


def outbox(depth=1, size_bytes=10, oldest=NOW, log_bytes=0):
    return OutboxStats(
        depth=depth,
        size_bytes=size_bytes,
        oldest_put_at=oldest,
        dead=0,
        behind_aliases=0,
        log_bytes=log_bytes,
    )


def test_nothing_known_is_nothing_wrong():
    health = examine(Signs(), make_settings(), NOW)

    assert health == Health()
    assert health.is_ok


PROBLEMS = [
    pytest.param(
        Signs(has_ended=True, waiting=3), {}, "3 messages wait, and the threads", id="threads-ended"
    ),
    pytest.param(
        Signs(is_durable=False), STRICT, "strict, but the outbox's", id="strict-in-memory"
    ),
]


@pytest.mark.parametrize(("signs", "settings", "text"), PROBLEMS)
def test_what_loses_events_here_and_not_elsewhere_is_a_problem(signs, settings, text):
    health = examine(signs, make_settings(**settings), NOW)

    assert not health.is_ok
    [problem] = health.problems
    assert text in problem
    assert health.warnings == ()


WARNINGS = [
    pytest.param(Signs(is_blocked=True), {}, "Mixpanel refuses us", id="blocked"),
    pytest.param(
        Signs(unavailable="redis at shop:6379 refused"),
        {},
        "shop:6379 refused",
        id="silent-storage",
    ),
    pytest.param(Signs(is_durable=False), SQLITE, "wait in memory", id="relaxed-in-memory"),
    pytest.param(Signs(is_ledger_failing=True), {}, "ledger does not answer", id="ledger"),
    pytest.param(
        Signs(outbox=outbox(oldest=NOW - 1_860)), {}, "waits for 31 minutes", id="old-messages"
    ),
    pytest.param(Signs(outbox=outbox(depth=90)), BOUNDS, "90% full", id="many-messages"),
    pytest.param(Signs(outbox=outbox(size_bytes=950_000)), BOUNDS, "95% full", id="many-bytes"),
    pytest.param(Signs(outbox=outbox(log_bytes=123_000_000)), {}, "123 MB", id="large-log"),
    pytest.param(Signs(trouble="It rattles."), {}, "It rattles.", id="trouble"),
]


@pytest.mark.parametrize(("signs", "settings", "text"), WARNINGS)
def test_what_is_the_same_everywhere_is_only_told(signs, settings, text):
    health = examine(signs, make_settings(**settings), NOW)

    assert health.is_ok
    [warning] = health.warnings
    assert text in warning


@pytest.mark.parametrize(
    ("signs", "settings"),
    [
        pytest.param(Signs(has_ended=True), {}, id="threads-ended-and-nothing-waits"),
        pytest.param(Signs(waiting=3), {}, id="something-waits-and-threads-run"),
        pytest.param(Signs(is_durable=False), {}, id="memory-as-wanted"),
        pytest.param(Signs(is_durable=True), STRICT, id="strict-and-stored"),
        pytest.param(Signs(is_durable=False), {"outbox": "sqlite", "enabled": False}, id="off"),
        pytest.param(Signs(outbox=outbox(oldest=NOW - OLD_SECONDS)), {}, id="not-quite-old"),
        pytest.param(Signs(outbox=outbox(oldest=None)), {}, id="nothing-waits"),
        pytest.param(Signs(outbox=outbox(log_bytes=100_000_000)), {}, id="log-within-the-bound"),
        pytest.param(Signs(outbox=outbox(log_bytes=LOG_BYTES)), BOUNDS, id="log-of-a-burst"),
        pytest.param(
            Signs(outbox=outbox(depth=round(100 * NEARLY_FULL))), BOUNDS, id="not-quite-full"
        ),
    ],
)
def test_what_is_as_it_should_be_is_not_mentioned(signs, settings):
    assert examine(signs, make_settings(**settings), NOW) == Health()


def test_a_message_from_the_future_is_not_older_than_nothing():
    assert Signs(outbox=outbox(oldest=NOW + 60)).age_seconds(NOW) == 0.0
