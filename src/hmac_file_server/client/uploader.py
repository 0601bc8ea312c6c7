"""`AsyncUploader` and `Uploader`: what a program uses."""

import asyncio
import os
import random
import secrets
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from hmac_file_server.client.chunked import Chunked
from hmac_file_server.client.engine import Engine, Terms
from hmac_file_server.client.errors import UploadFailed
from hmac_file_server.client.exchanges import Http
from hmac_file_server.client.network import NetworkWatch
from hmac_file_server.client.progress import OnProgress
from hmac_file_server.client.protocol import Exchanges, Facts, NetworkShape, Remote, RemoteMaker, Result, Session
from hmac_file_server.client.put import Put
from hmac_file_server.client.retrying import BASE, CAP, Backoff
from hmac_file_server.client.source import Source
from hmac_file_server.client.state import Fingerprint, HeldEntry, StateStore, UploadHeld
from hmac_file_server.client.target import Target
from hmac_file_server.client.tus import Tus

PROTOCOLS: Final = ("chunked", "tus", "put")

Readable = str | os.PathLike[str] | BinaryIO


@dataclass(frozen=True, slots=True)
class _Options:
    protocol: str | RemoteMaker
    parallel: int
    chunk_size: int | None
    digest: bool
    piece_digests: bool
    state: StateStore | None
    on_progress: OnProgress | None
    network: NetworkShape | None
    watch_network: bool
    patience: float | None
    stall_timeout: float
    connect_timeout: float
    answer_timeout: float
    mptcp: bool
    ssl_context: ssl.SSLContext | None
    retry_delay: tuple[float, float]
    draw: Callable[[], float]
    clock: Callable[[], float]


