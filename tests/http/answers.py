"""Every kind of answer that the server sends, as bytes: for linters, and for our own rules.

`python -m tests.http.answers` has httplint read them all. It wants an interpreter of its own (`--python`), because a package
that httplint needs brings a top-level package `tests` along.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from tests.fixtures import slots
from tests.fixtures.server import FileServer

BODY = b"0123456789abcdefghij"
_LINT = """
import json, sys
from httplint import HttpRequestLinter, HttpResponseLinter
for line in sys.stdin:
    sample = json.loads(line)
    request = HttpRequestLinter()
    request.process_request_topline(sample["method"].encode(), b"http://t" + sample["target"].encode("latin-1"), b"HTTP/1.1")
    request.process_headers([(n.encode("latin-1"), v.encode("latin-1")) for n, v in sample["asked"]])
    request.finish_content(True)
    for status, reason, fields, body in sample["answers"]:
        linter = HttpResponseLinter(no_content=sample["method"] == "HEAD" or status in (204, 304))
        linter.request = request
        linter.process_response_topline(b"HTTP/1.1", str(status).encode(), reason.encode())
        linter.process_headers([(n.encode("latin-1"), v.encode("latin-1")) for n, v in fields])
        linter.feed_content(bytes.fromhex(body))
        linter.finish_content(True)
        for note in linter.notes:
            if note.level.value in ("bad", "warning"):
                print(json.dumps([sample["name"], status, note.level.value, str(note.summary)]))
