"""Both minimal apps behind a2wsgi: each is served through the other's door."""

from a2wsgi import ASGIMiddleware, WSGIMiddleware

from tests.servers.apps import asgi, wsgi

asgi_in_wsgi = ASGIMiddleware(asgi.app)
wsgi_in_asgi = WSGIMiddleware(wsgi.app)
