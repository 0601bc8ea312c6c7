"""What is told to whom: the public listener, its proxies, its packages (S-37, S-71, S-73, S-75, S-76, S-77)."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from tests.fixtures.child import wait_until
from tests.fixtures.server import Answer, FileServer, StartServer
from tests.security.site import PRIVATE
from tests.server.signatures import bearer, mac, ticket

_ROOT = Path(__file__).parents[2]
MONITORING = (
    "/metrics", "/metrics/", "/admin", "/admin/", "/admin/sessions", "/api", "/api/v1", "/debug", "/debug/pprof/", "/debug/vars",
    "/status", "/server-status", "/stats", "/version", "/info", "/config", "/config.toml", "/env", "/.env", "/health/detail",
    "/health/live", "/healthz", "/ready/detail", "/.git/config", "/.git/HEAD", "/.well-known/security.txt", "/robots.txt",
    "/favicon.ico", "/actuator", "/actuator/env", "/phpinfo.php", "/index.html", "/upload-form.html", "/web/index.html",
    "/state.db", "/uploads.db", "/server.log", "/docs", "/openapi.json", "/swagger.json", f"/{PRIVATE}/secret",
)  # fmt: skip


@pytest.mark.parametrize("base", ["", "/upload", "/download", "/tus"])
def test_s_71_nothing_to_manage_or_to_watch_is_public(quick: FileServer, base: str) -> None:
    """There is no admin listener yet, and no page of it on this one."""
    for name in MONITORING:
        for method in ("GET", "HEAD"):
            answer = quick.request(method, base + name, headers={"Authorization": "Bearer x"})
            assert answer.status in {400, 404}, (method, base + name, answer.body[:200])
        for method in ("PUT", "DELETE"):
            assert quick.request(method, base + name, None, {"Content-Length": "0"}).status in {400, 403}, base + name


def test_s_71_health_says_no_more_than_it_must(quick: FileServer) -> None:
    for target in ("/health?verbose", "/health?detail=1&format=json"):
        assert quick.request("GET", target).body == b"OK\n"
    assert quick.request("GET", "/ready?verbose").json() == {"ready": True}


def test_s_71_only_the_configured_addresses_listen(quick: FileServer) -> None:
    """The sockets of the process that wait for connections: one, and not that of `admin.listen_address`."""
    inodes = {
        link.removeprefix("socket:[").removesuffix("]")
        for link in (str(entry.readlink()) for entry in Path(f"/proc/{quick.pid}/fd").iterdir())
        if link.startswith("socket:[")
    }
    listening = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{quick.pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and fields[3] == "0A":
                listening.add(int(fields[1].rpartition(":")[2], 16))
    # A socket of Multipath TCP is no row of these tables, but can be connected to.
    assert listening <= {quick.port}
    with socket.create_connection(("127.0.0.1", quick.port), timeout=5) as sock:
        assert sock.getpeername()[1] == quick.port


def everything(server: FileServer) -> Iterator[tuple[str, Answer]]:
    """An answer of every kind: successes, errors of every room, and what is refused before any room."""
    signed = bearer(ticket(prefix="told", ops=["put", "upload", "create", "delete"]))
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nabc\r\n--b--\r\n'
    asked: tuple[tuple[str, str, bytes | None, Mapping[str, str]], ...] = (
        ("PUT", "/upload/told/a.txt", b"abc", signed),
        ("PUT", "/upload/told/a.txt", b"abd", signed),
        ("PUT", "/upload/told/a.txt/b", b"abd", signed),
        ("PUT", "/upload/told/" + "n" * 300, b"abd", signed),
        ("PUT", f"/upload/{PRIVATE}/x", b"abd", signed),
        ("PUT", "/health", b"abd", {"X-Signature": mac("/health")}),
        ("GET", "/upload/told/a.txt", None, {}),
        ("GET", "/upload/told/a.txt", None, {"Range": "bytes=9-"}),
        ("GET", "/upload/told/none", None, {}),
        ("GET", "/upload/told", None, {}),
        ("GET", f"/upload/{PRIVATE}/state.db", None, {}),
        ("DELETE", "/upload/told/none", None, signed),
        ("POST", "/upload", form, {**signed, "Content-Type": "multipart/form-data; boundary=b"}),
        ("POST", "/upload", form[:50], {**signed, "Content-Type": "multipart/form-data; boundary=b"}),
        ("POST", "/upload", form, {**signed, "Content-Type": "text/plain"}),
        ("POST", "/upload/chunked", None, {**signed, "X-Filename": "f", "X-Total-Size": "9", "Content-Length": "0"}),
        ("POST", "/upload/chunked", None, {**signed, "Content-Length": "0"}),
        ("PUT", "/upload/chunked", b"x", {"X-Upload-Session-ID": "1_a", "X-Chunk-Number": "0"}),
        ("GET", "/upload/status", None, {}),
        ("POST", "/tus/", None, {**signed, "Tus-Resumable": "1.0.0", "Upload-Length": "5", "Content-Length": "0"}),
        ("PATCH", "/tus/1_a", b"x", {"Tus-Resumable": "1.0.0"}),
        ("GET", "/", None, {}),
        ("GET", "/?ticket=x", None, {"Accept": "text/html"}),
        ("GET", "/upload-qr.svg?url=x", None, {}),
        ("OPTIONS", "/upload", None, {}),
        ("BREW", "/upload", None, {}),
        ("GET", "/%2e%2e/x", None, {}),
        ("GET", "/upload/x", None, {"Content-Length": "x"}),
    )
    for method, target, body, headers in asked:
        context = f"{method} {target} {dict(headers)}"
        yield context, server.request(method, target, body, {"User-Agent": "canary-agent", **headers})


def test_s_37_answers_tell_nothing_of_the_machine(quick: FileServer) -> None:
    """No path, no address, no version, no name of a program or of a module, whatever the answer is."""
    statuses = set()
    for context, answer in everything(quick):
        statuses.add(answer.status)
        names = set(answer.headers)
        assert not names & {"server", "x-powered-by", "via", "x-runtime", "x-debug", "set-cookie", "x-client-ip"}, (
            context
        )
        said = f"{dict(answer.headers)}\n{answer.body.decode('utf-8', 'replace')}"
        for inner in (
            str(quick.folder),
            "/files/",
            "127.0.0.1",
            "state.db",
            "canary-agent",
            ".py",
            "sqlite",
            "Errno",
            "uvloop",
        ):
            assert inner not in said, (inner, context)
        assert re.search(r"[Pp]ython/?\d|Traceback|0x[0-9a-f]{8}", said) is None, context
    assert statuses >= {200, 201, 204, 400, 401, 403, 404, 405, 409, 415, 416}


FORWARDED = {
    "X-Forwarded-For": "203.0.113.7",
    "X-Real-IP": "203.0.113.7",
    "X-Client-IP": "203.0.113.7",
    "Forwarded": "for=203.0.113.7;host=evil.example;proto=https",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-User": "admin",
    "X-Remote-User": "admin",
    "X-Original-URL": "/upload/other",
    "X-Rewrite-URL": "/upload/other",
    "X-HTTP-Method-Override": "DELETE",
    "True-Client-IP": "203.0.113.7",
    "CF-Connecting-IP": "203.0.113.7",
}


def test_s_76_what_a_proxy_would_say_is_not_believed_of_anybody(quick: FileServer) -> None:
    """Neither the client's address, nor who it is, nor what it asks for; receipts and places are the same with and without."""

    def steady(answer: Answer) -> tuple[int, dict[str, str], str]:
        # Whether the connection stays depends on whether the body had come when it was refused.
        own = {"date", "content-length", "connection"}
        headers = {name: value for name, value in answer.headers.items() if name not in own}
        body = re.sub(r'"request_id": ?"[^"]*"', "", answer.body.decode("utf-8", "replace"))
        return answer.status, headers, body

    permission = bearer(ticket(prefix="proxied"))
    for method, target, body, headers in (
        ("GET", "/", None, {}),
        ("GET", "/upload/none", None, {}),
        ("PUT", "/upload/proxied/a", b"abc", permission),
        ("PUT", "/upload/proxied/a", b"abc", permission),
        ("PUT", "/upload/proxied/a", b"abc", {"X-Signature": "0" * 64}),
        ("GET", "/upload/proxied/a", None, {}),
        ("PUT", "/upload/chunked", b"x", {"X-Upload-Session-ID": "1_a", "X-Chunk-Number": "0"}),
        ("OPTIONS", "/upload", None, {}),
    ):
        plain = quick.request(method, target, body, headers)
        assert steady(quick.request(method, target, body, {**headers, **FORWARDED})) == steady(plain), (method, target)
    quick.request("GET", "/upload/the-last-of-them", None, FORWARDED)
    wait_until(lambda: "the-last-of-them" in quick.log_text(), "the log is written")
    assert "203.0.113.7" not in quick.log_text()
    assert "evil.example" not in quick.log_text()


