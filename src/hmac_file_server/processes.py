"""Several server processes on one port: a parent that only watches, children that serve.

The parent holds the listening sockets and the store's lock, so that neither is lost when a child dies. A
child ends when its end of the lifeline pipe closes: the parent is gone then, however it went.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Final

from hmac_file_server.telemetry import events
from hmac_file_server.telemetry.log import event

Serve = Callable[[int, int], int]
"""Serves as process `index` until told to stop; gets the lifeline's descriptor; returns the exit status.

It starts with `HANDLED` blocked and unblocks them when its handlers are in place.
"""

HANDLED: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})

_QUICK_DEATH: Final = 1.0
# A first child that gives up within this time could not start, and no other will.
_STARTING: Final = 5.0
_SIGNALS: Final = HANDLED | {signal.SIGCHLD}


class Supervisor:
    """The parent of the server processes."""

    def __init__(self, count: int, serve: Serve, *, on_reload: Callable[[], bool], on_stop: Callable[[], None]) -> None:
        """`on_reload` checks a new configuration in the parent; only a good one reaches the children.

        `on_stop` is called once, in the parent, when the children are told to end.
        """
        self._count = count
        self._serve = serve
        self._on_reload = on_reload
        self._on_stop = on_stop
        self._children: dict[int, int] = {}
        self._started: dict[int, float] = {}
        self._starts = 0
        self._lifeline_read, self._lifeline_write = os.pipe2(os.O_CLOEXEC)

    def run(self) -> int:
        """Start the children and watch them until a signal ends it. Returns the exit status.

        A child that dies is replaced, unless it is one of the first and said at once that it cannot serve.
        """
        # Signals are waited for, not handled: nothing can come between a check and a wait.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        for index in range(self._count):
            self._start(index)
        stopping = False
        worst = 0
        while self._children:
            received = signal.sigwait(_SIGNALS)
            if received == signal.SIGHUP:
                if not stopping and self._on_reload():
                    self._send(signal.SIGHUP)
            elif received != signal.SIGCHLD:
                if not stopping:
                    stopping = True
                    self._on_stop()
                    self._send(signal.SIGTERM)
            else:
                for index, status in self._reap():
                    if stopping:
                        worst = max(worst, status)
                    elif status == 1 and self._starts == self._count and self._age(index) < _STARTING:
                        stopping = True
                        worst = 1
                        self._on_stop()
                        self._send(signal.SIGTERM)
                    else:
                        event(events.PROCESS_ENDED, process=index, status=status)
                        # A child that cannot live is not started in a tight loop.
                        time.sleep(max(0.0, _QUICK_DEATH - self._age(index)))
                        self._start(index)
        os.close(self._lifeline_read)
        os.close(self._lifeline_write)
        return min(worst, 1)

    def _age(self, index: int) -> float:
        return time.monotonic() - self._started[index]

    def _start(self, index: int) -> None:
        self._started[index] = time.monotonic()
        self._starts += 1
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(self._lifeline_write)
                # The other signals wait until the child can handle them.
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
                status = self._serve(index, self._lifeline_read)
            except BaseException as error:
                event(events.SERVER_FAILED, reason=f"process {index}", exc=error)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                # Not the parent's clean-up.
                os._exit(status)
        self._children[pid] = index
        event(events.PROCESS_STARTED, process=index, pid=pid)

    def _send(self, number: int) -> None:
        for pid in self._children:
            os.kill(pid, number)

    def _reap(self) -> list[tuple[int, int]]:
        ended = []
        for pid in list(self._children):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                ended.append((self._children.pop(pid), os.waitstatus_to_exitcode(status) or 0))
        return [(index, abs(status)) for index, status in ended]
