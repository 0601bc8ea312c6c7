"""Health, readiness, the lines of the log, reloading: what an operator and a supervisor see of the server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fixtures import slots
from tests.fixtures.child import program, wait_until
from tests.fixtures.server import DELETE_SECRET, SECRET, FileServer, Settings, StartServer, environment
from tests.server import signatures
from tests.server.wire import Wire

LINE = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (?P<level>DEBUG|INFO|WARNING|ERROR) (?P<message>[^\x00-\x1f\x7f]+)",
)
REQUEST = re.compile(
    r'(?P<method>[A-Z]+) (?P<path>/\S*|"/[^"]*"|\*) (?P<status>\d{3}) in=(?P<received>\d+) out=(?P<sent>\d+) '
    r"(?P<seconds>\d+\.\d{3})s from (?P<peer>127\.0\.0\.1:\d+) id=(?P<id>[0-9a-f]+-[0-9a-f]+)(?P<user> user=\S+)?",
)


def requests(server: FileServer) -> list[re.Match[str]]:
    """The request lines of a text log, the fixture's own questions after readiness left out."""
    found = []
    for line in server.log.read_text().splitlines():
        match = LINE.fullmatch(line)
        assert match is not None, line
        if match["message"].partition(" ")[0] in {"GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"}:
            request = REQUEST.fullmatch(match["message"])
            assert request is not None, line
            assert match["level"] == "INFO"
            if request["path"] != "/ready":
                found.append(request)
    return found


def reload(server: FileServer, settings: Settings, said: str = "Configuration reloaded") -> str:
    """Write a new configuration and send SIGHUP; the log from then on, once `said` stands in it."""
    before = len(server.log.read_text())
    server.write_config(settings)
    os.kill(server.pid, signal.SIGHUP)

    def since() -> str:
        return server.log.read_text()[before:]

    wait_until(lambda: said in since(), "the reload is over")
    return since()


def test_health_and_readiness(module_server: FileServer) -> None:
    health = module_server.request("GET", "/health")
    assert (health.status, health.body, health.headers["cache-control"]) == (200, b"OK\n", "no-store")
    ready = module_server.request("GET", "/ready")
    assert (ready.status, ready.json(), ready.headers["cache-control"]) == (200, {"ready": True}, "no-store")


def test_the_front_page(module_server: FileServer) -> None:
    page = module_server.request("GET", "/")
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert b"<html" in page.body


def test_draining_is_not_ready_but_healthy(server: FileServer) -> None:
    """On connections that are there already: a proxy asks over its kept one."""
    child = server.child
    assert child is not None
    with Wire(server) as kept, Wire(server) as upload:
        path = "drain/a"
        upload.head("PUT", slots.target(path, slots.v1(path, 100_000)), {"Content-Length": "100000"})
        upload.send(bytes(70_000))
        wait_until(lambda: bool(server.spooled()), "the upload is running")
        # A head that has begun keeps its connection.
        kept.send(b"GET /ready HTTP/1.1\r\n")
        child.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "Stopping on SIGTERM" in server.log.read_text(), "the drain")
        upload.send(bytes(30_000))
        assert upload.answer().status == 201
    assert child.process.wait(20) == 0


# --- the log ---------------------------------------------------------------------------------------------


def test_every_request_is_one_line(server: FileServer) -> None:
    body = b"0123456789"
    path = "log/a b.txt"
    put = slots.target(path, slots.v1(path, 10))
    url = put.partition("?")[0]
    server.request("PUT", put, body)
    server.request("PUT", put, b"different!")
    server.request("PUT", url, body)
    server.request("GET", url)
    server.request("GET", url, headers={"Range": "bytes=2-4"})
    server.request("GET", url, headers={"If-None-Match": "*"})
    server.request("HEAD", url)
    server.request("GET", "/upload/missing?v=secret-in-the-query")
    server.request("OPTIONS", url)
    server.request("PATCH", url, b"x")
    server.request("DELETE", slots.target(path, slots.delete_token(path)))
    server.stop()
    lines = requests(server)
    # Of a body that is refused, what had come by then counts.
    refused = {"403", "405"}
    shown = [
        (
            line["method"],
            line["path"],
            int(line["status"]),
            int(line["received"]) if line["status"] not in refused else 0,
        )
        for line in lines
    ]
    quoted = '"/upload/log/a b.txt"'
    assert shown == [
        ("PUT", quoted, 201, 10),
        ("PUT", quoted, 409, 10),
        ("PUT", quoted, 403, 0),
        ("GET", quoted, 200, 0),
        ("GET", quoted, 206, 0),
        ("GET", quoted, 304, 0),
        ("HEAD", quoted, 200, 0),
        ("GET", "/upload/missing", 404, 0),
        ("OPTIONS", quoted, 204, 0),
        ("PATCH", quoted, 405, 0),
        ("DELETE", quoted, 204, 0),
    ]
    assert [int(line["sent"]) for line in lines[3:7]] == [10, 3, 0, 0]
    assert len({line["id"] for line in lines}) == len(lines)


