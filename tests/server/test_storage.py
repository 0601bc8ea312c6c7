"""The disk below: full, out of inodes, shared by equal contents, filled before us, emptied by time."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from blake3 import blake3
from tests.fixtures import slots
from tests.fixtures.child import Child, accepts, wait_until
from tests.fixtures.content import content
from tests.fixtures.server import Answer, FileServer, Settings, StartServer, environment
from tests.server import signatures
from tests.server.disks import may_mount, tmpfs
from tests.server.wire import Wire

MIB = 1 << 20


def put(server: FileServer, path: str, body: bytes, media_type: str = "image/png") -> Answer:
    target = slots.target(path, slots.v1(path, len(body)))
    return server.request("PUT", target, body, {"Content-Type": media_type})


def code(answer: Answer) -> tuple[int, object]:
    return answer.status, answer.json()["code"]


# --- space and inodes ------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if not may_mount():
        pytest.skip("only root may mount a small file system; test_free_space_is_kept covers admission")
    with tmpfs(tmp_path / "disk", size="24m", inodes=200) as folder:
        yield folder


@pytest.fixture
def on_small_disk(small_disk: Path) -> Iterator[FileServer]:
    """A server whose storage is 24 MiB and 200 inodes."""
    server = FileServer(small_disk, {"server": {"min_free_bytes": "1MB"}, "logging": {"level": "warning"}})
    server.start()
    yield server
    server.stop()


def test_a_full_disk(on_small_disk: FileServer) -> None:
    """507 before the body, what is there is served on, and deleting makes room at once."""
    server = on_small_disk
    stored = 0
    while True:
        answer = put(server, f"fill/{stored}", content(3 * MIB, str(stored)))
        if answer.status != 201:
            break
        stored += 1
    assert 4 <= stored <= 7
    assert code(answer) == (507, "storage_full")
    with Wire(server) as wire:
        path = "fill/expecting"
        head = {"Content-Length": str(8 * MIB), "Expect": "100-continue"}
        wire.head("PUT", slots.target(path, slots.v1(path, 8 * MIB)), head)
        assert code(wire.next_answer()) == (507, "storage_full")
    # Reading, repeating and deleting go on.
    assert server.request("GET", "/health").status == 200
    assert server.request("GET", "/upload/fill/0").body == content(3 * MIB, "0")
    assert put(server, "fill/0", content(3 * MIB, "0")).status == 201
    assert server.request("DELETE", slots.target("fill/0", slots.delete_token("fill/0"))).status == 204
    wait_until(lambda: put(server, "fill/again", bytes(3 * MIB)).status == 201, "there is room again")
    wait_until(lambda: not server.spooled(), "no spool is left")


def test_a_disk_that_fills_up_under_a_chunked_body(on_small_disk: FileServer) -> None:
    """Nobody announced the size: 507 comes when the room is used up, and nothing is left of it."""
    server = on_small_disk
    path = "/upload/full/chunked"
    with Wire(server) as wire:
        wire.head("PUT", path, {"X-Signature": slots.x_signature(path), "Transfer-Encoding": "chunked"})
        try:
            for _ in range(40):
                wire.send(b"100000\r\n" + bytes(MIB) + b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert code(wire.answer()) == (507, "storage_full")
    wait_until(lambda: not server.spooled(), "the spool is gone")
    assert server.files() == set()
    wait_until(lambda: put(server, "full/next", bytes(8 * MIB)).status == 201, "the room is free again")


def test_no_inodes(on_small_disk: FileServer) -> None:
    server = on_small_disk
    stored = 0
    while stored < 250:
        answer = put(server, f"{stored}", content(10, str(stored)))
        if answer.status != 201:
            break
        stored += 1
    assert stored > 50
    assert code(answer) == (507, "storage_full")
    assert server.request("GET", "/upload/0").body == content(10, "0")
    assert code(put(server, "a/b/c/d", b"x")) == (507, "storage_full")
    assert server.request("GET", "/ready").status == 503
    for number in range(5):
        path = str(number)
        assert server.request("DELETE", slots.target(path, slots.delete_token(path))).status == 204
    wait_until(lambda: put(server, "room", b"x").status == 201, "there are inodes again")
    assert server.request("GET", "/ready").status == 200


def test_uploads_are_admitted_by_what_the_others_may_still_write(on_small_disk: FileServer) -> None:
    """Ten uploads of 8 MiB at the same moment on 24 MiB: those let in finish, the others are 507 at once."""
    server = on_small_disk
    size = 8 * MIB
    barrier = threading.Barrier(10)

    def upload(number: int) -> int:
        path = f"same/{number}"
        with Wire(server) as wire:
            barrier.wait(20)
            head = {"Content-Length": str(size), "Expect": "100-continue"}
            wire.head("PUT", slots.target(path, slots.v1(path, size)), head)
            answer = wire.next_answer()
            if answer.status == 100:
                wire.send(content(size, path))
                answer = wire.answer()
            return answer.status

    with ThreadPoolExecutor(10) as pool:
        statuses = sorted(pool.map(upload, range(10)))
    assert statuses == [201] * 2 + [507] * 8


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_free_space_is_kept(tmp_path: Path, durability: str) -> None:
    """`min_free_bytes` above what is free: nothing goes up, everything else works, /ready says why."""
    server = FileServer(tmp_path / "server", {})
    server.start()
    assert put(server, "kept/short", b"abc").status == 201
    assert put(server, "kept/long", bytes(100_000)).status == 201
    server.stop()
    server.write_config({"server": {"min_free_bytes": "1000TB"}, "uploads": {"durability": durability}})
    server.child = Child(
        "hmac-file-server",
        [sys.executable, "-m", "hmac_file_server", "serve", "--config", str(server.config)],
        log=server.log,
        env=environment(),
        cwd=server.folder,
    )
    try:
        server.child.wait_ready(lambda: accepts(server.port))
        ready = server.request("GET", "/ready")
        assert (ready.status, ready.json()) == (503, {"ready": False, "reason": "storage_full"})
        assert server.request("GET", "/health").status == 200
        assert server.request("GET", "/upload/kept/short").body == b"abc"
        assert code(put(server, "kept/new", b"x")) == (507, "storage_full")
        # Whose answer was lost may ask again: nothing needs to be stored.
        assert put(server, "kept/short", b"abc").status == 201
        assert put(server, "kept/long", bytes(100_000)).status == 201
        assert code(put(server, "kept/short", b"xyz")) == (409, "exists")
        assert code(put(server, "kept/short", b"wxyz")) == (409, "exists")
    finally:
        server.stop()


# --- time ------------------------------------------------------------------------------------------------


def test_files_go_after_their_time(start_server: StartServer) -> None:
    """Every deletion is one line with its reason; folders that became empty go too."""
    server = start_server({"server": {"file_ttl": "2s"}})
    assert put(server, "ttl/a b.png", b"abc").status == 201
    assert put(server, "ttl/deep/c.png", b"abc").status == 201
    assert server.request("GET", "/upload/ttl/deep/c.png").status == 200
    wait_until(lambda: server.files() == set(), "the files are gone")
    assert server.request("GET", "/upload/ttl/deep/c.png").status == 404
    wait_until(lambda: not (server.storage / "ttl").exists(), "the folders are gone")
    lines = [line for line in server.log.read_text().splitlines() if "Deleted" in line]
    assert len(lines) == 2
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO Deleted .*ttl/.+\.png.*file_ttl", line), line
        assert "on request" not in line
    # The name is free again, and the clock starts anew.
    assert put(server, "ttl/a b.png", b"other").status == 201
    assert server.request("GET", "/upload/ttl/a%20b.png").body == b"other"


def test_without_a_time_nothing_goes(start_server: StartServer) -> None:
    server = start_server({})
    put(server, "old/a", b"abc")
    os.utime(server.storage / "old" / "a", (0, 0))
    server.stop()
    server.start()
    assert server.request("GET", "/upload/old/a").body == b"abc"
    assert "Deleted" not in server.log.read_text()


# --- equal contents --------------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_equal_contents_share_an_inode(start_server: StartServer, durability: str) -> None:
    server = start_server({"uploads": {"durability": durability}})
    body = content(200_000, "twin")
    for path in ("one/a.png", "two/b.png", "three/c.jpg"):
        assert put(server, path, body).status == 201
    assert put(server, "other/a.png", content(200_000, "other")).status == 201
    inodes = {path: (server.storage / path).stat().st_ino for path in server.files()}
    assert inodes["one/a.png"] == inodes["two/b.png"] == inodes["three/c.jpg"]
    assert inodes["other/a.png"] != inodes["one/a.png"]
    # One goes, the others stay; the last one takes the blob with it.
    for path in ("one/a.png", "two/b.png", "three/c.jpg"):
        assert server.request("GET", f"/upload/{path}").body == body
        assert server.request("DELETE", slots.target(path, slots.delete_token(path))).status == 204
    assert server.files() == {"other/a.png"}
    blobs = [path for path in (server.storage / ".hmac-file-server" / "blobs").rglob("*") if path.is_file()]
    assert len(blobs) == 1


def test_twins_cannot_be_told_apart(start_server: StartServer) -> None:
    """The second of two equal uploads is answered and served exactly as the first of an unknown content (S-43)."""
    server = start_server({})

    def upload(path: str, body: bytes, owner: str) -> tuple[Answer, Answer]:
        token = signatures.ticket(path=path, sub=owner)
        headers = {**signatures.bearer(token), "Content-Type": "image/png"}
        sent = server.request("PUT", f"/upload/{path}", body, headers)
        return sent, server.request("HEAD", f"/upload/{path}")

    known = content(300_000, "known")
    upload("alice/photo.png", known, "alice@example.org")
    twin = upload("bobby/photo.png", known, "bobby@example.org")
    fresh = upload("carol/photo.png", content(300_000, "fresh"), "carol@example.org")
    volatile = {"date", "etag", "last-modified"}
    for ours, theirs in zip(twin, fresh, strict=True):
        assert ours.status == theirs.status
        assert ours.headers.keys() == theirs.headers.keys()
        assert {k: v for k, v in ours.headers.items() if k not in volatile} == {
            k: v for k, v in theirs.headers.items() if k not in volatile
        }
    first, second = twin[0].json(), fresh[0].json()
    assert first.keys() == second.keys()
    # The tag of a twin is its own, not the inode's.
    assert twin[1].headers["etag"] != server.request("HEAD", "/upload/alice/photo.png").headers["etag"]
    modified = server.request("HEAD", "/upload/alice/photo.png").headers["last-modified"]
    assert {answer.headers["last-modified"] for answer in (twin[1], fresh[1])} >= {twin[1].headers["last-modified"]}
    assert modified


@pytest.mark.parametrize(
    ("settings", "size"),
    [({"deduplication": {"enabled": False}}, 1000), ({"deduplication": {"maxsize": "10KB"}}, 20_000)],
    ids=["off", "too large"],
)
def test_what_is_not_deduplicated(start_server: StartServer, settings: Settings, size: int) -> None:
    server = start_server(settings)
    body = content(size, "twin")
    assert put(server, "a", body).status == put(server, "b", body).status == 201
    assert (server.storage / "a").stat().st_ino != (server.storage / "b").stat().st_ino


def test_receipts_name_the_digest(start_server: StartServer) -> None:
    body = content(10_000, "digest")
    for name, digest in (("blake3", blake3(body).hexdigest()), ("sha256", hashlib.sha256(body).hexdigest())):
        server = start_server({"deduplication": {"hash": name}})
        receipt = server.request("PUT", "/a", body, {"X-Signature": slots.x_signature("/a")})
        assert receipt.status == 201
        assert receipt.json()[name] == digest


# --- files that were there before us ---------------------------------------------------------------------


@pytest.fixture
def old_tree(tmp_path: Path) -> Iterator[FileServer]:
    """A server over a tree that another one filled: below its storage paths, and below whole URL paths."""
    server = FileServer(tmp_path / "old", {})
    for path, body in (
        ("alice/photo.png", b"relative"),
        ("upload/bob/whole path.txt", b"whole"),
        ("upload/alice/photo.png", b"shadowed"),
        ("deep/er/and/deeper/a.html", b"<script>"),
        ("noext", b"x"),
    ):
        file = server.storage / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
        os.utime(file, (1_600_000_000, 1_600_000_000))
    server.start()
    yield server
    server.stop()


def test_old_files_are_served(old_tree: FileServer) -> None:
    for url, body, media_type, kind in (
        ("/upload/alice/photo.png", b"relative", "image/png", "inline"),
        ("/alice/photo.png", b"relative", "image/png", "inline"),
        ("/upload/bob/whole%20path.txt", b"whole", "text/plain", "inline"),
        ("/upload/deep/er/and/deeper/a.html", b"<script>", "text/html", "attachment"),
        ("/noext", b"x", "application/octet-stream", "attachment"),
        ("/download/alice/photo.png", b"relative", "image/png", "attachment"),
        ("/download/upload/bob/whole%20path.txt", b"whole", "text/plain", "attachment"),
    ):
        got = old_tree.request("GET", url)
        assert (got.status, got.body) == (200, body), url
        assert got.headers["content-type"] == media_type
        assert got.headers["content-disposition"].startswith(kind)
        assert got.headers["last-modified"] == "Sun, 13 Sep 2020 12:26:40 GMT"
        assert old_tree.request("GET", url, headers={"If-None-Match": got.headers["etag"]}).status == 304
        assert old_tree.request("GET", url, headers={"Range": "bytes=0-0"}).body == body[:1]


def test_old_files_are_not_overwritten(old_tree: FileServer) -> None:
    """The same bytes are taken as the same file, others are a conflict; by either form of the path."""
    assert put(old_tree, "alice/photo.png", b"relative").status == 201
    assert put(old_tree, "alice/photo.png", b"otherwis").status == 409
    assert put(old_tree, "alice/photo.png", b"longer than it").status == 409
    assert old_tree.request("GET", "/upload/alice/photo.png").body == b"relative"
    assert (old_tree.storage / "alice" / "photo.png").stat().st_mtime == 1_600_000_000


def test_old_permissions_put_nothing_in_front_of_old_files(old_tree: FileServer) -> None:
    """The Go server's URLs sign the whole path and never expire; their files lie under the whole path."""
    path, body = "bob/whole path.txt", b"whole"
    for query, headers in (
        (slots.v1(f"upload/{path}", len(body)), {}),
        (slots.v2(f"upload/{path}", len(body), "text/plain"), {"Content-Type": "text/plain"}),
        (signatures.v3("PUT", f"/upload/{path}", signatures.in_future()), {}),
        ("", {"X-Signature": slots.x_signature(f"/upload/{path}")}),
    ):
        target = slots.target(path, query).rstrip("?")
        assert old_tree.request("PUT", target, body, headers).status == 201
        assert code(old_tree.request("PUT", target, b"other", headers)) == (409, "exists")
        assert old_tree.request("GET", "/upload/bob/whole%20path.txt").body == body
    assert not (old_tree.storage / "bob").exists()


