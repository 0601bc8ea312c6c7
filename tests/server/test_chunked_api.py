"""Uploads in chunks over real connections: fields as a network brings them, names, waiting, one connection for all."""

from __future__ import annotations

import contextlib
import http.client
import os
import select
import socket
import sqlite3
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.faults.chunks import (
    KIB,
    MIB,
    PATH,
    Upload,
    code,
    content_digest,
    created,
    creation,
    drafts,
    number,
    sockets,
    spans,
    start,
    target,
    text,
)
from tests.fixtures.child import wait_until
from tests.fixtures.content import content
from tests.fixtures.server import Answer, FileServer, StartServer, running
from tests.server.signatures import mac
from tests.server.test_tls import TlsServer, certify, configured
from tests.server.wire import Wire

CHUNK = 64 * KIB
NO_SESSION = "1700000000_" + "a" * 26


@pytest.fixture(scope="module", params=[1, 2], ids=["one-process", "two-processes"])
def chunk_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    """Chunks of 64 KiB. With two processes, half of the connections meet the one that has not the upload."""
    settings = {"server": {"processes": request.param}, "uploads": {"chunk_size": "64KB"}}
    yield from running(tmp_path_factory.mktemp("chunk-server"), settings)


def sessions(server: FileServer) -> int:
    """Sessions in the store, in any state."""
    database = server.storage / ".hmac-file-server" / "uploads.db"
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM uploads").fetchone()[0])


# --- fields ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["X-Total-Size: 3"], (400, "bad_field")),
        (["X-Filename: a"], (400, "bad_field")),
        (["X-Filename:", "X-Total-Size: 3"], (400, "bad_field")),
        (["X-Filename: a", "X-Total-Size:"], (400, "bad_field")),
        (["X-Filename: a", "X-Total-Size: -1"], (400, "bad_field")),
        (["X-Filename: a", "X-Total-Size: 1" + "0" * 40], (400, "bad_field")),
        (["X-Filename: a", "X-Total-Size: 3 3"], (400, "bad_field")),
        (["X-Filename: a", "X-Total-Size: 3", "X-Total-Size: 3"], (400, "repeated_field")),
        (["X-Filename: a", "X-Filename: b", "X-Total-Size: 3"], (400, "repeated_field")),
        (["X-Filename: a\x01", "X-Total-Size: 3"], (400, "bad_request")),
        (["X-Filename: a\x00", "X-Total-Size: 3"], (400, "bad_request")),
        (["X-Filename: " + "a" * 40_000, "X-Total-Size: 3"], (431, "head_too_long")),
        (["X-Filename: a", "X-Total-Size: 3", "X-Upload-Session-ID:"], (400, "bad_field")),
        (
            ["X-Filename: a", "X-Total-Size: 3", "X-Upload-Session-ID: a", "X-Upload-Session-ID: b"],
            (400, "repeated_field"),
        ),
        (["X-Filename: a", "X-Total-Size: 3", "Idempotency-Key:"], (400, "bad_field")),
        (["X-Filename: a", "X-Total-Size: 3", "Idempotency-Key: " + "k" * 256], (400, "bad_field")),
        (["X-Filename: a", "X-Total-Size: 3", "Content-Type: x"], (400, "bad_media_type")),
    ],
    ids=lambda value: " ".join(value)[:70] if isinstance(value, list) else None,
)
def test_malformed_beginnings_store_nothing(
    chunk_server: FileServer, lines: list[str], expected: tuple[int, str]
) -> None:
    before = sessions(chunk_server), drafts(chunk_server), chunk_server.files()
    head = [f"POST {PATH} HTTP/1.1", "Host: x", "Content-Length: 0", f"X-Signature: {mac(PATH)}", *lines]
    with Wire(chunk_server) as wire:
        wire.send("\r\n".join([*head, "", ""]).encode("latin-1"))
        answer = wire.answer()
    assert code(answer) == expected
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert (sessions(chunk_server), drafts(chunk_server), chunk_server.files()) == before


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("na\u00efve \u2603 \U0001f600.txt".encode(), "na\u00efve \u2603 \U0001f600.txt"),
        (quote("na\u00efve \u2603 \U0001f600.txt").encode(), "na\u00efve \u2603 \U0001f600.txt"),
        (b"caf\xe9.txt", "caf\u00e9.txt"),
        (b"../../../etc/passwd", "_.._.._etc_passwd"),
        (b"%2e%2e%2f%00%0d%0aX-Injected: 1.txt", "____X-Injected_ 1.txt"),
        (b"x" * 4096 + b".txt", "x" * 196 + ".txt"),
        (b'a";b.txt', "a_;b.txt"),
    ],
    ids=["utf-8", "escaped", "latin-1", "folders", "controls", "4-KiB", "quotes"],
)
def test_a_name_arrives_with_the_file(chunk_server: FileServer, sent: bytes, meant: str) -> None:
    """In the answers, in the path, and in Content-Disposition of whoever fetches it."""
    body = content(100, meant)
    with Wire(chunk_server) as wire:
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nX-Signature: {mac(PATH)}\r\nX-Total-Size: 100\r\n"
        )
        wire.send(head.encode() + b"X-Filename: " + sent + b"\r\n\r\n")
        answer = wire.answer()
    told = answer.json()
    assert (answer.status, told["filename"]) == (201, meant)
    assert "x-injected" not in answer.headers
    upload = Upload(chunk_server, text(told["session_id"]), body, number(told["chunk_size"]))
    final = upload.put(0).json()
    assert (final["filename"], final["url"]) == (meant, told["url"])
    assert target(final["url"]).endswith("/" + quote(meant, safe="/!$&'()*+,;=:@~"))
    got = chunk_server.request("GET", target(final["url"]))
    assert got.body == body
    disposition = got.headers["content-disposition"]
    spelled = f'filename="{meant}"' if meant.isascii() else "filename*=UTF-8''" + quote(meant, safe="!#$&+^`|~")
    assert disposition.endswith(spelled)


