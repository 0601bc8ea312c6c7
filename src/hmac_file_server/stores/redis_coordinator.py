"""Servers that share a storage folder ask each other over Redis pub/sub to let go of an upload.

Three channels: everybody hears `release` and `progress`, and each process has one of its own for answers. A
question is over when as many have answered as Redis says it reached; it then goes to the lock on the
upload's file, which decides. Without Redis every question is answered with False at once, and the newcomer
waits for that lock as if there were no coordinator.
"""

import queue
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Literal, TypeAlias

import msgspec

from hmac_file_server.stores.contract import Log
from hmac_file_server.stores.redis_client import PREFIX, Backoff, in_words, redis_client

OnRelease: TypeAlias = Callable[[str, Callable[[], None]], None]
OnProgress: TypeAlias = Callable[[str], None]

_ANSWER_WITHIN: Final = 1.0
_PATIENCE: Final = 0.4
_SLICE: Final = 0.5
_SILENCE: Final = 5.0
_MUTE: Final = 1.0
_PROGRESS: Final = 4096


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """What goes over the channels, as JSON.

    kind     release: let go of `upload`; released: the answer to `request`; progress: `upload` grew
    node     the process that says it
    """

    kind: Literal["release", "released", "progress"]
    node: str
    upload: str = ""
    request: str = ""


class _Question:
    """One that we asked."""

    __slots__ = ("answered", "asked", "done", "until")

    def __init__(self, done: Callable[[bool], None]) -> None:
        self.done = done
        self.until = time.monotonic() + _ANSWER_WITHIN
        self.asked: int | None = None
        """How many it reached, once Redis said so."""
        self.answered: set[str] = set()

    @property
    def settled(self) -> bool:
        return self.asked is not None and len(self.answered) >= self.asked


