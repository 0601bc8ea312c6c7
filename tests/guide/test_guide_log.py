"""The lines about upload sessions that the guide shows under Monitoring."""

from __future__ import annotations

import contextlib
import re
import socket

from tests.fixtures.child import wait_until
from tests.fixtures.server import FileServer
from tests.guide import printed
from tests.guide.servers import StartGuideServer, signature


def counts(server: FileServer, line: str) -> list[int]:
    """The numbers in all lines of the log that have the form of the guide's line, in order."""
    stamp, number = line[:19], re.findall(r"\d+", line[19:])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", stamp)
    assert len(number) == 1
    before, after = line[19:].split(number[0])
    form = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d" + re.escape(before) + r"(\d+)" + re.escape(after) + "$"
    return [int(found) for found in re.findall(form, server.log_text(), re.MULTILINE)]


def test_sessions_and_uploads_are_counted_in_the_guides_words(start_guide_server: StartGuideServer) -> None:
    """Three sessions, of which two receive bytes at this moment."""
    server = start_guide_server()
    headers = {
        "X-Filename": "large_file.zip",
        "X-Total-Size": str(printed.TOTAL_SIZE),
        "X-Signature": signature(server, "/upload/chunked"),
    }
    sessions = []
    for _ in range(3):
        created = server.request("POST", "/upload/chunked", b"", headers)
        assert created.status == 201
        sessions.append(str(created.json()["session_id"]))
    with contextlib.ExitStack() as connections:
        for session in sessions[:2]:
            connection = connections.enter_context(socket.create_connection((server.host, server.port), timeout=30))
            connection.sendall(
                b"PUT /upload/chunked HTTP/1.1\r\nHost: guide\r\nX-Chunk-Number: 0\r\n"
                b"X-Upload-Session-ID: " + session.encode() + b"\r\nContent-Length: 10485760\r\n\r\n" + bytes(1 << 20)
            )
        wait_until(lambda: 3 in counts(server, printed.ACTIVE_SESSIONS), "three sessions are logged")
        wait_until(lambda: 2 in counts(server, printed.ACTIVE_UPLOADS), "two uploads are logged")
    # At a rate that a person can read.
    assert len(counts(server, printed.ACTIVE_SESSIONS)) < 100