@pytest.mark.parametrize("sent", ["application/octet-stream", None, "text/x-note;charset=utf-8"])
def test_the_type_arrives_with_the_file(chunk_server: FileServer, sent: str | None) -> None:
    headers = {} if sent is None else {"Content-Type": sent}
    upload = start(chunk_server, b"abc", name="a.png", headers=headers)
    url = upload.put(0, headers={"Content-Type": "application/x-of-the-chunk"}).json()["url"]
    kept = "text/x-note;charset=utf-8" if sent == "text/x-note;charset=utf-8" else "image/png"
    assert chunk_server.request("HEAD", target(url)).headers["content-type"] == kept


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-Chunk-Number": "1" + "0" * 40}, (400, "bad_chunk_number")),
        ({"X-Chunk-Number": "0, 1"}, (400, "bad_chunk_number")),
        ({"X-Chunk-Offset": ""}, (400, "bad_field")),
        ({"X-Chunk-Offset": "-0"}, (400, "bad_field")),
        ({"X-Upload-Session-ID": NO_SESSION}, (404, "upload_not_found")),
        ({"X-Upload-Session-ID": "a/../b"}, (404, "upload_not_found")),
        ({"Content-Digest": "sha-256=x"}, (400, "bad_digest")),
        ({"Digest": "sha-256"}, (400, "bad_digest")),
        ({"Content-Digest": content_digest(b"other")}, (400, "digest_mismatch")),
    ],
)
def test_malformed_chunks_change_nothing(
    chunk_server: FileServer, headers: Mapping[str, str], expected: tuple[int, str]
) -> None:
    """Whether the body was there by then or not; a body that was read leaves a connection for the next request."""
    upload = start(chunk_server, content(2 * CHUNK, "malformed"))
    assert upload.put(1).status == 200
    before = upload.status()
    assert code(upload.put(0, headers=headers)) == expected
    assert upload.status() == before
    with Wire(chunk_server) as wire:
        # Head and body in one piece, so that nothing of it is still to come when it is refused.
        body = upload.chunk(0)[-1000:]
        rest = upload.head(0, offset=CHUNK - 1000, headers=headers) | {"Host": "x", "Content-Length": "1000"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in rest.items())
        for _ in range(2):
            wire.send(f"PUT {PATH} HTTP/1.1\r\n{lines}\r\n".encode() + body)
            assert code(wire.answer()) == expected
        assert upload.status() == before
        upload.announce(wire, 0)
        wire.send(upload.chunk(0))
        assert wire.answer().json()["completed"] is True
    assert upload.stored() == upload.body


