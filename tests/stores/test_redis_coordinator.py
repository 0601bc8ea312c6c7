"""Servers asking each other over Redis pub/sub to let go of an upload."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from tests.fixtures.child import wait_until
from tests.fixtures.redis import PASSWORD, RedisServer, running_redis
from tests.fixtures.sessions import WAIT, Events

from hmac_file_server.stores.alone import NoCoordinator
from hmac_file_server.stores.contract import Coordinator, StoreError
from hmac_file_server.stores.redis import RedisCoordinator
from hmac_file_server.stores.redis_client import PREFIX
from hmac_file_server.stores.redis_coordinator import Message

BOUND = 5.0
"""Seconds, generous: what is promised is about one."""


class Node:
    """One process: what it holds, and what it heard."""

    def __init__(self, url: str, *, node: str = "node", started: bool = True, log: Events | None = None) -> None:
        self.turn = threading.Condition()
        self.releases: list[tuple[str, Callable[[], None]]] = []
        self.progress: list[str] = []
        self.hold: set[str] = set()
        self.coordinator = RedisCoordinator(url, node=node, log=log)
        if started:
            self.coordinator.start(self.on_release, self.on_progress)
            wait_until(lambda: self.coordinator.connected, "the coordinator is connected")

    def on_release(self, upload: str, released: Callable[[], None]) -> None:
        with self.turn:
            self.releases.append((upload, released))
            self.turn.notify_all()
        if upload not in self.hold:
            released()

    def on_progress(self, upload: str) -> None:
        with self.turn:
            self.progress.append(upload)
            self.turn.notify_all()

    def asked(self, count: int = 1) -> tuple[str, Callable[[], None]]:
        """The last of so many requests, awaited."""
        with self.turn:
            assert self.turn.wait_for(lambda: len(self.releases) >= count, WAIT)
            return self.releases[count - 1]

    def heard(self, upload: str) -> None:
        with self.turn:
            assert self.turn.wait_for(lambda: upload in self.progress, WAIT)


class Reply:
    """Takes the answer to a question, once."""

    def __init__(self, coordinator: Coordinator, upload: str) -> None:
        self.event = threading.Event()
        self.values: list[bool] = []
        coordinator.ask(upload, self)

    def __call__(self, value: bool) -> None:
        self.values.append(value)
        self.event.set()

    def get(self, seconds: float = BOUND) -> bool:
        assert self.event.wait(seconds), "no answer in time"
        assert len(self.values) == 1
        return self.values[0]


OpenNode = Callable[..., Node]


@pytest.fixture
def open_node() -> Iterator[OpenNode]:
    """Makes nodes; all are closed in the end."""
    nodes: list[Node] = []

    def make(server: RedisServer, **options: object) -> Node:
        nodes.append(Node(server.url, **options))  # type: ignore[arg-type]
        return nodes[-1]

    yield make
    for node in nodes:
        node.coordinator.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions stay open for as long as a slow machine may need."""
    monkeypatch.setattr("hmac_file_server.stores.redis_coordinator._ANSWER_WITHIN", WAIT)


@pytest.mark.usefixtures("patient")
def test_a_question_is_answered_when_the_holder_has_let_go(own_redis: RedisServer, open_node: OpenNode) -> None:
    asking, holding = open_node(own_redis), open_node(own_redis)
    holding.hold.add("upload")
    reply = Reply(asking.coordinator, "upload")
    upload, released = holding.asked()
    assert upload == "upload"
    assert not reply.values
    released()
    assert reply.get() is True
    released()  # twice is as good as once
    assert Reply(asking.coordinator, "other").get() is True
    assert asking.releases == []  # own questions are not heard


@pytest.mark.usefixtures("patient")
def test_those_that_hold_nothing_do_not_answer_for_the_holder(own_redis: RedisServer, open_node: OpenNode) -> None:
    asking, holding, idle = (open_node(own_redis) for _ in range(3))
    holding.hold.add("upload")
    reply = Reply(asking.coordinator, "upload")
    idle.asked()
    _upload, released = holding.asked()
    # A question that follows on the same connections was answered by both, so idle's first answer has come.
    assert Reply(asking.coordinator, "free").get() is True
    assert not reply.values
    released()
    assert reply.get() is True


def test_a_holder_that_does_not_let_go_is_waited_for_in_bounded_time(
    own_redis: RedisServer, open_node: OpenNode
) -> None:
    asking, holding = open_node(own_redis), open_node(own_redis)
    holding.hold.add("upload")
    replies = [Reply(asking.coordinator, "upload") for _ in range(3)]
    _upload, released = holding.asked(3)
    assert [reply.get() for reply in replies] == [False] * 3
    released()  # too late; it is heard and means nothing
    assert Reply(asking.coordinator, "free").get() is True
    assert [len(reply.values) for reply in replies] == [1, 1, 1]


