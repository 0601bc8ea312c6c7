"""tus and PUT from the client's side against the real server: lost answers, strict signatures, endings."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from blake3 import blake3
from tests.fixtures import slots
from tests.fixtures.content import content
from tests.fixtures.server import SECRET, FileServer
from tests.fixtures.server import running as server_in
from tests.server import signatures
from tests.unit.client.upload_worlds import drive, missing

from hmac_file_server.client.errors import SessionGone
from hmac_file_server.client.exchanges import Http
from hmac_file_server.client.protocol import Facts, Received, Remote, Session
from hmac_file_server.client.put import Put
from hmac_file_server.client.source import Portion, Source
from hmac_file_server.client.target import Target
from hmac_file_server.client.tus import Tus

MIB = 1 << 20
DATA = content(3 * MIB + 5, "remotes")
REMOTES: dict[str, Callable[[Http, Target], Remote]] = {
    "tus": Tus,
    "tus in parts": lambda http, target: Tus(http, target, parallel=3),
    "tus with checksums": lambda http, target: Tus(http, target, checksum="sha256", chunk_size=MIB),
    "put": Put,
}

pytestmark = pytest.mark.server
every = pytest.mark.parametrize("name", REMOTES)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    yield from server_in(tmp_path_factory.mktemp("strict"), {"security": {"strict_signatures": True}})


@dataclass
class World:
    """A server, and a way to it that is closed in the end."""

    target: Target
    http: Http

    def remote(self, name: str) -> Remote:
        return REMOTES[name](self.http, self.target)

    async def bring(self, remote: Remote, session: Session, told: Received, length: int) -> Received:
        """Send the beginning of what is missing, at most to the end of a piece."""
        source = Source(io.BytesIO(DATA))
        try:
            piece = missing(session, told)
            piece = replace(piece, stop=min(piece.start + length, piece.stop))
            return await remote.send(session, piece, Portion(source, piece.start, piece.length))
        finally:
            source.close()


def connected(target: Target, test: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def body() -> None:
        world = World(target, Http(target))
        try:
            await test(world)
        finally:
            world.http.close()

    asyncio.run(body())


def once(server: FileServer) -> Target:
    """A link for one file."""
    return Target.parse(server.url, ticket=signatures.ticket(prefix="", ops=["upload", "create", "chunk"], files=1))


def stored(server: FileServer, url: str) -> bytes:
    return server.request("GET", url.removeprefix(server.url)).body


@pytest.mark.parametrize("name", [name for name in REMOTES if name != "tus in parts"])
def test_a_creation_whose_answer_was_lost_is_repeated_and_makes_no_second_upload(
    shared_server: FileServer, name: str
) -> None:
    facts = Facts("a.bin", len(DATA), "text/x-a", f"key of {name}")

    async def test(world: World) -> None:
        first, _ = await world.remote(name).begin(facts)
        remote = world.remote(name)
        second, told = await remote.begin(replace(facts, repeated=True))
        assert (first.id, first.extra) == (second.id, second.extra)
        assert told.ranges == ()
        # Also when it has bytes by now: the answer tells of them, or a question does.
        before = await world.bring(remote, second, told, MIB)
        third, after = await world.remote(name).begin(replace(facts, repeated=True))
        assert third.id == first.id
        assert before.ranges == after.ranges != ()
        result = await drive(world.remote(name), DATA, name="a.bin", session=third)
        assert stored(shared_server, result.url) == DATA
        assert result.digest == "blake3:" + blake3(DATA).hexdigest()

    connected(once(shared_server), test)


def test_parts_whose_creations_are_repeated(shared_server: FileServer) -> None:
    facts = Facts("a.bin", len(DATA), None, "key of parts")

    async def test(world: World) -> None:
        first, _ = await world.remote("tus in parts").begin(facts)
        remote = world.remote("tus in parts")
        second, told = await remote.begin(replace(facts, repeated=True))
        assert first.extra == second.extra
        told = await world.bring(remote, second, told, 2 * MIB)
        again = world.remote("tus in parts")
        _, found = await again.begin(replace(facts, repeated=True))
        assert found.ranges == told.ranges == ((0, second.chunk_size),)
        saved = json.loads(json.dumps(again.saved(second)))
        last = world.remote("tus")
        session = last.restored(saved, facts)
        assert session is not None
        result = await drive(last, DATA, session=session)
        assert stored(shared_server, result.url) == DATA
        # The answer to the creation of the whole may be lost, too.
        once_more = world.remote("tus")
        session = once_more.restored(saved, facts)
        assert session is not None
        known = await once_more.ask(session)
        assert known.result is not None
        assert known.result.url == result.url

    connected(once(shared_server), test)


@every
def test_a_strict_server_wants_every_request_signed(strict: FileServer, name: str) -> None:
    async def test(world: World) -> None:
        result = await drive(world.remote(name), DATA, name="tr\u00e8s bien.bin", media_type="text/x-b", key=name)
        assert stored(strict, result.url) == DATA
        assert result.filename == "tr\u00e8s bien.bin"
        head = strict.request("HEAD", result.url.removeprefix(strict.url))
        assert head.headers["content-type"] == "text/x-b"
        remote = world.remote(name)
        session, told = await remote.begin(Facts("b", len(DATA), None, f"strict {name}"))
        assert (await remote.ask(session)).ranges == told.ranges == ()
        assert (await remote.ask(session, wait=0.05)).ranges == ()
        await remote.discard(session)
        with pytest.raises(SessionGone):
            await remote.ask(session)

    connected(Target.parse(strict.url, secret=SECRET), test)


@every
def test_what_is_discarded_gives_its_ticket_back(shared_server: FileServer, name: str) -> None:
    async def test(world: World) -> None:
        remote = world.remote(name)
        session, _ = await remote.begin(Facts("c", len(DATA), None, f"discarded {name}"))
        await remote.discard(session)
        await remote.discard(session)
        with pytest.raises(SessionGone):
            await remote.ask(session)
        result = await drive(world.remote(name), DATA)
        assert stored(shared_server, result.url) == DATA

    connected(once(shared_server), test)


def test_a_long_poll_ends_when_bytes_come(shared_server: FileServer) -> None:
    async def test(world: World) -> None:
        for name in ("tus", "put"):
            remote = world.remote(name)
            session, told = await remote.begin(Facts("d", len(DATA), None, f"long poll {name}"))
            waiting = asyncio.create_task(world.remote(name).ask(session, wait=30))
            await asyncio.sleep(0)
            done = await world.bring(remote, session, told, len(DATA))
            assert done.result is not None
            assert (await waiting).ranges == ((0, len(DATA)),)

    connected(Target.parse(shared_server.url, secret=SECRET), test)


def test_the_url_of_a_slot_that_is_complete(shared_server: FileServer) -> None:
    path = "remotes/slot.bin"
    url = slots.url(shared_server.url, path, len(DATA))

    async def test(world: World) -> None:
        first = await drive(world.remote("put"), DATA)
        # The same again is the same file; the upload that is remembered, and another one.
        second = await drive(world.remote("put"), DATA)
        assert (await drive(world.remote("put"), DATA, key="another")).url == second.url
        assert first.url == second.url == url.partition("?")[0]
        assert stored(shared_server, first.url) == DATA

    connected(Target.parse(url), test)
