import os
import sys
import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mp_asgi import Analytics, Health, __version__, watch
from mp_asgi.delivery.counters import Counters, Stats
from mp_asgi.delivery.lanes import MAX_DELAY_SECONDS
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from mp_asgi.delivery.run import Pulse
from mp_asgi.errors import OutboxUnavailable
from mp_asgi.ledger import LedgerUnavailable
from mp_asgi.watch import Watch, WatchedLedger
from tests.doors import wait_until
from tests.ledger.acts import run_sql
from tests.probes import open_project
from tests.support import NOW, TIMEOUT, FakeClock, RecordingTransport, make_entry, make_settings
from tests.test_telemetry import collect

WELL = {"is_running": True, "stored_at": NOW}


class Post:
    """A watch over an outbox, and what its threads would say."""

    def __init__(self, outbox=None, **settings):
        self.settings = make_settings(**settings)
        self.clock = FakeClock()
        self.counters = Counters()
        self.pulse = Pulse(**WELL)
        self.submitted = 0
        self.watch = Watch(
            self.settings,
            self.counters,
            self.clock,
            pulse=lambda: self.pulse,
            stats=lambda: Stats(waiting=self.submitted + self.outbox.stats().depth),
        )
        self.outbox = self.watch.watch_outbox(outbox or MemoryOutbox(self.settings))

    def feel(self, **pulse):
        self.pulse = Pulse(**{**WELL, **pulse})
        return self.watch.health()

    def feel_later(self, **pulse):
        self.pulse = Pulse(**{**WELL, **pulse})

    def put(self, count=1):
        self.outbox.put([make_entry(f"E{number}") for number in range(count)], NOW)

    def scrape(self):
        """Answer the value of every sample, by name and reason."""
        return {
            (sample.name.removeprefix("mp_asgi_"), sample.labels.get("reason", "")): sample.value
            for family in text_string_to_metric_families(self.watch.metrics())
            for sample in family.samples
        }


class SilentOutbox(MemoryOutbox):
    """An outbox whose storage does not answer."""

    def stats(self):
        raise OutboxUnavailable("The disk is gone.")


class FailingOutbox(MemoryOutbox):
    """An outbox of which a look shows that it fails."""

    def stats(self):
        self.post.feel_later(trouble="It fails.")
        return super().stats()


class SlowOutbox(MemoryOutbox):
    """An outbox whose storage answers when it is let."""

    looks = 0
    gate = threading.Event()

    def stats(self):
        self.looks += 1
        assert self.gate.wait(TIMEOUT)
        return super().stats()


# --- health ---------------------------------------------------------------------------------------


def test_a_probe_does_not_wait_for_a_storage_that_hangs(monkeypatch):
    monkeypatch.setattr(watch, "GLANCE_SECONDS", 0.05)
    outbox = SlowOutbox(make_settings())
    post = Post(outbox)
    outbox.gate.clear()

    hanging = [post.watch.health() for _ in range(3)]
    looks = outbox.looks
    outbox.gate.set()
    monkeypatch.setattr(watch, "GLANCE_SECONDS", TIMEOUT)
    later = post.watch.health()

    assert {health.warnings for health in hanging} == {
        ("The outbox does not answer: The outbox did not answer within 0.05 s.",)
    }
    assert looks == 1
    assert later == Health()


def test_what_a_look_raises_is_raised_where_it_is_waited_for():
    post = Post()
    post.outbox.stats = lambda: 1 / 0

    with pytest.raises(ZeroDivisionError):
        post.watch.health()


def test_all_is_well():
    post = Post()
    post.put()

    assert post.feel() == Health()


def test_threads_that_ended_before_they_stored_are_a_problem():
    post = Post()
    post.submitted = 2

    health = post.feel(is_running=False)

    assert health.problems[0].startswith("2 messages wait, and the threads")


def test_a_process_that_has_tracked_nothing_is_ready_whatever_others_left():
    post = Post()
    post.put()

    assert post.feel(is_running=False, stored_at=None) == Health()