def test_a_holder_that_died_is_waited_for_in_bounded_time(own_redis: RedisServer, open_node: OpenNode) -> None:
    asking, holding = open_node(own_redis), open_node(own_redis)
    holding.hold.add("upload")
    reply = Reply(asking.coordinator, "upload")
    holding.asked()
    holding.coordinator.close()
    assert reply.get() is False


@pytest.mark.usefixtures("patient")
def test_one_that_is_alone_is_answered_without_a_wait(own_redis: RedisServer, open_node: OpenNode) -> None:
    alone = open_node(own_redis)
    for _ in range(20):
        assert Reply(alone.coordinator, "upload").get() is False


def test_questions_before_the_start_and_after_the_end_are_answered_at_once(own_redis: RedisServer) -> None:
    node = Node(own_redis.url, started=False)
    assert Reply(node.coordinator, "upload").values == [False]
    node.coordinator.tell("upload")
    node.coordinator.start(node.on_release, node.on_progress)
    node.coordinator.start(node.on_release, node.on_progress)
    node.coordinator.close()
    assert Reply(node.coordinator, "upload").values == [False]
    node.coordinator.tell("upload")
    node.coordinator.close()
    node.coordinator.start(node.on_release, node.on_progress)
    assert not node.coordinator.connected


def test_progress_reaches_the_others(own_redis: RedisServer, open_node: OpenNode) -> None:
    one, two, three = (open_node(own_redis) for _ in range(3))
    for upload in ("a", "b", "a"):
        one.coordinator.tell(upload)
    for other in (two, three):
        other.heard("a")
        other.heard("b")
    two.coordinator.tell("c")
    one.heard("c")
    assert one.progress == ["c"]  # none of its own


