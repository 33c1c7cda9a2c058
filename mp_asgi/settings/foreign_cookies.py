"""Know cookies that are somebody else's by their names."""

import re
from typing import Final

# Its `persistence` cookie, its opt-out (with the mark that we put beside it), the old opt-out.
_MIXPANEL_BROWSER: Final = re.compile(r"mp_.+_mixpanel|__mp_opt_in_out_.*|mp_optout")

# Named by what they are for, as frameworks do: PHPSESSID, JSESSIONID, connect.sid, _shop_session,
# laravel_session, ASP.NET_SessionId, next-auth.session-token.
_SESSION: Final = re.compile(
    r"(?:.*[._:\-]|php|j)?(?:session|sess|sid)(?:[._\-]?(?:id|token|data|key))?", re.IGNORECASE
)
# Their documentation: Flask-Login, Django, ASP.NET, WordPress, Angular; and what tokens are called.
_KEY: Final = re.compile(
    r"aspsessionid.*|\.aspxauth|\.aspnetcore\..*|wordpress_.*|remember_(?:token|me)|"
    r"(?:csrf|xsrf|auth|access|refresh|id)?[_\-]?token|jwt",
    re.IGNORECASE,
)


def is_of_mixpanel_browser(name: str) -> bool:
    """Whether Mixpanel's own library writes it, for whatever project."""
    return _MIXPANEL_BROWSER.fullmatch(name) is not None


def is_session(name: str) -> bool:
    """Whether it is a session or a login, as far as a name tells; without `__Host-` before it."""
    return any(pattern.fullmatch(name) for pattern in (_SESSION, _KEY))
