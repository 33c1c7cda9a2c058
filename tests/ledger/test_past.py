import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.events import ActState, Standing
from mp_asgi.ledger.past import ASKED, SHORT, find_acts, find_pasts
from mp_asgi.ledger.standing import PastAct, stand
from tests.ledger.acts import (
    DENIED,
    DEVICE,
    ERASED,
    GRANTED,
    LATER,
    LIFTED,
    NEW,
    OLD,
    OTHER,
    USER,
    make_act,
    make_ledger,
    run_sql,
)
from tests.support import NOW

KEYS = (USER, DEVICE, OTHER)
LONG = 2 * SHORT + 1  # acts that are many, also for a key that has two subjects
TOGGLED = [make_act((GRANTED, DENIED)[at % 2], NOW + at) for at in range(3 * LONG)]

numbers = itertools.count()
whens = st.integers(0, 6)
histories = st.lists(
    st.tuples(whens, st.sampled_from(ActState), st.sampled_from(KEYS), st.sampled_from([1, LONG])),
    max_size=5,
)


def read_all_acts(url, ledger, keys):
    owners = ledger._keyring.owners(keys)
    acts: dict[bytes, list[PastAct]] = {}
    for subject, *values in run_sql(
        url,
        "SELECT subject, at, seq, state, version, source FROM mp_asgi_records WHERE project = :p",
        p=ledger._project,
    ):
        if subject in owners:
            acts.setdefault(owners[subject], []).append(PastAct._make(values))
    return acts


def stand_by_all_acts(url, ledger, keys):
    return {key: stand(acts) for key, acts in read_all_acts(url, ledger, keys).items()}


def append_history(ledger, history):
    for at, state, key, times in history:
        ledger.append(
            [make_act(state, NOW + at, key, source=f"s{number}") for number in range(times)]
        )


def count_steps(ledger, find, subject) -> int:
    """Answer how much SQLite's machine does, in hundreds of its instructions."""
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    with ledger._store.reading() as connection:
        connection.connection.driver_connection.set_progress_handler(step, 100)
        find(connection, ledger, subject)
    return steps


def find_acts_of(connection, ledger, key):
    owners = ledger._keyring.owners([key])
    return find_acts(connection, ledger._project, owners, NOW + LATER)


def find_pasts_of(connection, ledger, key):
    return find_pasts(connection, ledger._project, ledger._keyring, [key], NOW + LATER)


@given(
    histories,
    histories,
    st.lists(st.tuples(whens, st.sampled_from(["", "yes", "Granted"])), max_size=2),
)
def test_several_keys_stand_where_all_their_acts_lead(tmp_path_factory, old, new, changed):
    url = str(tmp_path_factory.getbasetemp() / "past.db")
    project = bytes(next(numbers))
    before, ledger = (make_ledger(url, *keys, project=project) for keys in ([OLD], [OLD, NEW]))
    before.open()
    append_history(before, old)
    append_history(ledger, new)
    for at, state in changed:
        run_sql(
            url,
            "UPDATE mp_asgi_records SET state = :s WHERE at = :a AND project = :p AND seq % 3 = 0",
            s=state,
            a=(NOW + at) * 1000,
            p=ledger._project,
        )

    expected = stand_by_all_acts(url, ledger, KEYS)

    assert ledger.standings(KEYS) == expected
    assert {key: ledger.current(key) for key in expected} == expected


@pytest.mark.parametrize(
    "acts",
    [
        pytest.param(TOGGLED, id="toggled"),
        pytest.param([*TOGGLED, *TOGGLED[:1]], id="repeated"),
        pytest.param(TOGGLED[::2], id="never-denied"),
        pytest.param(TOGGLED[1::2], id="only-denied"),
        pytest.param(TOGGLED[::-1], id="backwards"),
        pytest.param([*TOGGLED[:2], *TOGGLED[2::2]], id="denied-long-ago"),
        pytest.param([*TOGGLED, make_act(ERASED, NOW + 500)], id="erased"),
        pytest.param([*TOGGLED, make_act(LIFTED, NOW + 500), make_act(DENIED, NOW + 500)],
                     id="both-at-once"),
    ],
)  # fmt: skip
def test_a_long_history_leads_where_it_would_lead_if_read_whole(ledger, open_ledger, url, acts):
    ledger.append([make_act(at=NOW + 999, key=DEVICE), make_act(DENIED, key=OTHER), *acts])
    open_ledger(project=b"other").append([make_act(DENIED, NOW + 9999)])

    expected = stand_by_all_acts(url, ledger, KEYS)

    assert ledger.standings(KEYS) == expected
    assert ledger.current(USER) == expected[USER]


@pytest.mark.parametrize("state", ["yes", None])
def test_a_state_that_cannot_be_read_denies_in_a_long_history_too(ledger, url, state):
    ledger.append(TOGGLED[::2])
    at = TOGGLED[-5].at

    run_sql(url, "UPDATE mp_asgi_records SET state = :s WHERE at = :a", s=state, a=at * 1000)

    assert ledger.current(USER) == stand(read_all_acts(url, ledger, [USER])[USER])
    assert ledger.current(USER).denied_at == at


