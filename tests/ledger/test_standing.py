import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.events import ActState, Standing
from mp_asgi.ledger.standing import PastAct, stand

GRANTED, DENIED, LIFTED, ERASED = ActState


def past(*acts: tuple[int, str]) -> list[PastAct]:
    return [PastAct(at * 1000, seq, state) for seq, (at, state) in enumerate(acts)]


@pytest.mark.parametrize(
    ("acts", "expected"),
    [
        pytest.param([(1, "granted")], Standing(GRANTED, 1, None, 1), id="granted"),
        pytest.param([(1, "denied")], Standing(DENIED, 1, 1, None), id="denied"),
        pytest.param([(1, "granted"), (2, "denied")], Standing(DENIED, 2, 2, None), id="withdrawn"),
        pytest.param(
            [(1, "denied"), (2, "granted"), (3, "granted")],
            Standing(GRANTED, 3, 1, 2),
            id="since-the-first-grant-after",
        ),
        pytest.param(
            [(3, "granted"), (2, "denied"), (1, "granted")],
            Standing(GRANTED, 3, 2, 3),
            id="out-of-order",
        ),
        pytest.param(
            [(2, "denied"), (2, "granted")], Standing(DENIED, 2, 2, None), id="denial-wins-a-tie"
        ),
        pytest.param(
            [(2, "granted"), (2, "lifted")], Standing(LIFTED, 2, None, 2), id="the-later-of-a-tie"
        ),
        pytest.param(
            [(1, "erased"), (2, "lifted")], Standing(LIFTED, 2, 1, 2), id="a-lift-ends-a-tombstone"
        ),
        pytest.param(
            [(2, "erased"), (1, "granted")],
            Standing(ERASED, 2, 2, None),
            id="an-old-grant-does-not",
        ),
        pytest.param([(1, "yes")], Standing(DENIED, 1, 1, None), id="unreadable-means-no"),
    ],
)
def test_a_subject_stands_where_its_newest_act_leads(acts, expected):
    assert stand(past(*acts)) == expected


def test_version_and_source_are_those_of_the_newest_act():
    acts = [PastAct(2000, 1, "granted", "v2", "own"), PastAct(1000, 2, "granted", "v1", "app")]

    assert stand(acts)[-2:] == ("v2", "own")


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(ActState)), min_size=1))
def test_nothing_from_before_a_denial_is_ever_allowed(acts):
    standing = stand(past(*((at, state.value) for at, state in acts)))

    denials = [at for at, state in acts if state in {DENIED, ERASED}]
    for tracked_at in range(7):
        later_acts = [at for at, _ in acts if not denials or at > max(denials)]
        expected = bool(later_acts) and (not denials or tracked_at >= min(later_acts))
        assert standing.allows(tracked_at) is expected