class RedisCoordinator:
    """The coordinator of one process. Any thread may call."""

    def __init__(self, url: str, *, node: str, prefix: str = PREFIX, log: Log | None = None) -> None:
        """`node` names the process for people; it need not be unique. Raises StoreError for a URL that is none."""
        self._sending = redis_client(url, patience=_PATIENCE)
        self._listening = redis_client(url, patience=_PATIENCE)
        self._url = url
        self._node = f"{node}:{secrets.token_hex(8)}"
        self._release = prefix + "release"
        self._progress = prefix + "progress"
        self._answers = prefix + "node:"
        self._log = log
        self._lost = False
        self._on_release: OnRelease | None = None
        self._on_progress: OnProgress | None = None
        self._stop = threading.Event()
        self._outgoing: queue.SimpleQueue[tuple[str, Message] | None] = queue.SimpleQueue()
        # All below is guarded by it.
        self._lock = threading.Lock()
        self._up = False
        self._mute_until = 0.0
        self._questions: dict[str, _Question] = {}
        self._grown: dict[str, None] = {}
        self._threads: list[threading.Thread] = []

    # -- the contract

    def start(self, on_release: OnRelease, on_progress: OnProgress) -> None:
        """See the contract. Both are called on a thread that everybody's questions wait for."""
        with self._lock:
            if self._threads or self._stop.is_set():
                return
            self._on_release, self._on_progress = on_release, on_progress
            self._threads = [
                threading.Thread(target=self._listen, name="hmac-file-server-hear", daemon=True),
                threading.Thread(target=self._send, name="hmac-file-server-tell", daemon=True),
            ]
            for thread in self._threads:
                thread.start()

    @property
    def connected(self) -> bool:
        """Whether others can be asked."""
        return self._up

    def ask(self, upload_id: str, done: Callable[[bool], None], /) -> None:
        """See the contract."""
        with self._lock:
            possible = self._up and time.monotonic() >= self._mute_until
            if possible:
                request = secrets.token_hex(8)
                self._questions[request] = _Question(done)
        if possible:
            self._outgoing.put((self._release, Message("release", self._node, upload_id, request)))
        else:
            self._reply(done, answer=False)

    def tell(self, upload_id: str, /) -> None:
        """See the contract. What is said of one upload in quick succession is said once."""
        with self._lock:
            if not self._up or len(self._grown) >= _PROGRESS:
                return
            first = not self._grown
            self._grown[upload_id] = None
        if first:
            self._outgoing.put((self._progress, Message("progress", self._node)))

    def close(self) -> None:
        """See the contract. Questions that nobody answered yet are answered with False."""
        with self._lock:
            self._stop.set()
            threads, self._threads = self._threads, []
        # Heard by ourselves: the listening side need not wait for its time to be over.
        self._outgoing.put((self._answers + self._node, Message("released", self._node)))
        self._outgoing.put(None)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()
        self._disconnect()
        self._sending.close()
        self._listening.close()

    # -- listening

    def _listen(self) -> None:
        backoff = Backoff()
        while not self._stop.is_set():
            try:
                self._subscribe(backoff)
            except Exception as error:  # whatever redis-py raises on whatever a server answers
                self._disconnect()
                if not self._stop.is_set():
                    self._note(error)
                self._stop.wait(backoff.next())
        self._disconnect()

    def _subscribe(self, backoff: Backoff) -> None:
        channels = [self._release, self._progress, self._answers + self._node]
        with self._listening.pubsub() as subscription:
            subscription.subscribe(*channels)
            heard = time.monotonic()
            pinged = False
            while not self._stop.is_set():
                message = subscription.get_message(timeout=_SLICE)
                now = time.monotonic()
                if message is None:
                    if now - heard > (2 if pinged else 1) * _SILENCE:
                        if pinged:
                            raise TimeoutError("Redis does not answer")
                        subscription.ping()
                        pinged = True
                    continue
                heard, pinged = now, False
                if message["type"] == "subscribe" and message["data"] == len(channels):
                    backoff.reset()
                    self._connect()
                elif message["type"] == "message":
                    self._hear(message["data"])

    def _connect(self) -> None:
        with self._lock:
            self._up = True
            self._mute_until = 0.0
        self._note(None)

    def _disconnect(self) -> None:
        with self._lock:
            self._up = False
        self._give_up(time.monotonic() + _ANSWER_WITHIN)

    def _hear(self, data: bytes) -> None:
        try:
            message = msgspec.json.decode(data, type=Message)
        except msgspec.MsgspecError:
            return  # of another version, or of somebody else
        if message.node == self._node:
            return
        if message.kind == "released":
            self._settle(message.request, answer=message.node)
        elif message.kind == "release" and self._on_release is not None:
            self._guard(self._on_release, message.upload, self._answer(message))
        elif message.kind == "progress" and self._on_progress is not None:
            self._guard(self._on_progress, message.upload)

    def _answer(self, question: Message) -> Callable[[], None]:
        """Tells whoever asked, once, that the upload was let go."""
        answer = (self._answers + question.node, Message("released", self._node, request=question.request))
        said = iter([answer])

        def released() -> None:
            for each in said:
                self._outgoing.put(each)

        return released

    # -- sending

    def _send(self) -> None:
        while True:
            with self._lock:
                first = next(iter(self._questions.values()), None)
            try:
                item = self._outgoing.get(timeout=None if first is None else max(0.0, first.until - time.monotonic()))
            except queue.Empty:
                pass
            else:
                if item is None:
                    return
                self._try_to_publish(*item)
            self._give_up(time.monotonic())

    def _try_to_publish(self, channel: str, message: Message) -> None:
        if self._stop.is_set() and channel != self._answers + self._node:
            return  # each might take its time
        try:
            self._publish(channel, message)
        except Exception as error:  # whatever redis-py raises on whatever a server answers
            self._fall_silent(error)
        else:
            if self._lost and self._up:
                self._note(None)

    def _publish(self, channel: str, message: Message) -> None:
        if message.kind == "progress":
            with self._lock:
                grown, self._grown = self._grown, {}
            pipeline = self._sending.pipeline(transaction=False)
            for upload in grown:
                pipeline.publish(channel, msgspec.json.encode(Message("progress", self._node, upload)))
            pipeline.execute()
            return
        if message.kind == "release":
            with self._lock:
                if message.request not in self._questions:
                    return  # too late
        reached: int = self._sending.publish(channel, msgspec.json.encode(message))
        if message.kind == "release":
            self._settle(message.request, asked=reached - 1)  # ourselves

    def _fall_silent(self, error: Exception) -> None:
        """Nobody can be asked for a moment. The listening side notices on its own when Redis is gone."""
        with self._lock:
            self._mute_until = time.monotonic() + _MUTE
            self._grown.clear()
        if not self._stop.is_set():
            self._note(error)
        self._give_up(time.monotonic() + _ANSWER_WITHIN)

    # -- questions

    def _settle(self, request: str, *, asked: int | None = None, answer: str | None = None) -> None:
        with self._lock:
            question = self._questions.get(request)
            if question is None:
                return
            if asked is not None:
                question.asked = asked
            if answer is not None:
                question.answered.add(answer)
            if not question.settled:
                return
            del self._questions[request]
        self._reply(question.done, answer=bool(question.answered))

    def _give_up(self, now: float) -> None:
        """Answer the questions whose time was over by `now`."""
        with self._lock:
            over = [request for request, question in self._questions.items() if question.until <= now]
            questions = [self._questions.pop(request) for request in over]
        for question in questions:
            self._reply(question.done, answer=False)

    def _reply(self, done: Callable[[bool], None], *, answer: bool) -> None:
        self._guard(done, answer)

    def _guard(self, callback: Callable[..., None], *arguments: Any) -> None:
        try:
            callback(*arguments)
        except Exception as error:
            self._say("coordinator_callback_failed", error=repr(error))

    def _note(self, error: Exception | None) -> None:
        """Log one line when Redis is lost, on either side, and one when it is back."""
        with self._lock:
            changed = self._lost == (error is None)
            self._lost = error is not None
        if not changed:
            return
        if error is None:
            self._say("redis_back")
        else:
            self._say("redis_lost", error=in_words(error, self._url))

    def _say(self, event: str, **fields: object) -> None:
        if self._log is not None:
            with suppress(Exception):
                self._log(event, **fields)
