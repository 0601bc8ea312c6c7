"""The server: the rooms put together, one event loop a process."""

import asyncio
import contextlib
import functools
import gc
import importlib
import os
import resource
import signal
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Final

from hmac_file_server import __version__
from hmac_file_server.auth import Gate, KeyRefused, KeyRing, Refusal
from hmac_file_server.clock import SystemClock
from hmac_file_server.config import ConfigError, Loaded, Settings, apply_live, reload_diff, with_secret
from hmac_file_server.config.base_paths import BasePaths
from hmac_file_server.files.contract import StorageError, StoreInUse
from hmac_file_server.files.local import LocalFileStore
from hmac_file_server.files.locking import lock
from hmac_file_server.files.space import SharedCounters
from hmac_file_server.http import Exchange, Limits, Listener
from hmac_file_server.http.connection import Connection
from hmac_file_server.http.exchange import CUT
from hmac_file_server.http.listener import OnDone, ignore_done
from hmac_file_server.network import ListenFailed, Listening, TrustedProxies, listen, set_user_timeout
from hmac_file_server.network.handoff import Handoff
from hmac_file_server.processes import HANDLED, Supervisor
from hmac_file_server.protocols import Application
from hmac_file_server.protocols.answers import COMMON_HEAD
from hmac_file_server.protocols.resources import logged_path
from hmac_file_server.resilience import Resilience
from hmac_file_server.sessions import Sessions, gauges
from hmac_file_server.stores.contract import StoreError
from hmac_file_server.telemetry import events, log
from hmac_file_server.telemetry.access import AccessLog
from hmac_file_server.telemetry.thinning import Thinning
from hmac_file_server.workers import PoolSize, WorkerPool, done_by

_DRAIN_SECONDS: Final = 8.0
_FLUSH_SECONDS: Final = 0.25
_EXPIRY_SECONDS: Final = 60.0
_SPARE_DESCRIPTORS: Final = 128
# A slow upload holds its socket, the body loop's duplicate of it, and its spool.
_DESCRIPTORS_PER_CONNECTION: Final = 3
_PROCESSES_MAX: Final = 16
_GC_THRESHOLDS: Final = (20_000, 50, 50)
# So long may the workers' queue stay full before new uploads are told to come back later.
_FULL_SECONDS: Final = 5.0
_WORKERS: Final = "workers"
# Lines a second of requests that their clients, or their networks, have cut.
_CUT_LINES: Final = 10
# What is logged as the status of a request whose client left before its answer.
_LEFT: Final = 499

Reload = Callable[[], Loaded]
OnListening = Callable[[Settings, tuple[str, ...]], None]


def run(loaded: Loaded, reload: Reload | None = None, on_listening: OnListening | None = None) -> int:
    """Serve until a signal ends it. Returns the exit status: 0, or 1 with one line in the log.

    `on_listening(settings, addresses)` is called once connections are accepted.
    `reload` loads the configuration anew at SIGHUP; without it SIGHUP only opens the log file again.
    """
    settings = loaded.settings
    log.event(events.SERVER_STARTING, version=__version__, storage_path=settings.server.storage_path)
    count = process_count(settings)
    _raise_descriptor_limit()
    try:
        loaded, new_secret = with_secret(loaded)
        settings = loaded.settings
        if new_secret is not None:
            log.event(events.SECRET_CREATED, path=new_secret)
        gate_of(settings)
        tls_of(settings)
        store_lock = lock(settings.server.storage_path, shared=settings.redis.enabled)
        listening = listen(
            settings.server.listen_address,
            count,
            mptcp=settings.server.mptcp,
            user_timeout=user_timeout(settings),
        )
    except (ConfigError, ListenFailed, StoreInUse, StorageError, KeyRefused, OSError, ValueError) as error:
        log.event(events.SERVER_FAILED, reason=_reason(error))
        return 1
    for address in listening.addresses:
        log.event(events.SERVER_LISTENING, address=address)
    if on_listening is not None:
        on_listening(settings, listening.addresses)
    shared = Shared(SharedCounters(count), gauges(count), Handoff(count))
    # Requests leave no cycles behind; what was imported need not be looked through for them again and again. To be done
    # before the fork: a collection writes to every object, and what no process writes to, all of them share.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    try:
        if count == 1:
            return _serve(settings, listening, shared, reload, 0, -1)
        supervisor = Supervisor(
            count,
            functools.partial(_serve, settings, listening, shared, reload),
            on_reload=functools.partial(_check_reload, reload),
            on_stop=listening.close,
        )
        status = supervisor.run()
        log.event(events.SERVER_STOPPED)
        return status
    finally:
        shared.handoff.close()
        listening.close()
        store_lock.release()


@dataclass(frozen=True, slots=True)
class Shared:
    """What the processes of a server share, made before the fork."""

    counters: SharedCounters
    gauges: "memoryview[int]"
    handoff: Handoff


