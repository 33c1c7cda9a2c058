import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.delivery.outbox.frames import pack, unpack
from mp_asgi.events import Message

TEXTS = st.text(st.characters(), max_size=20)  # halves of surrogate pairs included
MESSAGES = st.lists(st.builds(Message, TEXTS, st.binary(max_size=50), TEXTS), max_size=4)


@given(MESSAGES)
def test_what_is_unpacked_is_what_was_packed(messages):
    assert unpack(pack(messages)) == tuple(messages)


@given(MESSAGES.filter(bool), st.data())
def test_what_is_cut_off_between_messages_only_is_believed(messages, data):
    packed = pack(messages)
    ends = [len(pack(messages[:count])) for count in range(len(messages))]
    length = data.draw(st.integers(0, len(packed) - 1).filter(lambda end: end not in ends))

    with pytest.raises((struct.error, ValueError)):
        unpack(packed[:length])