def test_progress_of_many_uploads_waits_in_bounded_memory(
    own_redis: RedisServer, open_node: OpenNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hmac_file_server.stores.redis_coordinator._PROGRESS", 10)
    one, two = open_node(own_redis), open_node(own_redis)
    for number in range(5000):
        one.coordinator.tell(f"{number}")
    assert len(one.coordinator._grown) <= 10
    two.heard("0")


@pytest.mark.usefixtures("patient")
def test_nodes_with_one_name_are_still_two(own_redis: RedisServer, open_node: OpenNode) -> None:
    one, two = open_node(own_redis, node="same"), open_node(own_redis, node="same")
    assert Reply(one.coordinator, "upload").get() is True
    assert [upload for upload, _released in two.releases] == ["upload"]


@pytest.mark.usefixtures("patient")
def test_many_ask_at_once(own_redis: RedisServer, open_node: OpenNode) -> None:
    nodes = [open_node(own_redis) for _ in range(3)]
    replies: list[Reply] = []

    def ask(node: Node) -> None:
        replies.extend([Reply(node.coordinator, f"{number}") for number in range(50)])

    threads = [threading.Thread(target=ask, args=(node,)) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [reply.get() for reply in replies] == [True] * 150


def test_a_callback_that_fails_hurts_nobody(own_redis: RedisServer, open_node: OpenNode, events: Events) -> None:
    asking = open_node(own_redis)
    broken = RedisCoordinator(own_redis.url, node="broken", log=events)

    def fail(*_arguments: object) -> None:
        raise RuntimeError("of the callback")

    broken.start(fail, fail)
    wait_until(lambda: broken.connected, "it is connected")
    broken.tell("grows")
    asking.heard("grows")
    asking.coordinator.tell("upload")
    events.wait("coordinator_callback_failed")
    assert Reply(asking.coordinator, "upload").get() is False
    events.wait("coordinator_callback_failed", 2)
    broken.ask("upload", fail)
    events.wait("coordinator_callback_failed", 3)
    broken.close()


@pytest.mark.usefixtures("patient")
def test_strange_messages_are_passed_over(own_redis: RedisServer, open_node: OpenNode) -> None:
    one, two = open_node(own_redis), open_node(own_redis)
    strange = [b"", b"{", b"[]", b'{"kind":"else","node":"x"}', b'{"kind":"release"}', b"\xff\xfe"]
    strange.append(msgspec.json.encode(Message("released", "x", request="unknown")))
    with own_redis.client() as client:
        for message in strange:
            assert client.publish(PREFIX + "release", message) == 2
            assert client.publish(PREFIX + "progress", message) == 2
    assert Reply(one.coordinator, "upload").get() is True
    assert [upload for upload, _released in two.releases] == ["upload"]


# -- Redis in trouble


def test_d13_without_redis_every_question_is_answered_at_once(
    own_redis: RedisServer, open_node: OpenNode, events: Events
) -> None:
    own_redis.stop()
    node = open_node(own_redis, started=False, log=events)
    node.coordinator.start(node.on_release, node.on_progress)
    events.wait("redis_lost")
    for _ in range(10):
        assert Reply(node.coordinator, "upload").values == [False]
    node.coordinator.tell("upload")
    own_redis.start()
    events.wait("redis_back")
    other = open_node(own_redis)
    assert Reply(node.coordinator, "upload").get() is True
    other.asked()
    assert events.names == ["redis_lost", "redis_back"]


def test_d13_redis_dies_while_a_question_is_open_and_comes_back(
    own_redis: RedisServer, open_node: OpenNode, events: Events
) -> None:
    asking, holding = open_node(own_redis, log=events), open_node(own_redis)
    holding.hold.add("upload")
    reply = Reply(asking.coordinator, "upload")
    _upload, released = holding.asked()
    own_redis.kill()
    assert reply.get() is False
    released()
    events.wait("redis_lost")
    assert Reply(asking.coordinator, "upload").values == [False]
    own_redis.start()
    events.wait("redis_back")
    wait_until(lambda: holding.coordinator.connected, "the other is back")
    holding.hold.clear()
    wait_until(lambda: Reply(asking.coordinator, "upload").get(), "it can be asked again")
    assert events.names == ["redis_lost", "redis_back"]


def test_d13_redis_that_hangs_is_given_up_in_bounded_time(
    own_redis: RedisServer, open_node: OpenNode, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hmac_file_server.stores.redis_coordinator._SILENCE", 0.5)
    asking, _other = open_node(own_redis, log=events), open_node(own_redis)
    assert Reply(asking.coordinator, "upload").get() is True
    own_redis.freeze()
    replies = [Reply(asking.coordinator, f"{number}") for number in range(10)]
    begun = time.monotonic()
    assert [reply.get() for reply in replies] == [False] * 10
    assert time.monotonic() - begun < BOUND
    events.wait("redis_lost")
    wait_until(lambda: not asking.coordinator.connected, "it is noticed without a question, too")
    assert Reply(asking.coordinator, "upload").values == [False]
    own_redis.thaw()
    wait_until(lambda: asking.coordinator.connected, "it is back")
    wait_until(lambda: Reply(asking.coordinator, "upload").get(), "it can be asked again")


def test_silence_alone_is_no_loss(
    own_redis: RedisServer, open_node: OpenNode, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hmac_file_server.stores.redis_coordinator._SILENCE", 0.01)
    monkeypatch.setattr("hmac_file_server.stores.redis_coordinator._SLICE", 0.02)
    node = open_node(own_redis, log=events)

    def pings() -> int:
        with own_redis.client() as client:
            return int(client.info("commandstats").get("cmdstat_ping", {}).get("calls", 0))

    first = pings()
    wait_until(lambda: pings() >= first + 5, "it pings")
    assert node.coordinator.connected
    assert events.names == []


def test_it_closes_while_redis_hangs_and_answers_what_is_open(own_redis: RedisServer, open_node: OpenNode) -> None:
    node, other = open_node(own_redis), open_node(own_redis)
    other.hold.add("upload")
    reply = Reply(node.coordinator, "upload")
    other.asked()
    own_redis.freeze()
    node.coordinator.close()
    assert reply.values == [False]
    node.coordinator.close()


def test_a_callback_may_close_the_coordinator(own_redis: RedisServer, open_node: OpenNode) -> None:
    asking, closing = open_node(own_redis), open_node(own_redis)
    closed = threading.Event()

    def close(_upload: str, released: Callable[[], None]) -> None:
        closing.coordinator.close()
        released()
        closed.set()

    closing.coordinator._on_release = close
    assert Reply(asking.coordinator, "upload").get() is False
    assert closed.wait(WAIT)


@pytest.mark.usefixtures("patient")
def test_the_password_is_used_and_never_logged(tmp_path: Path, open_node: OpenNode, events: Events) -> None:
    with running_redis(tmp_path / "locked", password=True) as server:
        one, _two = open_node(server, log=events), open_node(server)
        assert Reply(one.coordinator, "upload").get() is True
        server.stop()
        events.wait("redis_lost")
        assert Reply(one.coordinator, "upload").values == [False]
    assert PASSWORD not in str(events.seen)
    assert "pass%2Fword" not in str(events.seen)


def test_a_url_that_is_none_is_an_error() -> None:
    with pytest.raises(StoreError):
        RedisCoordinator("http://127.0.0.1", node="node")


def test_without_a_coordinator_nobody_is_asked() -> None:
    alone = NoCoordinator()
    alone.start(lambda _upload, _released: None, lambda _upload: None)
    assert Reply(alone, "upload").values == [False]
    alone.tell("upload")
    alone.close()
