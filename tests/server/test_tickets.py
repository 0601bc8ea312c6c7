"""Tickets: what they allow, how often, until when; and deletion, theirs and Metronome's."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.fixtures import slots
from tests.fixtures.child import wait_until
from tests.fixtures.server import Answer, FileServer
from tests.server import signatures
from tests.server.signatures import bearer, in_future, ticket
from tests.server.wire import Wire


def put(server: FileServer, path: str, token: str, body: bytes = b"x", **headers: str) -> Answer:
    return server.request("PUT", f"/upload/{path}", body, {**bearer(token), **headers})


def code(answer: Answer) -> tuple[int, object]:
    return answer.status, answer.json()["code"]


# --- where, what, until when -----------------------------------------------------------------------------


def test_a_path_ticket_is_good_for_its_path(module_server: FileServer) -> None:
    token = ticket(path="path/a.bin")
    for other in ("path/b.bin", "path/a.bin.exe", "path", "upload/path/a.bin", "path/a.bin/c"):
        assert code(put(module_server, other, token)) == (403, "not_covered")
    assert put(module_server, "path/a.bin", token).status == 201
    assert put(module_server, "path/a.bin", token).status == 201
    assert code(put(module_server, "path/a.bin", token, b"y")) == (409, "exists")


def test_a_prefix_ticket_is_good_below_its_prefix(module_server: FileServer) -> None:
    token = ticket(prefix="prefix/alice")
    for other in ("prefix/alice2/a", "prefix/alice", "prefix/a", "alice/a"):
        assert code(put(module_server, other, token)) == (403, "not_covered")
    assert code(put(module_server, "prefix/alice/%2e%2e/bob/a", token)) == (400, "bad_target")
    assert put(module_server, "prefix/alice/a", token).status == 201
    assert put(module_server, "prefix/alice/deep/er/a", token).status == 201


def test_size_and_type(module_server: FileServer) -> None:
    token = ticket(prefix="bounds", max_size=5, type="text/plain")
    plain = {"Content-Type": "text/plain"}
    assert code(put(module_server, "bounds/a", token, b"123456", **plain)) == (413, "too_large")
    assert code(put(module_server, "bounds/a", token, b"12345")) == (403, "not_covered")
    assert code(put(module_server, "bounds/a", token, b"12345", **{"Content-Type": "text/html"})) == (
        403,
        "not_covered",
    )
    assert put(module_server, "bounds/a", token, b"12345", **plain).status == 201
    with Wire(module_server) as wire:
        wire.head("PUT", "/upload/bounds/b", {**bearer(token), **plain, "Transfer-Encoding": "chunked"})
        wire.send(b"6\r\n123456\r\n")
        assert code(wire.answer()) == (413, "too_large")
    assert module_server.request("HEAD", "/upload/bounds/b").status == 404


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"exp": in_future(-1)}, (401, "token_expired")),
        ({"nbf": in_future(7200)}, (401, "bad_token")),
        ({"aud": "somebody-else"}, (401, "bad_token")),
        ({"path": "x/a"}, (401, "bad_token")),
        ({"files": 0}, (401, "bad_token")),
        ({"files": 1, "jti": ""}, (401, "bad_token")),
        ({"ops": []}, (401, "bad_token")),
        ({"ops": ["everything"]}, (401, "bad_token")),
        ({"ops": ["upload", "download", "delete"]}, (403, "not_covered")),
        ({"max_size": -1}, (401, "bad_token")),
        ({"max_size": "5"}, (401, "bad_token")),
        ({"exp": "tomorrow"}, (401, "bad_token")),
    ],
)
def test_claims_that_permit_nothing(
    module_server: FileServer, claims: dict[str, object], expected: tuple[int, str]
) -> None:
    answer = put(module_server, "claims/a", ticket(prefix="", **claims))
    assert code(answer) == expected
    assert ("www-authenticate" in answer.headers) is (expected[0] == 401)
    assert module_server.request("HEAD", "/upload/claims/a").status == 404


def test_owner_and_name_reach_the_log_and_nobody_else(server: FileServer) -> None:
    token = ticket(path="owned/a.txt", sub="alice@example.org")
    assert put(server, "owned/a.txt", token).status == 201
    head = server.request("HEAD", "/upload/owned/a.txt")
    assert "alice" not in str(head.headers)
    wait_until(lambda: "PUT /upload/owned/a.txt 201" in server.log.read_text(), "the request is logged")
    line = next(line for line in server.log.read_text().splitlines() if "PUT /upload/owned/a.txt" in line)
    assert line.endswith(" user=alice@example.org")


# --- how often -------------------------------------------------------------------------------------------


def test_a_counted_ticket_takes_as_many_files(module_server: FileServer) -> None:
    token = ticket(prefix="count", files=3)
    for number in range(3):
        assert put(module_server, f"count/{number}", token).status == 201
    assert code(put(module_server, "count/3", token)) == (403, "ticket_used_up")
    # A repeat of what was stored is answered as before and costs nothing.
    assert put(module_server, "count/0", token).status == 201
    assert code(put(module_server, "count/0", token, b"other")) == (409, "exists")
    assert module_server.request("HEAD", "/upload/count/3").status == 404


@pytest.mark.parametrize("size", [10, 100_000], ids=["short", "long"])
def test_what_fails_is_not_counted(module_server: FileServer, size: int) -> None:
    token = ticket(prefix="failed", files=1)
    path = f"failed/{size}"
    taken = f"failed/taken-{size}"
    assert module_server.request("PUT", slots.target(taken, slots.v1(taken, size)), bytes(size)).status == 201
    for _ in range(3):
        assert put(module_server, taken, token, bytes(size)).status == 201
        assert put(module_server, taken, token, b"y" * size).status == 409
        with Wire(module_server) as wire:
            wire.head("PUT", f"/upload/{path}", {**bearer(token), "Content-Length": str(size)})
            wire.send(bytes(size - 1))
            wire.sock.shutdown(1)
            assert wire.answer().status == 400
    assert put(module_server, path, token, bytes(size)).status == 201
    assert code(put(module_server, f"{path}-2", token, bytes(size))) == (403, "ticket_used_up")


@pytest.mark.parametrize("size", [100, 200_000], ids=["short", "long"])
def test_parallel_uploads_cannot_overdraw_a_ticket(module_server: FileServer, size: int) -> None:
    """Sixteen at the same moment, five allowed: five get in, and none of the others leaves a file (S-11)."""
    token = ticket(prefix="parallel", files=5)
    barrier = threading.Barrier(16)

    def upload(number: int) -> int:
        with Wire(module_server) as wire:
            head = {**bearer(token), "Content-Length": str(size)}
            barrier.wait(20)
            wire.head("PUT", f"/upload/parallel/{size}-{number}", head)
            wire.send(bytes(size))
            return wire.answer().status

    with ThreadPoolExecutor(16) as pool:
        statuses = sorted(pool.map(upload, range(16)))
    assert statuses == [201] * 5 + [403] * 11
    assert len([path for path in module_server.files() if path.startswith(f"parallel/{size}-")]) == 5


def test_a_count_outlives_a_restart(server: FileServer) -> None:
    token = ticket(prefix="", files=1, file_expires=in_future(1))
    assert put(server, "once/a", token).status == 201
    server.stop()
    server.start()
    assert code(put(server, "once/b", token)) == (403, "ticket_used_up")


def test_a_file_goes_when_its_ticket_says(server: FileServer) -> None:
    """`file_expires` in the past is over at the next round, which is the first after a start."""
    token = ticket(path="brief/a", file_expires=in_future(-10))
    assert put(server, "brief/a", token).status == 201
    assert put(server, "brief/b", ticket(path="brief/b", file_expires=in_future(3600))).status == 201
    server.stop()
    server.start()
    wait_until(lambda: server.files() == {"brief/b"}, "the file is gone")
    assert server.request("GET", "/upload/brief/a").status == 404
    assert server.request("GET", "/upload/brief/b").status == 200


# --- deletion --------------------------------------------------------------------------------------------


def store(server: FileServer, path: str) -> None:
    assert server.request("PUT", slots.target(path, slots.v1(path, 6)), b"delete").status == 201


def test_metronome_deletes(server: FileServer) -> None:
    """204 and nothing else, also for a file that is gone already."""
    path = "Ab3dE6/très cool.jpg"
    store(server, path)
    target = slots.target(path, slots.delete_token(path))
    answer = server.request("DELETE", target)
    assert (answer.status, answer.body) == (204, b"")
    assert server.request("GET", target.partition("?")[0]).status == 404
    assert server.files() == set()
    # Empty folders go with the last file.
    assert not (server.storage / "Ab3dE6").exists()
    assert server.request("DELETE", target).status == 204
    log = server.log.read_text()
    assert re_line(log, "Deleted Ab3dE6/très cool.jpg")


def re_line(log: str, text: str) -> bool:
    """Whether some line of the log holds the text (quotes around odd words aside)."""
    return any(text in line.replace('"', "") for line in log.splitlines())


def test_what_is_deleted_may_be_put_again(module_server: FileServer) -> None:
    path = "deleted/a"
    store(module_server, path)
    assert module_server.request("DELETE", slots.target(path, slots.delete_token(path))).status == 204
    other = slots.target(path, slots.v1(path, 3))
    assert module_server.request("PUT", other, b"new").status == 201
    assert module_server.request("GET", f"/upload/{path}").body == b"new"


def test_a_reader_is_not_cut_by_a_deletion(module_server: FileServer) -> None:
    path, size = "deleted/large", 24 << 20
    with Wire(module_server) as wire:
        wire.head("PUT", slots.target(path, slots.v1(path, size)), {"Content-Length": str(size)})
        wire.send(bytes(size))
        assert wire.answer().status == 201
    with Wire(module_server) as wire:
        wire.head("GET", f"/upload/{path}")
        received = len(wire.sock.recv(1 << 16))
        assert module_server.request("DELETE", slots.target(path, slots.delete_token(path))).status == 204
        assert module_server.request("HEAD", f"/upload/{path}").status == 404
        while received < size:
            piece = wire.sock.recv(1 << 20)
            assert piece
            received += len(piece)


def test_who_else_may_delete(module_server: FileServer) -> None:
    for number, (query, headers, expected) in enumerate(
        [
            ("", bearer(ticket(prefix="delete", ops=["delete"])), 204),
            ("", bearer(ticket(prefix="delete")), 403),
            ("", bearer(ticket(prefix="other", ops=["delete"])), 403),
            ("", signatures.strong("DELETE", "/upload/delete/3", 0), 204),
            ("?" + signatures.v3("DELETE", "/upload/delete/4", in_future()), {}, 204),
            ("?" + signatures.v3("PUT", "/upload/delete/5", in_future()), {}, 403),
            ("", {"X-Signature": slots.x_signature("/upload/delete/6")}, 403),
            ("?" + slots.v1("delete/7", 6), {}, 403),
        ]
    ):
        path = f"delete/{number}"
        store(module_server, path)
        answer = module_server.request("DELETE", f"/upload/{path}{query}", headers=headers)
        assert answer.status == expected, number
        assert (path in module_server.files()) is (expected == 403), number


@pytest.mark.parametrize("target", ["/", "/upload/", "/upload/a/", "/upload/.hmac-file-server/state.db"])
def test_folders_and_our_own_files_are_not_deleted(module_server: FileServer, target: str) -> None:
    everything = bearer(ticket(prefix="", ops=["delete"]))
    answer = module_server.request("DELETE", target, headers=everything)
    assert answer.status in {400, 403}
    assert (module_server.storage / ".hmac-file-server" / "state.db").exists()