def test_the_log_in_json(start_server: StartServer) -> None:
    server = start_server({"logging": {"format": "json"}})
    token = signatures.bearer(signatures.ticket(path="log/a", sub="alice@example.org"))
    answer = server.request("PUT", "/upload/log/a", b"abc", token)
    assert answer.status == 201
    refused = server.request("PUT", "/upload/log/a?v=" + "0" * 64, b"abc").json()["request_id"]
    server.stop()
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert line["level"] in {"DEBUG", "INFO", "WARNING", "ERROR"}
        assert isinstance(line["event"], str)
    events = [line["event"] for line in lines]
    for name in ("server_starting", "server_listening", "server_ready", "server_stopping", "server_stopped"):
        assert events.count(name) == 1, name
    stored = next(line for line in lines if line["event"] == "request" and line["method"] == "PUT")
    assert {key: stored[key] for key in ("path", "status", "bytes_in", "bytes_out", "user")} == {
        "path": "/upload/log/a",
        "status": 201,
        "bytes_in": 3,
        "bytes_out": len(answer.body),
        "user": "alice@example.org",
    }
    # The id in the client's hands finds both lines.
    about = [line["event"] for line in lines if line.get("request_id") == refused]
    assert sorted(about) == ["request", "signature_refused"]


def test_a_refusal_says_what_differed(server: FileServer) -> None:
    """The client learns the status only; the operator, which part did not fit."""
    path = "why/photo.jpg"
    cases = [
        (slots.v1(path, 16 + 3), {}, "size"),
        (slots.v1("other/photo.jpg", 3), {}, "unknown_key"),
        (slots.v2(path, 3, "image/jpeg"), {"Content-Type": "image/png"}, "type"),
        (signatures.v3("PUT", f"/upload/{path}", signatures.in_future(-5)), {}, "expired"),
        (signatures.v3("GET", f"/upload/{path}", signatures.in_future()), {}, "method"),
        (slots.v1(path, 3, "another-secret-another-secret"), {}, "unknown_key"),
        ("v=short", {}, "malformed"),
        ("", {}, "missing"),
    ]
    for query, headers, _ in cases:
        answer = server.request("PUT", f"/upload/{path}" + (f"?{query}" if query else ""), b"abc", headers)
        assert answer.status == 403
        assert answer.json()["detail"] == "The request is not permitted."
    server.stop()
    lines = [line for line in server.log.read_text().splitlines() if "Signature refused" in line]
    assert len(lines) == len(cases)
    for line, (_, _, reason) in zip(lines, cases, strict=True):
        assert f"PUT /upload/{path}: {reason}" in line