def test_a_refused_chunk_is_not_asked_for(chunk_server: FileServer) -> None:
    """Who waits for 100-continue sends nothing for nothing."""
    upload = start(chunk_server, content(2 * CHUNK, "expect"))
    wait = {"Expect": "100-continue"}
    for headers, expected in (
        ({"X-Upload-Session-ID": NO_SESSION}, (404, "upload_not_found")),
        ({"X-Chunk-Number": "7"}, (400, "bad_chunk_number")),
        ({"Content-Digest": "?"}, (400, "bad_digest")),
    ):
        with Wire(chunk_server) as wire:
            upload.announce(wire, 0, headers={**wait, **headers})
            assert code(wire.next_answer()) == expected
    with Wire(chunk_server) as wire:
        wire.head("POST", PATH, {**creation(10), "X-Signature": "0" * 64, **wait, "Content-Length": "9"})
        assert code(wire.next_answer()) == (403, "bad_signature")


@pytest.mark.parametrize(
    ("total", "size"), [(3 * MIB, 3 * MIB), (5 * MIB, 5 * MIB), (12 * MIB, 5 * MIB), (200 * KIB, 7 * KIB)]
)
def test_a_client_that_cuts_as_it_likes(chunk_server: FileServer, total: int, size: int) -> None:
    """The guide's own client cuts 5 MiB, whatever it was told; a shorter file is one chunk of it."""
    upload = start(chunk_server, content(total, f"cut {total}"))
    pieces = [upload.body[begin : begin + size] for begin in range(0, total, size)]
    for index, piece in enumerate(pieces):
        answer = upload.put(index, piece)
        assert answer.status == 200, answer.body
        assert answer.json()["completed"] is (index == len(pieces) - 1)
    assert upload.stored() == upload.body


# --- the status ------------------------------------------------------------------------------------------


def test_head_tells_what_get_tells(chunk_server: FileServer) -> None:
    upload = start(chunk_server, content(2 * CHUNK, "head"))
    for query, expected in ((f"session_id={upload.id}", 200), ("session_id=x", 404), ("", 400)):
        get = chunk_server.request("GET", f"/upload/status?{query}")
        head = chunk_server.request("HEAD", f"/upload/status?{query}")
        assert (get.status, head.status, head.body) == (expected, expected, b"")
        assert head.headers["content-length"] == str(len(get.body))
        assert head.headers["content-type"] == get.headers["content-type"]
    assert chunk_server.request("GET", f"/upload-status?session_id={upload.id}").json() == upload.status()


def test_unknown_sessions(chunk_server: FileServer) -> None:
    """One that never was, one that is no id, one that was ended: the same answer, whichever process is asked."""
    ended = start(chunk_server, b"abc")
    assert ended.delete().status == 204
    for session in (NO_SESSION, "x", "0", "../uploads.db", "%00", "a" * 4000, ended.id):
        upload = Upload(chunk_server, session, b"abc", CHUNK)
        for answer in (upload.look(), upload.look(wait=1), upload.put(0), upload.delete()):
            assert code(answer) == (404, "upload_not_found"), session


def test_waiting_is_over_with_the_next_change(chunk_server: FileServer) -> None:
    """Long before its time, for everybody who waits: chunks come until all have been told of one."""
    upload = start(chunk_server, content(200 * KIB, "wait"))
    assert upload.put(0, upload.body[:KIB]).status == 200
    upload = replace(upload, chunk_size=KIB)
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(chunk_server)) for _ in range(4)]
        for wire in wires:
            wire.head("GET", f"/upload/status?session_id={upload.id}&wait=60")
        # Behind a question that waits, on the same connection, comes another.
        wires[0].head("GET", "/health")
        indexes = iter(range(1, 199))
        waiting = [wire.sock for wire in wires]
        while waiting:
            assert upload.put(next(indexes)).status == 200
            told = select.select(waiting, (), (), 0)[0]
            waiting = [sock for sock in waiting if sock not in told]
        for wire in wires:
            status = wire.answer().json()
            assert number(status["uploaded_bytes"]) >= 2 * KIB
            assert status["completed"] is False
        assert wires[0].answer().body == b"OK\n"
    upload.finish()
    assert upload.look(wait=60).json()["completed"] is True


