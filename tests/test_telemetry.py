import subprocess
import sys

import pytest

from mp_asgi import telemetry
from mp_asgi._version import __version__
from mp_asgi.delivery.counters import Counters
from mp_asgi.delivery.outbox.base import OutboxStats
from mp_asgi.errors import OutboxUnavailable
from mp_asgi.metrics import COUNTERS, GAUGES, Reading

OUTBOX = OutboxStats(depth=3, size_bytes=300, oldest_put_at=None, dead=2, behind_aliases=0)
READING = Reading(OUTBOX, used_ratio=0.5, age_seconds=7.5, is_healthy=True, is_blocked=False)


def collect(metric_reader):
    """Answer the metrics of one export, by scope."""
    exported = metric_reader.get_metrics_data()
    return {
        item.scope: {metric.name: metric for metric in item.metrics}
        for resource in (exported.resource_metrics if exported else ())
        for item in resource.scope_metrics
    }


def values(metric):
    return {point.attributes.get("reason", ""): point.value for point in metric.data.data_points}


def test_every_counter_and_every_gauge_is_exported(metric_reader):
    telemetry.register(Counters().counts, lambda: READING, "a1")

    [(scope, metrics)] = collect(metric_reader).items()
    assert (scope.name, scope.version) == ("mp_asgi", __version__)
    assert dict(scope.attributes) == {"mp_asgi.project": "a1"}
    # A counter by reason of which none happened shows no point yet.
    assert metrics.keys() | {"mp_asgi.refused"} == {
        f"mp_asgi.{name}" for name in [*COUNTERS, *GAUGES]
    }
    assert [name for name, metric in metrics.items() if not metric.description] == []


def test_each_export_shows_what_this_process_has_counted(metric_reader):
    counters = Counters()
    telemetry.register(counters.counts, lambda: READING, "a1")
    counters.echo("accepted", 2)
    counters.count("dropped", 3, "overflow")

    [metrics] = collect(metric_reader).values()
    counters.count("dropped", 1, "overflow")
    [later] = collect(metric_reader).values()

    assert metrics["mp_asgi.accepted"].data.is_monotonic
    assert values(metrics["mp_asgi.accepted"]) == {"": 2}
    assert values(metrics["mp_asgi.dropped"])["overflow"] == 3
    assert values(later["mp_asgi.dropped"])["overflow"] == 4


@pytest.mark.parametrize(
    ("name", "unit", "value"),
    [
        pytest.param("waiting", "", 3, id="messages"),
        pytest.param("outbox", "By", 300, id="bytes"),
        pytest.param("oldest_age", "s", 7.5, id="seconds"),
        pytest.param("outbox_used", "1", 0.5, id="ratio"),
        pytest.param("healthy", "", 1, id="yes-or-no"),
    ],
)
def test_gauges_have_units(metric_reader, name, unit, value):
    telemetry.register(Counters().counts, lambda: READING, "a1")

    [metrics] = collect(metric_reader).values()

    assert metrics[f"mp_asgi.{name}"].unit == unit
    assert values(metrics[f"mp_asgi.{name}"]) == {"": value}


def test_two_projects_of_a_process_are_told_apart(metric_reader):
    for project, accepted in (("a1", 1), ("b2", 2)):
        counters = Counters()
        counters.count("accepted", accepted)
        telemetry.register(counters.counts, lambda: READING, project)

    found = collect(metric_reader)

    counted = {
        scope.attributes["mp_asgi.project"]: values(metrics["mp_asgi.accepted"])
        for scope, metrics in found.items()
    }
    assert counted == {"a1": {"": 1}, "b2": {"": 2}}


def test_a_storage_that_is_silent_is_a_gap(metric_reader, caplog):
    def read():
        raise OutboxUnavailable("away")

    telemetry.register(Counters().counts, read, "a1")

    [metrics] = collect(metric_reader).values()

    assert "mp_asgi.waiting" not in metrics
    assert "mp_asgi.accepted" in metrics
    assert caplog.records == []


def test_nobody_pays_for_an_api_that_the_app_does_not_use():
    code = (
        "import sys, mp_asgi\n"
        "from mp_asgi import telemetry\n"
        "assert not telemetry.is_in_use()\n"
        "assert not any(name.startswith('opentelemetry') for name in sys.modules)\n"
        "import opentelemetry.metrics\n"
        "assert telemetry.is_in_use()\n"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
