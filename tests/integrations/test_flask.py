"""`FlaskMixpanel` wraps an app as Flask's extensions do; `current_tracker` follows the request."""

import io
from collections.abc import Iterator
from typing import Any
from wsgiref.util import FileWrapper

import pytest
from flask import Flask, Response, request, send_file, stream_with_context
from werkzeug.test import EnvironBuilder

from mp_asgi import (
    Analytics,
    FlaskMixpanel,
    MixpanelWSGIMiddleware,
    SettingsError,
    current_tracker,
    get_tracker,
)
from tests.probes import Project
from tests.support import make_settings

HEADERS = {"X-MP-Consent": "granted"}
KEY = "k" * 32


def build_app(project: Project) -> Flask:
    app = Flask(__name__)
    FlaskMixpanel(app, analytics=project.analytics)
    return app


def get(app: Flask, path: str = "/") -> Any:
    # Buffered: the body is read and closed, as a server does.
    return app.test_client().get(path, headers=HEADERS, buffered=True)


def test_a_view_finds_the_tracker_of_its_request(project: Project) -> None:
    app = build_app(project)

    @app.get("/")
    def show() -> list[bool]:
        current_tracker.track("Seen")
        tracker = get_tracker(request)
        return [current_tracker == tracker, tracker is request.environ["mp_asgi.tracker"]]

    answer = get(app)

    assert answer.json == [True, True]
    assert answer.headers["Set-Cookie"].startswith("mp_id=")
    assert project.delivered_names() == ["Seen"]


def test_every_kind_of_hook_finds_the_tracker(project: Project) -> None:
    app = build_app(project)
    app.before_request(lambda: current_tracker.track("before") and None)

    @app.after_request
    def after(response: Response) -> Response:
        current_tracker.track("after")
        return response

    @app.teardown_request
    def teardown(error: BaseException | None) -> None:
        current_tracker.track("teardown")

    @app.errorhandler(404)
    def missing(error: Exception) -> tuple[str, int]:
        current_tracker.track("error handler")
        return "nothing here", 404

    assert get(app).status_code == 404
    assert project.delivered_names() == ["before", "error handler", "after", "teardown"]


def test_a_stream_finds_the_tracker_of_its_request(project: Project) -> None:
    app = build_app(project)

    @app.get("/")
    def show() -> Response:
        def parts() -> Iterator[str]:
            for name in ("one", "two"):
                current_tracker.track(name)
                yield name

        return Response(stream_with_context(parts()))

    assert get(app).text == "onetwo"
    assert project.delivered_names() == ["one", "two"]


def test_an_async_view_finds_the_tracker_of_its_request(project: Project) -> None:
    pytest.importorskip("asgiref", reason="flask[async] is not installed")
    app = build_app(project)

    @app.get("/")
    async def show() -> str:
        current_tracker.track("Seen")
        return "ok"

    assert get(app).text == "ok"
    assert project.delivered_names() == ["Seen"]


def test_a_sent_file_reaches_the_server_as_its_file_wrapper_made_it(project: Project) -> None:
    app = build_app(project)

    @app.get("/")
    def show() -> Response:
        current_tracker.track("Downloaded")
        return send_file(io.BytesIO(b"film"), "video/mp4")

    builder = EnvironBuilder(headers=HEADERS)
    environ = {**builder.get_environ(), "wsgi.file_wrapper": FileWrapper}
    body: Any = app(environ, lambda *_: lambda text: None)

    assert type(body) is FileWrapper
    body.close()
    assert project.delivered_names() == ["Downloaded"]


def test_events_of_a_failing_view_are_sent(project: Project) -> None:
    app = build_app(project)

    @app.get("/")
    def show() -> str:
        current_tracker.track("Tried")
        raise RuntimeError

    assert get(app).status_code == 500
    assert project.delivered_names() == ["Tried"]


def test_outside_a_request_flask_says_so() -> None:
    with pytest.raises(RuntimeError, match="Working outside of request context"):
        current_tracker.track("Seen")


def test_without_the_extension_the_remedy_is_named() -> None:
    app = Flask(__name__)

    with app.test_request_context(), pytest.raises(LookupError, match="MixpanelWSGIMiddleware"):
        current_tracker.track("Seen")


def test_one_extension_object_serves_several_apps(project: Project) -> None:
    mixpanel = FlaskMixpanel(analytics=project.analytics)
    apps = [Flask("one"), Flask("two")]

    for app in apps:
        mixpanel.init_app(app)
        app.add_url_rule("/", view_func=lambda: str(current_tracker.track("Seen")))
        get(app)

    assert [app.extensions["mixpanel"] for app in apps] == [project.analytics] * 2
    assert project.delivered_names() == ["Seen", "Seen"]


def test_an_app_that_is_wrapped_twice_tracks_once(project: Project) -> None:
    app = build_app(project)
    FlaskMixpanel(app, analytics=project.analytics)
    app.add_url_rule("/", view_func=lambda: str(current_tracker.track("Seen")))

    answer = get(app)

    assert len(answer.headers.getlist("Set-Cookie")) == 1
    assert project.delivered_names() == ["Seen"]


def test_the_apps_own_configuration_wins_over_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MIXPANEL_TOKEN", "from-environment")
    monkeypatch.setenv("MP_ASGI_BATCH_SIZE", "7")
    app = Flask(__name__)
    app.config.update(
        MIXPANEL_TOKEN="from-config",
        MP_ASGI_SECRET_KEYS=[KEY],
        MP_ASGI_FLUSH_INTERVAL="2",
        MP_ASGI_HONOR_DNT=True,
        SECRET_KEY="flask's own",
    )

    FlaskMixpanel(app)

    settings = app.extensions["mixpanel"].settings
    assert (settings.token, settings.secret_keys) == ("from-config", (KEY,))
    assert (settings.batch_size, settings.flush_interval, settings.honor_dnt) == (7, 2.0, True)


def test_a_wrong_key_of_the_configuration_stops_the_start() -> None:
    app = Flask(__name__)
    app.config.update(MIXPANEL_TOKEN="t", MP_ASGI_SECRET_KEYS=KEY, MP_ASGI_FLUSH_INTERVALL="2")

    with pytest.raises(SettingsError, match="Did you mean MP_ASGI_FLUSH_INTERVAL"):
        FlaskMixpanel(app)


def test_the_wsgi_app_may_be_wrapped_by_hand(project: Project) -> None:
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: str(current_tracker.track("Seen")))
    app.wsgi_app = MixpanelWSGIMiddleware(  # type: ignore[method-assign]
        app.wsgi_app, analytics=project.analytics
    )

    get(app)

    assert project.delivered_names() == ["Seen"]


def test_flasks_test_client_hands_over_without_being_closed(project: Project) -> None:
    app = build_app(project)

    @app.get("/")
    def show() -> str:
        current_tracker.track("Seen")
        return "ok"

    response = app.test_client().get("/", headers=HEADERS)

    assert response.text == "ok"
    assert project.delivered_names() == ["Seen"]


def test_settings_beside_a_shared_assembly_are_one_clear_error() -> None:
    shared = Analytics(make_settings())

    with pytest.raises(SettingsError, match="analytics came together with settings"):
        FlaskMixpanel(Flask("shop"), make_settings(), analytics=shared)
