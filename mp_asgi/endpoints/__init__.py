"""Answer at the mount: the visitor's consent, the banner that asks for it, the bridge to managers.

Below our middleware and above the app: everything goes through the request's tracker, so that
cookies, stops and caches are treated as for any app.
"""

from .asgi import mount_asgi as mount_asgi
from .wsgi import mount_wsgi as mount_wsgi

__all__ = ["mount_asgi", "mount_wsgi"]
