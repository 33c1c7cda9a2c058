"""Requests leave nothing behind that only the cyclic collector can free."""

import gc

import pytest

from benchmarks.variants import make_requests, make_variants

REQUESTS = 200
ASGI, WSGI = make_variants()
OURS = [
    pytest.param(variant, id=f"{door}-{variant.name}".replace(", ", "-").replace(" ", "-"))
    for door, variants in (("asgi", ASGI), ("wsgi", WSGI))
    for variant in variants
    if variant.name not in {"no-op", "session read", "session write"}
]


@pytest.mark.parametrize("variant", OURS)
def test_a_request_leaves_no_cyclic_garbage(variant):
    for request in make_requests(variant, 10):
        variant.serve(request)  # memos fill, and what is imported late is imported
    gc.collect()
    gc.disable()

    try:
        for request in make_requests(variant, REQUESTS):
            variant.serve(request)
        found = gc.collect()
    finally:
        gc.enable()

    assert found == 0
