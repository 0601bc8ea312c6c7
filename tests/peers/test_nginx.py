"""nginx in front, with and without request buffering, speaking HTTP/1.0 and kept-alive HTTP/1.1 to us."""

from __future__ import annotations

import http.client
from pathlib import Path

import pytest
from tests.fixtures import slots
from tests.fixtures.content import content
from tests.fixtures.curl import curl
from tests.fixtures.nginx import FRONTS, Front, Nginx
from tests.fixtures.server import Answer, FileServer, request


@pytest.fixture(params=FRONTS, ids=lambda front: front.name)
def front(request: pytest.FixtureRequest) -> Front:
    value = request.param
    assert isinstance(value, Front)
    return value


def ask(nginx: Nginx, front: Front, method: str, target: str, body: bytes | None = None, **headers: str) -> Answer:
    spelled = {name.replace("_", "-"): value for name, value in headers.items()}
    return request("127.0.0.1", nginx.ports[front], method, target, body, spelled)


@pytest.mark.parametrize("size", [0, 1, 16_384, 1_000_003, 12_000_000])
def test_uploads_are_byte_identical(nginx: Nginx, front: Front, size: int) -> None:
    path = f"nginx/{front.name}/{size}/très cool+(1)%20.bin"
    body = content(size, path)
    where = slots.target(path, slots.v2(path, size, "video/mp4"))
    assert ask(nginx, front, "PUT", where, body, Content_Type="video/mp4").status == 201
    got = ask(nginx, front, "GET", where.split("?")[0])
    assert (got.status, got.body == body, got.headers["content-type"]) == (200, True, "video/mp4")
    assert ask(nginx, front, "PUT", where, body, Content_Type="video/mp4").status == 201


def test_conditions_and_ranges(nginx: Nginx, front: Front) -> None:
    path = f"nginx/{front.name}/ranges.ogg"
    body = content(600_000, path)
    assert ask(nginx, front, "PUT", slots.target(path, slots.v1(path, len(body))), body).status == 201
    where = f"/upload/{path}"
    head = ask(nginx, front, "HEAD", where)
    assert (head.status, head.headers["content-length"]) == (200, str(len(body)))
    etag = head.headers["etag"]
    assert not etag.startswith("W/")
    part = ask(nginx, front, "GET", where, Range="bytes=1000-300999", If_Range=etag)
    assert (part.status, part.body == body[1000:301_000]) == (206, True)
    assert part.headers["content-range"] == f"bytes 1000-300999/{len(body)}"
    tail = ask(nginx, front, "GET", where, Range="bytes=-5")
    assert (tail.status, tail.body) == (206, body[-5:])
    assert ask(nginx, front, "GET", where, Range="bytes=600000-").status == 416
    same = ask(nginx, front, "GET", where, If_None_Match=etag)
    assert (same.status, same.body) == (304, b"")


def test_refusals_pass_through(nginx: Nginx, front: Front, tmp_path: Path) -> None:
    """403 and 409 with their bodies, also while the client is still sending megabytes."""
    file = tmp_path / "file.bin"
    file.write_bytes(content(8_000_000, "refused"))
    root = f"http://127.0.0.1:{nginx.ports[front]}"
    path = f"nginx/{front.name}/refused.bin"
    for query, status in ((f"?v={'0' * 64}", 403), ("", 403)):
        for options in ((), ("-H", "Expect:")):
            sent = curl("-T", file, *options, f"{root}/upload/{path}{query}")
            assert sent.status == status, sent.trace[-2000:]
            assert b'"code"' in sent.body
            assert sent.headers()["content-type"].startswith("application/problem+json")
    url = root + slots.target(path, slots.v1(path, 8_000_000))
    assert curl("-T", file, url).status == 201
    file.write_bytes(content(8_000_000, "other"))
    assert curl("-T", file, url).status == 409
    assert ask(nginx, front, "GET", "/upload/nginx/never/was.bin").status == 404


def test_chunked_client(nginx: Nginx, front: Front) -> None:
    """A buffering nginx gives a chunked body its length; an unbuffered 1.1 one passes it on as chunks."""
    body = content(2_500_000, front.name)
    where = f"/upload/nginx/{front.name}/chunked.bin"
    sent = curl(
        *("-T", "-", "-H", "Transfer-Encoding: chunked", "-H", "Expect:"),
        *("-H", f"X-Signature: {slots.x_signature(where)}"),
        f"http://127.0.0.1:{nginx.ports[front]}{where}",
        stdin=body,
    )
    assert (sent.exit_code, sent.status) == (0, 201), sent.trace[-2000:]
    assert ask(nginx, front, "GET", where).body == body


def test_many_requests_over_kept_connections(nginx: Nginx, front: Front) -> None:
    """Refusals in between must not shift answers on a connection that nginx uses again."""
    client = http.client.HTTPConnection("127.0.0.1", nginx.ports[front], timeout=30)

    def exchange(method: str, target: str, body: bytes | None = None) -> tuple[int, bytes]:
        try:
            client.request(method, target, body)
            answer = client.getresponse()
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            # Without buffering, nginx ends a connection whose body it had not read when the refusal came,
            # after saying that it would keep it.
            if front.buffering:
                raise
            client.close()
            client.request(method, target, body)
            answer = client.getresponse()
        return answer.status, answer.read()

    try:
        for number in range(40):
            path = f"nginx/{front.name}/many/{number}.bin"
            body = content(1 + number * 997, path)
            refused, problem = exchange("PUT", f"/upload/{path}?v={'f' * 64}", body)
            assert (refused, b'"code"' in problem) == (403, True)
            assert exchange("PUT", slots.target(path, slots.v1(path, len(body))), body) == (201, b"")
            assert exchange("GET", f"/upload/{path}") == (200, body)
    finally:
        client.close()


def test_documented_server_block(nginx: Nginx, shared_server: FileServer) -> None:
    """The block of docs/xmpp.md, with only TLS and ports replaced: an upload above 1 MB and its download."""
    path = "nginx/documented/video file.mp4"
    body = content(3_000_000, path)
    where = slots.target(path, slots.v2(path, len(body), "video/mp4"))
    sent = request("127.0.0.1", nginx.printed, "PUT", where, body, {"Content-Type": "video/mp4"})
    assert sent.status == 201
    got = request("127.0.0.1", nginx.printed, "GET", where.split("?")[0])
    assert (got.status, got.body == body) == (200, True)
    refused = request("127.0.0.1", nginx.printed, "PUT", slots.target(path, f"v={'0' * 64}"), body)
    assert refused.status == 403
    assert path in shared_server.files()
