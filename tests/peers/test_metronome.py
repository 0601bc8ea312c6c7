"""Metronome's requests, computed as its `http_upload_external` computes them (it is not in Debian).

Source: maranda/metronome, plugins/http_upload_external. PUT as Prosody's v2 under the name `token`; DELETE with
a token over the path and `http_file_delete_secret`; anything but 204 is an error to Metronome.
"""

from __future__ import annotations

import hashlib
import hmac

import pytest
from tests.fixtures import slots
from tests.fixtures.content import content
from tests.fixtures.documents import snippet
from tests.fixtures.server import DELETE_SECRET, SECRET, FileServer, StartServer


def upload(server: FileServer, path: str, body: bytes, media_type: str = "image/jpeg") -> int:
    where = slots.target(path, slots.token(path, len(body), media_type))
    return server.request("PUT", where, body, {"Content-Type": media_type}).status


def delete(server: FileServer, path: str, token: str | None = None) -> int:
    return server.request("DELETE", slots.target(path, token or slots.delete_token(path))).status


def test_the_texts_are_those_of_the_recorded_vectors() -> None:
    """Our own signing code of the tests against values computed from Metronome's source."""
    put = slots.token("Ab3dE6/bar.jpg", 1048576, "image/jpeg", secret="it-is-secret")
    assert put == "token=0cd2e072291e47058a8a05939596987f8f83b6c508ad5b92ce19f3a3548ab39a"
    gone = slots.delete_token("Ab3dE6/bar.jpg", "delete-secret", secret="it-is-secret")
    assert gone == "token=3fcf4f998e11ebd990230ca5d76aded0b7421d64d66a64afa6f1690c24cc66fd"


def test_the_documented_configuration_is_the_one_tested() -> None:
    text = snippet(
        "xmpp.md",
        "metronome-config",
        {"the-same-long-secret-on-both-sides": SECRET, "another-long-secret-for-deletions": DELETE_SECRET},
    )
    assert text == f'[security]\nsecret = "{SECRET}"\ndelete_secret = "{DELETE_SECRET}"\n'


@pytest.mark.parametrize("name", ["bar.jpg", "très cool.jpg", "日本 (1)+&.png"])
def test_put_get_delete(shared_server: FileServer, name: str) -> None:
    path = f"Ab3dE6/{name}"
    body = content(50_000, name)
    assert upload(shared_server, path, body) == 201
    where = slots.target(path, "").rstrip("?")
    got = shared_server.request("GET", where)
    assert (got.status, got.body == body, got.headers["content-type"]) == (200, True, "image/jpeg")
    assert delete(shared_server, path) == 204
    assert shared_server.request("GET", where).status == 404
    assert path not in shared_server.files()


def test_type_and_size_are_bound(shared_server: FileServer) -> None:
    path = "Bound1/bar.jpg"
    where = slots.target(path, slots.token(path, 4, "image/jpeg"))
    assert shared_server.request("PUT", where, b"abcd", {"Content-Type": "image/png"}).status == 403
    assert shared_server.request("PUT", where, b"abcde", {"Content-Type": "image/jpeg"}).status == 403
    assert shared_server.request("PUT", where, b"abcd", {"Content-Type": "image/jpeg"}).status == 201


def test_a_deletion_needs_its_own_token(shared_server: FileServer) -> None:
    path = "Kept01/bar.jpg"
    assert upload(shared_server, path, b"kept") == 201
    forged = hmac.new(DELETE_SECRET.encode(), path.encode(), hashlib.sha256).hexdigest()
    for token in (
        slots.token(path, 4, "image/jpeg"),
        slots.delete_token("Kept02/bar.jpg"),
        slots.delete_token(path, delete_secret="another-delete-secret"),
        slots.delete_token(path, secret="another-secret-another-secret"),
        slots.v1(path, 4).replace("v=", "token="),
        f"token={forged}",
        "token=",
    ):
        assert delete(shared_server, path, token) == 403, token
    bare = shared_server.request("DELETE", f"/upload/{path}")
    assert bare.status == 403
    assert shared_server.request("GET", f"/upload/{path}").body == b"kept"
    assert delete(shared_server, path) == 204


def test_deleting_twice_is_no_error_to_metronome(shared_server: FileServer) -> None:
    """Metronome repeats a deletion whose answer it lost, and drops its record only after a 204."""
    path = "Twice1/bar.jpg"
    assert upload(shared_server, path, b"twice") == 201
    assert [delete(shared_server, path) for _ in range(2)] == [204, 204]


def test_without_a_delete_secret_nothing_can_be_deleted(start_server: StartServer) -> None:
    server = start_server({"security": {"delete_secret": ""}})
    path = "Locked/bar.jpg"
    assert upload(server, path, b"locked") == 201
    for secret in ("", DELETE_SECRET):
        assert delete(server, path, slots.delete_token(path, delete_secret=secret)) in {403, 405}
    assert server.request("GET", f"/upload/{path}").body == b"locked"
