"""What becomes of the bytes of one user in the hands of another: types, names, shared contents (S-09, S-22, S-34, S-43..S-45)."""

from __future__ import annotations

import base64
import hashlib
import json
from urllib.parse import urljoin

import pytest
from tests.fixtures.server import Answer, FileServer
from tests.server.signatures import bearer, in_future, ticket

HTML = b"<!DOCTYPE html><script>alert(document.domain)</script>"
ACTIVE = (
    "text/html",
    "TEXT/HTML; charset=utf-7",
    "application/xhtml+xml",
    "image/svg+xml",
    "text/xml",
    "application/xml",
    "application/pdf",
    "message/rfc822",
    "multipart/related",
    "application/x-mimearchive",
    "text/javascript",
    "application/javascript",
    "text/css",
    "text/cache-manifest",
    "application/manifest+json",
    "application/x-shockwave-flash",
    "application/xslt+xml",
    "text/vtt",
    "text/x-component",
    "application/wasm",
    "image/png, text/html",
    "text/plain\t;x=y,text/html",
)


def put(server: FileServer, path: str, body: bytes, media_type: str | None = None, **claims: object) -> Answer:
    """A PUT by a ticket."""
    headers = bearer(ticket(**{"prefix": "", "ops": ["put", "delete"], **claims}))
    if media_type is not None:
        headers["Content-Type"] = media_type
    return server.request("PUT", f"/upload/{path}", body, headers)


@pytest.mark.parametrize("media_type", ACTIVE)
def test_s_09_nothing_active_is_shown_in_the_server_s_name(quick: FileServer, media_type: str) -> None:
    """ejabberd #899: whatever a type says, a browser saves it, guesses nothing, and lets it do nothing."""
    path = f"active/{hashlib.sha256(media_type.encode()).hexdigest()[:12]}.html"
    answer = put(quick, path, HTML, media_type)
    if answer.status == 400:
        assert answer.json()["code"] == "bad_media_type"
        return
    assert answer.status == 201
    for target in (f"/upload/{path}", f"/download/{path}", f"/{path}"):
        for headers in ({}, {"Range": "bytes=0-20"}, {"Accept": "text/html"}):
            got = quick.request("GET", target, headers=headers)
            assert got.status in {200, 206}
            assert got.headers["content-disposition"].startswith("attachment;")
            assert got.headers["x-content-type-options"] == "nosniff"
            policy = got.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert policy.endswith("sandbox")
            assert "frame-ancestors 'none'" in policy
            assert "set-cookie" not in got.headers


@pytest.mark.parametrize("media_type", ["text/plain", "image/png", "text/plain; charset=utf-7", None])
def test_s_09_html_under_another_name(quick: FileServer, media_type: str | None) -> None:
    """What is shown in place is not guessed to be HTML, and could do nothing if it was."""
    path = f"plain/{media_type}.txt".replace(" ", "")
    assert put(quick, path, HTML, media_type).status == 201
    got = quick.request("GET", "/upload/" + path)
    assert got.headers["content-type"].partition(";")[0] in {"text/plain", "image/png"}
    assert got.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in got.headers["content-security-policy"]


DEVICES = ("CON", "nul.txt", "Aux .jpg", "COM1.tar.gz", "lpt9", "PRN", "com¹.txt", "CONIN$", "clock$", "NUL.")


@pytest.mark.parametrize("name", DEVICES)
def test_s_22_names_of_devices_are_not_offered_to_be_saved(quick: FileServer, name: str) -> None:
    """werkzeug fixed three times what a path of Windows may mean; a name is one of it in whatever place it stands."""
    answer = quick.request(
        "POST",
        "/upload",
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="'
        + name.encode()
        + b'"\r\n\r\nabc\r\n--b--\r\n',
        {"Content-Type": "multipart/form-data; boundary=b", **bearer(ticket(prefix="devices"))},
    )
    assert answer.status == 200, answer.body
    got = quick.request("GET", str(answer.json()["url"]))
    assert got.body == b"abc"
    assert '; filename="_' in got.headers["content-disposition"]
    assert "filename*=UTF-8''" not in got.headers["content-disposition"].replace("UTF-8''_", "")


def test_s_22_streams_of_devices(quick: FileServer) -> None:
    assert put(quick, "devices/con:x", b"abc").status == 201
    assert (
        quick.request("GET", "/upload/devices/con:x").headers["content-disposition"] == 'attachment; filename="_con:x"'
    )


