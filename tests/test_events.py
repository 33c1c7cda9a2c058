"""What an act makes of a subject, and what may leave after it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.events import RENEWAL_SECONDS, Act, ActState, Notice, Standing
from mp_asgi.ledger.standing import PastAct, stand
from tests.support import NOW, make_act

GRANTED, DENIED, LIFTED, ERASED = ActState


def standing(state, **more):
    denied_at = NOW if state in {DENIED, ERASED} else None
    return Standing(state, NOW, denied_at, **more)


# --- news -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "before", "is_news"),
    [
        pytest.param(make_act(GRANTED), None, True, id="a-first-grant"),
        pytest.param(make_act(DENIED), None, True, id="a-first-denial"),
        pytest.param(make_act(ERASED), None, True, id="a-first-tombstone"),
        pytest.param(make_act(LIFTED), None, False, id="nothing-to-lift"),
        pytest.param(
            make_act(LIFTED, source="gpc-override"), None, True, id="an-override-before-any-denial"
        ),
        pytest.param(make_act(DENIED), standing(GRANTED), True, id="a-denial-after-a-grant"),
        pytest.param(make_act(DENIED), standing(LIFTED), True, id="a-denial-after-a-lift"),
        pytest.param(make_act(DENIED), standing(DENIED), False, id="a-denial-repeated"),
        pytest.param(make_act(DENIED), standing(ERASED), False, id="a-denial-of-who-is-erased"),
        pytest.param(make_act(ERASED), standing(DENIED), True, id="a-tombstone-after-a-denial"),
        pytest.param(make_act(ERASED), standing(ERASED), True, id="a-second-tombstone"),
        pytest.param(make_act(LIFTED), standing(DENIED), True, id="a-denial-lifted"),
        pytest.param(make_act(LIFTED), standing(ERASED), True, id="a-tombstone-lifted"),
        pytest.param(make_act(LIFTED), standing(LIFTED), False, id="lifted-already"),
        pytest.param(make_act(LIFTED), standing(GRANTED), False, id="a-grant-is-not-lifted"),
        pytest.param(
            make_act(LIFTED, source="gpc-override"),
            standing(LIFTED, source="own"),
            True,
            id="an-override-of-what-is-lifted",
        ),
        pytest.param(
            make_act(LIFTED, source="gpc-override"),
            standing(LIFTED, source="gpc-override"),
            False,
            id="an-override-repeated",
        ),
        pytest.param(make_act(GRANTED), standing(DENIED), True, id="a-grant-after-a-denial"),
        pytest.param(
            make_act(GRANTED), standing(GRANTED, source="own"), False, id="a-grant-repeated"
        ),
        pytest.param(
            make_act(GRANTED, version="v2"),
            standing(GRANTED, source="own", version="v1"),
            True,
            id="a-grant-of-another-notice",
        ),
        pytest.param(
            make_act(GRANTED, source="cmp:klaro"),
            standing(GRANTED, source="own"),
            True,
            id="a-grant-from-elsewhere",
        ),
        pytest.param(make_act(GRANTED), standing(LIFTED, source="own"), True, id="a-wider-grant"),
        *(
            pytest.param(
                make_act(DENIED, source=signal),
                standing(state, source=source),
                is_news,
                id=f"{signal}-after-{state.value}-by-{source}",
            )
            for signal in ("sec-gpc", "dnt")
            for state, source, is_news in (
                (GRANTED, "gpc-override", False),
                (LIFTED, "gpc-override", False),
                (GRANTED, "own", True),
                (DENIED, "gpc-override", False),
            )
        ),
        pytest.param(
            make_act(DENIED),
            standing(GRANTED, source="gpc-override"),
            True,
            id="what-a-person-says-takes-an-override-back",
        ),
    ],
)
def test_only_what_changes_something_is_news(act, before, is_news):
    assert act.is_news(before) is is_news


@pytest.mark.parametrize("state", list(ActState))
def test_an_act_says_where_the_subject_stands_after_it(state):
    act = make_act(state, version="v1", source="header")

    after = act.standing()

    assert (after.state, after.at, after.version, after.source) == (state, NOW, "v1", "header")
    assert (after.is_denied, after.denied_at, after.since) == (
        (True, NOW, None) if state in {DENIED, ERASED} else (False, None, NOW)
    )


# --- what may leave -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "tracked_at", "may_leave"),
    [
        pytest.param(Standing(GRANTED, NOW), 0.0, True, id="never-denied"),
        pytest.param(Standing(DENIED, NOW, NOW), NOW + 5, False, id="denied-now"),
        pytest.param(Standing(ERASED, NOW, NOW), NOW + 5, False, id="erased-now"),
        pytest.param(Standing(LIFTED, NOW, NOW - 9, NOW), NOW - 9, False, id="at-the-denial"),
        pytest.param(Standing(LIFTED, NOW, NOW - 9, NOW), NOW - 1, False, id="in-between"),
        pytest.param(Standing(LIFTED, NOW, NOW - 9, NOW), NOW, True, id="at-the-grant"),
        pytest.param(Standing(GRANTED, NOW, NOW, NOW), NOW, False, id="both-at-once"),
        pytest.param(Standing(GRANTED, NOW, NOW - 9), NOW, True, id="no-time-of-a-grant"),
    ],
)
def test_a_grant_lets_nothing_of_before_it_leave(now, tracked_at, may_leave):
    assert now.allows(tracked_at) is may_leave


def may_leave(acts: list[Act], tracked_at: int) -> bool:
    """Say it as simply as it can be: granted when it was tracked, and never denied since."""
    denials = [act.at for act in acts if act.is_denial]
    before = [act for act in acts if act.at <= tracked_at]
    stood = max(before, key=lambda act: (act.at, act.is_denial), default=None)
    was_denied = stood is not None and stood.is_denial
    return not was_denied and not any(at >= tracked_at for at in denials)


@given(
    st.lists(st.tuples(st.sampled_from(ActState), st.integers(0, 9)), min_size=1, max_size=8),
    st.integers(0, 9),
)
def test_what_may_leave_was_tracked_under_no_denial_and_none_came_since(history, tracked_at):
    acts = [make_act(state, at) for state, at in history]
    past = [PastAct(int(act.at) * 1000, seq, act.state.value) for seq, act in enumerate(acts)]

    assert stand(past).allows(tracked_at) is may_leave(acts, tracked_at)


# --- notices --------------------------------------------------------------------------------------


def test_a_notice_is_known_by_the_hash_of_its_text_alone():
    # SHA-256 of "abc", FIPS 180-2 appendix B.1.
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

    assert Notice("en", "abc").digest == Notice("", "abc").digest == digest


def test_a_notice_that_is_no_valid_text_has_a_hash_too():
    assert Notice("en", "\ud800").digest != Notice("en", "?").digest


@pytest.mark.parametrize("state", [ActState.DENIED, ActState.ERASED], ids=["denial", "tombstone"])
def test_what_is_only_read_again_ends_no_denial(state):
    standing = make_act(state, at=NOW - 5).standing()

    read_again = make_act(ActState.GRANTED, at=NOW, is_act=False)

    assert not read_again.is_news(standing)
    assert make_act(ActState.GRANTED, at=NOW).is_news(standing)


def test_the_same_grant_is_worth_recording_again_after_a_month():
    standing = make_act(ActState.GRANTED, at=NOW).standing()

    assert not make_act(ActState.GRANTED, at=NOW + RENEWAL_SECONDS - 1).is_news(standing)
    assert make_act(ActState.GRANTED, at=NOW + RENEWAL_SECONDS).is_news(standing)
