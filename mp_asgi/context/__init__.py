"""Say where an event happened: page, referrer, campaign, browser, address.

Rendered off the request path, with the names and values of mixpanel-browser.
"""

from .reader import ContextReader as ContextReader
from .request import RequestContext as RequestContext

__all__ = ["ContextReader", "RequestContext"]
