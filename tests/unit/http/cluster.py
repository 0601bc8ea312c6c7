"""Server processes that give their connections to each other; a program of its own, because it forks.

`cluster.py LOOP COUNT`: process N serves `/N/...` and hands other paths over. Its parent writes the ports as JSON,
then obeys its input: `stop N` (the process gets no more time), `kill N`, `start N`, `quit`; each is acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import zlib

import uvloop

from hmac_file_server.http import BodyEnd, Exchange, Listener, Response
from hmac_file_server.http.limits import Limits
from hmac_file_server.network.handoff import Handoff


class Sum:
    """A sink that counts its bytes and adds up their checksum."""

    def __init__(self) -> None:
        self.size = 0
        self.crc = 0

    def write(self, view: memoryview) -> None:
        self.size += len(view)
        self.crc = zlib.crc32(view, self.crc)


async def serve(index: int, sock: socket.socket, handoff: Handoff) -> None:
    def handle(exchange: Exchange) -> None:
        wanted = int(exchange.request.path.split("/")[1])
        if wanted != index:
            if not exchange.hand_over(lambda fd, data, peer: handoff.send(wanted, fd, data, peer)):
                exchange.respond(Response(503, b"", b"busy"))
            return
        sink = Sum()

        def ended(end: BodyEnd) -> None:
            document = {
                "process": index,
                "peer": exchange.peer,
                "path": exchange.request.path,
                "size": end.received,
                "crc": sink.crc,
                "cut": end.cut and end.cut.value,
            }
            exchange.respond(Response(200, b"", json.dumps(document).encode()))

        exchange.receive(sink, ended)

    def adopt() -> None:
        while (given := handoff.receive(index)) is not None:
            listener.adopt_socket(*given)

    listener = Listener(handle, Limits())
    await listener.start([sock])
    asyncio.get_running_loop().add_reader(handoff.inbox(index).fileno(), adopt)
    await asyncio.Event().wait()


def main() -> None:
    loop_name, count = sys.argv[1], int(sys.argv[2])
    factory = uvloop.new_event_loop if loop_name == "uvloop" else asyncio.new_event_loop
    handoff = Handoff(count)
    socks = []
    for _ in range(count):
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        sock.listen(100)
        sock.setblocking(False)
        socks.append(sock)
    pids: dict[int, int] = {}

    def start(index: int) -> None:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                handoff.keep_only(index)
                with asyncio.Runner(loop_factory=factory) as runner:
                    runner.run(serve(index, socks[index], handoff))
                status = 0
            finally:
                os._exit(status)
        pids[index] = pid

    for index in range(count):
        start(index)
    print(json.dumps([sock.getsockname()[1] for sock in socks]), flush=True)
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "quit":
            break
        number = int(rest[0])
        if word == "start":
            start(number)
        elif word == "stop":
            os.kill(pids[number], signal.SIGSTOP)
            os.waitpid(pids[number], os.WUNTRACED)
        elif word == "kill":
            os.kill(pids[number], signal.SIGKILL)
            os.waitpid(pids.pop(number), 0)
        print("done", flush=True)
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
