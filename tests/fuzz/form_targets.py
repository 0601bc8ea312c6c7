"""Forms, wired to an upload: in any pieces the same, and never more than one file."""

from __future__ import annotations

import json
from typing import cast

from tests.fuzz.target import Target, joined, split
from tests.unit.protocols.conftest import SECRET, Site
from tests.unit.protocols.exchanges import FakeExchange, request

from hmac_file_server.auth import signing
from hmac_file_server.config import Settings
from hmac_file_server.http import Exchange
from hmac_file_server.http.errors import HttpError

_SETTINGS = Settings()
_SIGNATURE = signing.x_signature(SECRET, "/upload").encode()


def _post(kind: bytes, pieces: list[bytes]) -> tuple[int, object, list[tuple[str, str, bytes]]]:
    site = Site(_SETTINGS)
    length = sum(map(len, pieces))
    exchange = FakeExchange(
        request("POST", "/upload", length=length, content_type=kind, x_signature=_SIGNATURE), pieces
    )
    try:
        site.application.handle(cast("Exchange", exchange))
    except HttpError as error:
        return error.status, error.code, []
    site.store.run_later()
    stored = [(entry.filename, entry.media_type, content) for entry, content in site.store.files.values()]
    assert site.store.idle
    assert exchange.answer.status in {200, 400, 413, 415, 422}, exchange.answer.status
    assert len(stored) == (exchange.answer.status == 200)
    return exchange.answer.status, json.loads(exchange.answer.body).get("code"), stored


def form(data: bytes) -> bool:
    data = data[:4000]
    kind, body = split(data, 2)
    if any((byte < 32 and byte != 9) or byte == 127 for byte in kind):
        return False
    whole = _post(kind, [body])
    half = len(body) // 2
    assert _post(kind, [body[:half], body[half:]]) == whole
    assert _post(kind, [body[p : p + 1] for p in range(len(body))]) == whole
    for name, media_type, content in whole[2]:
        assert content in body
        assert not set(name) & set('/\\\0\r\n"')
        assert not set(media_type) & set("\r\n\0")
        # Nothing of the file is a boundary.
        boundary = kind.rpartition(b"boundary=")[2].strip(b'" ')
        assert b"\r\n--" + boundary not in content or b";" in boundary or not boundary
    return whole[0] == 200


_KIND = b"multipart/form-data; boundary=b"
_HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'

TARGETS = (
    Target(
        "form",
        form,
        (
            joined(_KIND, _HEAD + b"abc\r\n--b--\r\n"),
            joined(b'multipart/form-data; boundary="b"', b'--b\r\nContent-Disposition: form-data; name="note"\r\n\r\nx\r\n' + _HEAD + b"\r\n--x\r\n--b--"),
            joined(_KIND, b"--b\r\nContent-Disposition: form-data; name=file; filename*=UTF-8''%c3%a9\r\n\r\n\r\n--b--\r\njunk"),
            joined(b"multipart/form-data; charset=x; boundary=b", b"\r\n" + _HEAD + b"\r\n--b--"),
            joined(_KIND, b'--b\r\nContent-Disposition: form-data; name="file"; filename="\xff\\"/..\r\n\r\n'),
            joined(b"text/plain", b"x"),
        ),
        (b"--b", b"--b--", b"\r\n", b"\r\n\r\n", b'name="file"', b'filename="', b"filename*=UTF-8''", b"Content-Type: ", b'"', b"\\", b"%", b"=?utf-8?q?", b"\x1f", b";"),
    ),
)  # fmt: skip