def test_waiting_is_over_when_its_time_is(chunk_server: FileServer) -> None:
    upload = start(chunk_server, content(2 * CHUNK, "over"))
    begun = time.monotonic()
    assert upload.look(wait=0.3).json()["received"] == []
    assert time.monotonic() - begun >= 0.3


def test_waiting_is_over_when_the_upload_is(chunk_server: FileServer) -> None:
    upload = start(chunk_server, content(2 * CHUNK, "deleted"))
    with Wire(chunk_server) as wire:
        wire.head("GET", f"/upload/status?session_id={upload.id}&wait=60")
        assert upload.delete().status == 204
        assert code(wire.answer()) == (404, "upload_not_found")


def test_clients_that_do_not_wait_for_their_answer(chunk_server: FileServer) -> None:
    """Those that are known to be gone leave nothing behind; those that may still listen, only until the answer."""
    upload = start(chunk_server, content(2 * CHUNK, "leave"))
    assert upload.put(0).status == 200
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(chunk_server)) for _ in range(40)]
        for wire in wires:
            wire.head("GET", f"/upload/status?session_id={upload.id}&wait=60")
        for wire in wires[::2]:
            wire.reset()
        wait_until(lambda: sockets(chunk_server) <= 20, "the connections that were reset are gone")
        for wire in wires[1::2]:
            wire.sock.close()
        assert upload.put(1).json()["completed"] is True
        wait_until(lambda: sockets(chunk_server) == 0, "all are gone")
    assert "Traceback" not in chunk_server.log_text()


def test_a_client_that_closed_its_side_still_gets_its_answer(chunk_server: FileServer) -> None:
    upload = start(chunk_server, content(2 * CHUNK, "half"))
    with Wire(chunk_server) as wire:
        wire.head("GET", f"/upload/status?session_id={upload.id}&wait=60")
        wire.sock.shutdown(socket.SHUT_WR)
        assert upload.delete().status == 204
        assert code(wire.answer()) == (404, "upload_not_found")


# --- connections -----------------------------------------------------------------------------------------


def test_one_connection_for_everything(chunk_server: FileServer) -> None:
    """Kept alive through uploads of either process: it goes to whoever has the upload, and back."""
    with Wire(chunk_server) as wire:
        for turn in range(6):
            body = content(3 * CHUNK - turn, f"keep-alive {turn}")
            wire.head("POST", PATH, creation(len(body)))
            told = wire.answer().json()
            upload = Upload(chunk_server, text(told["session_id"]), body, number(told["chunk_size"]))
            for index in (2, 0):
                upload.announce(wire, index)
                wire.send(upload.chunk(index))
                assert wire.answer().json()["chunk"] == index
            wire.head("GET", f"/upload/status?session_id={upload.id}")
            assert spans(wire.answer().json()["missing"]) == [(1, 1)]
            if turn % 2:
                wire.head("DELETE", PATH, {"X-Upload-Session-ID": upload.id})
                assert wire.answer().status == 204
            else:
                upload.announce(wire, 1)
                wire.send(upload.chunk(1))
                url = wire.answer().json()["url"]
                wire.head("GET", target(url))
                assert wire.answer().body == body


def test_pipelined_chunks_of_two_uploads(chunk_server: FileServer) -> None:
    """Sent all at once: each is served in its turn, by its own process."""
    uploads = [start(chunk_server, content(2 * CHUNK, f"pipelined {turn}")) for turn in range(4)]
    with Wire(chunk_server) as wire:

        def send() -> None:
            for index in (0, 1):
                for upload in uploads:
                    upload.announce(wire, index)
                    wire.send(upload.chunk(index))

        sender = threading.Thread(target=send)
        sender.start()
        for index in (0, 1):
            for _ in uploads:
                answer = wire.answer()
                assert (answer.status, answer.json()["chunk"]) == (200, index)
        sender.join()
    for upload in uploads:
        assert upload.stored() == upload.body


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    folder = tmp_path_factory.mktemp("chunks-tls")
    settings = configured(*certify(folder, "chunks"))
    settings["server"]["processes"] = 2
    server = TlsServer(folder / "server", {**settings, "uploads": {"chunk_size": "64KB"}})
    server.start()
    yield server
    server.stop()


