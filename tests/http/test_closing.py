"""Time, patience and the end of connections, with the whole server: who is cut, who is not, and what is told."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fixtures import slots
from tests.fixtures.child import stand_still, wait_until
from tests.fixtures.content import content
from tests.fixtures.server import FileServer
from tests.http.cases import get, lines, put, put_framed
from tests.http.conftest import judge, serving
from tests.http.wire import Line, answers

LARGE = "closing/large.bin"
LARGE_BYTES = content(30_000_000, "closing")


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    """A server that waits for nobody longer than a second."""
    server = FileServer(
        tmp_path_factory.mktemp("closing") / "server",
        {
            "timeouts": {
                "header_timeout": "600ms",
                "stall_timeout": "800ms",
                "idletimeout": "1s",
                "writetimeout": "2s",
            },
            "server": {"max_upload_size": "5GB"},
        },
    )
    server.start()
    try:
        target = slots.target(LARGE, slots.v1(LARGE, len(LARGE_BYTES)))
        assert server.request("PUT", target, LARGE_BYTES).status == 201
        yield server
        judge(server)
    finally:
        server.stop()


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    yield from serving(tmp_path_factory.mktemp("patient"), "relaxed")


def connect(server: FileServer, *, receive_buffer: int | None = None) -> socket.socket:
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(30)
    sock.connect((server.host, server.port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def rest(sock: socket.socket) -> bytes:
    """Everything until the server closes."""
    received = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(262144):
            received += data
    return bytes(received)


def statuses(received: bytes) -> list[int]:
    return [answer.status for answer in answers(received)]


def first(sock: socket.socket) -> bytes:
    """One head."""
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        data = sock.recv(1)
        assert data, received
        received += data
    return received


def memory(server: FileServer) -> int:
    """Resident bytes."""
    for line in Path(f"/proc/{server.pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def cpu(server: FileServer) -> float:
    """Seconds of processor time used so far."""
    fields = Path(f"/proc/{server.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- time


@pytest.mark.parametrize("start", [b"", b"G", b"GET /health HTTP/1.1\r\n", get()[:-1], b"\r\n"])
def test_slow_heads_are_closed_and_others_are_not_held_up(impatient: FileServer, start: bytes) -> None:
    socks = [connect(impatient) for _ in range(50)]
    for sock in socks:
        sock.sendall(start)
    assert impatient.request("GET", "/health").status == 200
    for sock in socks:
        assert statuses(rest(sock)) == ([408] if start else [])
        sock.close()


def test_slowloris(impatient: FileServer) -> None:
    """A byte now and then renews nothing."""
    with connect(impatient) as sock:
        sock.settimeout(0.1)
        received = b""
        for byte in get("X: " + "y" * 500):
            try:
                sock.sendall(bytes([byte]))
                received += sock.recv(4096)
                break
            except TimeoutError:
                continue
        sock.settimeout(30)
        assert statuses(received + rest(sock)) == [408]


@pytest.mark.parametrize("size", [1000, 60_000, 200_000, 1_000_000_000])
def test_a_stalled_body_is_a_408_and_leaves_nothing(impatient: FileServer, size: int) -> None:
    name = f"stalled-{size}"
    with connect(impatient) as sock:
        sock.sendall(put(name, b"half", size=size))
        assert statuses(rest(sock)) == [408]
    assert not (impatient.storage / f"cases/{name}.bin").exists()
    wait_until(lambda: impatient.spooled() == [], "the spool is empty")


def test_idle_connections_are_closed(impatient: FileServer) -> None:
    with connect(impatient) as sock:
        sock.sendall(get())
        assert statuses(rest(sock)) == [200]


def test_a_download_that_is_not_read_is_cut(impatient: FileServer) -> None:
    """`writetimeout` bounds the whole answer."""
    with connect(impatient, receive_buffer=4096) as sock:
        sock.sendall(get(target="/upload/" + LARGE))
        head = first(sock)
        assert b"Content-Length: 30000000\r\n" in head
        assert impatient.request("GET", "/upload/" + LARGE).body == LARGE_BYTES
        wait_until(lambda: established(impatient) == 0, "the connection is closed")
        assert len(rest(sock)) < 30_000_000


def established(server: FileServer) -> int:
    """Connections of clients that the server still has open."""
    table = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    port = f":{server.port:04X}"
    inodes = {row.split()[9] for row in table if row.split()[1].endswith(port) and row.split()[3] != "0A"}
    held = set()
    for entry in Path(f"/proc/{server.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            held.add(os.readlink(entry))
    return sum(f"socket:[{inode}]" in held for inode in inodes)


# ---- early answers


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (lines("PUT /upload/closing/x HTTP/1.1", "Host: t", "Content-Length: 1073741824"), 403),
        (lines("PUT /upload/closing/x?v=" + "0" * 64 + " HTTP/1.1", "Host: t", "Content-Length: 1073741824"), 403),
        (put_framed("closing-413", "Content-Length: 9999999999999"), 413),
        (lines("PUT " + slots.target(LARGE, slots.v1(LARGE, 1 << 30)) + " HTTP/1.1", "Host: t", "Content-Length: 1073741824"), 409),
        (lines("POST /upload HTTP/1.1", "Host: t", "Content-Length: 1073741824"), 403),
        (lines("PUT /upload/closing/../x HTTP/1.1", "Host: t", "Content-Length: 1073741824"), 400),
        (lines("PUT /upload/closing/y HTTP/1.1", "Host: t", "Transfer-Encoding: chunked"), 403),
    ],
)  # fmt: skip
@pytest.mark.parametrize("expecting", [False, True])
def test_an_early_answer_is_read_by_a_client_that_goes_on(
    patient: FileServer, request_head: bytes, status: int, expecting: bool
) -> None:
    """No invitation, the answer at once, and time to read it; what is sent meanwhile is dropped, within bounds."""
    if status == 409:
        body = LARGE_BYTES
        target = slots.target(LARGE, slots.v1(LARGE, len(body)))
        assert patient.request("PUT", target, body).status == 201
    if expecting:
        request_head = request_head[:-2] + b"Expect: 100-continue\r\n\r\n"
    for after in (0, 65_536, 4_000_000):
        with connect(patient) as sock:
            sock.sendall(request_head + bytes(after))
            assert statuses(rest(sock)) == [status]
    with connect(patient) as sock:
        sock.sendall(request_head)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            sock.sendall(bytes(200_000_000))
    assert patient.request("GET", "/health").status == 200


def test_no_invitation_when_there_is_no_space(tmp_path: Path) -> None:
    """507 before the body, for every way to upload; what is there is still served."""
    server = FileServer(tmp_path / "server", {"server": {"min_free_bytes": "1MB"}})
    server.start()
    assert server.request("PUT", slots.target("a", slots.v1("a", 3)), b"abc").status == 201
    server.write_config({"server": {"min_free_bytes": "900TB"}})
    os.kill(server.pid, signal.SIGHUP)
    wait_until(lambda: server.request("GET", "/ready").status == 503, "the new reserve counts")
    expect = "Expect: 100-continue"
    form = ("X-Signature: " + slots.x_signature("/upload"), "Content-Type: multipart/form-data; boundary=b")
    for head in (
        put("full-small", b"", expect, size=3),
        put("full-large", b"", expect, size=300_000),
        put_framed("full-chunked", "Transfer-Encoding: chunked", expect),
        lines("POST /upload HTTP/1.1", "Host: t", *form, "Content-Length: 500000", expect),
    ):
        with connect(server) as sock:
            sock.sendall(head)
            assert statuses(rest(sock)) == [507], head
    assert server.request("GET", "/upload/a").body == b"abc"
    assert server.files() == {"a"}
    judge(server)
    server.stop()


@pytest.mark.parametrize("size", [3, 100_000])
def test_expect_continue_is_answered_once_the_body_is_wanted(patient: FileServer, size: int) -> None:
    with connect(patient) as sock:
        for number in range(3):
            data = put(f"invited-{size}-{number}", b"i" * size, "Expect: 100-continue")
            sock.sendall(data[:-size])
            assert first(sock) == b"HTTP/1.1 100 Continue\r\n\r\n"
            sock.sendall(data[-size:])
            assert first(sock).startswith(b"HTTP/1.1 201 ")


# ---- pipelining


def test_500_pipelined_requests(patient: FileServer) -> None:
    names = [f"many-{number}" for number in range(250)]
    data = b"".join(
        put(name, name.encode()) + get(target=f"/upload/cases/{name}.bin") for name in names
    )  # fmt: skip
    with connect(patient) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        found = answers(rest(sock))
    assert [answer.status for answer in found] == [201, 200] * 250
    assert [answer.body for answer in found[1::2]] == [name.encode() for name in names]


def test_100000_pipelined_requests_hold_no_memory(patient: FileServer) -> None:
    """S-15: pipelined requests are not queued; the client that does not read stops being read."""
    line = get() * 1000
    before = memory(patient)
    with connect(patient) as sock:
        sock.setblocking(False)
        sent = received = 0
        tail = b""
        deadline = time.monotonic() + 60
        data = memoryview(line)
        while sent < 100 * len(line) or tail.count(b"OK\n") == 0 or received < 100_000:
            assert time.monotonic() < deadline
            with contextlib.suppress(BlockingIOError):
                if sent < 100 * len(line):
                    sent += sock.send(data[sent % len(line) :])
            with contextlib.suppress(BlockingIOError):
                chunk = sock.recv(1 << 20)
                received += (tail[-2:] + chunk).count(b"OK\n")
                tail = chunk
    assert received == 100_000
    assert memory(patient) - before < 8_000_000


def test_a_client_that_pipelines_and_never_reads_holds_little(patient: FileServer) -> None:
    path = "cases/sixty.bin"
    body = content(60_000, "sixty")
    assert patient.request("PUT", slots.target(path, slots.v1(path, len(body))), body).status == 201
    before = memory(patient)
    socks = [connect(patient, receive_buffer=4096) for _ in range(40)]
    for sock in socks:
        sock.sendall(get(target="/upload/" + path) * 200)
    assert patient.request("GET", "/health").status == 200
    assert memory(patient) - before < 40 * 700_000
    for sock in socks:
        sock.close()


def test_large_downloads_in_a_pipeline(impatient: FileServer) -> None:
    with connect(impatient) as sock:
        sock.sendall(
            get(target="/upload/" + LARGE) * 3 + get("Range: bytes=10-99999", target="/upload/" + LARGE) + get()
        )
        sock.shutdown(socket.SHUT_WR)
        found = answers(rest(sock))
    assert [answer.status for answer in found] == [200, 200, 200, 206, 200]
    assert all(answer.body == LARGE_BYTES for answer in found[:3])
    assert found[3].body == LARGE_BYTES[10:100_000]


# ---- reuse and abort


def test_a_connection_is_used_again_after_refusals(patient: FileServer) -> None:
    line = Line(patient.port)
    for number in range(20):
        assert line.ask(get(target="/upload/none")).status == 404
        assert line.ask(lines("PUT /upload/x HTTP/1.1", "Host: t", "Content-Length: 3") + b"abc").status == 403
        assert line.ask(put("reuse", b"same")).status == 201
        assert line.ask(put("reuse", b"else")).status == 409
        assert line.ask(put_framed("reuse-411")).status == 411
        assert line.ask(put(f"reuse-{number}", b"new")).status == 201
        assert line.ask(lines("TRACE / HTTP/1.1", "Host: t")).status == 405
    assert line.opened == 1
    line.close()


@pytest.mark.parametrize("size", [500, 5000, 500_000])
def test_an_aborted_body_is_never_a_request(patient: FileServer, size: int) -> None:
    """N-40: whatever is cut, no byte of a body is read as the next request."""
    inner = put(f"inner-{size}", b"abc")
    for reset in (False, True):
        sock = connect(patient)
        sock.sendall(put(f"outer-{size}", inner, size=size))
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            sock.shutdown(socket.SHUT_WR)
            assert statuses(rest(sock)) == [400]
        sock.close()
    wait_until(lambda: patient.spooled() == [], "the spool is empty")
    assert not (patient.storage / f"cases/inner-{size}.bin").exists()
    assert not (patient.storage / f"cases/outer-{size}.bin").exists()


# ---- many


def test_2000_silent_connections_and_a_quick_client(patient: FileServer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    before = memory(patient)
    socks = [connect(patient) for _ in range(2000)]
    try:
        line = Line(patient.port)
        for _ in range(100):
            assert line.ask(get()).status == 200
        line.close()
        assert memory(patient) - before < 2000 * 10_000
    finally:
        for sock in socks:
            sock.close()
    wait_until(lambda: established(patient) == 0, "all are forgotten")


def test_a_burst_of_connections_waits_for_no_retransmission(patient: FileServer) -> None:
    """While the server is busy, more than a hundred may be waiting to be accepted."""
    stand_still(patient.pid)
    try:
        socks = []
        for _ in range(600):
            sock = socket.socket()
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect((patient.host, patient.port))
            socks.append(sock)
        wait_until(lambda: all(_connected(sock) for sock in socks), "all are in the queue", seconds=0.9)
    finally:
        os.kill(patient.pid, signal.SIGCONT)
    for sock in socks:
        sock.close()


def _connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def test_3000_connects_and_resets_cost_nothing_afterwards(patient: FileServer) -> None:
    """S-19: no closed socket is polled for ever."""
    for number in range(3000):
        sock = connect(patient)
        if number % 3 == 0:
            sock.sendall(get()[: number % 40])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    wait_until(lambda: established(patient) == 0, "all are forgotten")
    used = cpu(patient)
    started = time.monotonic()
    wait_until(lambda: time.monotonic() - started > 1.0, "a second has passed")
    assert cpu(patient) - used < 0.3


def test_chunks_of_one_byte_are_linear(patient: FileServer) -> None:
    """S-15: a million chunks cost what a million bytes of framing cost, and hold no memory."""
    target = "/upload/cases/one-byte.bin"
    head = put_framed("one-byte", "Transfer-Encoding: chunked")
    used = []
    for count in (100_000, 1_000_000):
        path = f"cases/one-byte-{count}.bin"
        head = put_framed(f"one-byte-{count}", "Transfer-Encoding: chunked")
        before, start = memory(patient), cpu(patient)
        with connect(patient) as sock:
            sock.sendall(head)
            for _ in range(count // 10_000):
                sock.sendall(b"1\r\nx\r\n" * 10_000)
            sock.sendall(b"0\r\n\r\n")
            assert first(sock).startswith(b"HTTP/1.1 201 ")
        used.append(cpu(patient) - start)
        assert memory(patient) - before < 40_000_000
        assert (patient.storage / path).stat().st_size == count
    assert target not in patient.files()
    # Ten times the chunks; quadratic work would be a hundred times the time.
    assert used[1] < max(0.2, used[0]) * 30


def test_sigterm_in_a_body(tmp_path: Path) -> None:
    """N-23: what is under way is cut after the drain, nothing of it is published, and the exit code is 0."""
    server = FileServer(tmp_path / "server", {})
    server.start()
    with connect(server) as body, connect(server) as idle, connect(server) as whole:
        body.sendall(put("cut", b"half", size=500_000))
        whole.sendall(put("whole", b"w" * 500_000)[:-10])
        idle.sendall(get())
        assert first(idle).startswith(b"HTTP/1.1 200 ")
        assert server.child is not None
        os.kill(server.pid, signal.SIGTERM)
        idle.recv(10)
        assert rest(idle) == b""
        whole.sendall(b"w" * 10)
        assert statuses(rest(whole)) == [201]
        started = time.monotonic()
        received = rest(body)
        assert statuses(received) in ([503], [])
        assert time.monotonic() - started < 20
    server.stop()
    assert {name for name in server.files() if name.startswith("cases/")} == {"cases/whole.bin"}
