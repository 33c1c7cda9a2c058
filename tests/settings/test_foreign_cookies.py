import pytest

from mp_asgi.jar import SCRIPT_COOKIE
from mp_asgi.readers import MixpanelBrowser
from mp_asgi.settings.checks import _SCRIPT_COOKIE
from mp_asgi.settings.foreign_cookies import is_of_mixpanel_browser, is_session
from mp_asgi.sharing import BrowserCookies


@pytest.mark.parametrize(
    "name",
    [
        BrowserCookies("t0ken").id_name,
        *MixpanelBrowser(token="t0ken").cookies,
        "mp_a.b-c_1_mixpanel",
    ],
)
def test_a_cookie_of_mixpanel_browser_is_known_whatever_the_project(name):
    assert is_of_mixpanel_browser(name)


@pytest.mark.parametrize("name", ["mp_id", "mp_choice", "mp_mixpanel", "mixpanel", "visitor"])
def test_any_other_cookie_is_not_mixpanel_browsers(name):
    assert not is_of_mixpanel_browser(name)


@pytest.mark.parametrize(
    "name",
    [
        *("session", "SESSION", "sessionid", "session_id", "sid", "sess"),
        *(
            "PHPSESSID",
            "JSESSIONID",
            "connect.sid",
            "koa.sess",
            "koa:sess",
            "next-auth.session-token",
        ),
        *("_session_id", "_shop_session", "laravel_session", "ci_session", "rack.session"),
        *("ASP.NET_SessionId", ".AspNetCore.Session", "ASPSESSIONIDQQTCRBSA", ".ASPXAUTH"),
        *(".AspNetCore.Cookies", "wordpress_logged_in_5a1b", "remember_token", "remember_me"),
        *("csrftoken", "csrf_token", "XSRF-TOKEN", "access_token", "auth-token", "token", "jwt"),
    ],
)
def test_a_session_is_known_by_its_name(name):
    assert is_session(name)


@pytest.mark.parametrize(
    "name",
    [
        *("visitor", "visitor_id", "visitor_token", "ahoy_visitor", "device_id", "anonymous_id"),
        *(
            "_ga",
            "ajs_anonymous_id",
            "sessions_seen",
            "sidebar",
            "inside",
            "possession",
            "obsessed",
        ),
    ],
)
def test_a_visitors_id_is_no_session(name):
    assert not is_session(name)


def test_the_cookie_that_a_page_may_write_has_one_name():
    assert _SCRIPT_COOKIE == SCRIPT_COOKIE