class TlsClient:
    """One kept connection over TLS."""

    def __init__(self, server: FileServer) -> None:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._connection = http.client.HTTPSConnection(server.host, server.port, timeout=30, context=context)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        self._connection.request(method, path, body, dict(headers or {}))
        answer = self._connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def close(self) -> None:
        self._connection.close()


def test_two_processes_over_tls(tls_server: TlsServer) -> None:
    """Several uploads over several kept connections at once: most requests reach the wrong process first."""

    def one(turn: int) -> None:
        body = content(5 * CHUNK + turn, f"tls {turn}")
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(contextlib.closing(TlsClient(tls_server))) for _ in range(3)]
            told = clients[0].ask("POST", PATH, None, creation(len(body))).json()
            upload = Upload(tls_server, text(told["session_id"]), body, number(told["chunk_size"]))
            for index in range(upload.total):
                client = clients[index % 3]
                answer = client.ask("PUT", PATH, upload.chunk(index), upload.head(index))
                assert (answer.status, answer.json()["chunk"]) == (200, index)
                status = clients[(index + 1) % 3].ask("GET", f"/upload/status?session_id={upload.id}").json()
                assert status["chunks"] == index + 1
            for client in clients:
                again = client.ask("PUT", PATH, upload.chunk(0), upload.head(0)).json()
                assert client.ask("GET", target(again["url"])).body == body
                assert client.ask("GET", "/upload/status?session_id=x").status == 404

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(8)))
    assert "Traceback" not in tls_server.log_text()


def test_waiting_over_tls(tls_server: TlsServer) -> None:
    """An end is told whether it came before the question or after."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(TlsClient(tls_server))) for _ in range(5)]
        body = content(CHUNK, "tls wait")
        told = clients[0].ask("POST", PATH, None, creation(len(body))).json()
        upload = Upload(tls_server, text(told["session_id"]), body, number(told["chunk_size"]))
        with ThreadPoolExecutor(4) as pool:
            query = f"/upload/status?session_id={upload.id}&wait=60"

            def wait(client: TlsClient) -> Answer:
                # Between the last byte and the file is a moment of its own.
                while not (answer := client.ask("GET", query)).json()["completed"]:
                    pass
                return answer

            waiting = [pool.submit(wait, client) for client in clients[1:]]
            assert clients[0].ask("PUT", PATH, body, upload.head(0)).json()["completed"] is True
            for future in waiting:
                assert future.result(30).json()["uploaded_bytes"] == CHUNK


# --- limits ----------------------------------------------------------------------------------------------


def test_extensions(start_server: StartServer) -> None:
    server = start_server({"uploads": {"allowed_extensions": [".txt"]}})
    assert code(created(server, 3, name="a.bin")) == (415, "extension_refused")
    assert code(created(server, 3, name="a.txt%2Fb")) == (415, "extension_refused")
    assert start(server, b"abc", name="A.TXT").put(0).json()["completed"] is True
    assert sessions(server) == 1


def test_space_that_expired_uploads_were_promised_is_free_again(tmp_path: Path, start_server: StartServer) -> None:
    """Each of these announces more than half of what is free; nobody deletes them."""
    server = start_server({"server": {"max_upload_size": "100TB"}, "uploads": {"max_resumable_age": "1s"}})
    found = os.statvfs(tmp_path)
    size = found.f_bavail * found.f_frsize * 6 // 10
    for _ in range(2):
        wait_until(lambda: created(server, size).status == 201, "there is room")
        assert code(created(server, size)) == (507, "storage_full")
    # What fits is taken all the while.
    assert created(server, 1000).status == 201
