"""What users write, checked by mypy and pyright and never run."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_type

from fastapi import FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from mp_asgi import (
    ANONYMOUS,
    Analytics,
    Consumer,
    FlaskMixpanel,
    MixpanelASGIError,
    MixpanelMiddleware,
    MixpanelWSGIMiddleware,
    Settings,
    SettingsError,
    Stats,
    StoredConsent,
    Tracker,
    TrackerDep,
    current_tracker,
    get_tracker,
    tracker_from_token,
)
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from mp_asgi.jobs import JobTracker

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None: ...


def wsgi_app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    return []


settings = Settings(
    token="t",
    region="eu",
    secret_keys=["k" * 32],
    identity="original",
    consent="opt-out",
    consent_version="2026-01",
    cookie_samesite="Strict",
    trusted_proxies=("10.0.0.0/8",),
    identify_from=lambda scope: scope["session"].get("user") or ANONYMOUS,
    flush_interval=1,
)
assert_type(settings.secret_keys, Sequence[str])
assert_type(settings.api_url, str)
assert_type(Settings.from_env({"MIXPANEL_TOKEN": "t"}, batch_size=10), Settings)
Settings(region="mars")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Settings(tokn="t")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Settings("t")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

# --- doors ------------------------------------------------------------------------------------

analytics = Analytics(settings)
asgi: ASGIApp = MixpanelMiddleware(asgi_app)
asgi = MixpanelMiddleware(asgi_app, settings)
asgi = MixpanelMiddleware(asgi_app, settings=settings)
asgi = MixpanelMiddleware(asgi_app, analytics=analytics)
asgi = MixpanelMiddleware(asgi, token="t", consent="opt-in")
wsgi: "WSGIApplication" = MixpanelWSGIMiddleware(wsgi_app)
wsgi = MixpanelWSGIMiddleware(wsgi, settings=settings)
wsgi = MixpanelWSGIMiddleware(wsgi, durability="strict", state_directory=Path("/var/lib/shop"))
asgi = MixpanelMiddleware(asgi, outbox="memory", identify_from="starlette")
asgi = MixpanelMiddleware(asgi, login_max_age="12h", outbox_max_age=timedelta(days=9))
asgi = MixpanelMiddleware(asgi, identify_from=lambda scope: scope["session"].get("user"))
MixpanelMiddleware(asgi_app, durability="strikt")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
MixpanelMiddleware(asgi_app, tokn="t")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
MixpanelWSGIMiddleware(wsgi_app, batch_size="5k")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
MixpanelWSGIMiddleware(wsgi_app, tokn="t")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

Analytics(outbox="memory", token="t", secret_keys=["k" * 32])
Analytics(settings, outbox=lambda: MemoryOutbox(settings))
Analytics(outbox=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Analytics(tokn="t")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Settings.from_env(tokn="t")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

Starlette(middleware=[Middleware(MixpanelMiddleware)])
Starlette(middleware=[Middleware(MixpanelMiddleware, settings=settings)])
Starlette(middleware=[Middleware(MixpanelMiddleware, analytics=analytics)])
Starlette(middleware=[Middleware(MixpanelMiddleware, outbox="memory")])
Starlette().add_middleware(MixpanelMiddleware, token="t", secret_keys=["k" * 32])

fastapi = FastAPI()
fastapi.add_middleware(MixpanelMiddleware)


@fastapi.get("/")
def endpoint(mixpanel: TrackerDep) -> str | None:
    assert_type(mixpanel, Tracker)
    return mixpanel.track("Seen")


flask = Flask(__name__)
# Every extension that wraps an app meets this complaint of mypy about a method of Flask.
flask.wsgi_app = MixpanelWSGIMiddleware(flask.wsgi_app)  # type: ignore[method-assign]
FlaskMixpanel(flask)
FlaskMixpanel(flask, settings)
FlaskMixpanel(analytics=analytics).init_app(flask)
assert_type(current_tracker, Tracker)

# --- the tracker ------------------------------------------------------------------------------


def use(tracker: Tracker, connection: HTTPConnection, environ: dict[str, Any]) -> None:
    assert_type(get_tracker(connection), Tracker)
    assert_type(get_tracker(connection.scope), Tracker)
    assert_type(get_tracker(environ), Tracker)

    assert_type(tracker.track("Seen"), str | None)
    assert_type(tracker.track("Seen", {"n": 1, "tags": ["a"]}), str | None)
    assert_type(tracker.track_pageview({"path": "/"}), str | None)
    tracker.identify("ada")
    tracker.identify(17, new_user=True)
    tracker.reset()
    tracker.reset(new_device=True)
    tracker.register({"plan": "pro"})
    tracker.set_group("company", ["acme"])
    assert_type(tracker.device_id, str | None)
    assert_type(tracker.user_id, str | None)
    assert_type(tracker.distinct_id, str | None)
    tracker.device_id = "x"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]

    tracker.people.set({"plan": "pro"})
    tracker.people.set_once({"since": "2026"})
    tracker.people.increment({"orders": 1, "total": 9.5})
    tracker.people.increment({"orders": "1"})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    tracker.people.append({"tags": "a"})
    tracker.people.union({"tags": ["a", "b"]})
    tracker.people.remove({"tags": "a"})
    tracker.people.unset(["plan"])
    tracker.people.delete()
    tracker.group("company", "acme").set({"size": 3})
    tracker.group("company", 7).delete()

    assert_type(tracker.consent.state, str)
    assert_type(tracker.consent.reason, str)
    assert_type(tracker.consent.needs_prompt, bool)
    assert_type(tracker.consent.grant(), bool)
    assert_type(tracker.consent.grant(override_gpc=True, trusted=True), bool)
    tracker.consent.deny(trusted=True)
    tracker.consent.withdraw()
    tracker.consent.grant(True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


# --- outside of a request ---------------------------------------------------------------------


def use_job(tracker: Tracker) -> None:
    token = tracker.to_token(max_age=3_600)
    assert_type(token, str)
    job = tracker_from_token(token, analytics)
    assert_type(job, JobTracker)
    assert_type(analytics.tracker_from_token(token), JobTracker)
    analytics.visitor(user_id=17, device_id="A", consent=StoredConsent(granted=True, at=5.0))
    analytics.visitor(user_id="U1", consent=None)
    analytics.visitor(user_id="U1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(job.track("Mailed", {"kind": "welcome"}), str | None)
    assert_type(job.distinct_id, str | None)
    job.register({"queue": "slow"})
    job.people.set({"plan": "pro"})
    job.group("company", 7).union({"tags": ["a"]})
    job.set_group("company", [7, 8])
    job.identify("U1")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


consumer = Consumer(analytics, consent=True)
consumer.send("events", "{}")
analytics.mixpanel.track("U1", "Paid", {"amount": 3})


# --- the rest ---------------------------------------------------------------------------------

assert_type(analytics.flush(1.0), bool)
assert_type(analytics.close(), bool)
assert_type(analytics.stats(), Stats)
assert_type(analytics.stats().accepted, int)
StoredConsent(granted=True, at=datetime.now(UTC))

try:
    Settings()
except SettingsError as error:
    assert_type(error.problems, tuple[str, ...])
    caught: MixpanelASGIError = error
    is_value_error: ValueError = error