CANARIES = ("canary-secret-canary-secret-canary", "canary-delete-canary-delete", "canary-jwt-canary-jwt-canary")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_secret_and_no_signature_anywhere(start_server: StartServer, log_format: str) -> None:
    """S-72: whatever is asked, right or wrong, at the most talkative level: not in the log, not in an answer."""
    secret, delete_secret, jwt_secret = CANARIES
    server = start_server(
        {
            "security": {"secret": secret, "delete_secret": delete_secret, "jwt_secret": jwt_secret},
            "logging": {"format": log_format, "level": "debug"},
        }
    )
    path = "canary/f.bin"
    claims: dict[str, object] = {"slot": "canary", "filename": "f.bin", "filesize": 3, "exp": signatures.in_future()}
    ticket = {"aud": "hmac-file-server", "exp": signatures.in_future(), "prefix": "", "sub": "alice"}
    token = signatures.token(ticket, {"alg": "HS256", "typ": "ticket+jwt"}, jwt_secret)
    signed = {
        "v1": slots.v1(path, 3, secret),
        "v2": slots.v2(path, 3, secret=secret),
        "token": slots.token(path, 3, secret=secret),
        "delete": slots.delete_token(path, delete_secret, secret),
        "v1 of another": slots.v1(path, 4, secret),
        "ticket": f"ticket={token}",
        "junk": "v=canary-signature",
        "two": "v=canary-signature&v2=canary-signature",
    }
    answers = []
    marks = {secret, delete_secret, jwt_secret, token, "canary-signature", "canary-query"}
    for query in signed.values():
        marks.add(query.partition("=")[2].partition("&")[0])
        for method in ("PUT", "POST", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH"):
            for base in ("/upload/", "/", "/download/"):
                target = f"{base}{path}?{query}&q=canary-query"
                answers += [server.request(method, target, b"abc")]
    bearer = slots.bearer(claims, jwt_secret)
    x_signature = slots.x_signature("/upload", secret)
    marks |= {bearer.partition(" ")[2], x_signature}
    for headers in ({"Authorization": bearer}, {"Authorization": f"Bearer {token}x"}, {"X-Signature": x_signature}):
        for target in (f"/upload/{path}", "/upload", "/upload/canary/g.bin"):
            answers += [server.request(method, target, b"abc", headers) for method in ("PUT", "POST", "DELETE")]
    with Wire(server) as wire:
        wire.send(b"PUT /upload/x?v=canary-signature HTTP/9.9\r\nX-Signature: canary-signature\r\n\r\n")
        answers.append(wire.answer())
    assert {answer.status for answer in answers} >= {201, 204, 401, 403, 404, 405, 505}
    server.stop()
    text = server.log.read_text()
    assert "/upload/canary/f.bin" in text
    for mark in marks:
        assert mark not in text, mark
        for answer in answers:
            assert mark.encode() not in answer.body
            assert mark not in str(answer.headers)
    for answer in answers:
        assert str(server.folder).encode() not in answer.body


def test_clients_that_leave_are_a_few_lines(server: FileServer) -> None:
    """A network flip cuts many uploads at once: no traceback, and a line each for the first of a second only (N-29)."""
    path = "left/f.bin"
    wires = []
    for _ in range(30):
        wire = Wire(server)
        wire.head("PUT", slots.target(path, slots.v1(path, 200_000)), {"Content-Length": "200000"})
        wire.send(bytes(100_000))
        wires.append(wire)
    wait_until(lambda: len(server.spooled()) == 30, "all are running")
    for wire in wires:
        wire.reset()
    wait_until(lambda: not server.spooled(), "all are gone")
    server.stop()
    lines = [line for line in requests(server) if line["path"] == f"/upload/{path}"]
    text = server.log.read_text()
    counted = sum(int(count) for count in re.findall(r"INFO (\d+) more requests were cut", text))
    assert len(lines) >= 10
    assert len(lines) + counted == 30
    assert {line["status"] for line in lines} <= {"400", "499"}
    assert len(text.splitlines()) < 45


@pytest.mark.parametrize("level", ["warning", "error"])
def test_a_quiet_log(start_server: StartServer, level: str) -> None:
    server = start_server({"logging": {"level": level}})
    assert server.request("GET", "/health").status == 200
    assert server.request("PUT", "/upload/a", b"x").status == 403
    server.stop()
    lines = server.log.read_text().splitlines()
    assert len(lines) == (1 if level == "warning" else 0)


# --- SIGHUP ----------------------------------------------------------------------------------------------


def test_live_keys_are_taken_at_once(server: FileServer) -> None:
    def put(path: str, size: int, secret: str = SECRET) -> int:
        return server.request("PUT", slots.target(path, slots.v1(path, size, secret)), bytes(size)).status

    new = "a-new-secret-a-new-secret-a-new"
    assert put("reload/a.bin", 2000) == 201
    log = reload(server, {"server": {"max_upload_size": "1KB"}, "security": {"secret": [new, SECRET]}})
    assert "server.max_upload_size" in log
    assert "security.secret" in log
    assert put("reload/b.bin", 2000) == 413
    assert put("reload/b.bin", 1000, new) == 201
    reload(server, {"uploads": {"allowed_extensions": ["jpg"]}, "security": {"secret": new}})
    assert put("reload/c.jpg", 2000, SECRET) == 403
    assert put("reload/c.jpg", 2000, new) == 201
    assert put("reload/c.bin", 2000, new) == 415
    reload(server, {"security": {"schemes": ["v2"]}})
    assert put("reload/d.bin", 10) == 403
    reload(server, {"server": {"min_free_bytes": "1000TB"}})
    assert put("reload/e.bin", 10) == 507
    assert server.request("GET", "/ready").status == 503
    reload(server, {})
    assert server.request("GET", "/ready").status == 200
    assert put("reload/e.bin", 10) == 201


def test_a_time_to_live_can_be_set_while_running(server: FileServer) -> None:
    path = "reload/ttl"
    assert server.request("PUT", slots.target(path, slots.v1(path, 1)), b"x").status == 201
    reload(server, {"server": {"file_ttl": "1s"}})
    server.stop()
    server.settings = None
    server.start()
    wait_until(lambda: server.files() == set(), "the file is gone")


def test_the_clocks_of_connections_can_be_changed(server: FileServer) -> None:
    reload(server, {"timeouts": {"stall_timeout": "0.5s", "header_timeout": "0.5s"}})
    # A short body is gathered by the event loop, a large one read by a body loop.
    for path, size in (("reload/stall", 20_000), ("reload/large", 2_000_000)):
        with Wire(server) as wire:
            wire.head("PUT", slots.target(path, slots.v1(path, size)), {"Content-Length": str(size)})
            wire.send(bytes(10))
            answer = wire.answer()
            assert (answer.status, answer.json()["code"]) == (408, "body_stalled")
    with Wire(server) as wire:
        wire.send(b"GET / HTTP/1.1\r\n")
        answer = wire.answer()
        assert (answer.status, answer.json()["code"]) == (408, "head_timeout")


def test_an_upload_outlives_a_reload(server: FileServer) -> None:
    path, size = "reload/running", 1_000_000
    with Wire(server) as wire:
        wire.head("PUT", slots.target(path, slots.v1(path, size)), {"Content-Length": str(size)})
        wire.send(bytes(size // 2))
        wait_until(lambda: bool(server.spooled()), "the upload is running")
        reload(server, {"server": {"max_upload_size": "1KB"}, "security": {"secret": "another-secret-another-secret"}})
        wire.send(bytes(size // 2))
        assert wire.answer().status == 201


def test_the_format_of_the_log_can_be_changed(server: FileServer) -> None:
    log = reload(server, {"logging": {"format": "json"}})
    assert "logging.format" in log
    server.request("GET", "/after")
    server.stop()
    assert '"path":"/after"' in server.log.read_text()


def test_tls_is_not_switched_on_by_a_reload(server: FileServer, tmp_path: Path) -> None:
    """The listener would go on without it, whatever the log said."""
    certificate = tmp_path / "tls.pem"
    subprocess.run(
        [
            *(program("openssl", "openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=localhost", "-keyout", str(certificate), "-out", str(tmp_path / "chain.pem")),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    settings: Settings = {"server": {"tls_certificate": str(tmp_path / "chain.pem"), "tls_key": str(certificate)}}
    log = reload(server, settings, "a restart is needed for ")
    assert "server.tls_certificate, server.tls_key" in log.partition("a restart is needed for ")[2]
    assert "changed: nothing" in log
    assert server.request("GET", "/health").status == 200


def test_what_needs_a_restart_is_said_and_left(server: FileServer) -> None:
    log = reload(server, {"server": {"processes": 2, "base_path": ["/elsewhere/"]}}, "a restart is needed for ")
    assert "server.base_path" in log
    assert "server.processes" in log
    path = "reload/base"
    assert server.request("PUT", slots.target(path, slots.v1(path, 1)), b"x").status == 201


@pytest.mark.parametrize(
    "text",
    [
        "[server\n",
        '[security]\nsecret = "short"\n',
        "[security]\nsecret = 5\n",
        '[server]\nmax_upload_size = "many"\n',
        '[server]\ntls_certificate = "missing.pem"\ntls_key = "missing.pem"\n',
        '[logging]\nfile = "/nowhere/to/be/found.log"\n',
    ],
)
def test_a_bad_file_changes_nothing(server: FileServer, text: str) -> None:
    before = len(server.log.read_text())
    server.config.write_text(text)
    os.kill(server.pid, signal.SIGHUP)
    wait_until(lambda: " ERROR " in server.log.read_text()[before:], "the refusal is logged")
    assert "Configuration not reloaded" in server.log.read_text()[before:]
    path = "reload/bad"
    assert server.request("PUT", slots.target(path, slots.v1(path, 1)), b"x").status == 201


# --- the end ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_signals_end_the_server_well(start_server: StartServer, number: signal.Signals) -> None:
    server = start_server({})
    child = server.child
    assert child is not None
    with Wire(server) as idle, Wire(server) as kept:
        kept.head("GET", "/health")
        assert kept.answer().status == 200
        child.process.send_signal(number)
        assert child.process.wait(20) == 0
        # Idle connections are closed, not reset.
        assert idle.is_closed()
        assert kept.is_closed()
    log = server.log.read_text()
    assert f"Stopping on {number.name}" in log
    assert log.splitlines()[-1].endswith("INFO Stopped")


def test_two_servers_never_share_a_store(server: FileServer, tmp_path: Path) -> None:
    """The second says so in one line and ends with 1; the first notices nothing (D-15)."""
    second = FileServer(tmp_path / "second", {"server": {"storage_path": str(server.storage)}})
    second.folder.mkdir()
    second.write_config(second.settings or {})
    done = subprocess.run(
        [sys.executable, "-m", "hmac_file_server", "serve", "--config", str(second.config)],
        env=environment(),
        cwd=second.folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if " ERROR " in line]
    assert len(errors) == 1
    assert "another server uses this store" in errors[0]
    assert "Traceback" not in done.stderr
    assert server.request("GET", "/ready").status == 200
    assert DELETE_SECRET not in done.stderr