@pytest.mark.parametrize("name", ["console.log", "null.txt", "COM10.txt", "auxiliary", "lpt.txt", "a-nul.txt"])
def test_s_22_other_names_are_as_they_were(quick: FileServer, name: str) -> None:
    assert put(quick, f"names/{name}", name.encode()).status == 201
    assert f'filename="{name}"' in quick.request("GET", f"/upload/names/{name}").headers["content-disposition"]


# --- shared contents ---------------------------------------------------------------------------------------


def test_s_34_a_name_that_exists_tells_nothing_and_loses_nothing(quick: FileServer) -> None:
    """The Go server answers success if a file of this name is there, and drops what came."""
    assert put(quick, "taken/report.pdf", b"the first", prefix="taken").status == 201
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="report.pdf"\r\n\r\nanother\r\n--b--\r\n'
    fields = {"Content-Type": "multipart/form-data; boundary=b", **bearer(ticket(prefix="taken"))}
    answers = [quick.request("POST", "/upload", form, fields) for _ in range(2)]
    urls = {str(answer.json()["url"]) for answer in answers}
    assert len(urls) == 2
    assert {quick.request("GET", url).body for url in urls} == {b"another"}
    assert quick.request("GET", "/upload/taken/report.pdf").body == b"the first"
    refused = put(quick, "taken/report.pdf", b"another!!")
    assert (refused.status, refused.json()["code"]) == (409, "exists")
    # Without the permission to write there, that is not even said.
    assert put(quick, "taken/report.pdf", b"another!!", prefix="elsewhere").status == 403


def digests(content: bytes) -> dict[str, str]:
    """Every way that a client might say what it is about to send."""
    sha256 = hashlib.sha256(content).digest()
    field = f"sha-256=:{base64.b64encode(sha256).decode()}:"
    return {
        "Repr-Digest": field,
        "X-Content-SHA256": sha256.hex(),
        "X-File-Hash": sha256.hex(),
        "X-Checksum-Sha256": sha256.hex(),
        "ETag": f'"{sha256.hex()}"',
        "If-None-Match": f'"{sha256.hex()}"',
        "If-Match": "*",
        "Content-MD5": base64.b64encode(hashlib.md5(content).digest()).decode(),
    }


def test_s_43_who_knows_a_digest_has_nothing(quick: FileServer) -> None:
    """No upload is complete before all of its bytes came, whoever has stored the same before (Harnik 2010)."""
    content = b"a contract that somebody has uploaded"
    assert put(quick, "secret/contract", content, sub="alice").status == 201
    known = {**digests(content), **bearer(ticket(prefix="thief", sub="mallory"))}
    begun = quick.request(
        "POST",
        "/upload/chunked",
        None,
        {**known, "X-Filename": "x", "X-Total-Size": str(len(content)), "Content-Length": "0"},
    )
    assert begun.status == 201
    assert begun.json()["completed"] is False
    upload = str(begun.json()["session_id"])
    length = {"Content-Length": "0"}
    for method, target, fields in (
        ("PATCH", f"/tus/{upload}", {"Upload-Offset": "0", "Upload-Complete": "?1", "Content-Type": "application/partial-upload"}),
        ("PATCH", f"/tus/{upload}", {"Tus-Resumable": "1.0.0", "Upload-Offset": str(len(content)),
                                     "Content-Type": "application/offset+octet-stream"}),
        ("PUT", f"/tus/{upload}", {"Content-Range": f"bytes */{len(content)}"}),
        ("PUT", "/upload/chunked", {"X-Upload-Session-ID": upload, "X-Chunk-Number": "0"}),
    ):  # fmt: skip
        answer = quick.request(method, target, None, {**fields, **length, **digests(content)})
        assert answer.status >= 300, (method, fields, answer.body)
    status = quick.request("GET", f"/upload/status?session_id={upload}").json()
    assert (status["completed"], status["uploaded_bytes"]) == (False, 0)
    refused = quick.request("PUT", "/upload/thief/contract", None, {**known, **length})
    assert refused.status in {400, 412} or quick.request("GET", "/upload/thief/contract").body == b""