def process_count(settings: Settings) -> int:
    """How many processes serve: as set, or one a core."""
    wanted = settings.server.processes
    if wanted == "auto":
        return max(1, min(_PROCESSES_MAX, len(os.sched_getaffinity(0))))
    return wanted


def gate_of(settings: Settings) -> Gate:
    """The gate that the settings describe. Raises KeyRefused."""
    security = settings.security
    jwt = KeyRing([secret.reveal() for secret in security.jwt_secret]) if security.jwt_secret else None
    delete = security.delete_secret
    return Gate(
        KeyRing([secret.reveal() for secret in security.secret]),
        base_paths=BasePaths(settings.server.base_path),
        clock=SystemClock(),
        schemes=security.schemes,
        strict_signatures=security.strict_signatures,
        jwt_keys=jwt,
        delete_secret=None if delete is None else delete.reveal(),
    )


def tls_of(settings: Settings) -> ssl.SSLContext | None:
    """The TLS context, or None for plain HTTP. Raises OSError, ValueError."""
    certificate, key = settings.server.tls_certificate, settings.server.tls_key
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate, key)
    return context


def applied(old: Settings, new: Settings) -> tuple[Settings, tuple[str, ...], tuple[str, ...]]:
    """`old` with what a running server can take of `new`; the keys that it took, and those that need a restart."""
    settings = apply_live(old, new)
    live, restart = reload_diff(old, new)
    if (old.server.tls_certificate is None) is not (new.server.tls_certificate is None):
        # Certificates can be renewed; a listener neither begins nor ceases to speak TLS.
        server = replace(settings.server, tls_certificate=old.server.tls_certificate, tls_key=old.server.tls_key)
        settings = replace(settings, server=server)
        restart += tuple(key for key in live if key.startswith("server.tls_"))
        live = tuple(key for key in live if not key.startswith("server.tls_"))
    return settings, live, restart


def user_timeout(settings: Settings) -> float:
    """Seconds after which a peer that acknowledges nothing is given up: later than one that reads slowly."""
    return max(60.0, settings.timeouts.stall_timeout) + 30.0