@pytest.mark.parametrize(
    ("pulse", "text"),
    [
        pytest.param({"is_blocked": True}, "Mixpanel refuses us", id="blocked"),
        pytest.param({"trouble": "It rattles."}, "It rattles.", id="trouble"),
    ],
)
def test_what_the_threads_say_is_told(pulse, text):
    [warning] = Post().feel(**pulse).warnings

    assert text in warning


def test_what_waits_too_long_is_told():
    post = Post()
    post.put()
    post.clock.advance(3_600)

    [warning] = post.feel().warnings

    assert "waits for 60 minutes" in warning


def test_an_outbox_that_is_nearly_full_is_told():
    post = Post(outbox_max_messages=10)
    post.put(9)

    [warning] = post.feel().warnings

    assert "90% full" in warning


def test_a_storage_that_is_silent_is_told():
    post = Post(SilentOutbox(make_settings()))

    assert post.feel().warnings == ("The outbox does not answer: The disk is gone.",)


def test_after_a_fork_the_new_outbox_is_watched():
    post = Post()
    post.put()
    post.clock.advance(3_600)

    post.outbox = post.watch.watch_outbox(MemoryOutbox(post.settings))

    assert post.feel() == Health()


class Database:
    """A ledger that fails when told to."""

    def __init__(self):
        self.error = None
        self.is_closed = False

    def open(self):
        self._answer()

    def append(self, items):
        self._answer()

    def standings(self, keys):
        self._answer()
        return dict.fromkeys(keys)

    def close(self):
        self.is_closed = True

    def _answer(self):
        if self.error is not None:
            raise self.error


CALLS = [
    pytest.param(lambda ledger: ledger.open(), id="open"),
    pytest.param(lambda ledger: ledger.append([]), id="append"),
    pytest.param(lambda ledger: ledger.standings([b"k"]), id="standings"),
]


@pytest.mark.parametrize("call", CALLS)
def test_a_ledger_that_does_not_answer_is_told_until_it_does(call):
    post = Post()
    database = Database()
    ledger = post.watch.watch_ledger(database)
    database.error = LedgerUnavailable("away")

    with pytest.raises(LedgerUnavailable):
        call(ledger)
    [warning] = post.feel().warnings
    database.error = None
    call(ledger)

    assert "ledger does not answer" in warning
    assert post.feel() == Health()


def test_an_item_that_no_ledger_takes_is_not_the_ledgers_failure():
    database = Database()
    ledger = WatchedLedger(database)
    database.error = TypeError("what is this?")

    with pytest.raises(TypeError):
        ledger.append([])

    assert ledger.is_failing is False


def test_a_watched_ledger_answers_and_closes_as_ever():
    database = Database()
    ledger = WatchedLedger(database)

    assert ledger.standings([b"k"]) == {b"k": None}
    ledger.close()

    assert database.is_closed


# --- metrics --------------------------------------------------------------------------------------


def test_the_gauges_are_those_of_the_outbox():
    post = Post(outbox_max_messages=10)
    post.put(2)
    post.clock.advance(60)

    found = post.scrape()

    assert found["waiting", ""] == 2
    assert found["oldest_age_seconds", ""] == 60
    assert found["outbox_used_ratio", ""] == 0.2
    assert (found["healthy", ""], found["blocked", ""]) == (1, 0)


def test_what_was_tracked_long_ago_and_put_now_does_not_wait_for_long():
    post = Post()
    post.outbox.put([make_entry("Old", at=NOW - 1_000_000)], post.clock())

    assert post.scrape()["oldest_age_seconds", ""] == 0
    assert post.feel().warnings == ()


def test_a_problem_and_a_refusal_are_shown():
    post = Post()
    post.submitted = 1
    post.feel(is_running=False, is_blocked=True)

    found = post.scrape()

    assert (found["healthy", ""], found["blocked", ""]) == (0, 1)


def test_a_scrape_tells_the_outbox_what_was_counted_here_and_only_once():
    post = Post()
    post.counters.count("refused", 2, "no-choice")

    assert post.scrape()["refused_total", "no-choice"] == 2
    assert post.scrape()["refused_total", "no-choice"] == 2
    assert post.outbox.stats().totals == {("refused", "no-choice"): 2}