@pytest.mark.parametrize("protocol", ["put", "chunked", "tus", "form"])
def test_s_44_what_a_client_calls_its_bytes_decides_nothing(quick: FileServer, protocol: str) -> None:
    """Other bytes under the digest of a stored content: those bytes come back, or nothing was stored."""
    content, other = b"the content that is stored", b"some others of same length"
    assert put(quick, f"original/{protocol}", content).status == 201
    claimed = {**digests(content), **bearer(ticket(prefix="claimed"))}
    del claimed["Repr-Digest"], claimed["If-Match"], claimed["If-None-Match"]
    if protocol == "put":
        answer = quick.request("PUT", "/upload/claimed/put", other, claimed)
        url = "/upload/claimed/put"
    elif protocol == "form":
        form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n' + other + b"\r\n--b--\r\n"
        answer = quick.request("POST", "/upload", form, {**claimed, "Content-Type": "multipart/form-data; boundary=b"})
        url = str(answer.json()["url"])
    elif protocol == "chunked":
        begun = quick.request(
            "POST", "/upload/chunked", None,
            {**claimed, "X-Filename": "x", "X-Total-Size": str(len(other)), "Content-Length": "0"},
        )  # fmt: skip
        named = {"X-Upload-Session-ID": str(begun.json()["session_id"]), "X-Chunk-Number": "0"}
        answer = quick.request("PUT", "/upload/chunked", other, {**claimed, **named})
        url = str(answer.json()["url"])
    else:
        name = base64.b64encode(hashlib.sha256(content).hexdigest().encode()).decode()
        answer = quick.request(
            "POST", "/tus/", other,
            {**claimed, "Tus-Resumable": "1.0.0", "Upload-Length": str(len(other)),
             "Upload-Metadata": f"sha256 {name},digest {name}", "Content-Type": "application/offset+octet-stream"},
        )  # fmt: skip
        url = urljoin("/tus/", answer.headers["location"])
    assert answer.status in {200, 201}, answer.body
    assert quick.request("GET", url, headers={"Tus-Resumable": "1.0.0"}).body == other
    assert quick.request("GET", f"/upload/original/{protocol}").body == content
    wrong = quick.request("PUT", "/upload/claimed/wrong", other, {**claimed, "Repr-Digest": digests(content)["Repr-Digest"],
                                                                  "Upload-Complete": "?1"})  # fmt: skip
    assert wrong.status == 400, wrong.body
    assert quick.request("GET", "/upload/claimed/wrong").status == 404


def test_s_45_one_owner_s_deletion_is_invisible_to_another(quick: FileServer) -> None:
    """Two owners of one content: what one of them does shows nowhere in what the other sees."""
    content = b"what both of them have" * 100

    def seen() -> tuple[int, dict[str, str], bytes]:
        got = quick.request("GET", "/upload/twin/b")
        return got.status, {name: value for name, value in got.headers.items() if name != "date"}, got.body

    assert put(quick, "twin/a", content, "text/plain", sub="alice").status == 201
    assert put(quick, "twin/b", content, "image/png", sub="bob", file_expires=in_future(9000)).status == 201
    assert (quick.storage / "twin/a").stat().st_ino == (quick.storage / "twin/b").stat().st_ino
    before = seen()
    deletion = quick.request("DELETE", "/upload/twin/a", None, bearer(ticket(prefix="twin", ops=["delete"])))
    assert deletion.status == 204
    assert quick.request("GET", "/upload/twin/a").status == 404
    assert seen() == before
    # The same content again is the same to whoever sends it, whether anybody has it or not.
    first = put(quick, "twin/c", content, "text/plain", sub="carol")
    new = put(quick, "twin/d", content[::-1], "text/plain", sub="carol")

    def shape(answer: Answer) -> tuple[int, list[str], list[str]]:
        return answer.status, sorted(answer.headers), sorted(json.loads(answer.body))

    assert shape(first) == shape(new)


def test_s_25_an_old_id_ends_nobody_else_s_file(quick: FileServer) -> None:
    """Who uploaded a file, which was deleted, has no more right to what others put into its place since."""
    tus = {"Tus-Resumable": "1.0.0"}
    length = {"Upload-Length": "9", "Content-Length": "0"}
    permission = bearer(ticket(path="place/of/many", ops=["put", "create"]))
    stream = {**tus, "Content-Type": "application/offset+octet-stream"}
    whole = quick.request("POST", "/tus/", b"the first", {**stream, **permission, "Upload-Length": "9"})
    assert whole.status == 201
    first = urljoin("/tus/", whole.headers["location"])
    deletion = bearer(ticket(prefix="place", ops=["delete"]))
    assert quick.request("DELETE", "/upload/place/of/many", None, deletion).status == 204
    begun = quick.request("POST", "/tus/", None, {**tus, **permission, **length})
    second = urljoin("/tus/", begun.headers["location"])
    assert quick.request("PATCH", second, b"the other", {**stream, "Upload-Offset": "0"}).status == 204
    for old in (first, second):
        assert quick.request("GET", "/upload/place/of/many").body == b"the other"
        assert quick.request("DELETE", old, None, tus).status == 204
    assert quick.request("GET", "/upload/place/of/many").status == 404, "its own file it does end"