def limits_of(settings: Settings) -> Limits:
    """The connection limits that the settings and the descriptor limit allow."""
    timeouts = settings.timeouts
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return Limits(
        header_timeout=timeouts.header_timeout,
        read_timeout=timeouts.readtimeout,
        write_timeout=timeouts.writetimeout,
        idle_timeout=timeouts.idletimeout,
        stall_timeout=timeouts.stall_timeout,
        send_stall_timeout=max(60.0, timeouts.stall_timeout),
        min_rate=timeouts.min_rate,
        min_rate_grace=max(10.0, timeouts.stall_timeout),
        max_connections=max(16, (descriptors - _SPARE_DESCRIPTORS) // _DESCRIPTORS_PER_CONNECTION),
    )


class Server:
    """One serving process."""

    def __init__(
        self, settings: Settings, listening: Listening, shared: Shared, reload: Reload | None, index: int
    ) -> None:
        self._settings = settings
        self._listening = listening
        self._shared = shared
        self._reload = reload
        self._index = index
        self._stop: asyncio.Event | None = None
        self._signal = ""
        self._clock = SystemClock()
        self._access = self._access_log(settings)
        self._cut = Thinning(_CUT_LINES, now=self._clock.monotonic)
        self._proxies = TrustedProxies(settings.server.trusted_proxies)

    async def serve(self, lifeline: int) -> None:
        """Serve until SIGTERM, SIGINT or the end of the lifeline; then drain."""
        settings = self._settings
        loop = asyncio.get_running_loop()
        stop = self._stop = asyncio.Event()
        pool = WorkerPool(
            PoolSize(
                base=settings.workers.numworkers,
                most=max(settings.workers.numworkers, settings.workers.max_workers),
                grow_at=settings.server.worker_scale_up_thresh,
                shrink_at=settings.server.worker_scale_down_thresh,
                dynamic=settings.server.enable_dynamic_workers,
            ),
            on_resize=_log_resize,
            queue_size=settings.workers.uploadqueuesize,
            on_full=self._workers_full,
        )
        self._pool = pool
        store = self._store = self._open_store(pool)
        self._sessions = Sessions(
            settings,
            store,
            clock=self._clock,
            submit=pool.submit,
            slot=self._index,
            slots=self._shared.counters.slots,
            gauges=self._shared.gauges,
        )
        self._application = Application(
            settings,
            store=store,
            engine=self._sessions.engine,
            gate=gate_of(settings),
            clock=self._clock,
            random=os.urandom,
            submit=pool.submit,
            call_soon=self._call_soon,
            call_later=self._sessions.call_later,
            give=self._shared.handoff.send,
            ready=self._why_not_ready,
            busy=self._busy,
            on_refusal=self._refused,
        )
        self._tls = tls_of(settings)
        self._http = Listener(
            self._application.handle,
            limits_of(settings),
            body_loops=max(1, min(4, len(os.sched_getaffinity(0)))),
            common_head=COMMON_HEAD,
            on_done=self._on_done(),
            on_refused=_log_malformed,
            # Plain connections inherit it of a plain listener, and nothing of one that offers Multipath TCP.
            on_connect=self._set_options if settings.server.mptcp else None,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_on, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload_now)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        if lifeline >= 0:
            loop.add_reader(lifeline, self._parent_gone, lifeline)
        # What was acknowledged before is promised its space before anybody is promised more.
        await self._sessions.start()
        await self._http.start(list(self._listening.sockets[self._index]), self._tls)
        inbox = self._shared.handoff.inbox(self._index)
        loop.add_reader(inbox.fileno(), self._adopt)
        self._resilience = Resilience(settings, self._http, self._sessions.engine, loud=self._index == 0)
        flusher = loop.create_task(self._flush_often())
        expiry = loop.create_task(self._expire_often(pool)) if self._index == 0 else None
        if self._index == 0:
            log.event(events.SERVER_READY, processes=len(self._listening.sockets))
        await stop.wait()
        if self._index == 0:
            log.event(events.SERVER_STOPPING, signal=self._signal, requests=len(self._http.connections))
        self._resilience.stop()
        await self._http.stop(_DRAIN_SECONDS)
        loop.remove_reader(inbox.fileno())
        flusher.cancel()
        if expiry is not None:
            expiry.cancel()
        await self._sessions.stop()
        await loop.run_in_executor(None, pool.close)
        await loop.run_in_executor(None, self._sessions.close)
        await loop.run_in_executor(None, store.close)
        self._flush(last=True)

    # ---- parts

    def _open_store(self, pool: WorkerPool) -> LocalFileStore:
        settings = self._settings
        return LocalFileStore(
            settings.server.storage_path,
            durability=settings.uploads.durability,
            dedup=settings.deduplication.enabled,
            dedup_max_size=settings.deduplication.maxsize,
            dedup_hash=settings.deduplication.hash,
            min_free_bytes=settings.server.min_free_bytes,
            file_ttl=settings.server.file_ttl,
            clock=self._clock,
            submit=pool.submit,
            log=log.named,
            counters=self._shared.counters,
            slot=self._index,
        )

    def _access_log(self, settings: Settings) -> AccessLog:
        sink = log.configure(settings.logging)
        return AccessLog(sink.write, log.shows(events.REQUEST), format=settings.logging.format, now=self._clock.time)

    def _on_done(self) -> OnDone:
        return self._done if log.shows(events.REQUEST) else ignore_done

    def _done(self, exchange: Exchange, status: int, sent: int) -> None:
        cut = status == _LEFT or (exchange.body == CUT and status < 500)
        if cut and not log.shows(events.UPLOAD_STORED) and not self._cut.lets():
            return
        request = exchange.request
        self._access.record(
            request.method,
            logged_path(request.path),
            status,
            exchange.received,
            sent,
            self._clock.monotonic() - exchange.started,
            self._client(exchange),
            exchange.request_id,
            exchange.owner,
        )

    def _client(self, exchange: Exchange) -> str:
        return self._proxies.client(exchange.peer, exchange.request.header(b"x-forwarded-for"))

    def _refused(self, exchange: Exchange, refusal: Refusal) -> None:
        log.event(
            events.SIGNATURE_REFUSED,
            peer=self._client(exchange),
            method=exchange.request.method,
            path=logged_path(exchange.request.path),
            reason=f"{refusal.reason}: {refusal.detail_log}",
            request_id=exchange.request_id,
        )

    def _why_not_ready(self) -> str | None:
        if self._http.draining:
            return "stopping"
        try:
            self._store.admit(0).release()
        except StorageError as error:
            return error.code
        return None

    def _call_soon(self, callback: Callable[..., None], *arguments: object) -> None:
        self._http.call_soon(callback, *arguments)

    def _set_options(self, sock: Any) -> None:
        set_user_timeout(sock, user_timeout(self._settings))

    def _adopt(self) -> None:
        """Take a connection that another process was reached by."""
        while (given := self._shared.handoff.receive(self._index)) is not None:
            self._http.adopt_socket(*given)

    def _busy(self) -> bool:
        since = self._pool.full_since
        return since is not None and self._clock.monotonic() - since > _FULL_SECONDS

    def _workers_full(self, full: bool) -> None:
        """Called on any thread: a full queue holds the sockets that feed it."""
        if full:
            self._http.pause_bodies(_WORKERS)
        else:
            self._http.resume_bodies(_WORKERS)
        log.event(events.WORKERS_FULL if full else events.WORKERS_FREE, waiting=self._pool.waiting)

    async def _flush_often(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            self._flush()

    def _flush(self, *, last: bool = False) -> None:
        """Write what was gathered of requests, and how many of them are not in the log."""
        self._access.flush()
        withheld = self._cut.withheld(last=last)
        if withheld:
            log.event(events.REQUESTS_CUT, count=withheld)

    async def _expire_often(self, pool: WorkerPool) -> None:
        while True:
            await done_by(pool.submit, self._expire)
            ttl = self._settings.server.file_ttl
            await asyncio.sleep(_EXPIRY_SECONDS if ttl is None else max(1.0, min(_EXPIRY_SECONDS, ttl / 10)))

    def _expire(self) -> None:
        try:
            self._store.expire(self._clock.time())
        except StorageError as error:
            log.event(events.STORAGE_FAILED, path="-", reason=error.code, exc=error)

    # ---- signals

    def _stop_on(self, number: int) -> None:
        self._signal = signal.Signals(number).name
        if self._stop is not None:
            self._stop.set()

    def _parent_gone(self, lifeline: int) -> None:
        asyncio.get_running_loop().remove_reader(lifeline)
        self._signal = "the end of its parent"
        if self._stop is not None:
            self._stop.set()

    def _reload_now(self) -> None:
        """Take what can be taken of a new configuration; keep serving with the old one if it is bad."""
        loud = self._index == 0
        if self._reload is None:
            self._reopen_log()
            return
        self._access.flush()
        try:
            new = with_secret(self._reload())[0].settings
            settings, live, restart = applied(self._settings, new)
            gate = gate_of(settings)
            # A certificate that does not fit its key is refused before the old one is touched.
            tls_of(new)
            if self._tls is not None and settings.server.tls_certificate is not None:
                # New handshakes use the new certificate; established connections go on.
                self._tls.load_cert_chain(settings.server.tls_certificate, settings.server.tls_key)
            # The last that can fail: once the new log is open, the old one is closed.
            self._access = self._access_log(settings)
        except (ConfigError, KeyRefused, OSError, ValueError) as error:
            if loud:
                log.event(events.CONFIG_REFUSED, reason=_reason(error))
            return
        self._settings = settings
        self._proxies = TrustedProxies(settings.server.trusted_proxies)
        self._application.configure(settings, gate)
        self._sessions.configure(settings)
        self._resilience.configure(settings)
        self._http.configure(limits_of(settings))
        self._http.on_done = self._on_done()
        self._store.configure(
            min_free_bytes=settings.server.min_free_bytes,
            file_ttl=settings.server.file_ttl,
            dedup=settings.deduplication.enabled,
            dedup_max_size=settings.deduplication.maxsize,
        )
        if loud:
            log.event(events.CONFIG_RELOADED, keys=", ".join(live) or "nothing")
            if restart:
                log.event(events.CONFIG_RESTART_NEEDED, keys=", ".join(restart))

    def _reopen_log(self) -> None:
        with contextlib.suppress(OSError):
            log.reopen()


def _serve(
    settings: Settings, listening: Listening, shared: Shared, reload: Reload | None, index: int, lifeline: int
) -> int:
    """Be one serving process. Returns the exit status."""
    listening.keep_only(index)
    shared.handoff.keep_only(index)
    try:
        _run_loop(Server(settings, listening, shared, reload, index).serve(lifeline))
    except (StorageError, StoreError) as error:
        log.event(events.SERVER_FAILED, reason=_reason(error), exc=error)
        return 1
    if lifeline < 0:
        log.event(events.SERVER_STOPPED)
    return 0


def _run_loop(main: Coroutine[Any, Any, None]) -> None:
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        # Large bodies are as fast without it, short ones take half as long again.
        asyncio.run(main)
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)


def _check_reload(reload: Reload | None) -> bool:
    """Whether the children should reload; the parent's own log is the new one then."""
    if reload is None:
        with contextlib.suppress(OSError):
            log.reopen()
        return True
    try:
        new = with_secret(reload())[0].settings
        gate_of(new)
        tls_of(new)
        log.configure(new.logging)
    except (ConfigError, KeyRefused, OSError, ValueError) as error:
        log.event(events.CONFIG_REFUSED, reason=_reason(error))
        return False
    return True


def _raise_descriptor_limit() -> None:
    """As many descriptors as the system lets this process have: each connection needs a few."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _log_resize(old: int, new: int, waiting: int) -> None:
    kind = events.WORKERS_GROWN if new > old else events.WORKERS_SHRUNK
    log.event(kind, workers=new, waiting=waiting)


def _log_malformed(connection: Connection, status: int, code: str) -> None:
    log.event(events.REQUEST_MALFORMED, peer=connection.peer, reason=code, status=status)
