"""Generate what browsers and apps do: journeys of requests with random acts, headers and times."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from mp_asgi import ANONYMOUS
from tests.doors import (
    CHUNK,
    CROSS_SITE,
    END,
    FAIL,
    NAVIGATION,
    START,
    Act,
    advance,
    deny,
    grant,
    identify,
    login,
    logout,
    look,
    read_consent,
    reset,
    set_group,
    set_person,
    start,
    track,
    update_group,
)

USERS = ("U1", "U2")
NAMES = ("Seen", "Bought", "Left")
PAGE_COOKIE = (
    "mp_t0ken_mixpanel=%7B%22distinct_id%22%3A%22%24device%3AX%22%2C%22%24device_id%22%3A%22X%22%7D"
)
DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of a journey.

    Attributes:
        script: What the app does.
        headers: Beside Host and Cookie.
        scheme: Of the URL.
        before: Seconds that pass before it.
        session: What the app's session holds then; nothing changes where a key is missing.
        is_flushed: Whether everything that waits is delivered before it.
    """

    script: tuple[Act, ...]
    headers: tuple[tuple[str, str], ...] = ()
    scheme: str = "https"
    before: float = 1.0
    session: dict[str, Any] = field(default_factory=dict)
    is_flushed: bool = False


def tracks() -> st.SearchStrategy[Act]:
    properties = st.sampled_from([{}, {"price": 12.5}, {"tags": ["a", "b"]}])
    return st.builds(lambda name, values: track(name, **values), st.sampled_from(NAMES), properties)


def acts() -> st.SearchStrategy[Act]:
    users = st.sampled_from(USERS)
    overrides = st.booleans().map(lambda value: grant(override_gpc=value))
    return st.one_of(
        tracks(),
        tracks(),
        overrides,
        users.map(identify),
        users.map(login),
        users.map(lambda user: identify(user, new_user=True)),
        st.sampled_from(
            [
                deny(),
                reset(),
                reset(new_device=True),
                reset(new_device=False),
                logout(),
                look(),
                read_consent(),
                set_person(plan="pro"),
                set_group("company", "acme"),
                update_group("company", "acme", plan="pro"),
                identify("null"),
                grant(trusted=True),
                deny(trusted=True),
            ]
        ),
        st.sampled_from([0.0, 0.5, 3.0]).map(advance),
    )


STARTS = (
    START,
    start(200, ("cache-control", "public, max-age=60")),
    start(200, ("cache-control", "private"), ("vary", "Accept-Encoding")),
    start(304),
    start(404, ("vary", "*")),
    start(200, ("surrogate-control", "max-age=3")),
    start(200, ("set-cookie", "theirs=1"), ("cache-control", "no-store")),
)


@st.composite
def scripts(draw: st.DrawFn) -> tuple[Act, ...]:
    some = st.lists(acts(), max_size=5)
    few = st.lists(acts(), max_size=2)
    script: list[Act] = [*draw(some), draw(st.sampled_from(STARTS))]
    if draw(st.booleans()):
        for part in draw(st.lists(few, min_size=1, max_size=2)):
            script += [*part, CHUNK]
        script += [*draw(few), END, *draw(few)]
    if draw(st.integers(0, 9)) == 0:
        script.insert(draw(st.integers(0, len(script))), FAIL)
    return tuple(script)


def headers() -> st.SearchStrategy[tuple[tuple[str, str], ...]]:
    consents = ("granted", "denied", "analytics=granted", "granted,denied", "perhaps")
    options = [
        st.just(()),
        st.just(()),
        st.sampled_from(["1", "0", "1,0"]).map(lambda value: (("sec-gpc", value),)),
        st.just((("dnt", "1"),)),
        st.sampled_from(consents).map(lambda value: (("x-mp-consent", value),)),
        st.just(NAVIGATION),
        st.just(CROSS_SITE),
        st.sampled_from(["https://shop.example", "https://evil.example", "null"]).map(
            lambda value: (("origin", value),)
        ),
        st.just((("x-forwarded-proto", "https"),)),
        st.just((("cookie", "mp_choice=denied"),)),
        st.just((("cookie", "__Host-mp_id=forged.a.b"),)),
        st.sampled_from([PAGE_COOKIE, "__mp_opt_in_out_t0ken=0", "theirs=v-7"]).map(
            lambda value: (("cookie", value),)
        ),
        st.just((("referer", "https://news.example/today?q=1"),)),
    ]
    return st.lists(st.one_of(options), max_size=2).map(
        lambda groups: tuple(header for group in groups for header in group)
    )


def sessions() -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        st.just({}),
        st.fixed_dictionaries({"user": st.sampled_from(["U1", "U2", ANONYMOUS, None, "null"])}),
        st.fixed_dictionaries({"consent": st.sampled_from([True, False, None, LookupError(), 1])}),
    )


def visits() -> st.SearchStrategy[Visit]:
    return st.builds(
        Visit,
        script=scripts(),
        headers=headers(),
        scheme=st.sampled_from(["https", "https", "https", "http"]),
        before=st.sampled_from([0.0, 1.0, 60.0, 43_200.0, 181 * DAY]),
        session=sessions(),
        is_flushed=st.booleans(),
    )


def journeys(max_size: int = 5) -> st.SearchStrategy[Sequence[Visit]]:
    return st.lists(visits(), min_size=1, max_size=max_size)
