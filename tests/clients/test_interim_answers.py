"""Clients that take any answer for the final one never get another: Python's http.client, and what stands on it."""

from __future__ import annotations

import hashlib
import http.client
import io
from collections.abc import Mapping
from urllib.parse import urljoin

import pytest
import requests
from tests.clients.arrivals import SIGNED, check_arrival, endpoint
from tests.fixtures import slots
from tests.fixtures.content import content
from tests.fixtures.server import FileServer
from tusclient.client import TusClient

MIB = 1 << 20
SIZE = 3 * MIB + 345
WITHOUT_VERSION: Mapping[str, Mapping[str, str]] = {
    "none": {},
    "unknown": {"Upload-Draft-Interop-Version": "2"},
    "malformed": {"Upload-Draft-Interop-Version": "eight"},
    "another field": {"Upload-Limit": "max-size=1"},
}


@pytest.mark.parametrize("fields", WITHOUT_VERSION.values(), ids=WITHOUT_VERSION)
@pytest.mark.parametrize("complete", ["Upload-Complete: ?1", "Upload-Incomplete: ?0"])
@pytest.mark.parametrize("target", ["slot", "/tus/", "/upload"])
def test_http_client(
    shared_server: FileServer, request: pytest.FixtureRequest, target: str, complete: str, fields: Mapping[str, str]
) -> None:
    """A whole file in one request, in pieces with time between them for a server that likes to talk."""
    body = content(SIZE, request.node.name)
    name, _, value = complete.partition(": ")
    headers = {name: value, "Content-Length": str(SIZE), **fields}
    if target == "slot":
        path = f"interim/{hashlib.sha256(request.node.name.encode()).hexdigest()}/file.bin"
        method, target = "PUT", slots.target(path, slots.v1(path, SIZE))
    else:
        method = "POST"
        headers["X-Signature"] = slots.x_signature(target)
    connection = http.client.HTTPConnection(shared_server.host, shared_server.port, timeout=60)
    try:
        connection.request(method, target, io.BytesIO(body), headers)
        answer = connection.getresponse()
        assert answer.status in {200, 201}
        answer.read()
        connection.request("GET", "/health")
        assert connection.getresponse().read() == b"OK\n"
    finally:
        connection.close()


def test_requests(shared_server: FileServer) -> None:
    """Creation, append, offset, and the end, by the draft in its final form."""
    body = content(SIZE, "interim requests")
    with requests.Session() as session:
        created = session.post(
            endpoint(shared_server),
            data=body[:MIB],
            headers={**SIGNED, "Upload-Complete": "?0", "Upload-Length": str(SIZE)},
            timeout=60,
        )
        assert created.status_code == 201
        url = urljoin(endpoint(shared_server), created.headers["Location"])
        asked = session.head(url, timeout=60)
        assert (asked.status_code, asked.headers["Upload-Offset"]) == (204, str(MIB))
        offset = MIB
        for stop, complete in ((2 * MIB, "?0"), (SIZE, "?1")):
            sent = session.patch(
                url,
                data=body[offset:stop],
                headers={
                    "Upload-Offset": str(offset),
                    "Upload-Complete": complete,
                    "Content-Type": "application/partial-upload",
                },
                timeout=60,
            )
            assert sent.status_code in {200, 201, 204}
            offset = stop
    check_arrival(shared_server, url, body)


def test_tuspy(shared_server: FileServer) -> None:
    """Which stands on requests."""
    body = content(SIZE, "interim tuspy")
    client = TusClient(endpoint(shared_server), headers={**SIGNED, "Upload-Complete": "?1"})
    uploader = client.uploader(file_stream=io.BytesIO(body), chunk_size=MIB)
    uploader.upload()
    assert uploader.url is not None
    check_arrival(shared_server, uploader.url, body)
