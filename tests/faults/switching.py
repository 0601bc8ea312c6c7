"""A phone with two networks, and a server that notices nothing when the phone goes from one to the other.

    phone ===(link 1)=== router ---(link 3)--- server
          ===(link 2)===   |
                        (link 4)
                           |
                        observer

A link of the phone is cut at the phone's end: the router knows, the server does not, and nothing is reset.
Sockets of the phone are bound to one of its links, as those of a phone's applications are.
"""

from __future__ import annotations

import contextlib
import random
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.chunks import Span, Upload, arrived, spans, start
from tests.fixtures.child import Child, wait_until
from tests.fixtures.content import content
from tests.fixtures.namespaces import Link, Namespace, Network, network
from tests.fixtures.server import Answer, FileServer, environment, request
from tests.server.wire import Wire

PORT = 8080
PATIENCE = 20.0


@dataclass(slots=True)
class RemoteServer(FileServer):
    """A server on a machine of its own. Requests of `request` come from the observer."""

    machine: Namespace = field(kw_only=True)
    observer: Namespace = field(kw_only=True)

    def start(self) -> None:
        """Start and wait until the observer finds it ready; AssertionError with the log when it does not come up."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.settings is not None:
            self.write_config(self.settings)
        command = [sys.executable, "-m", "hmac_file_server", "serve", "--config", str(self.config)]
        self.child = Child(
            "hmac-file-server", self.machine.command(command), log=self.log, env=environment(), cwd=self.folder
        )
        self.child.wait_ready(self._ready)

    def request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = 30,
    ) -> Answer:
        """One request of the observer, on a connection of its own."""
        return self.observer.call(request, self.host, self.port, method, target, body, headers, timeout=timeout)


class LinkWire(Wire):
    """A connection over one link of the phone."""

    def __init__(self, rig: Rig, link: int, *, timeout: float = PATIENCE) -> None:
        self.sock = rig.phone.new_socket()
        self._host = f"{rig.server.host}:{rig.server.port}"
        self._buffer = b""
        try:
            self.sock.settimeout(timeout)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, rig.device(link).encode())
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.began = time.monotonic()
            self.sock.connect((rig.server.host, rig.server.port))
        except BaseException:
            self.sock.close()
            raise


class Rig:
    """The machines, their links and the server."""

    def __init__(self, net: Network, folder: Path, settings: Mapping[str, Mapping[str, object]]) -> None:
        self._cut: set[int] = set()
        self.phone, self.router = net.namespace("phone"), net.namespace("router")
        self.machine, self.observer = net.namespace("server"), net.namespace("observer")
        self.links: dict[int, Link] = {
            link.number: link
            for link in (
                net.link(self.router, self.phone),
                net.link(self.router, self.phone),
                net.link(self.router, self.machine),
                net.link(self.router, self.observer),
            )
        }
        self.router.sysctl("net.ipv4.ip_forward", 1)
        for machine in (self.router, self.machine, self.phone):
            machine.sysctl("net.ipv4.conf.all.rp_filter", 0)
        for link in (1, 2):
            self._route(link)
        self.route_server()
        self.observer.ip("route", "add", "default", "via", self.links[4].first.address)
        sections: dict[str, dict[str, object]] = {"server": {"listen_address": f"0.0.0.0:{PORT}"}}
        for section, keys in settings.items():
            sections.setdefault(section, {}).update(keys)
        self.server = RemoteServer(
            folder,
            sections,
            port=PORT,
            host=self.links[3].second.address,
            machine=self.machine,
            observer=self.observer,
        )

    def route_server(self) -> None:
        """Give the server its way to everybody else, which it loses with its link."""
        self.machine.ip("route", "replace", "default", "via", self.links[3].first.address)

    def _route(self, link: int) -> None:
        gateway = self.links[link].first.address
        self.phone.ip("route", "add", "default", "via", gateway, "dev", self.device(link), "metric", str(link))

    def device(self, link: int) -> str:
        """The phone's interface of a link."""
        return self.links[link].second.device

    def cut(self, link: int) -> None:
        """Cut a link of the phone."""
        self.links[link].second.down()
        self._cut.add(link)

    def mend(self, link: int) -> None:
        """Undo a cut."""
        self.links[link].second.up()
        self._route(link)
        self._cut.discard(link)

    def mend_all(self) -> None:
        """Undo every cut."""
        for link in sorted(self._cut):
            self.mend(link)

    def begin(self, upload: Upload, index: int, sent: int, *, link: int, offset: int = 0) -> LinkWire:
        """Begin a chunk over a link, and wait until the server's machine has what was sent."""
        wire = LinkWire(self, link)
        upload.announce(wire, index, offset=offset, headers={"Expect": "100-continue"})
        # From now on, whoever comes is the newcomer.
        assert wire.next_answer().status == 100
        wire.send(upload.chunk(index)[offset : offset + sent])
        wait_until(arrived(wire), "what was sent has arrived")
        return wire


