import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.delivery.outbox.base import Ticket
from mp_asgi.delivery.outbox.labels import (
    Kind,
    Label,
    OwedStop,
    owe_counts,
    owe_stop,
    read_counts,
    read_stop,
)
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from tests.support import NOW, make_entry, make_settings

LABELS = st.builds(
    Label, st.sampled_from(Kind), st.just("50urce"), st.integers(min_value=0), st.integers(0, 499)
)


@given(LABELS, st.text())
def test_what_is_taken_off_is_what_was_put_on(label, name):
    entry = make_entry(name, "b")

    assert Label.take_off(label.put_on(entry)) == (label, entry)


def test_a_label_names_its_entry_and_the_ticket_of_its_put():
    label = Label(Kind.DOUBTFUL, "50urce", 7, 2)

    assert label.name == "50urce.7.2"
    assert label.ticket == Ticket("50urce", 7)


@pytest.mark.parametrize("kind", [Kind.STOP, Kind.ERASURE], ids=["stop", "erasure"])
def test_a_stop_that_is_owed_comes_back_as_it_was(kind):
    stop = OwedStop(kind, (b"\x00\xff", b"."), NOW)

    assert read_stop(kind, owe_stop(stop, "50urce")) == stop


def test_counts_that_are_owed_come_back_as_they_were():
    counts = {("dropped", "bot"): 3, ("tracked", ""): 1}

    assert read_counts(owe_counts(counts, "50urce")) == counts


def test_what_is_owed_is_stopped_by_nobody_and_kept_when_the_outbox_is_full():
    outbox = MemoryOutbox(make_settings(outbox_max_messages=1))
    outbox.put([make_entry("a")], NOW)
    stop = OwedStop(Kind.STOP, (b"device", b""), NOW)

    stopped = stop.apply(outbox, NOW)
    kept = outbox.put([make_entry("b", at=NOW + 1), owe_stop(stop, "50urce")], NOW + 1)

    assert stopped == 1
    assert (kept.stored, kept.stopped, kept.overflowed) == (2, 0, 0)
