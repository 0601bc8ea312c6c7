"""What a process does when the network changes: hold running uploads for a moment, close what can never go on."""

import asyncio
from collections.abc import Callable
from typing import Final

from hmac_file_server.config import NetworkResilience, Settings
from hmac_file_server.http import Listener
from hmac_file_server.network.addresses import Snapshot
from hmac_file_server.network.gate import PauseGate
from hmac_file_server.network.monitor import Monitor
from hmac_file_server.telemetry import events, log
from hmac_file_server.uploads import Engine

PAUSED: Final = "network"
_TELL_SECONDS: Final = 1.0


class Resilience:
    """Watches the network of one process. Made and used on its event loop; `loud`: this one writes the log."""

    def __init__(self, settings: Settings, listener: Listener, engine: Engine, *, loud: bool) -> None:
        self._listener = listener
        self._engine = engine
        self._loud = loud
        self._loop = asyncio.get_running_loop()
        self._told_at = float("-inf")
        self._times: NetworkResilience | None = None
        self._gate: PauseGate | None = None
        self._monitor: Monitor | None = None
        if settings.server.networkevents:
            self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Watch with these times from now on, unless it is switched off."""
        times = settings.network_resilience
        if times == self._times or not settings.server.networkevents:
            return
        self.stop()
        self._times = times
        loop = self._loop
        self._gate = PauseGate(
            times.stabilization_delay,
            times.max_pause,
            call_later=loop.call_later,
            monotonic=loop.time,
            on_pause=self._pause,
            on_resume=self._resume,
        )
        self._monitor = Monitor(loop, self._changed, times.poll_interval, log=_log_if(self._loud))
        self._monitor.start()

    def stop(self) -> None:
        """Watch no more; nothing stays paused."""
        if self._monitor is not None:
            self._monitor.stop()
        if self._gate is not None:
            self._gate.close()

    def _changed(self, old: Snapshot, new: Snapshot) -> None:
        now = self._loop.time()
        if self._loud and now - self._told_at >= _TELL_SECONDS:
            # A network that flaps says so once a second, not twenty times.
            self._told_at = now
            log.event(events.NETWORK_CHANGED)
        if old.addresses - new.addresses:
            # Their clients can reach these connections no more; the sooner they end, the sooner clients come back.
            closed = self._listener.close_vanished(new.addresses)
            if closed:
                log.event(events.ADDRESSES_VANISHED, connections=closed)
        if self._gate is not None:
            self._gate.changed()

    def _pause(self) -> None:
        if self._loud:
            log.event(events.UPLOADS_PAUSED)
        self._engine.flush_all()
        self._listener.pause_bodies(PAUSED)

    def _resume(self) -> None:
        self._listener.resume_bodies(PAUSED)
        if self._loud:
            log.event(events.UPLOADS_RESUMED)


def _log_if(loud: bool) -> Callable[..., None]:
    return log.named if loud else _silent


def _silent(_event: str, /, **_fields: object) -> None:
    pass
