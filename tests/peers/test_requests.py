"""Python's requests: what a bot or a script does."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator

import requests
from tests.fixtures import slots
from tests.fixtures.content import content
from tests.fixtures.server import FileServer


def test_put_get_and_range_in_one_session(shared_server: FileServer) -> None:
    with requests.Session() as session:
        for number in range(20):
            body = content(number * 7_919, f"requests {number}")
            path = f"requests/{number}/très cool.bin"
            sent = session.put(slots.url(shared_server.url, path, len(body)), data=body, timeout=30)
            assert (sent.status_code, sent.content) == (201, b"")
            url = f"{shared_server.url}/upload/{path}"
            assert session.get(url, timeout=30).content == body
            if body:
                part = session.get(url, headers={"Range": "bytes=0-9"}, timeout=30)
                assert (part.status_code, part.content) == (206, body[:10])


def test_a_file_object_is_streamed(shared_server: FileServer) -> None:
    body = content(4_000_000, "file object")
    url = slots.url(shared_server.url, "requests/object/file.bin", len(body))
    assert requests.put(url, data=io.BytesIO(body), timeout=30).status_code == 201
    with requests.get(url.split("?")[0], stream=True, timeout=30) as got:
        digest = hashlib.sha256()
        for piece in got.iter_content(65_536):
            digest.update(piece)
    assert digest.digest() == hashlib.sha256(body).digest()


def test_a_generator_is_sent_chunked(shared_server: FileServer) -> None:
    pieces = [content(size, f"generator {size}") for size in (1, 2, 300_000, 5)]

    def body() -> Iterator[bytes]:
        yield from pieces

    where = "/upload/requests/generator/file.bin"
    headers = {"X-Signature": slots.x_signature(where)}
    sent = requests.put(shared_server.url + where, data=body(), headers=headers, timeout=30)
    assert sent.status_code == 201
    assert requests.get(shared_server.url + where, timeout=30).content == b"".join(pieces)

    slot = slots.url(shared_server.url, "requests/generator/slot.bin", 300_008)
    assert requests.put(slot, data=body(), timeout=30).status_code == 411


def test_multipart_form(shared_server: FileServer) -> None:
    body = content(900_000, "multipart")
    sent = requests.post(
        f"{shared_server.url}/upload",
        files={"file": ("два слова.txt", body, "text/plain")},
        headers={"X-Signature": slots.x_signature("/upload")},
        timeout=30,
    )
    assert sent.status_code == 200
    answer = sent.json()
    assert (answer["success"], answer["size"]) == (True, len(body))
    where = answer["url"]
    url = where if where.startswith("http") else shared_server.url + where
    assert requests.get(url, timeout=30).content == body


def test_a_refusal_is_readable_and_the_session_goes_on(shared_server: FileServer) -> None:
    with requests.Session() as session:
        wrong = f"{shared_server.url}/upload/requests/wrong/file.bin?v={'0' * 64}"
        refused = session.put(wrong, data=bytes(2_000_000), timeout=30)
        assert refused.status_code == 403
        assert refused.headers["content-type"].startswith("application/problem+json")
        problem = refused.json()
        assert problem["status"] == 403
        assert {"type", "title", "detail", "code", "request_id"} <= problem.keys()
        assert session.get(wrong.split("?", maxsplit=1)[0], timeout=30).status_code == 404
