"""nginx in front: whatever it makes of an ambiguous request, we understand what it forwards as it does."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.fixtures.child import Child, accepts, free_port, program, wait_until
from tests.fixtures.server import FileServer, running
from tests.http.cases import CASES
from tests.http.conftest import judge
from tests.http.wire import PROBE, Talk, converse

_FORWARDED = re.compile(r"^(\S+) (\d{3}) (\S+) ", re.MULTILINE)
_SEEN = re.compile(r" ([A-Z-]+) (\S+|\".*\") ([0-9]{3}) in=[0-9]+ out=[0-9]+ [0-9.]+s from 127\.0\.0\.1:[0-9]+ id=")


@dataclass(frozen=True, slots=True)
class Front:
    """An nginx whose access log says what it has forwarded: method, status, status of the upstream."""

    port: int
    log: Path
    server: FileServer

    def lines(self) -> list[tuple[str, str, str]]:
        found = _FORWARDED.findall(self.log.read_text(encoding="utf-8", errors="replace"))
        return [(str(method), str(status), str(upstream)) for method, status, upstream in found]

    def seen(self) -> list[tuple[str, str, str]]:
        """Method, path and status of each request that we understood."""
        return [(m, path, status) for m, path, status in _SEEN.findall(self._log()) if path != "/ready"]

    def refused(self) -> int:
        """How many requests we refused to understand."""
        return self._log().count("Malformed request from ")

    def _log(self) -> str:
        return self.server.log.read_text(encoding="utf-8", errors="replace")


@pytest.fixture(scope="module", params=["buffered", "unbuffered"])
def front(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """After every case of the table has been sent to it."""
    place = tmp_path_factory.mktemp("front")
    folder = place / "nginx"
    folder.mkdir()
    settings = {"uploads": {"durability": "relaxed"}, "logging": {"level": "debug"}}
    for server in running(place / "backend", settings):
        port = free_port()
        temporary = "\n".join(
            f"{n}_temp_path {folder}/{n};" for n in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (folder / "nginx.conf").write_text(
            f"""
            {"user root;" if os.geteuid() == 0 else ""}
            daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log info;
            events {{ worker_connections 2048; }}
            http {{
                {temporary}
                log_format forwarded '$request_method $status $upstream_status $request_length';
                access_log {folder}/access.log forwarded;
                client_max_body_size 0; client_body_timeout 1s; client_header_timeout 1s; lingering_timeout 1s; keepalive_timeout 6s;
                large_client_header_buffers 4 32k;
                upstream files {{ server 127.0.0.1:{server.port}; keepalive 8; }}
                server {{
                    listen 127.0.0.1:{port};
                    location / {{
                        proxy_pass http://files; proxy_http_version 1.1; proxy_set_header Connection "";
                        proxy_set_header Host $http_host; proxy_next_upstream off;
                        proxy_request_buffering {"on" if request.param == "buffered" else "off"};
                    }}
                }}
            }}
            """,
            encoding="utf-8",
        )
        child = Child(
            "nginx",
            [
                program("nginx", "nginx-light"),
                "-e",
                f"{folder}/error.log",
                "-p",
                str(folder),
                "-c",
                f"{folder}/nginx.conf",
            ],
            log=folder / "nginx.out",
            env=os.environ,
            cwd=folder,
        )
        try:
            child.wait_ready(lambda port=port: accepts(port))  # type: ignore[misc]
            converse(port, [Talk([case.data + PROBE]) for case in CASES], seconds=30)
            yield Front(port, folder / "access.log", server)
            judge(server)
        finally:
            child.stop()
            shutil.rmtree(folder, ignore_errors=True)


def test_nginx_and_we_agree_on_every_case(front: Front) -> None:
    """Each forwarded request is seen once, with the status that nginx was told, and nothing besides is seen."""
    wait_until(lambda: len(front.lines()) >= len(CASES), "nginx has written its log")
    # nginx answers at the end of a body; a body that the client never ended is cut (400) or unanswered (499).
    complete = [line for line in front.lines() if line[2] != "-"]
    wait_until(lambda: len(front.seen()) + front.refused() >= len(complete), "the server has written its log")
    answered = Counter((method, upstream) for method, _, upstream in complete)
    seen = Counter((method, status) for method, _, status in front.seen())
    unseen = answered - seen
    # What nginx forwards and we do not understand is refused, and the connection closed: one answer each.
    assert unseen.total() == front.refused(), unseen
    assert {status for _, status in unseen} <= {"400", "414", "417", "431", "501", "505"}, unseen
    cut = [line for line in front.lines() if line[2] == "-" and line[1] in {"400", "408", "499"}]
    unanswered = seen - answered
    assert unanswered.total() <= len(cut), unanswered
    assert {status for _, status in unanswered} <= {"400", "499"}, unanswered


def test_nothing_is_smuggled_through_nginx(front: Front) -> None:
    """Bodies arrive as nginx took them: no byte of one is a request, no byte of a request in one."""
    for case in CASES:
        for path, body in case.stored:
            stored = front.server.storage / path
            # nginx refuses some that we take: a tab before a length, TRACE, a dot behind a host.
            assert not stored.exists() or stored.read_bytes() == body, case.name
        for path in case.absent:
            assert "smuggled" not in path or not (front.server.storage / path).exists(), case.name
            stored = front.server.storage / path
            if stored.exists():
                # nginx forgave what we do not, or the probe filled a body up: what is there was sent in one piece,
                # or is the data of chunks whose framing we find too long.
                found = stored.read_bytes()
                assert found in case.data + PROBE or found == b"x" * len(found), case.name
    assert front.server.request("GET", "/health").status == 200
