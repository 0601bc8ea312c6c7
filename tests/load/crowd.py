"""Many connections at once, held by one thread: slow bodies, resets, and everybody coming back within seconds.

`Crowd` holds them in this process; `CrowdProcess` in one of its own (`python -m tests.load.crowd HOST PORT`), so that
what is measured beside them does not wait for them.
"""

from __future__ import annotations

import contextlib
import json
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]
_RESET: Final = struct.pack("ii", 1, 0)
# A connection from each of these in turn: one address alone has no more than 28,000 ports.
SOURCES: Final = tuple(f"127.0.0.{number}" for number in range(2, 10))
_SLICES: Final = 20
_STORM_SECONDS: Final = 60.0


def allow_descriptors() -> int:
    """Raise the limit of this process to what it may have, or further where the system allows; the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@dataclass(frozen=True, slots=True)
class Storm:
    """What became of requests that came all at once; latencies in seconds, from the connect to the answer."""

    answered: int
    statuses: dict[str, int]
    p50: float
    p99: float
    most: float


class Crowd:
    """Connections to one server."""

    def __init__(self, host: str, port: int) -> None:
        self._place = (host, port)
        self.sockets: list[socket.socket] = []
        self.sent = 0
        self.refused = 0

    def connect(self, source: int) -> socket.socket:
        """One more connection, from the address whose turn it is."""
        sock = socket.socket()
        try:
            sock.settimeout(20)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Ports are chosen with the connection's other end, not reserved for all of them.
            sock.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
            sock.bind((SOURCES[source % len(SOURCES)], 0))
            sock.connect(self._place)
        except BaseException:
            sock.close()
            raise
        return sock

    def join(self, requests: Sequence[bytes]) -> None:
        """A connection for each request, which is sent."""
        for number, request in enumerate(requests):
            sock = self.connect(number)
            sock.sendall(request)
            sock.setblocking(False)
            self.sockets.append(sock)

    def drip(self, piece: bytes, part: int = 0, parts: int = 1) -> None:
        """Send a piece on every connection, or on one part of them."""
        for sock in self.sockets[part::parts]:
            try:
                self.sent += sock.send(piece)
            except BlockingIOError:
                continue
            except OSError:
                self.refused += 1

    def answered(self) -> int:
        """Connections on which the server has said something, or which it has ended."""
        poll = select.poll()
        for sock in self.sockets:
            poll.register(sock, select.POLLIN)
        return len(poll.poll(0))

    def said(self) -> str:
        """What the first of those was told, if any was."""
        poll = select.poll()
        places = {sock.fileno(): sock for sock in self.sockets}
        for fd in places:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(0):
            try:
                return places[fd].recv(2000, socket.MSG_PEEK).decode("latin-1") or "the end"
            except OSError as error:
                return str(error)
        return ""

    def reset(self) -> None:
        """End all of them with RST, as fast as one thread can."""
        for sock in self.sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        for sock in self.sockets:
            sock.close()
        self.sockets.clear()

    def close(self) -> None:
        """End all of them as a program does that ends."""
        for sock in self.sockets:
            sock.close()
        self.sockets.clear()

    def storm(self, requests: Sequence[bytes], seconds: float) -> Storm:
        """Each request on a connection of its own, spread over so many seconds; all answers are waited for."""
        began = time.perf_counter()
        epoll = select.epoll()
        waiting: dict[int, tuple[socket.socket, float, bytearray]] = {}
        took: list[float] = []
        statuses: dict[str, int] = {}
        next_one = 0
        try:
            while next_one < len(requests) or waiting:
                now = time.perf_counter() - began
                if now > seconds + _STORM_SECONDS:
                    break
                due = len(requests) if now >= seconds else int(len(requests) * now / seconds) + 1
                while next_one < min(due, len(requests)):
                    start = time.perf_counter()
                    sock = self.connect(next_one)
                    sock.sendall(requests[next_one])
                    sock.setblocking(False)
                    epoll.register(sock, select.EPOLLIN)
                    waiting[sock.fileno()] = (sock, start, bytearray())
                    next_one += 1
                    if next_one % 64 == 0:
                        break
                for fd, _ in epoll.poll(0 if next_one < due else 0.002):
                    sock, start, received = waiting[fd]
                    with contextlib.suppress(OSError):
                        received += sock.recv(65536)
                    status = bytes(received[9:12]).decode("ascii", "replace") or "closed"
                    statuses[status] = statuses.get(status, 0) + 1
                    took.append(time.perf_counter() - start)
                    del waiting[fd]
                    epoll.unregister(fd)
                    sock.close()
        finally:
            for sock, _, _ in waiting.values():
                sock.close()
            epoll.close()
        took.sort()
        at = len(took) - 1
        return Storm(
            answered=len(took),
            statuses=statuses,
            p50=took[at // 2] if took else 0.0,
            p99=took[at * 99 // 100] if took else 0.0,
            most=took[-1] if took else 0.0,
        )


class _Steady(threading.Thread):
    """Drips a piece a second on every connection, a slice of them at a time."""

    def __init__(self, crowd: Crowd, piece: bytes) -> None:
        super().__init__(daemon=True)
        self._crowd = crowd
        self._piece = piece
        self.halt = threading.Event()

    def run(self) -> None:
        """Until told to halt."""
        part = 0
        due = time.monotonic()
        while not self.halt.wait(max(0.0, due - time.monotonic())):
            self._crowd.drip(self._piece, part, _SLICES)
            part = (part + 1) % _SLICES
            due += 1.0 / _SLICES


class CrowdProcess:
    """A crowd in a process of its own, which goes when this one does."""

    def __init__(self, host: str, port: int) -> None:
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "tests.load.crowd", host, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
        )

    def _tell(self, **command: object) -> dict[str, object]:
        pipes = self._process.stdin, self._process.stdout
        assert pipes[0] is not None
        assert pipes[1] is not None
        pipes[0].write(json.dumps(command).encode() + b"\n")
        pipes[0].flush()
        line = pipes[1].readline()
        assert line, "the crowd has ended"
        answer = json.loads(line)
        assert isinstance(answer, dict)
        assert "error" not in answer, answer["error"]
        return answer

    def join(self, requests: Sequence[bytes]) -> None:
        """See `Crowd.join`."""
        self._tell(do="join", requests=[request.decode("latin-1") for request in requests])

    def drip(self, size: int) -> None:
        """From now on a piece of so many bytes on every connection each second; 0 ends it."""
        self._tell(do="drip", size=size)

    def state(self) -> dict[str, int]:
        """`sent` bytes of bodies, `refused` sends that failed, connections that are `answered`."""
        return {name: int(str(value)) for name, value in self._tell(do="state").items()}

    def said(self) -> str:
        """See `Crowd.said`."""
        return str(self._tell(do="said")["said"])

    def reset(self) -> None:
        """See `Crowd.reset`."""
        self._tell(do="reset")

    def storm(self, requests: Sequence[bytes], seconds: float) -> Storm:
        """See `Crowd.storm`."""
        told = self._tell(do="storm", requests=[request.decode("latin-1") for request in requests], seconds=seconds)
        return Storm(**told)  # type: ignore[arg-type]

    def close(self) -> None:
        """End it."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


def main(host: str, port: int) -> None:
    """Be a crowd: one JSON object a line in, one out."""
    allow_descriptors()
    crowd = Crowd(host, port)
    steady: _Steady | None = None
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, object] = {}
        try:
            if steady is not None and command["do"] in {"drip", "join", "reset", "storm"}:
                steady.halt.set()
                steady.join()
                steady = None
            if command["do"] == "join":
                crowd.join([request.encode("latin-1") for request in command["requests"]])
            elif command["do"] == "drip" and command["size"]:
                steady = _Steady(crowd, bytes(command["size"]))
                steady.start()
            elif command["do"] == "reset":
                crowd.reset()
            elif command["do"] == "state":
                answer = {"sent": crowd.sent, "refused": crowd.refused, "answered": crowd.answered()}
            elif command["do"] == "said":
                answer = {"said": crowd.said()}
            elif command["do"] == "storm":
                requests = [request.encode("latin-1") for request in command["requests"]]
                answer = asdict(crowd.storm(requests, command["seconds"]))
        except OSError as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