def test_no_metrics_of_a_storage_that_is_silent():
    post = Post(SilentOutbox(make_settings()))

    with pytest.raises(OutboxUnavailable, match="The disk is gone"):
        post.watch.metrics()


def test_the_metrics_say_who_answers():
    text = Post().watch.metrics()

    assert f'mp_asgi_info{{version="{__version__}",outbox="memory"}} 1' in text


# --- telemetry ------------------------------------------------------------------------------------


def exported(metric_reader):
    """Answer the values of one export, by metric."""
    return {
        name: [point.value for point in metric.data.data_points]
        for metrics in collect(metric_reader).values()
        for name, metric in metrics.items()
    }


def test_what_this_process_counts_is_exported_once(metric_reader, caplog):
    post = Post()
    post.counters.count("retried", 4)
    post.put(3)

    post.watch.observe()
    post.watch.observe()

    found = exported(metric_reader)
    assert found["mp_asgi.retried"] == [4]
    assert found["mp_asgi.waiting"] == [3]
    assert caplog.records == []


def test_a_fork_exports_what_it_counts_itself(metric_reader, monkeypatch):
    post = Post()
    post.counters.count("retried", 4)
    post.watch.observe()

    monkeypatch.setattr(os, "getpid", lambda: -1)
    post.counters.count("retried", 1)

    assert exported(metric_reader)["mp_asgi.retried"] == [1]


def test_where_nothing_uses_the_api_nothing_is_registered(metric_reader, monkeypatch):
    post = Post()
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "opentelemetry.metrics")
        post.watch.observe()
        assert exported(metric_reader) == {}

    post.watch.observe()

    assert "mp_asgi.accepted" in exported(metric_reader)


def test_an_api_that_fails_is_told_once_and_stops_nothing(monkeypatch, caplog):
    # As an API from before meters had attributes does.
    monkeypatch.setattr("opentelemetry.metrics.get_meter", lambda name, version: None)
    post = Post()

    post.watch.observe()
    post.watch.observe()

    [record] = caplog.records
    assert record.getMessage() == "OpenTelemetry took no metrics of us (TypeError)."


# --- in an assembly -------------------------------------------------------------------------------


def test_an_assembly_registers_where_it_stores(metric_reader):
    with open_project() as project:
        assert exported(metric_reader) == {}

        project.analytics.visitor(user_id="U1", consent=True).track("Seen")
        project.deliver()

        found = exported(metric_reader)
        assert found["mp_asgi.accepted"] == found["mp_asgi.delivered"] == [1]


def test_an_assembly_is_healthy_and_shows_its_metrics():
    with open_project() as project:
        project.analytics.visitor(user_id="U1", consent=True).track("Seen")
        project.deliver()

        assert project.analytics.health() == Health()
        assert "mp_asgi_delivered_total{} 1\n" in project.analytics.metrics()


def test_an_assembly_tells_of_a_ledger_that_does_not_answer(tmp_path):
    url, clock = f"sqlite:///{tmp_path}/ledger.db", FakeClock()
    settings = make_settings(ledger=url, ledger_keys=("l" * 32,))
    analytics = Analytics(settings, transport=RecordingTransport, clock=clock)
    analytics.visitor(user_id="U1", consent=True).track("Seen")
    run_sql(url, "ALTER TABLE mp_asgi_records RENAME TO elsewhere")

    assert not analytics.flush(0.05)
    wait_until(lambda: analytics.health() != Health())
    assert "The consent ledger does not answer" in analytics.health().warnings[0]

    run_sql(url, "ALTER TABLE elsewhere RENAME TO mp_asgi_records")
    clock.advance(MAX_DELAY_SECONDS)
    assert analytics.close(TIMEOUT)
    assert analytics.health() == Health()


def test_what_a_look_shows_is_told_at_once():
    post = Post(FailingOutbox(make_settings()))
    post.outbox.post = post

    assert post.watch.health().warnings == ("It fails.",)
