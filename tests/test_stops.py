from mp_asgi.stops import MAX_REMEMBERED, Stops

KEYS = [number.to_bytes(4, "big") for number in range(MAX_REMEMBERED + 1)]


def test_only_a_visitors_own_act_is_a_withdrawal():
    stops = Stops()

    stops.add([b"signal"], 1.0, is_act=False)
    stops.add([b"act"], 2.0, is_act=True)

    assert stops.at == {b"signal": 1.0, b"act": 2.0}
    assert (stops.withdrawn_at(b"signal"), stops.withdrawn_at(b"act")) == (None, 2.0)


def test_a_later_signal_leaves_the_withdrawal():
    stops = Stops()
    stops.add([b"act"], 2.0, is_act=True)

    stops.add([b"act"], 3.0, is_act=False)

    assert (stops.at[b"act"], stops.withdrawn_at(b"act")) == (3.0, 2.0)


def test_the_memory_is_bounded_and_the_oldest_goes():
    stops = Stops()

    stops.add(KEYS, 1.0, is_act=True)

    assert len(stops.at) == MAX_REMEMBERED
    assert KEYS[0] not in stops.at
    assert (stops.withdrawn_at(KEYS[0]), stops.withdrawn_at(KEYS[1])) == (None, 1.0)


def test_a_stop_that_is_repeated_evicts_nobody():
    stops = Stops()
    stops.add(KEYS[1:], 1.0, is_act=False)

    stops.add([KEYS[-1]] * 3, 2.0, is_act=False)

    assert KEYS[1] in stops.at