@contextlib.contextmanager
def rig(folder: Path, settings: Mapping[str, Mapping[str, object]] | None = None) -> Iterator[Rig]:
    """The machines with the server running, all of it gone at the end. Skips a test that may have no networks."""
    with network() as net:
        made = Rig(net, folder, settings or {})
        made.server.start()
        try:
            yield made
        finally:
            # The server waits for those it has said good-bye to.
            made.mend_all()
            made.server.stop()


@dataclass(frozen=True, slots=True)
class Switch:
    """One switch in figures; seconds and bytes.

    status   from the first packet of the new connection to the status answer
    accepted from the chunk's head to the word to go on with its body
    lost     bytes that had reached the server and are not there after the takeover
    """

    status: float
    accepted: float
    lost: int


def told_by(wire: Wire, upload: Upload) -> list[Span]:
    """The received ranges as the status tells them on this connection."""
    wire.head("GET", f"/upload/status?session_id={upload.id}")
    answer = wire.answer()
    assert answer.status == 200, answer.body
    return spans(answer.json()["received"])


def prefix_in(ranges: list[Span], begin: int, stop: int) -> int:
    """How many bytes from `begin` on are in the ranges, `stop` at most."""
    return next((min(high, stop) - begin for low, high in ranges if low <= begin < high), 0)


def switch(made: Rig, upload: Upload, index: int, sent: int, *, old: int, new: int) -> Switch:
    """Begin a chunk over one link, lose it, come back over the other and complete the chunk there."""
    begin = index * upload.chunk_size
    stop = begin + len(upload.chunk(index))
    with made.begin(upload, index, sent, link=old):
        made.cut(old)
        try:
            with LinkWire(made, new) as wire:
                place = prefix_in(told_by(wire, upload), begin, stop)
                answered = time.monotonic()
                upload.announce(wire, index, offset=place, headers={"Expect": "100-continue"})
                interim = wire.next_answer()
                accepted = time.monotonic()
                assert interim.status == 100, interim.body
                with LinkWire(made, new) as other:
                    lost = max(0, sent - prefix_in(told_by(other, upload), begin, stop))
                wire.send(upload.chunk(index)[place:])
                answer = wire.answer()
                assert answer.status == 200, answer.body
                assert prefix_in(spans(answer.json()["received"]), begin, stop) == stop - begin
                return Switch(answered - wire.began, accepted - answered, lost)
        finally:
            made.mend(old)


def switches(made: Rig, count: int, *, chunk_size: int, chunks: int = 20) -> Iterator[Switch]:
    """Switch `count` times, in uploads of `chunks` chunks each; AssertionError when a file is not what was sent.

    `chunk_size` is what the server is configured with.
    """
    chance = random.Random(f"{count} switches")
    done = 0
    while done < count:
        size = min(chunks, count - done) * chunk_size
        upload = start(made.server, content(size, f"switch {done}"), name=f"{done}.bin")
        for index in range(upload.total):
            old, new = (1, 2) if done % 2 == 0 else (2, 1)
            yield switch(made, upload, index, chance.randrange(1, len(upload.chunk(index))), old=old, new=new)
            done += 1
        assert upload.stored() == upload.body