def test_s_76_the_address_on_a_page_is_told_to_its_asker_only(quick: FileServer) -> None:
    """The one answer that repeats what a proxy says is kept by nobody, and can be no script."""
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nabc\r\n--b--\r\n'
    fields = {
        "Content-Type": "multipart/form-data; boundary=b",
        "Accept": "text/html",
        "X-Forwarded-Proto": "javascript",
    }
    for host in ("evil.example", '"><script>alert(1)</script>', "a b", "x\u00e9"):
        forwarded = {"X-Forwarded-Host": host.encode("utf-8").decode("latin-1"), "X-Forwarded-Prefix": "/x'><b>y"}
        token = ticket(prefix="page", ops=["upload"])
        answer = quick.request("POST", f"/upload?ticket={token}", form, {**fields, **forwarded})
        assert answer.status == 200
        assert answer.headers["cache-control"] == "no-store"
        assert b"<script>alert" not in answer.body
        assert b"javascript:" not in answer.body
        assert b"<b>y" not in answer.body


def test_s_76_a_trusted_proxy_names_the_client(start_server: StartServer) -> None:
    """The control: whom the settings name is believed, and no further than its own word."""
    server = start_server({"server": {"trusted_proxies": ["127.0.0.1"]}})
    server.request("GET", "/upload/asked", None, {"X-Forwarded-For": "198.51.100.9, 203.0.113.7"})
    wait_until(lambda: "/upload/asked" in server.log_text(), "the log is written")
    assert "from 203.0.113.7" in server.log_text()
    assert "198.51.100.9" not in server.log_text()


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "TRACK", "DEBUG", "PROPFIND", "get", "FOO", "X" * 30])
def test_s_77_other_methods_are_refused_and_nothing_comes_back(quick: FileServer, method: str) -> None:
    """Cross-site tracing: what was sent is not repeated."""
    with socket.create_connection(("127.0.0.1", quick.port), timeout=10) as sock:
        target = "127.0.0.1:80" if method == "CONNECT" else "/upload"
        sock.sendall(
            f"{method} {target} HTTP/1.1\r\nHost: t\r\nCookie: canary-cookie\r\nConnection: close\r\n\r\n".encode()
        )
        received = b"".join(iter(lambda: sock.recv(65536), b""))
    assert re.match(rb"HTTP/1\.1 (400|405|501) ", received)
    assert b"canary-cookie" not in received


def test_s_73_plain_http_is_never_redirected(quick: FileServer) -> None:
    """A client that was set up wrongly shall notice, and not send its credentials in the clear first (ASVS 4.1.2)."""
    for context, answer in everything(quick):
        assert not 300 <= answer.status < 400, context


def requirements(name: str) -> list[str]:
    """The packages of a requirements file, each with its options on one line."""
    text = (_ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


@pytest.mark.parametrize("name", ["runtime", "build", "test"])
def test_s_75_packages_are_pinned_by_version_and_hash(name: str) -> None:
    lines = requirements(name)
    assert lines
    for line in lines:
        assert re.match(r"[A-Za-z0-9._-]+==[0-9][^\s;]*\s", line), line
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", line), line
        assert "://" not in line, line


def test_s_75_few_packages_run_with_the_server() -> None:
    """Each is somebody to trust: the number shall not grow unnoticed."""
    names = {line.split("==")[0].lower() for line in requirements("runtime")}
    assert len(names) <= 20, names
