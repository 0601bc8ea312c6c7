"""What an upload has become on the server, whatever protocol brought it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.fixtures import slots
from tests.fixtures.server import FileServer

CREATION = "/tus/"
SIGNED: Mapping[str, str] = {"X-Signature": slots.x_signature(CREATION)}
"""What a client must send to begin an upload."""


def endpoint(server: FileServer, url: str | None = None) -> str:
    """Where uploads are created; `url` is the way to the server that is not its own."""
    return (url or server.url) + CREATION


def upload_id(url: str) -> str:
    """The id in the URL of an upload; every protocol knows it by that."""
    path = urlsplit(url).path
    assert path.startswith(CREATION), url
    return path.removeprefix(CREATION)


def status(server: FileServer, url: str) -> dict[str, object]:
    """What the chunk API says of an upload."""
    answer = server.request("GET", f"/upload/status?session_id={upload_id(url)}")
    assert answer.status == 200, answer.body
    return answer.json()


def check_arrival(server: FileServer, url: str, body: bytes, name: str | None = None) -> str:
    """The upload is complete, and the stored file is what was sent; its path under the storage folder."""
    sent = hashlib.sha256(body).hexdigest()
    told = status(server, url)
    assert (told["completed"], told["uploaded_bytes"], told["total_size"]) == (True, len(body), len(body))
    link = told["url"]
    assert isinstance(link, str)
    path = unquote(urlsplit(link).path)
    stored = next(
        file for file in (server.storage / path.removeprefix(base) for base in ("/upload/", "/")) if file.is_file()
    )
    assert hashlib.sha256(stored.read_bytes()).hexdigest() == sent
    got = server.request("GET", urlsplit(link).path)
    assert got.status == 200
    assert hashlib.sha256(got.body).hexdigest() == sent
    if name is not None:
        assert told["filename"] == name
    return str(stored.relative_to(server.storage))


def write(folder: Path, name: str, body: bytes) -> Path:
    """A file to send."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_bytes(body)
    return file
