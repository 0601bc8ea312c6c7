"""The log tells uploads apart, and lets nobody continue them."""

from __future__ import annotations

import pytest

from hmac_file_server.protocols.resources import logged_path


@pytest.mark.parametrize(
    ("path", "logged"),
    [
        ("/tus/1795384243_fwdpvcxhoiuwkvuhl3uqhfoq7m", "/tus/1795384243_fwdpvc"),
        ("/tus/1795384243_fwdpvcxhoiuwkvuhl3uqhfoq7m/", "/tus/1795384243_fwdpvc/"),
        ("/tus/1795384243_fwdpvcxhoiuwkvuhl3uqhfoq7m ", "/tus/1795384243_fwdpvc "),
        ("/files/tus/1795384243_fwdpvcxhoiuwkvuhl3uqhfoq7m/x", "/files/tus/1795384243_fwdpvc/x"),
        ("/tus/a/tus/1795384243_fwdpvcxhoiuwkvuhl3uqhfoq7m", "/tus/a/tus/1795384243_fwdpvc"),
        ("/upload/1795384243_fwdpvcxhoiuwkvuhl3uqhfoq7m", "/upload/1795384243_fwdpvcxhoiuwkvuhl3uqhfoq7m"),
        ("/tus/", "/tus/"),
        ("/tus/nonsense", "/tus/nonsense"),
        ("/upload/u/a.txt", "/upload/u/a.txt"),
        ("/", "/"),
    ],
)
def test_of_an_uploads_id_the_beginning(path: str, logged: str) -> None:
    assert logged_path(path) == logged