def test_a_long_history_among_many_short_ones_is_found(ledger, url):
    keys = [bytes([number]) for number in range(2 * ASKED + 1)]
    ledger.append([make_act(key=key) for key in keys])
    ledger.append(
        [make_act((DENIED, GRANTED)[at % 2], NOW + at + 1, keys[7]) for at in range(1800)]
    )

    assert ledger.standings(keys) == stand_by_all_acts(url, ledger, keys)


@pytest.mark.parametrize("find", [find_acts_of, find_pasts_of])
def test_a_longer_history_takes_no_more(tmp_path, find):
    ledger = make_ledger(str(tmp_path / "ledger.db"))
    ledger.open()
    ledger.append(TOGGLED)
    before = count_steps(ledger, find, USER)

    ledger.append(
        [make_act((GRANTED, DENIED)[at % 2], NOW + 1000 + at) for at in range(30 * len(TOGGLED))]
    )

    assert count_steps(ledger, find, USER) <= before + 2


@pytest.mark.parametrize("acts", [pytest.param(TOGGLED[:3], id="short"),
                                  pytest.param(TOGGLED, id="long")])  # fmt: skip
class TestATimeThatCannotBeRead:
    @pytest.fixture(params=["'soon'", "x'00'", "9e999", "NULL"])
    def at(self, request) -> str:
        return request.param

    @pytest.fixture(params=["sqlite"], ids=["sqlite"])
    def url(self, tmp_path) -> str:
        return str(tmp_path / "ledger.db")

    @pytest.fixture
    def spoil(self, ledger, url, acts, at):
        """Answer how to spoil a record of the user, among others' that stay as they are."""
        ledger.append([*acts, make_act(key=DEVICE)])

        def spoil_(seq: int) -> None:
            run_sql(url, f"UPDATE mp_asgi_records SET at = {at} WHERE seq = {seq}")

        return spoil_

    def test_denies_now_and_nobody_else(self, ledger, spoil):
        spoil(1)

        denied_at = NOW + LATER
        assert ledger.standings(KEYS) == {
            USER: Standing(DENIED, denied_at, denied_at),
            DEVICE: Standing(GRANTED, NOW, None, NOW, "", "own"),
        }

    def test_is_told_by_a_verification(self, ledger, spoil):
        spoil(1)

        assert ledger.verify().problems == ("The content of record 1 was changed.",)
        assert ledger.history(USER)[0].at is None

    def test_keeps_no_act_from_the_record(self, ledger, spoil, acts):
        spoil(1)

        ledger.append([make_act(DENIED, NOW + 9999)])

        last = ledger.history(USER)[-1]
        assert (last.at, last.revision) == (NOW + 9999, len(acts) + 1)

    def test_does_not_keep_a_record_from_its_erasure(self, ledger, spoil, acts):
        spoil(1)

        assert ledger.erase([USER], NOW + 9999) == len(acts)

        assert [record.state for record in ledger.history(USER)] == ["erased"]
        assert ledger.verify().is_intact

    def test_of_a_tombstone_keeps_everything_until_now_out(self, ledger, spoil, acts):
        ledger.append([make_act(ERASED, NOW + 9999)])
        spoil(len(acts) + 2)

        ledger.append([make_act(GRANTED, NOW + 99_999)])

        assert ledger.history(USER)[-1].state == "erased"
        assert ledger.current(USER).is_denied

    def test_of_the_only_tombstone_empties_nothing_of_itself(self, ledger, spoil, acts):
        ledger.append([make_act(ERASED, NOW + 9999)])
        spoil(len(acts) + 2)

        assert ledger.erase([USER], NOW + 99_999) == 0


def test_a_number_of_any_kind_is_a_time(tmp_path):
    url = str(tmp_path / "ledger.db")
    ledger = make_ledger(url)
    ledger.open()
    ledger.append([make_act()])

    run_sql(url, "UPDATE mp_asgi_records SET at = at + 0.5")

    assert math.isclose(ledger.current(USER).at, NOW + 0.0005, abs_tol=1e-6)
    assert ledger.current(USER).state is GRANTED


def test_the_newest_of_several_tombstones_keeps_older_acts_out_of_a_long_history(ledger):
    ledger.erase([USER], NOW)
    ledger.append([make_act(at=NOW + 1 + at) for at in range(LONG)])
    ledger.append([make_act(ERASED, NOW + 500)])
    ledger.append([make_act(at=NOW + 501 + at) for at in range(LONG)])

    ledger.append([make_act(DENIED, NOW + 400), make_act(DENIED, NOW + 600)])

    assert [record.at for record in ledger.history(USER) if record.state == "denied"] == [NOW + 600]
    assert ledger.history(USER)[-1].revision == 2 * LONG + 3


def test_a_lost_revision_keeps_no_act_from_the_record(ledger, url):
    ledger.append([make_act()])
    run_sql(url, "UPDATE mp_asgi_records SET revision = NULL")

    ledger.append([make_act(DENIED, NOW + 1)])

    assert ledger.current(USER).state is DENIED
