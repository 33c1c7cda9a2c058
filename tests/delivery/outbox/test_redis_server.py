import socket
import sys
import time

import pytest
import redis

from mp_asgi.delivery.outbox import redis_server
from mp_asgi.delivery.outbox.redis import RedisOutbox
from mp_asgi.delivery.outbox.redis_server import Server
from mp_asgi.errors import OutboxUnavailable
from tests.delivery.outbox.contract import names, take
from tests.redis_server import RedisServer, find_free_port, server, shared_server
from tests.support import NOW, TIMEOUT, make_entry, make_settings, wait_for

__all__ = ["server", "shared_server"]

CLUSTER = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port")


def test_no_server_is_an_unavailable_outbox():
    port = find_free_port()
    outbox = RedisOutbox(f"redis://127.0.0.1:{port}/0", make_settings(), "project")

    with pytest.raises(OutboxUnavailable, match=f"Redis at 127.0.0.1:{port}: ConnectionError"):
        outbox.put([make_entry("a")], NOW)


def test_a_wrong_password_is_told_and_not_said(server):
    with redis.Redis.from_url(server.url) as client:
        client.config_set("requirepass", "right")
    outbox = server.outbox(url=f"redis://:wr0ng@127.0.0.1:{server.port}/0")

    with pytest.raises(OutboxUnavailable, match=r"Redis at 127\.0\.0\.1.*password") as caught:
        outbox.stats()

    assert "wr0ng" not in str(caught.value)


@pytest.mark.parametrize("written", ["s3cret", "s3%63ret"], ids=["plain", "quoted"])
def test_a_password_in_the_servers_words_is_not_repeated(written):
    way = Server(f"redis://:{written}@host/0")

    assert "s3cret" not in str(way._unavailable(ValueError("AUTH s3cret failed")))


@pytest.mark.parametrize("host", ["a..b", "x" * 70], ids=["empty-label", "long-label"])
def test_a_name_that_is_none_is_an_unavailable_outbox(host):
    outbox = RedisOutbox(f"redis://{host}:6379/0", make_settings(), "project")

    with pytest.raises(OutboxUnavailable, match=r"Unicode\w*Error"):
        outbox.put([make_entry("a")], NOW)


def test_an_option_that_is_none_is_found_at_once_and_named():
    with pytest.raises(OutboxUnavailable, match="remove socket_timout= in it") as caught:
        RedisOutbox("redis://:s3cret@host/0?socket_timout=s3cret", make_settings(), "project")

    assert "s3cret" not in str(caught.value)


def test_a_url_that_cannot_be_used_is_not_quoted():
    remedy = "The URL of Redis at host:6379 cannot be used. Mend or remove socket_timeout= in it."
    with pytest.raises(OutboxUnavailable, match=remedy) as caught:
        RedisOutbox("redis://:s3cret@host/0?socket_timeout=s3cret", make_settings(), "project")

    assert "s3cret" not in str(caught.value)


def test_the_extra_is_named_when_the_client_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)

    with pytest.raises(OutboxUnavailable, match=r"mp-asgi\[redis\]"):
        RedisOutbox("redis://host/0", make_settings(), "project")


def test_a_server_that_never_answers_is_left_after_the_timeout(monkeypatch):
    monkeypatch.setattr(redis_server, "TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        began = time.monotonic()

        with pytest.raises(OutboxUnavailable, match="Timeout"):
            RedisOutbox(url, make_settings(), "project").stats()

        assert time.monotonic() - began < TIMEOUT / 2


@pytest.fixture
def cluster(tmp_path):
    """Answer two nodes; the slot of `project` is on the second."""
    nodes = [RedisServer(tmp_path, *CLUSTER, str(find_free_port())) for _ in range(2)]
    try:
        for node in nodes:
            node.enter(f"node-{node.port}")
            node.start()
        join(*nodes)
        yield nodes
    finally:
        for node in nodes:
            node.stop()


def join(*nodes: RedisServer) -> None:
    first, second = (redis.Redis.from_url(node.url) for node in nodes)
    with first, second:
        slot = first.execute_command("CLUSTER", "KEYSLOT", "{mp-asgi:project}")
        first.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, slot - 1, slot + 1, 16383)
        second.execute_command("CLUSTER", "ADDSLOTS", slot)
        for epoch, client in enumerate((first, second), start=1):
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        bus = second.config_get("cluster-port")["cluster-port"]
        first.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[1].port, bus)
        for client in (first, second):
            wait_for(lambda node=client: node.cluster("info")["cluster_state"] == "ok")


def test_a_cluster_is_reached_by_any_of_its_nodes(cluster):
    for node in cluster:
        outbox = node.outbox("project")
        assert outbox.put([make_entry("a")], NOW).stored == 1
        assert names(take(outbox)) == [["a"]]
        outbox.close()


def test_a_cluster_whose_node_is_gone_is_unavailable(cluster):
    outbox = cluster[0].outbox("project")
    outbox.stats()
    cluster[1].stop()
    others = [cluster[0].outbox("project")]

    for each in (outbox, *others):
        with pytest.raises(OutboxUnavailable, match="Redis at 127"):
            each.stats()
    cluster[0].stop()

    for each in (outbox, *others):
        for _ in range(2):
            with pytest.raises(OutboxUnavailable, match="Redis at 127"):
                each.stats()
        assert each._server._client is each._server._node  # what it knew of the others is over
        each.close()
