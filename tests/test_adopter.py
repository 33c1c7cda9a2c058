from urllib.parse import quote

import pytest

from mp_asgi.adopter import Adopter, PageIds
from mp_asgi.adoption import Adopted
from mp_asgi.identity import Origin

PAGE = "mp_t0ken_mixpanel"
PAGE_IDS = PageIds(PAGE, "marked")


def page(device_id="X1", name=PAGE):
    """Answer a cookie as mixpanel-browser keeps it."""
    text = f'{{"distinct_id":"$device:{device_id}","$device_id":"{device_id}"}}'
    return f"{name}={quote(text)}".encode()


def identified(user_id, device_id="X1"):
    """Answer a cookie of a page that knows its user."""
    text = f'{{"distinct_id":"{user_id}","$user_id":"{user_id}","$device_id":"{device_id}"}}'
    return f"{PAGE}={quote(text)}".encode()


def join(*cookies):
    return b"; ".join(cookies)


X1 = Adopted("X1", Origin.BROWSER)
X2 = Adopted("X2", Origin.BROWSER)


# --- the page's cookie ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "found", "device_ids"),
    [
        pytest.param(b"", [], [], id="none"),
        pytest.param(page(), [X1], ["X1"], id="one"),
        pytest.param(join(page(), page("X2")), [X1, X2], ["X1", "X2"], id="of-two-domains"),
        pytest.param(f"{PAGE}=garbage".encode(), [None], [""], id="unreadable"),
        pytest.param(page(name="mp_other_mixpanel"), [], [], id="another-project"),
        pytest.param(
            page("null"), [None], ["null"], id="what-the-page-says-is-told-also-if-nobody-takes-it"
        ),
    ],
)
def test_every_copy_of_the_pages_cookie_is_read(header, found, device_ids):
    assert PAGE_IDS.find(header) == found
    assert PAGE_IDS.device_ids(header) == device_ids


@pytest.mark.parametrize(
    ("header", "is_ours"),
    [
        pytest.param(b"marked=1", True, id="by-us"),
        pytest.param(b"a=1; marked=", True, id="by-us-whatever-it-says"),
        pytest.param(b"__mp_opt_in_out_t0ken=0", False, id="by-the-page"),
        pytest.param(b"", False, id="by-nobody"),
    ],
)
def test_an_opt_out_of_ours_is_told_from_the_visitors_own(header, is_ours):
    assert PAGE_IDS.is_opted_out_by_us(header) is is_ours


# --- whom to go on with ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("adopter", "header", "expected"),
    [
        pytest.param(Adopter(PAGE_IDS, "visitor"), b"", None, id="no-cookie"),
        pytest.param(Adopter(PAGE_IDS, ""), page(), X1, id="the-page"),
        pytest.param(Adopter(None, "visitor"), page(), None, id="the-page-is-not-asked"),
        pytest.param(
            Adopter(None, "visitor"), b"visitor=v-7", Adopted("v-7", Origin.LITERAL), id="the-app"
        ),
        pytest.param(Adopter(PAGE_IDS, ""), b"visitor=v-7", None, id="the-app-is-not-asked"),
        pytest.param(
            Adopter(PAGE_IDS, "visitor"),
            join(b"visitor=v-7", page()),
            X1,
            id="the-page-before-the-app",
        ),
        pytest.param(
            Adopter(PAGE_IDS, "visitor"),
            join(f"{PAGE}=garbage".encode(), b"visitor=v-7"),
            Adopted("v-7", Origin.LITERAL),
            id="the-app-where-the-page-says-nothing",
        ),
        pytest.param(Adopter(PAGE_IDS, ""), join(page(), page()), X1, id="copies-that-agree"),
        pytest.param(
            Adopter(PAGE_IDS, ""), join(page(), page("X2")), None, id="copies-that-differ"
        ),
        pytest.param(
            Adopter(PAGE_IDS, ""),
            join(identified("U1"), identified("U1")),
            X1._replace(user_id="U1"),
            id="copies-that-agree-whom-it-met",
        ),
        pytest.param(
            Adopter(PAGE_IDS, ""),
            join(identified("U1"), identified("U2")),
            None,
            id="copies-that-differ-in-whom-it-met",
        ),
        pytest.param(
            Adopter(PAGE_IDS, ""),
            join(page(), f"{PAGE}=garbage".encode()),
            None,
            id="a-copy-that-says-nothing",
        ),
        pytest.param(
            Adopter(None, "visitor"), b"visitor=v-7; visitor=v-8", None, id="the-apps-copies-differ"
        ),
        pytest.param(
            Adopter(PAGE_IDS, "visitor"),
            join(page(), page("X2"), b"visitor=v-7"),
            Adopted("v-7", Origin.LITERAL),
            id="the-app-where-the-pages-copies-differ",
        ),
    ],
)
def test_the_id_to_go_on_with_is_the_one_that_nobody_contradicts(adopter, header, expected):
    assert adopter.find(header) == expected
