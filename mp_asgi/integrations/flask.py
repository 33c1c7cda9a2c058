"""Put the WSGI middleware into a Flask app, and show the tracker as `current_tracker`."""

try:
    from flask import Flask, request
    from werkzeug.local import LocalProxy
except ImportError as error:
    raise ImportError('flask is missing. Run: pip install "mp-asgi[flask]"') from error

from mp_asgi.analytics import Analytics, choose_analytics
from mp_asgi.settings import Settings
from mp_asgi.tracker import Tracker, get_tracker
from mp_asgi.wsgi import MixpanelWSGIMiddleware

current_tracker: Tracker = LocalProxy(lambda: get_tracker(request))  # type: ignore[assignment]
"""The tracker of the request that Flask is serving, also while a body streams."""


class FlaskMixpanel:
    """Wrap a Flask app: `FlaskMixpanel(app)`, or `FlaskMixpanel().init_app(app)`.

    Configured by the environment; keys of `app.config` that are named like the variables win
    over it.

    Args:
        app: Initialised at once if given.
        settings: Instead of the environment and `app.config`.
        analytics: Share one assembly with other middlewares.
    """

    def __init__(
        self,
        app: Flask | None = None,
        settings: Settings | None = None,
        *,
        analytics: Analytics | None = None,
    ) -> None:
        self._settings = settings
        self._analytics = analytics
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Wrap the app's `wsgi_app`.

        Raises:
            SettingsError: The settings cannot be used.
        """
        settings = self._settings
        if settings is None and self._analytics is None:
            settings = Settings.from_config(app.config)
        analytics = choose_analytics(self._analytics, settings, {})
        app.extensions["mixpanel"] = analytics
        wrapped = MixpanelWSGIMiddleware(app.wsgi_app, analytics=analytics)
        app.wsgi_app = wrapped  # type: ignore[method-assign]
