import socket
import threading
import time

import pytest
import redis
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool
from redis.retry import Retry

from mp_asgi.delivery.outbox.redis_connections import MAX_CONNECTIONS, bound_pool
from tests.redis_server import RedisServer, server, shared_server
from tests.support import TIMEOUT, wait_for

__all__ = ["server", "shared_server"]


def open_pool(url: str, seconds: float = 0.2) -> ConnectionPool:
    return bound_pool(seconds).from_url(url, retry=Retry(NoBackoff(), 0))


@pytest.fixture
def resolver(monkeypatch):
    """Answer an event without which no name is looked up to the end."""
    found, look_up = threading.Event(), socket.getaddrinfo

    def wait(*arguments, **options):
        assert found.wait(TIMEOUT)
        return look_up(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", wait)
    yield found
    found.set()
    wait_for(lambda: not lookups())


def lookups() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "mp-asgi-connect"]


def test_a_look_up_that_hangs_is_left_after_the_timeout(resolver):
    client = redis.Redis(connection_pool=open_pool("redis://127.0.0.1:1/0"))
    began = time.monotonic()

    for _ in range(2):
        with pytest.raises(redis.TimeoutError):
            client.ping()

    assert time.monotonic() - began < TIMEOUT / 2
    assert len(lookups()) == 1


def test_what_was_looked_up_too_late_is_used_by_the_next(resolver, shared_server: RedisServer):
    client = redis.Redis(connection_pool=open_pool(shared_server.url))
    with pytest.raises(redis.TimeoutError):
        client.ping()

    resolver.set()

    assert client.ping()
    client.connection_pool.disconnect()


def test_a_failure_of_before_is_not_told_again(resolver, server: RedisServer):
    client = redis.Redis(connection_pool=open_pool(server.url))
    server.stop()
    with pytest.raises(redis.TimeoutError):
        client.ping()
    resolver.set()
    wait_for(lambda: not lookups())

    server.start()

    assert client.ping()
    client.connection_pool.disconnect()


def test_where_no_thread_can_start_it_connects_all_the_same(monkeypatch, shared_server):
    def refuse(thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    client = redis.Redis(connection_pool=open_pool(shared_server.url))
    monkeypatch.setattr(threading.Thread, "start", refuse)

    assert client.ping()
    client.connection_pool.disconnect()


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [
        ("socket_timeout=600", "socket_timeout", 0.2),
        ("socket_connect_timeout=600", "socket_connect_timeout", 0.2),
        ("decode_responses=True", "decode_responses", False),
        ("encoding=utf-16", "encoding", "utf-8"),
    ],
)
@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_what_is_needed_wins_over_the_options_of_a_url(scheme, option, name, value):
    pool = open_pool(f"{scheme}://host/0?{option}")

    assert pool.connection_kwargs[name] == value


def test_a_url_leaves_a_connection_for_each_thread():
    pool = open_pool("redis://host/0?max_connections=1")

    assert pool.max_connections == MAX_CONNECTIONS


def test_a_connection_with_tls_has_it():
    pool = open_pool("rediss://host/0")

    assert issubclass(pool.connection_class, redis.SSLConnection)
    assert not issubclass(open_pool("redis://host/0").connection_class, redis.SSLConnection)


def test_what_is_connected_starts_no_thread(monkeypatch, shared_server):
    client = redis.Redis(connection_pool=open_pool(shared_server.url))
    client.ping()
    started: list[threading.Thread] = []
    monkeypatch.setattr(threading.Thread, "start", started.append)

    client.ping()

    assert started == []
    client.connection_pool.disconnect()
