"""What of the Redis side needs no Redis: its import, its URL, its words, its pauses."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fixtures.child import free_port
from tests.fixtures.server import environment
from tests.fixtures.sessions import Answer, Events, checkpoint, create, made, session

from hmac_file_server.stores.contract import StoreError
from hmac_file_server.stores.redis import RedisCoordinator, RedisMirror, _literally
from hmac_file_server.stores.redis_client import Backoff, in_words, redis_client
from hmac_file_server.stores.sqlite import SqliteStore


def test_redis_py_is_imported_only_when_it_is_used() -> None:
    code = "import sys, hmac_file_server.stores.redis; sys.exit('redis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment(), check=False).returncode == 0


def test_a_missing_redis_py_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    store = SqliteStore(str(tmp_path / "sessions.db"), full=False)
    with pytest.raises(StoreError, match=r"hmac-file-server\[redis\]"):
        RedisMirror(store, "redis://127.0.0.1")
    with pytest.raises(StoreError, match=r"hmac-file-server\[redis\]"):
        RedisCoordinator("redis://127.0.0.1", node="node")
    store.close()


@pytest.mark.parametrize("url", ["redis://:secret@127.0.0.1:6379/0", "rediss://u:secret@[::1]/2", "unix:///run/redis"])
def test_every_kind_of_url_makes_a_client_without_connecting(url: str) -> None:
    redis_client(url, patience=1.0).close()


@pytest.mark.parametrize("url", ["", "127.0.0.1:6379", "redis://:secret@127.0.0.1:many", "redis://[:secret@::1"])
def test_other_urls_are_errors_without_the_password(url: str) -> None:
    with pytest.raises(StoreError) as caught:
        redis_client(url, patience=1.0)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "text", "words"),
    [
        ("redis://:se%2Fcret@h", "no se/cret, no se%2Fcret", "ValueError: no ***, no ***"),
        ("redis://user:pw@h:1/0", "user pw", "ValueError: user ***"),
        ("redis://h", "as it is", "ValueError: as it is"),
        ("redis://:@h", "as it is", "ValueError: as it is"),
        ("redis://[:secret@h", "secret", "ValueError"),
        ("unix:///run/redis?db=1&password=se%2Fcret", "1 se/cret", "ValueError: 1 ***"),
        ("redis://:12/secret@h", "secret", "ValueError"),
        ("redis://:a?secret@h", "secret", "ValueError"),
    ],
)
def test_words_for_the_log_hide_the_password(url: str, text: str, words: str) -> None:
    assert in_words(ValueError(text), url) == words


def test_pauses_double_up_to_a_bound_and_start_anew() -> None:
    backoff = Backoff()
    pauses = [backoff.next() for _ in range(12)]
    assert 0.1 <= pauses[0] <= 0.2
    assert all(later <= 2 * 2 * earlier for earlier, later in itertools.pairwise(pauses))
    assert all(2.5 <= pause <= 5.0 for pause in pauses[6:])
    backoff.reset()
    assert backoff.next() <= 0.2


@pytest.mark.parametrize(
    ("text", "pattern"),
    [("plain:", "plain:"), ("a*b?[c]^-\\", "a\\*b\\?\\[c\\]\\^\\-\\\\")],
)
def test_a_prefix_is_no_pattern(text: str, pattern: str) -> None:
    assert _literally(text) == pattern


def test_a_change_that_the_store_could_not_even_take_holds_up_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(str(tmp_path / "sessions.db"), full=False)
    mirror = RedisMirror(store, f"redis://127.0.0.1:{free_port()}")

    def refuse(*_arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(store, "submit", refuse)
    with pytest.raises(MemoryError):
        mirror.submit(create(), Answer())
    mirror.close()


def test_a_mirror_without_redis_is_the_store_alone(tmp_path: Path) -> None:
    events = Events()
    mirror = RedisMirror(
        SqliteStore(str(tmp_path / "sessions.db"), full=False), f"redis://127.0.0.1:{free_port()}/0", log=events
    )
    assert made(mirror, create()) == session()
    assert made(mirror, checkpoint("one", (0, 5))) is True
    assert list(mirror.outstanding()) == [("one", 10, 5)]
    events.wait("redis_lost")
    mirror.close()
    mirror.close()
    assert events.names == ["redis_lost"]


def test_a_coordinator_without_redis_answers_at_once_and_closes() -> None:
    events = Events()
    coordinator = RedisCoordinator(f"redis://127.0.0.1:{free_port()}/0", node="node", log=events)
    coordinator.start(lambda _upload, _released: None, lambda _upload: None)
    events.wait("redis_lost")
    replies: list[bool] = []
    coordinator.ask("upload", replies.append)
    assert replies == [False]
    coordinator.tell("upload")
    coordinator.close()
    assert events.names == ["redis_lost"]