def test_what_is_deleted_is_gone_from_its_url(old_tree: FileServer) -> None:
    """In whichever of the two places it lay; a ticket is for storage paths alone."""
    token = signatures.bearer(signatures.ticket(prefix="bob", ops=["delete"]))
    assert old_tree.request("DELETE", "/upload/bob/whole%20path.txt", headers=token).status == 204
    assert old_tree.request("GET", "/upload/bob/whole%20path.txt").status == 200
    for path, url in (
        ("alice/photo.png", "/upload/alice/photo.png"),
        ("bob/whole path.txt", "/upload/bob/whole%20path.txt"),
    ):
        assert old_tree.request("DELETE", slots.target(path, slots.delete_token(path))).status == 204
        assert old_tree.request("GET", url).status == 404
    assert old_tree.files() == {"deep/er/and/deeper/a.html", "noext"}


def test_files_that_come_and_go_by_hand(server: FileServer) -> None:
    """People copy files into the tree and remove them; the next request sees what is there."""
    file = server.storage / "by hand" / "a.txt"
    file.parent.mkdir(parents=True)
    for body in (b"first", b"second, and longer"):
        temporary = file.with_name("temporary")
        temporary.write_bytes(body)
        temporary.replace(file)
        assert server.request("GET", "/upload/by%20hand/a.txt").body == body
    file.unlink()
    assert server.request("GET", "/upload/by%20hand/a.txt").status == 404
    file.parent.rmdir()
    assert put(server, "by hand/a.txt", b"third").status == 201
    assert server.request("GET", "/upload/by%20hand/a.txt").body == b"third"