class AsyncUploader:
    """Uploads files to one target, on the running event loop. One upload at a time for each instance.

    Raises of `upload`: `UploadFailed` and its subclasses (errors.py). An upload that was cancelled or gave up can be
    continued: by another call with the same source if there is a `state`, on another day as well.
    """

    def __init__(
        self,
        target: Target | str,
        *,
        protocol: str | RemoteMaker = "chunked",
        parallel: int = 4,
        chunk_size: int | None = None,
        digest: bool = True,
        piece_digests: bool = False,
        state: StateStore | None = None,
        on_progress: OnProgress | None = None,
        network: NetworkShape | None = None,
        watch_network: bool = True,
        patience: float | None = 600.0,
        stall_timeout: float = 5.0,
        connect_timeout: float = 5.0,
        answer_timeout: float = 20.0,
        mptcp: bool = True,
        ssl_context: ssl.SSLContext | None = None,
        retry_delay: tuple[float, float] = (BASE, CAP),
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Times in seconds. Raises ValueError for what makes no sense, TargetError for a bad link.

        target           a `Target`, or what `Target.parse` takes: an upload link, a base URL
        protocol         "chunked", "tus", "put", or what makes a protocol
        parallel         pieces at a time, each on a connection of its own
        chunk_size       bytes of one tus PATCH at most; in the chunk API the server says it
        digest           hash the file, and hold it against the digest that the server tells
        piece_digests    send a digest with every piece; then nothing is kept of one that is cut
        state            where sessions are remembered; None: nowhere
        on_progress      called on the loop, some ten times a second and when the state changes; must not raise
        network          tells of changes of the network; None: one of our own, if `watch_network`
        patience         without any progress before `GaveUp`; None: for ever
        stall_timeout    without a byte acknowledged before the server is asked, over a new connection
        connect_timeout  for one attempt to connect, TLS included
        answer_timeout   for the answer to a request without a body
        mptcp            Multipath TCP, where this system could open a second path and the server speaks it
        ssl_context      for https; None: what the system trusts
        retry_delay      least and greatest bound of the delay before another attempt, which is drawn from [0, bound)
        draw             numbers in [0, 1)
        clock            epoch seconds
        """
        if isinstance(protocol, str) and protocol not in PROTOCOLS:
            raise ValueError(f"protocol is one of {', '.join(PROTOCOLS)}")
        if not 1 <= parallel <= 64:
            raise ValueError("parallel is 1 to 64")
        if chunk_size is not None and chunk_size < 1:
            raise ValueError("chunk_size is at least one byte")
        if min(stall_timeout, connect_timeout, answer_timeout) <= 0 or (patience is not None and patience <= 0):
            raise ValueError("times are greater than 0")
        self.target = Target.parse(target) if isinstance(target, str) else target
        self._options = _Options(
            protocol,
            parallel,
            chunk_size,
            digest,
            piece_digests,
            state,
            on_progress,
            network,
            watch_network,
            patience,
            stall_timeout,
            connect_timeout,
            answer_timeout,
            mptcp,
            ssl_context,
            retry_delay,
            draw,
            clock,
        )
        self._engine: Engine | None = None
        self._last: Session | None = None
        self._running = False

    @property
    def session(self) -> Session | None:
        """The session of the upload that runs, or of the last one that did not complete."""
        return self._engine.session if self._engine is not None else self._last

    async def upload(self, source: Readable, *, name: str | None = None, media_type: str | None = None) -> Result:
        """Upload a file, or a binary file object that can seek. `name` is for people, by default the file's own."""
        if self._running:
            raise RuntimeError("this uploader is at work; use another one for another file")
        self._running = True
        try:
            opened = await asyncio.to_thread(Source, source)
            try:
                return await self._upload(opened, name, media_type)
            finally:
                opened.close()
        finally:
            self._running = False

    async def discard(self, source: Readable | None = None, *, name: str | None = None) -> bool:
        """End an unfinished upload: its bytes are dropped, its place is given back. Returns whether there was one.

        Without a source it is the latest one of this uploader; with one, that which `state` remembers for it.
        """
        session, self._last = self._last, None
        if source is None:
            if session is not None:
                await self._discard(lambda _: session)
            return session is not None
        opened = await asyncio.to_thread(Source, source)
        try:
            held = self._hold(opened, name or opened.name)
            try:
                entry = held.load() if held is not None else None
                saved = entry.session.get("session") if entry is not None else None
                if held is None or not isinstance(saved, dict):
                    return False
                facts = Facts(name or opened.name, opened.size, None, "")
                found = await self._discard(lambda remote: remote.restored(saved, facts))
                held.delete()
                return found
            finally:
                if held is not None:
                    held.close()
        finally:
            opened.close()

    async def _upload(self, source: Source, name: str | None, media_type: str | None) -> Result:
        options = self._options
        facts = Facts(name or source.name or "upload.bin", source.size, media_type, secrets.token_urlsafe(18))
        held = self._hold(source, facts.name)
        own = NetworkWatch() if options.network is None and options.watch_network else None
        http = self._http()
        try:
            if own is not None:
                own.start()
            self._engine = Engine(
                source,
                self._remote(http),
                http,
                facts,
                Terms(options.parallel, options.patience, options.stall_timeout, options.digest),
                backoff=Backoff(base=options.retry_delay[0], cap=options.retry_delay[1], draw=options.draw),
                wall=options.clock,
                held=held,
                network=options.network or own,
                on_progress=options.on_progress,
            )
            self._last = None
            result = await self._engine.run()
            self._engine = None
            return result
        finally:
            if self._engine is not None:
                self._last, self._engine = self._engine.session, None
            await http.aclose()
            if own is not None:
                own.stop()
            if held is not None:
                held.close()

    async def _discard(self, session: Callable[[Remote], Session | None]) -> bool:
        http = self._http()
        try:
            remote = self._remote(http)
            found = session(remote)
            if found is not None:
                await remote.discard(found)
            return found is not None
        finally:
            await http.aclose()

    def _hold(self, source: Source, name: str) -> HeldEntry | None:
        state, status = self._options.state, source.status
        if state is None or source.path is None or status is None:
            return None
        protocol = self._options.protocol
        word = protocol if isinstance(protocol, str) else getattr(protocol, "__qualname__", "own")
        try:
            return state.hold(Fingerprint.of(source.path, status, self.target.base_url, word, name))
        except UploadHeld as other:
            raise UploadFailed(str(other), code="already_running") from other

    def _http(self) -> Http:
        options = self._options
        return Http(
            self.target,
            context=options.ssl_context,
            connect_timeout=options.connect_timeout,
            stall_timeout=options.stall_timeout,
            answer_timeout=options.answer_timeout,
            mptcp=options.mptcp,
        )

    def _remote(self, http: Exchanges) -> Remote:
        options = self._options
        if not isinstance(options.protocol, str):
            return options.protocol(http, self.target)
        if options.protocol == "chunked":
            return Chunked(http, self.target, piece_digests=options.piece_digests)
        if options.protocol == "tus":
            return Tus(
                http,
                self.target,
                parallel=options.parallel,
                chunk_size=options.chunk_size,
                checksum="sha256" if options.piece_digests else None,
            )
        return Put(http, self.target)


class Uploader:
    """The same for programs without an event loop: every call runs one of its own, in the calling thread.

    `KeyboardInterrupt` ends an upload as cancelling does: it can be continued.
    """

    def __init__(self, target: Target | str, **options: Any) -> None:
        """Takes what `AsyncUploader` takes; `on_progress` is called in the calling thread."""
        self._uploader = AsyncUploader(target, **options)

    @property
    def target(self) -> Target:
        """Where to."""
        return self._uploader.target

    @property
    def session(self) -> Session | None:
        """As that of `AsyncUploader`."""
        return self._uploader.session

    def upload(self, source: Readable, *, name: str | None = None, media_type: str | None = None) -> Result:
        """As that of `AsyncUploader`. Raises RuntimeError inside a running event loop."""
        _alone()
        return asyncio.run(self._uploader.upload(source, name=name, media_type=media_type))

    def discard(self, source: Readable | None = None, *, name: str | None = None) -> bool:
        """As that of `AsyncUploader`. Raises RuntimeError inside a running event loop."""
        _alone()
        return asyncio.run(self._uploader.discard(source, name=name))


def _alone() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("there is a running event loop; use AsyncUploader")
