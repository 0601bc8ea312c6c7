"""curl as it is installed everywhere: uploads, resumed downloads, refusals, one connection for many files."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from tests.fixtures import slots
from tests.fixtures.child import program, wait_until
from tests.fixtures.content import content
from tests.fixtures.curl import curl
from tests.fixtures.server import FileServer, StartServer

NO_EXPECT = ("-H", "Expect:")
CHUNKED = ("-H", "Transfer-Encoding: chunked")


@pytest.fixture
def stored(shared_server: FileServer, request: pytest.FixtureRequest) -> tuple[str, bytes]:
    """URL and content of a published file of 3 MB."""
    path = f"curl/{hashlib.sha1(request.node.name.encode()).hexdigest()}/video.mp4"
    body = content(3_000_001, path)
    created = shared_server.request(
        "PUT", slots.target(path, slots.v1(path, len(body))), body, {"Content-Type": "video/mp4"}
    )
    assert created.status == 201
    return f"{shared_server.url}/upload/{path}", body


# --- uploads ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 10_000, 5_000_000])
@pytest.mark.parametrize("expect", [False, True], ids=["plain", "expect"])
def test_put_with_and_without_expect(shared_server: FileServer, tmp_path: Path, size: int, expect: bool) -> None:
    path = f"curl/put-{size}-{expect}/file.bin"
    file = tmp_path / "file.bin"
    file.write_bytes(content(size, path))
    option = ("-H", "Expect: 100-continue", "--expect100-timeout", "30") if expect else NO_EXPECT
    sent = curl("-T", file, *option, slots.url(shared_server.url, path, size))
    assert (sent.exit_code, sent.status, sent.body) == (0, 201, b"")
    if expect and size:
        assert "< HTTP/1.1 100 Continue" in sent.trace
        assert sent.each[0]["time_total"] < 30, "curl had to give up waiting for 100 Continue"
    else:
        assert "100 Continue" not in sent.trace
    got = curl(f"{shared_server.url}/upload/{path}")
    assert (got.status, got.body == file.read_bytes()) == (200, True)


def test_curl_asks_for_continue_by_itself_for_a_large_file(shared_server: FileServer, tmp_path: Path) -> None:
    file = tmp_path / "file.bin"
    file.write_bytes(content(2 << 20, "large"))
    sent = curl("-T", file, slots.url(shared_server.url, "curl/by-itself/file.bin", 2 << 20))
    assert (sent.exit_code, sent.status) == (0, 201)
    assert "> Expect: 100-continue" in sent.trace
    assert "< HTTP/1.1 100 Continue" in sent.trace


def test_a_refused_expectation_sends_no_body(shared_server: FileServer, tmp_path: Path) -> None:
    file = tmp_path / "file.bin"
    file.write_bytes(content(4 << 20, "refused"))
    url = slots.url(shared_server.url, "curl/refused/file.bin", 1)
    sent = curl("-T", file, "-H", "Expect: 100-continue", "--expect100-timeout", "30", url)
    assert sent.status == 403
    assert "100 Continue" not in sent.trace
    assert sent.each[0]["size_upload"] == 0


@pytest.mark.parametrize("size", [100_000, 2 << 20, 32 << 20])
@pytest.mark.parametrize(
    "query", ["v=" + "0" * 64, "v2=" + "0" * 64, "token=nonsense", ""], ids=["v1", "v2", "token", "none"]
)
def test_an_early_refusal_is_read_and_not_a_reset(
    shared_server: FileServer, tmp_path: Path, size: int, query: str
) -> None:
    """The answer comes while curl is still sending; it must not be lost to a reset of the connection."""
    file = tmp_path / "file.bin"
    with file.open("wb") as sparse:
        sparse.truncate(size)
    for attempt in range(3):
        url = f"{shared_server.url}/upload/curl/early/{attempt}.bin" + (f"?{query}" if query else "")
        sent = curl("-T", file, *NO_EXPECT, url)
        assert sent.status == 403, sent.trace[-2000:]
        assert sent.exit_code == 0, sent.trace[-2000:]
        assert sent.headers()["content-type"].startswith("application/problem+json")


def test_over_the_limit_is_413_before_the_body(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server({"server": {"max_upload_size": "1MB"}})
    file = tmp_path / "file.bin"
    file.write_bytes(bytes(8 << 20))
    sent = curl("-T", file, *NO_EXPECT, slots.url(server.url, "a/b.bin", 8 << 20))
    assert (sent.exit_code, sent.status) == (0, 413)
    expecting = curl("-T", file, "-H", "Expect: 100-continue", slots.url(server.url, "a/b.bin", 8 << 20))
    assert (expecting.status, expecting.each[0]["size_upload"]) == (413, 0)
    file.write_bytes(bytes(1 << 20))
    assert curl("-T", file, *NO_EXPECT, slots.url(server.url, "a/b.bin", 1 << 20)).status == 201


def test_chunked_body_needs_a_length_where_the_slot_binds_it(shared_server: FileServer) -> None:
    body = content(200_000, "chunked slot")
    sent = curl(
        "-T", "-", *CHUNKED, *NO_EXPECT, slots.url(shared_server.url, "curl/chunked/a.bin", len(body)), stdin=body
    )
    assert (sent.exit_code, sent.status) == (0, 411), sent.trace[-2000:]
    assert curl(f"{shared_server.url}/upload/curl/chunked/a.bin").status == 404


def test_chunked_body_with_x_signature(shared_server: FileServer) -> None:
    """A PUT signed by path alone binds no size: a stream of unknown length may be sent."""
    body = content(2_000_003, "chunked signature")
    where = "/upload/curl/chunked/stream.bin"
    sent = curl(
        *("-T", "-", *CHUNKED, "-H", f"X-Signature: {slots.x_signature(where)}"),
        shared_server.url + where,
        stdin=body,
    )
    assert (sent.exit_code, sent.status) == (0, 201), sent.trace[-2000:]
    assert curl(shared_server.url + where).body == body


def test_form_upload(shared_server: FileServer, tmp_path: Path) -> None:
    body = content(1_500_000, "form")
    file = tmp_path / "photo of a cat.jpg"
    file.write_bytes(body)
    sent = curl(
        *("-F", f"file=@{file};type=image/jpeg"),
        *("-H", f"X-Signature: {slots.x_signature('/upload')}"),
        f"{shared_server.url}/upload",
    )
    assert (sent.exit_code, sent.status) == (0, 200), sent.trace[-2000:]
    assert b'"success"' in sent.body


def test_other_bytes_at_the_same_url(shared_server: FileServer, tmp_path: Path) -> None:
    file = tmp_path / "file.bin"
    url = slots.url(shared_server.url, "curl/twice/file.bin", 300_000)
    for seed, status in (("first", 201), ("first", 201), ("second", 409), ("first", 201)):
        file.write_bytes(content(300_000, seed))
        sent = curl("-T", file, *NO_EXPECT, url)
        assert (sent.exit_code, sent.status) == (0, status)
    assert curl(url.split("?")[0]).body == content(300_000, "first")


def test_several_files_over_one_connection(shared_server: FileServer, tmp_path: Path) -> None:
    arguments: list[str | Path] = []
    bodies = [content(size, f"several {size}") for size in (3, 70_000, 0, 1_200_000, 10)]
    for number, body in enumerate(bodies):
        file = tmp_path / str(number)
        file.write_bytes(body)
        arguments += ["-T", file, slots.url(shared_server.url, f"curl/several/{number}.bin", len(body))]
    sent = curl(*arguments)
    assert sent.exit_code == 0
    assert [record["http_code"] for record in sent.each] == [201] * len(bodies)
    assert sum(record["num_connects"] for record in sent.each) == 1
    got = curl(*(f"{shared_server.url}/upload/curl/several/{number}.bin" for number in range(len(bodies))))
    assert got.body == b"".join(bodies)
    assert sum(record["num_connects"] for record in got.each) == 1


def test_an_aborted_put_leaves_nothing(server: FileServer, tmp_path: Path) -> None:
    """curl is killed in the middle of a body: no file, no open spool, and the slot is still good."""
    size = 16 << 20
    half = content(size // 2, "aborted")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    url = slots.url(server.url, "aborted/file.bin", size)
    child = subprocess.Popen(
        [
            *(program("curl", "curl"), "-q", "-sS", "-T", str(pipe), *NO_EXPECT),
            *("-H", "Transfer-Encoding:", "-H", f"Content-Length: {size}", url),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        with pipe.open("wb") as feed:
            # Returns when curl has read all but a pipe's worth, so the server is inside the body.
            feed.write(half)
            feed.flush()
            wait_until(lambda: bool(server.spooled()), "the body is being spooled")
            child.kill()
            child.wait(30)
    except BrokenPipeError:
        assert child.stderr is not None
        pytest.fail(f"curl ended early: {child.stderr.read().decode()}")
    finally:
        child.kill()
        child.wait(30)
        assert child.stderr is not None
        child.stderr.close()
    wait_until(lambda: not server.spooled(), "the spool of the cut upload is gone")
    assert server.files() == set()
    assert curl(url.split("?")[0]).status == 404

    file = tmp_path / "file.bin"
    file.write_bytes(content(size, "whole"))
    assert curl("-T", file, url).status == 201
    assert server.files() == {"aborted/file.bin"}
    assert curl(url.split("?")[0]).body == file.read_bytes()


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_several_processes_share_one_port(start_server: StartServer, tmp_path: Path, durability: str) -> None:
    """Each curl makes a connection of its own, so that the kernel spreads them over the processes."""
    server = start_server({"server": {"processes": 2}, "uploads": {"durability": durability}})
    file = tmp_path / "file.bin"
    for number in range(24):
        body = content(1 + number * 30_011, f"processes {number}")
        file.write_bytes(body)
        url = slots.url(server.url, f"processes/{number}.bin", len(body))
        for _ in range(2):
            assert curl("-T", file, url).status == 201
        assert curl(url.split("?")[0]).body == body
        file.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
        assert curl("-T", file, url).status == 409


# --- downloads -------------------------------------------------------------------------------------------


def test_head(stored: tuple[str, bytes]) -> None:
    url, body = stored
    head = curl("-I", url)
    assert (head.exit_code, head.status) == (0, 200)
    headers = head.headers()
    assert headers["content-length"] == str(len(body))
    assert headers["content-type"] == "video/mp4"
    assert headers["accept-ranges"] == "bytes"
    assert headers["etag"].startswith('"')
    assert "last-modified" in headers


@pytest.mark.parametrize("have", [1, 65_536, 2_999_999, 3_000_000])
def test_a_cut_download_is_resumed(stored: tuple[str, bytes], tmp_path: Path, have: int) -> None:
    url, body = stored
    file = tmp_path / "video.mp4"
    file.write_bytes(body[:have])
    resumed = curl("-C", "-", "-o", file, url)
    assert (resumed.exit_code, resumed.status) == (0, 206)
    assert resumed.each[0]["size_download"] == len(body) - have
    assert file.read_bytes() == body


def test_resuming_a_finished_download_is_harmless(stored: tuple[str, bytes], tmp_path: Path) -> None:
    url, body = stored
    file = tmp_path / "video.mp4"
    file.write_bytes(body)
    resumed = curl("-C", "-", "-o", file, url)
    assert resumed.status == 416
    assert resumed.headers()["content-range"] == f"bytes */{len(body)}"
    assert file.read_bytes() == body


@pytest.mark.parametrize(
    ("spec", "first", "last"),
    [
        ("0-0", 0, 0),
        ("0-99", 0, 99),
        ("100-199", 100, 199),
        ("-10", -10, -1),
        ("2999990-", 2_999_990, -1),
        ("2999990-9999999", 2_999_990, -1),
    ],
)
def test_single_ranges(stored: tuple[str, bytes], spec: str, first: int, last: int) -> None:
    url, body = stored
    start, end = first % len(body), last % len(body)
    got = curl("-r", spec, url)
    assert (got.exit_code, got.status) == (0, 206)
    assert got.body == body[start : end + 1]
    assert got.headers()["content-range"] == f"bytes {start}-{end}/{len(body)}"


def test_a_range_beyond_the_end(stored: tuple[str, bytes]) -> None:
    url, body = stored
    got = curl("-r", "5000000-", url)
    assert got.status == 416
    assert got.headers()["content-range"] == f"bytes */{len(body)}"


def test_etag_and_date_revalidate(stored: tuple[str, bytes], tmp_path: Path) -> None:
    url, body = stored
    etag, file = tmp_path / "etag", tmp_path / "video.mp4"
    first = curl("--etag-save", etag, "-R", "-o", file, url)
    assert (first.status, file.read_bytes() == body) == (200, True)
    assert etag.read_text().strip() == first.headers()["etag"]
    by_etag = curl("--etag-compare", etag, url)
    assert (by_etag.exit_code, by_etag.status, by_etag.body) == (0, 304, b"")
    # -R gave the file the time of Last-Modified; -z asks for anything newer than that.
    by_date = curl("-z", file, url)
    assert (by_date.exit_code, by_date.status, by_date.body) == (0, 304, b"")
    etag.write_text('"another"\n')
    assert curl("--etag-compare", etag, url).body == body


@pytest.mark.parametrize(("matches", "status"), [(True, 206), (False, 200)])
def test_if_range(stored: tuple[str, bytes], matches: bool, status: int) -> None:
    url, body = stored
    etag = curl("-I", url).headers()["etag"] if matches else '"another"'
    got = curl("-r", "10-19", "-H", f"If-Range: {etag}", url)
    assert (got.status, got.body) == (status, body[10:20] if matches else body)


def test_a_slow_reader_gets_the_whole_file(stored: tuple[str, bytes]) -> None:
    url, body = stored
    got = curl("--limit-rate", "4M", url)
    assert (got.exit_code, got.body == body) == (0, True)


def test_an_aborted_download_harms_nothing(server: FileServer, tmp_path: Path) -> None:
    """Many readers go away in the middle; the server goes on and prints nothing alarming."""
    file = tmp_path / "file.bin"
    file.write_bytes(bytes(8 << 20))
    assert curl("-T", file, slots.url(server.url, "d/file.bin", 8 << 20)).status == 201
    for _ in range(5):
        # 63: "Maximum file size exceeded" is curl's own way to leave before the body.
        left = curl("--max-filesize", "1000", f"{server.url}/upload/d/file.bin")
        assert left.exit_code == 63
    assert len(curl(f"{server.url}/upload/d/file.bin").body) == 8 << 20


def test_download_alias(shared_server: FileServer, stored: tuple[str, bytes]) -> None:
    url, body = stored
    path = url.split("/upload/")[1]
    assert curl(f"{shared_server.url}/download/{path}").body == body


def test_preflight_of_a_web_client(shared_server: FileServer) -> None:
    answer = curl(
        *("-X", "OPTIONS", "-H", "Origin: https://chat.example.org"),
        *("-H", "Access-Control-Request-Method: PUT"),
        *("-H", "Access-Control-Request-Headers: authorization,content-type"),
        f"{shared_server.url}/upload/some/file.bin",
    )
    assert (answer.exit_code, answer.status) == (0, 204)
    headers = answer.headers()
    assert headers["access-control-allow-origin"] in {"*", "https://chat.example.org"}
    assert "PUT" in headers["access-control-allow-methods"]
    allowed = headers["access-control-allow-headers"].lower()
    assert "authorization" in allowed
    assert "content-type" in allowed