"""
ACCEPTED = {
    "A new resource was created without its location": "then it is what the target names (RFC 9110 section 15.3.2)",
    '"Range" isn\'t valid in a response': "308 of uploads with Content-Range, as clients of Google's protocol want it",
    "Redirects need to have a Location": "the same",
    "CORS headers are only allowed in preflight": "OPTIONS without Origin tells what a preflight would be told",
    "The server won't accept a URI this long": "so it was asked",
    "460 is not a standard": "the status of tus for a checksum that does not match",
}
"""Beginnings of notes that are answered here, and how."""


@dataclass(frozen=True, slots=True)
class Told:
    """One answer: its fields in order, with their names as sent."""

    status: int
    reason: str
    fields: tuple[tuple[str, str], ...]
    body: bytes

    def field(self, name: str) -> str | None:
        found = [value for each, value in self.fields if each.lower() == name.lower()]
        assert len(found) <= 1, (name, found)
        return found[0] if found else None


@dataclass(frozen=True, slots=True)
class Sample:
    """A request, and all that came: interim answers too."""

    name: str
    method: str
    target: str
    asked: tuple[tuple[str, str], ...]
    answers: tuple[Told, ...]

    @property
    def final(self) -> Told:
        return self.answers[-1]

    def plain(self) -> dict[str, object]:
        told = [(a.status, a.reason, a.fields, a.body.hex()) for a in self.answers]
        return {"name": self.name, "method": self.method, "target": self.target, "asked": self.asked, "answers": told}


def parse(received: bytes) -> tuple[Told, ...]:
    """Answers of one connection that was closed after the last."""
    found = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, reason = first.split(" ", 2)
        assert version == "HTTP/1.1"
        pairs = tuple((line.partition(":")[0], line.partition(":")[2].strip(" ")) for line in lines)
        body = b""
        if int(status) >= 200:
            body, received = received, b""
        found.append(Told(int(status), reason, pairs, body))
    return tuple(found)


class Collector:
    """Asks one server, each question on a connection of its own."""

    def __init__(self, server: FileServer) -> None:
        self.server = server
        self.samples: list[Sample] = []

    def ask(self, name: str, method: str, target: str, body: bytes | None = None, **fields: str) -> Told:
        asked = [("Host", "t"), ("Connection", "close")]
        asked += [(key.replace("_", "-"), value) for key, value in fields.items()]
        if body is not None and "Transfer_Encoding" not in fields:
            asked.append(("Content-Length", str(len(body))))
        head = "".join(f"{key}: {value}\r\n" for key, value in asked)
        data = f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + (body or b"")
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=20) as sock:
            sock.sendall(data)
            received = b""
            while piece := sock.recv(65536):
                received += piece
        sample = Sample(name, method, target, tuple(asked), parse(received))
        self.samples.append(sample)
        return sample.final


def _signed(path: str) -> str:
    return slots.x_signature(path)


def collect(server: FileServer) -> list[Sample]:
    """Every route and protocol, with what they answer to good and to bad requests."""
    c = Collector(server)
    _files(c)
    _chunks(c)
    _tus(c)
    _drafts(c)
    _pages(c)
    _malformed(c)
    return c.samples


def _files(c: Collector) -> None:
    def slot(path: str, size: int) -> str:
        return slots.target(path, slots.v1(path, size))

    text = c.ask("put-slot", "PUT", slot("a/text.txt", 20), BODY, Content_Type="text/plain; charset=utf-8")
    assert text.status == 201, text
    c.ask("put-again", "PUT", slot("a/text.txt", 20), BODY)
    c.ask("put-other", "PUT", slot("a/text.txt", 20), BODY[::-1])
    c.ask("put-html", "PUT", slot("a/page.html", 20), BODY, Content_Type="text/html")
    c.ask("put-name", "PUT", slot('a/f\u00fcr "x".bin', 3), b"abc")
    receipt = c.ask("put-receipt", "PUT", "/upload/a/r.bin", BODY, X_Signature=_signed("/upload/a/r.bin"))
    assert receipt.status == 201
    c.ask(
        "put-chunked",
        "PUT",
        "/upload/a/c.bin",
        b"3\r\nabc\r\n0\r\n\r\n",
        X_Signature=_signed("/upload/a/c.bin"),
        Transfer_Encoding="chunked",
    )
    c.ask("put-expect", "PUT", slot("a/e.bin", 3), b"abc", Expect="100-continue")
    c.ask("put-unsigned", "PUT", "/upload/a/x", BODY)
    c.ask("put-bad-token", "PUT", "/upload/a/x", BODY, Authorization="Bearer a.b.c")
    c.ask("put-two-credentials", "PUT", slot("a/x", 20), BODY, X_Signature="0" * 64)
    c.ask("put-bad-size", "PUT", slot("a/x", 21), BODY)
    c.ask("put-no-length", "PUT", slot("a/x", 20))
    c.ask("put-too-large", "PUT", slot("a/x", 2_000_000), None, Content_Length="2000000")
    c.ask("put-content-range", "PUT", slot("a/x", 20), BODY, Content_Range="bytes 0-19/20")
    c.ask("put-endpoint", "PUT", "/health", BODY, X_Signature=_signed("/health"))
    c.ask("put-private", "PUT", slot(".hmac-file-server/x", 20), BODY)
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\nabc\r\n--b--\r\n'
    kind = "multipart/form-data; boundary=b"
    c.ask("form", "POST", "/upload", form, X_Signature=_signed("/upload"), Content_Type=kind)
    c.ask("form-bad", "POST", "/upload", form[5:], X_Signature=_signed("/upload"), Content_Type=kind)
    c.ask("form-none", "POST", "/upload", b"x", X_Signature=_signed("/upload"), Content_Type="text/plain")
    etag = c.ask("get", "GET", "/upload/a/text.txt").field("etag")
    assert etag is not None
    for name, method, fields in (
        ("head", "HEAD", {}),
        ("range", "GET", {"Range": "bytes=2-5"}),
        ("range-suffix", "GET", {"Range": "bytes=-5"}),
        ("range-if", "GET", {"Range": "bytes=0-0", "If-Range": etag}),
        ("range-bad", "GET", {"Range": "bytes=50-"}),
        ("ranges", "GET", {"Range": "bytes=0-0,2-3"}),
        ("not-modified", "GET", {"If-None-Match": etag}),
        ("not-modified-date", "GET", {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}),
        ("precondition", "GET", {"If-Match": '"x"'}),
        ("head-not-modified", "HEAD", {"If-None-Match": "*"}),
    ):
        c.ask(
            name,
            method,
            "/upload/a/text.txt",
            body=None,
            **{key.replace("-", "_"): value for key, value in fields.items()},
        )
    c.ask("get-attachment", "GET", "/upload/a/page.html")
    c.ask("get-download", "GET", "/download/a/text.txt")
    c.ask("get-named", "GET", "/upload/a/f%C3%BCr%20%22x%22.bin")
    c.ask("get-missing", "GET", "/upload/a/none")
    c.ask("head-missing", "HEAD", "/upload/a/none")
    c.ask("delete", "DELETE", slots.target("a/page.html", slots.delete_token("a/page.html")))
    c.ask("delete-unsigned", "DELETE", "/upload/a/text.txt")
    c.ask("options", "OPTIONS", "/upload/a/x", Origin="http://u", Access_Control_Request_Method="PUT")
    c.ask("options-all", "OPTIONS", "*")
    c.ask("post-nowhere", "POST", "/nowhere", b"")
    c.ask("method", "PROPFIND", "/upload/a/text.txt")


def _chunks(c: Collector) -> None:
    signature = _signed("/upload/chunked")
    begun = c.ask(
        "chunk-begin", "POST", "/upload/chunked", None, X_Signature=signature, X_Filename="a.bin", X_Total_Size="6"
    )
    session = json.loads(begun.body)["session_id"]
    c.ask(
        "chunk-begin-bad", "POST", "/upload/chunked", None, X_Signature=signature, X_Filename="a.bin", X_Total_Size="+6"
    )
    c.ask("chunk-begin-unsigned", "POST", "/upload/chunked", None, X_Filename="a.bin", X_Total_Size="6")
    c.ask("chunk-status", "GET", f"/upload/status?session_id={session}")
    c.ask("chunk-digest", "PUT", "/upload/chunked", b"abcdef", X_Upload_Session_ID=session, X_Chunk_Number="0",
          Content_Digest="sha-256=:" + base64.b64encode(bytes(32)).decode() + ":")  # fmt: skip
    c.ask("chunk-length", "PUT", "/upload/chunked", b"abc", X_Upload_Session_ID=session, X_Chunk_Number="7")
    c.ask("chunk", "PUT", "/upload/chunked", b"abcdef", X_Upload_Session_ID=session, X_Chunk_Number="0")
    c.ask("chunk-differs", "PUT", "/upload/chunked", b"abcdeX", X_Upload_Session_ID=session, X_Chunk_Number="0")
    c.ask("chunk-status-done", "GET", f"/upload/status?session_id={session}")
    c.ask("chunk-delete", "DELETE", "/upload/chunked", None, X_Upload_Session_ID=session)
    c.ask("chunk-status-gone", "GET", f"/upload/status?session_id={session}")
    c.ask("chunk-status-none", "GET", "/upload/status")


def _location(told: Told) -> str:
    found = told.field("location")
    assert found is not None, told
    # Relative ones are to /tus/; the target is what a client makes of it.
    return urlsplit(urljoin("http://t/tus/", found)).path


def _tus(c: Collector) -> None:
    speaks = {"Tus_Resumable": "1.0.0"}
    stream = {**speaks, "Content_Type": "application/offset+octet-stream"}
    c.ask("tus-options", "OPTIONS", "/tus/", Origin="http://u", Access_Control_Request_Method="POST")
    begun = c.ask(
        "tus-begin",
        "POST",
        "/tus/",
        None,
        **speaks,
        X_Signature=_signed("/tus/"),
        Upload_Length="6",
        Upload_Metadata="filename YS5iaW4=",
    )
    assert begun.status == 201, begun
    upload = _location(begun)
    c.ask("tus-begin-defer", "POST", "/tus/", None, **speaks, X_Signature=_signed("/tus/"), Upload_Defer_Length="1")
    c.ask("tus-begin-whole", "POST", "/tus/", b"abc", **stream, X_Signature=_signed("/tus/"), Upload_Length="3")
    c.ask("tus-begin-bad", "POST", "/tus/", None, **speaks, X_Signature=_signed("/tus/"), Upload_Length="6x")
    c.ask("tus-begin-unsigned", "POST", "/tus/", None, **speaks, Upload_Length="6")
    c.ask("tus-version", "HEAD", upload, None, Tus_Resumable="0.2.2")
    c.ask("tus-head", "HEAD", upload, None, **speaks)
    c.ask("tus-offset", "PATCH", upload, b"abc", **stream, Upload_Offset="3")
    c.ask("tus-type", "PATCH", upload, b"abc", **speaks, Upload_Offset="0")
    c.ask(
        "tus-checksum",
        "PATCH",
        upload,
        b"abc",
        **stream,
        Upload_Offset="0",
        Upload_Checksum="sha1 " + base64.b64encode(bytes(20)).decode(),
    )
    c.ask("tus-patch", "PATCH", upload, b"abc", **stream, Upload_Offset="0")
    c.ask("tus-get", "GET", upload, None, **speaks)
    c.ask("tus-patch-last", "PATCH", upload, b"def", **stream, Upload_Offset="3")
    c.ask("tus-head-done", "HEAD", upload, None, **speaks)
    c.ask("tus-get-done", "GET", upload, None, **speaks)
    c.ask("tus-delete", "DELETE", upload, None, **speaks)
    c.ask("tus-head-gone", "HEAD", upload, None, **speaks)
    c.ask("tus-method", "PUT", upload, b"", **speaks)


def _drafts(c: Collector) -> None:
    for version in ("", "3", "4", "5", "6", "7", "8", "9"):
        says = {"Upload_Draft_Interop_Version": version} if version else {}
        no, yes = (
            ({"Upload_Incomplete": "?1"}, {"Upload_Incomplete": "?0"})
            if version == "3"
            else ({"Upload_Complete": "?0"}, {"Upload_Complete": "?1"})
        )
        kind = {"Content_Type": "application/partial-upload"}
        begun = c.ask(f"draft{version}-begin", "POST", "/upload", b"abc", X_Signature=_signed("/upload"), **says, **no)
        assert begun.status in {200, 201, 204}, begun
        upload = _location(begun)
        c.ask(f"draft{version}-head", "HEAD", upload, None, **says)
        c.ask(f"draft{version}-offset", "PATCH", upload, b"x", **says, **yes, **kind, Upload_Offset="7")
        c.ask(f"draft{version}-more", "PATCH", upload, b"de", **says, **no, **kind, Upload_Offset="3")
        c.ask(
            f"draft{version}-type", "PATCH", upload, b"x", **says, **yes, Content_Type="text/plain", Upload_Offset="5"
        )
        c.ask(
            f"draft{version}-last",
            "PATCH",
            upload,
            b"f",
            **says,
            **yes,
            **kind,
            Upload_Offset="5",
            Want_Repr_Digest="sha-256=5",
        )
        c.ask(f"draft{version}-head-done", "HEAD", upload, None, **says)
        c.ask(f"draft{version}-delete", "DELETE", upload, None, **says)
        c.ask(f"draft{version}-gone", "HEAD", upload, None, **says)
    digest = "sha-256=:" + base64.b64encode(hashlib.sha256(b"abc").digest()).decode() + ":"
    c.ask(
        "draft-whole",
        "PUT",
        slots.target("d/w.bin", slots.v1("d/w.bin", 3)),
        b"abc",
        Upload_Complete="?1",
        Repr_Digest=digest,
    )
    begun = c.ask(
        "draft-slot",
        "PUT",
        slots.target("d/s.bin", slots.v1("d/s.bin", 3)),
        b"a",
        Upload_Complete="?0",
        Upload_Length="3",
    )
    if begun.field("location") is not None:
        upload = _location(begun)
        c.ask("content-range-ask", "PUT", upload, b"", Content_Range="bytes */3")
        c.ask("content-range", "PUT", upload, b"b", Content_Range="bytes 1-1/3")
        c.ask("content-range-bad", "PUT", upload, b"b", Content_Range="bytes 5-1/3")
        c.ask("content-range-last", "PUT", upload, b"c", Content_Range="bytes 2-2/3")


def _pages(c: Collector) -> None:
    for path in ("/", "/upload-page.js", "/upload-page.css", "/upload-icon.svg", "/uploader.js", "/upload-form.js"):
        plain = c.ask(f"page{path}", "GET", path)
        c.ask(f"page{path}-gzip", "GET", path, Accept_Encoding="gzip")
        c.ask(f"page{path}-head", "HEAD", path, Accept_Encoding="gzip")
        c.ask(f"page{path}-same", "GET", path, If_None_Match=plain.field("etag") or "*")
    ticket = "a.b.c"
    c.ask("page-bad-ticket", "GET", f"/?ticket={ticket}", Accept="text/html")
    c.ask("form-page-refused", "POST", f"/upload?ticket={ticket}", b"", Accept="text/html")
    c.ask("code", "GET", "/upload-qr.svg?url=http://t/upload/x")
    c.ask("code-bad", "GET", "/upload-qr.svg?url=x")
    c.ask("health", "GET", "/health")
    c.ask("ready", "GET", "/ready")


def _malformed(c: Collector) -> None:
    c.ask("bad-target", "GET", "/a//b")
    c.ask("bad-host", "GET", "/", None, host="u")
    c.ask("bad-length", "PUT", "/x", None, Content_Length="+3")
    c.ask("bad-framing", "PUT", "/x", b"0\r\n\r\n", Transfer_Encoding="chunked", content_length="3")
    c.ask("bad-coding", "PUT", "/x", b"", Transfer_Encoding="gzip")
    c.ask("bad-expect", "PUT", "/x", b"", Expect="tea")
    c.ask("long-target", "GET", "/" + "x" * 9000)
    many = {f"X_{number}": "y" for number in range(120)}
    c.ask("many-fields", "GET", "/", body=None, **many)
    c.ask("bad-method", "NOPE", "/")


def lint(python: str, samples: Sequence[Sample]) -> list[tuple[str, int, str, str]]:
    """What httplint finds bad or doubtful: sample, status, level, note."""
    lines = "".join(json.dumps(sample.plain()) + "\n" for sample in samples)
    ended = subprocess.run([python, "-c", _LINT], input=lines, capture_output=True, text=True, check=True, cwd="/")
    return [tuple(json.loads(line)) for line in ended.stdout.splitlines()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print every note once with the samples that it is about; 0 when none is bad."""
    parser = argparse.ArgumentParser(prog="python -m tests.http.answers", description=__doc__.partition("\n")[0])
    parser.add_argument("--python", default=".venv-lint/bin/python", help="an interpreter that has httplint")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="answers-") as work:
        server = FileServer(
            Path(work) / "server", {"server": {"max_upload_size": "1MB"}, "uploads": {"durability": "relaxed"}}
        )
        server.start()
        try:
            samples = collect(server)
        finally:
            server.stop()
    notes = lint(options.python, samples)
    counted = Counter((level, note) for _, _, level, note in notes)
    for (level, note), count in counted.most_common():
        examples = [f"{name} {status}" for name, status, each, text in notes if (each, text) == (level, note)]
        print(f"{level} x{count}: {note} ({', '.join(examples[:4])})")
    bad = [note for note in notes if note[2] == "bad" and not note[3].startswith(tuple(ACCEPTED))]
    print(
        f"{sum(len(sample.answers) for sample in samples)} answers to {len(samples)} requests: {len(bad)} errors, {len(notes) - len(bad)} warnings"
    )
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
