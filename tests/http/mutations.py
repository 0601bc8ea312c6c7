"""Requests for a fuzzer: valid ones of every kind, and what a hand that knows HTTP does to them.

Uploads are continued by ids that only the server's answers tell. In a request they stand as `{upload:N}`, so that a
seed gives the same requests every time; whoever sends them puts in the N-th id that it has heard of.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import re
from collections.abc import Callable, Sequence

from tests.fixtures import slots
from tests.fixtures.server import DELETE_SECRET, SECRET
from tests.http.spellings import spellings

_SPELLINGS = spellings()
_NUMBERS = (
    b"0", b"1", b"-1", b"+1", b"00", b"0x10", b"1_0", b"1e3", b" 5", b"5 ", b"9" * 19, b"9" * 20, b"9" * 400, b"\xb2", b"NaN",
    b"18446744073709551615", b"18446744073709551616", b"9223372036854775807", b"9223372036854775808", b"2147483648", b"",
    "\N{ARABIC-INDIC DIGIT FIVE}".encode(), b"1,1", b"1, 2", b"5\0", b"5\t", b"0b1", b"1.0",
)  # fmt: skip
_VALUES = (
    *_NUMBERS, b"chunked", b"gzip, chunked", b"identity", b"close", b"keep-alive", b"upgrade", b"100-continue", b"bytes=0-0",
    b"bytes=-1", b"bytes=0-,0-", b"*", b'"', b'""', b'W/"x"', b"t", b"a b", b"[::1]:80", b"\xff\xfe", b"\x00", b"\x0b", b"\x85",
    b"x" * 9000, b"multipart/form-data; boundary=x", b"multipart/form-data", b'text/html; charset="', b"Bearer a.b.c", b"Bearer ",
    b"Bearer " + b"." * 50, b"Mon, 01 Jan 0001 00:00:00 GMT", b"Fri, 31 Dec 9999 23:59:60 +2400", b"0" * 64, b"g" * 64, b"%00",
    b"a,b,c", b";;;", b"=?utf-8?q?=00?=", b"\r\n", b"\n", b"\r", b"a\r\nTransfer-Encoding: chunked",
    b"?1", b"?0", b"?2", b"1.0.0", b"0.2.2", b"bytes 0-9/10", b"bytes */10", b"bytes 5-4/3", b"partial", b"final;/tus/{upload:0}",
    b"final;/tus/{upload:1} http://t/tus/{upload:2}", b"filename d29ybGQ=", b"filename d29ybGQ", b"sha1 AAAA", b"sha-256=:AAAA:", b"crc32 AA==",
    b"application/offset+octet-stream", b"application/partial-upload", b"{upload:3}", b"{upload:4}x", b"gzip;q=0.5, *;q=0", b"text/html",
)  # fmt: skip
_NAMES = (
    b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Expect", b"Range", b"If-Range", b"If-None-Match", b"If-Match",
    b"If-Modified-Since", b"If-Unmodified-Since", b"Content-Type", b"Content-Encoding", b"Content-Range", b"Authorization", b"TE",
    b"X-Signature", b"X-Signature-Expires", b"X-Filename", b"X-Total-Size", b"X-Upload-Session-ID", b"X-Chunk-Number", b"Upgrade",
    b"Trailer", b"Content-Disposition", b"X-HTTP-Method-Override", b"Proxy-Connection", b"Keep-Alive", b"Cookie", b"Forwarded",
    b"X-Forwarded-For", b"X-Forwarded-Proto", b"Tus-Resumable", b"Upload-Length", b"Upload-Offset", b"Upload-Complete", b"Accept",
    b"Origin", b"Access-Control-Request-Method", b"Max-Forwards", b"Content-Digest", b"Digest", b"X Y", b"X:", b"", b"\xe9", b"Host ",
    b"Upload-Draft-Interop-Version", b"Upload-Incomplete", b"Upload-Metadata", b"Upload-Concat", b"Upload-Checksum", b"Upload-Defer-Length",
    b"Idempotency-Key", b"Repr-Digest", b"Want-Repr-Digest", b"X-Chunk-Offset", b"X-File-SHA256", b"Accept-Encoding", b"Upload-Limit", b"Prefer",
)  # fmt: skip
_METHODS = (
    b"GET", b"HEADX", b"PUT", b"POST", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"CONNECT", b"PRI", b"get", b"", b"G\0T", b"M-SEARCH",
)  # fmt: skip
_VERSIONS = (
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/0.9",
    b"HTTP/2.0",
    b"HTTP/1.2",
    b"http/1.1",
    b"HTTP/11",
    b"HTTP/1.1 ",
    b"",
    b"HTTP/1.10",
)
_QUERIES = (
    b"?",
    b"?v=",
    b"?v=" + b"0" * 64,
    b"?v=a&v=b",
    b"?v2=&v=",
    b"?token=x;v=y",
    b"?v3=x&expires=1",
    b"?%76=1",
    b"?ticket=a.b.c",
    b"?" + b"&" * 999,
)


_PLACE = re.compile(rb"\{upload:(\d+)\}")
_FOREIGN = "a-secret-that-nobody-here-has-ever-seen"
"""What somebody signs with who has no key."""


def filled(data: bytes, known: Sequence[bytes]) -> bytes:
    """A request with ids of uploads in their places, or with one that nobody ever had."""
    if b"{upload:" not in data:
        return data
    return _PLACE.sub(
        lambda m: known[int(m[1]) % len(known)] if known else b"1700000000_0123456789abcdefghijklmnop", data
    )


class Wire:
    """One request in parts that can be changed one by one."""

    __slots__ = ("body", "fields", "line")

    def __init__(self, line: bytes, fields: list[bytes], body: bytes = b"") -> None:
        self.line = line
        self.fields = fields
        self.body = body

    def render(self) -> bytes:
        return b"\r\n".join([self.line, *self.fields]) + b"\r\n\r\n" + self.body


class Generator:
    """Endless requests from one seed. `signed`: the storage paths that some request of it may store under.

    With `foreign` they are those of somebody without the key: nothing that it signs counts, and `signed` stays empty.
    """

    def __init__(self, seed: int | str, existing: str, *, foreign: bool = False, folder: str = "fuzz") -> None:
        self.random = random.Random(seed)
        self.signed: set[str] = set()
        self.requests = 0
        self._existing = existing
        self._foreign = foreign
        self._secret = _FOREIGN if foreign else SECRET
        self._folder = folder
        self._count = 0
        self._kinds: tuple[Callable[[], Wire], ...] = (
            self._get, self._get, self._range, self._put_v1, self._put_v1, self._put_v2, self._put_signature,
            self._put_chunked, self._put_chunked, self._put_bearer, self._form, self._form, self._delete, self._options,
            self._put_token, self._put_v3, self._put_ticket, self._begin, self._chunk, self._chunk, self._status, self._status,
            self._forget, self._tus_begin, self._tus_append, self._tus_append, self._tus_look, self._tus_end, self._draft_begin,
            self._draft_slot, self._draft_append, self._draft_append, self._draft_look, self._content_range, self._page, self._page,
            self._fetch,
        )  # fmt: skip
        self._changes: tuple[Callable[[Wire], None], ...] = (
            self._change_method, self._change_target, self._change_target, self._change_version, self._change_value,
            self._change_value, self._change_name, self._add_field, self._add_field, self._double_field, self._drop_field,
            self._change_body, self._change_body, self._change_framing, self._change_chunks, self._many_fields,
        )  # fmt: skip

    def connection(self) -> list[bytes]:
        """What is sent on one connection: 1 to 8 requests, cut into pieces anywhere."""
        data = b"".join(self.request() for _ in range(self.random.randint(1, 8)))
        cuts = sorted(self.random.randrange(len(data)) for _ in range(self.random.choice((0, 0, 1, 3))))
        return [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True) if start < stop]

    def request(self) -> bytes:
        rng = self.random
        self.requests += 1
        wire = rng.choice(self._kinds)()
        for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 3))):
            rng.choice(self._changes)(wire)
        data = wire.render()
        for _ in range(rng.choice((0, 0, 0, 0, 0, 1, 2))):
            data = self._change_bytes(data)
        return data

    # ---- valid requests

    def _path(self) -> str:
        self._count += 1
        # Some paths come again, so that there are conflicts and repeats.
        number = self._count if self.random.random() < 0.7 else self.random.randint(1, self._count)
        path = f"{self._folder}/{number}.{self.random.choice(('bin', 'html', 'jpg'))}"
        if not self._foreign:
            self.signed.add(path)
        return path

    def _body(self) -> bytes:
        return self.random.randbytes(self.random.choice((0, 1, 3, 10, 100, 1000, 1000, 20_000)))

    def _get(self) -> Wire:
        path = (
            self._existing
            if self.random.random() < 0.6
            else f"{self._folder}/{self.random.randint(0, self._count + 2)}.bin"
        )
        return Wire(b"GET /upload/%b HTTP/1.1" % path.encode(), [b"Host: t"])

    def _range(self) -> Wire:
        wire = self._get()
        first = self.random.randint(0, 30)
        wire.fields.append(b"Range: bytes=%d-%d" % (first, first + self.random.randint(-3, 9)))
        wire.fields.append(b"If-None-Match: " + self.random.choice(_VALUES).replace(b"\r", b"").replace(b"\n", b""))
        return wire

    def _put(self, path: str, query: str, body: bytes, *fields: bytes) -> Wire:
        line = b"PUT %b HTTP/1.1" % slots.target(path, query).encode()
        return Wire(line, [b"Host: t", b"Content-Length: %d" % len(body), *fields], body)

    def _put_v1(self) -> Wire:
        path, body = self._path(), self._body()
        fields = [b"Expect: 100-continue"] if self.random.random() < 0.2 else []
        return self._put(path, slots.v1(path, len(body), self._secret), body, *fields)

    def _put_v2(self) -> Wire:
        path, body = self._path(), self._body()
        return self._put(path, slots.v2(path, len(body), "image/png", self._secret), body, b"Content-Type: image/png")

    def _put_bearer(self) -> Wire:
        path, body = self._path(), self._body()
        slot, _, name = path.partition("/")
        token = slots.bearer(
            {"slot": slot, "filename": name, "filesize": len(body), "exp": 4_000_000_000}, self._secret
        )
        return self._put(path, "", body, b"Authorization: " + token.encode())

    def _put_signature(self) -> Wire:
        path, body = self._path(), self._body()
        return self._put(path, "", body, self._signature("/upload/" + path))

    def _signature(self, path: str) -> bytes:
        return b"X-Signature: " + slots.x_signature(path, self._secret).encode()

    def _put_token(self) -> Wire:
        path, body = self._path(), self._body()
        return self._put(
            path, slots.token(path, len(body), "text/plain", self._secret), body, b"Content-Type: text/plain"
        )

    def _put_v3(self) -> Wire:
        path, body = self._path(), self._body()
        text = f"PUT\n4000000000\n/upload/{path}".encode()
        mac = hmac.new(self._secret.encode(), text, hashlib.sha256).hexdigest()
        return self._put(path, f"v3={mac}&expires=4000000000", body)

    def _ticket(self, **claims: object) -> bytes:
        told = {"aud": "hmac-file-server", "exp": 4_000_000_000, **claims}
        parts = [
            base64.urlsafe_b64encode(part).rstrip(b"=")
            for part in (b'{"alg":"HS256","typ":"ticket+jwt"}', json.dumps(told).encode())
        ]
        mac = hmac.new(self._secret.encode(), b".".join(parts), hashlib.sha256).digest()
        return b".".join([*parts, base64.urlsafe_b64encode(mac).rstrip(b"=")])

    def _put_ticket(self) -> Wire:
        path, body = self._path(), self._body()
        rng = self.random
        ticket = self._ticket(
            path=path,
            **rng.choice(({}, {"max_size": 50}, {"ops": ["put", "get"]}, {"files": 1, "jti": path.replace("/", "-")})),
        )
        if rng.random() < 0.5:
            return self._put(path, f"ticket={ticket.decode()}", body)
        return self._put(path, "", body, b"Authorization: Bearer " + ticket)

    # ---- uploads that outlive a request

    def _upload(self) -> bytes:
        return b"{upload:%d}" % self.random.randrange(1 << 20)

    def _ask(self, line: bytes, *fields: bytes, body: bytes | None = None) -> Wire:
        length = [] if body is None else [b"Content-Length: %d" % len(body)]
        return Wire(line + b" HTTP/1.1", [b"Host: t", *fields, *length], body or b"")

    def _size(self) -> int:
        return self.random.choice((0, 1, 3, 5, 10, 10, 100, 1000, 20_000))

    def _begin(self) -> Wire:
        rng = self.random
        path = rng.choice(("/upload/chunked", "/upload/chunked", "/chunked-upload"))
        more = rng.choice(([], [b"Idempotency-Key: %d" % rng.randrange(50)], [b"X-File-SHA256: " + b"0" * 64]))
        return self._ask(
            b"POST " + path.encode(),
            self._signature(path),
            b"X-Filename: " + rng.choice(_SPELLINGS),
            b"X-Total-Size: %d" % self._size(),
            *more,
        )

    def _chunk(self) -> Wire:
        rng = self.random
        place = rng.choice((b"X-Chunk-Number: 0", b"X-Chunk-Number: 0", b"X-Chunk-Number: 1", b"X-Chunk-Offset: 0"))
        return self._ask(
            b"PUT /upload/chunked", b"X-Upload-Session-ID: " + self._upload(), place, body=rng.randbytes(self._size())
        )

    def _status(self) -> Wire:
        more = self.random.choice((b"", b"", b"&wait=0", b"&wait=-1", b"&wait=x", b"&session_id=1"))
        return self._ask(b"GET /upload/status?session_id=" + self._upload() + more)

    def _forget(self) -> Wire:
        return self._ask(b"DELETE /upload/chunked", b"X-Upload-Session-ID: " + self._upload())

    def _tus_begin(self) -> Wire:
        rng = self.random
        name = base64.b64encode(rng.choice(_SPELLINGS)[:300])
        length = rng.choice((b"Upload-Length: %d" % self._size(), b"Upload-Length: %d" % self._size(), b"Upload-Defer-Length: 1",
                             b"Upload-Concat: final;/tus/" + self._upload() + b" /tus/" + self._upload()))  # fmt: skip
        fields = [
            b"Tus-Resumable: 1.0.0",
            self._signature("/tus/"),
            length,
            b"Upload-Metadata: filename " + name + b",filetype aW1hZ2UvcG5n",
        ]
        if rng.random() < 0.2:
            fields.append(b"Upload-Concat: partial")
        if rng.random() < 0.3:
            return self._ask(
                b"POST /tus/",
                *fields,
                b"Content-Type: application/offset+octet-stream",
                body=rng.randbytes(self._size()),
            )
        return self._ask(b"POST /tus/", *fields)

    def _tus_append(self) -> Wire:
        rng = self.random
        body = rng.randbytes(self._size())
        fields = [
            b"Tus-Resumable: 1.0.0",
            b"Upload-Offset: %d" % rng.choice((0, 0, 0, 1, 3, 10)),
            b"Content-Type: application/offset+octet-stream",
        ]
        if rng.random() < 0.3:
            name, make = rng.choice((("sha1", hashlib.sha1), ("sha256", hashlib.sha256)))
            fields.append(b"Upload-Checksum: " + name.encode() + b" " + base64.b64encode(make(body).digest()))
        if rng.random() < 0.2:
            fields.append(b"X-HTTP-Method-Override: PATCH")
            return self._ask(b"POST /tus/" + self._upload(), *fields, body=body)
        return self._ask(b"PATCH /tus/" + self._upload(), *fields, body=body)

    def _tus_look(self) -> Wire:
        return self._ask(
            self.random.choice((b"HEAD", b"GET", b"OPTIONS")) + b" /tus/" + self._upload(), b"Tus-Resumable: 1.0.0"
        )

    def _tus_end(self) -> Wire:
        return self._ask(b"DELETE /tus/" + self._upload(), b"Tus-Resumable: 1.0.0")

    def _dialect(self) -> list[bytes]:
        """Fields of one of the drafts: version, and whether this is the last of the upload."""
        rng = self.random
        version = rng.choice((0, 3, 4, 5, 6, 7, 8, 9, 10))
        last = rng.random() < 0.5
        complete = b"Upload-Incomplete: ?%d" % (not last) if version == 3 else b"Upload-Complete: ?%d" % last
        return [complete] if version == 0 else [complete, b"Upload-Draft-Interop-Version: %d" % version]

    def _draft_begin(self) -> Wire:
        path = self.random.choice(("/upload", "/tus/"))
        return self._ask(
            b"POST " + path.encode(),
            self._signature(path),
            *self._dialect(),
            b"Upload-Length: %d" % self._size(),
            body=self._body(),
        )

    def _draft_slot(self) -> Wire:
        path, size = self._path(), self._size()
        return self._put(path, slots.v1(path, size, self._secret), self.random.randbytes(size), *self._dialect())

    def _draft_append(self) -> Wire:
        offset = b"Upload-Offset: %d" % self.random.choice((0, 0, 1, 3, 10))
        kind = b"Content-Type: application/partial-upload"
        return self._ask(
            b"PATCH /tus/" + self._upload(), *self._dialect(), offset, kind, body=self.random.randbytes(self._size())
        )

    def _draft_look(self) -> Wire:
        method = self.random.choice((b"HEAD", b"HEAD", b"GET", b"DELETE"))
        return self._ask(
            method + b" /tus/" + self._upload(),
            b"Upload-Draft-Interop-Version: %d" % self.random.randint(2, 10),
            b"Want-Repr-Digest: sha-256=5",
        )

    def _content_range(self) -> Wire:
        rng = self.random
        size = rng.randint(1, 20)
        first = rng.choice((0, 0, 1, 5))
        if rng.random() < 0.3:
            return self._ask(b"PUT /tus/" + self._upload(), b"Content-Range: bytes */%d" % size, body=b"")
        total = rng.choice((b"*", b"%d" % (first + size), b"%d" % (first + size + 1)))
        return self._ask(
            b"PUT /tus/" + self._upload(),
            b"Content-Range: bytes %d-%d/%b" % (first, first + size - 1, total),
            body=rng.randbytes(size),
        )

    # ---- what anybody may see

    def _page(self) -> Wire:
        rng = self.random
        ticket = self._ticket(prefix="", ops=["upload", "create"])
        target = rng.choice(
            (b"/", b"/upload-page.js", b"/uploader.js", b"/upload-page.css", b"/upload-icon.svg", b"/health", b"/ready", b"/?ticket=" + ticket,
             b"/?ticket=a.b.c", b"/upload?ticket=" + ticket, b"/upload-qr.svg?url=http://t/x", b"/upload-qr.svg?url=" + rng.choice(_SPELLINGS))
        )  # fmt: skip
        accept = rng.choice(
            (b"Accept: text/html", b"Accept-Encoding: gzip", b"Accept-Encoding: gzip;q=0, *", b"If-None-Match: *")
        )
        return self._ask(rng.choice((b"GET", b"GET", b"HEAD")) + b" " + target, accept)

    def _fetch(self) -> Wire:
        """A finished upload, or a file as an attachment, with a range of it."""
        rng = self.random
        target = rng.choice(
            (
                b"/tus/" + self._upload(),
                b"/download/" + self._existing.encode(),
                b"/download/upload/" + self._existing.encode(),
            )
        )
        return self._ask(
            b"GET " + target,
            rng.choice((b"Range: bytes=0-0", b"Range: bytes=-3", b'If-Range: "x"', b"Range: bytes=5-,0-")),
        )

    def _put_chunked(self) -> Wire:
        wire = self._put_signature()
        body, coded = wire.body, b""
        while body:
            size = self.random.choice((1, 2, 16, 255, 4096))
            coded += b"%x\r\n%b\r\n" % (len(body[:size]), body[:size])
            body = body[size:]
        wire.fields[1] = b"Transfer-Encoding: chunked"
        wire.body = coded + b"0\r\n\r\n"
        return wire

    def _form(self) -> Wire:
        rng = self.random
        name = rng.choice(_SPELLINGS).replace(b'"', b"")
        body = b"".join(
            [
                b'--limit\r\nContent-Disposition: form-data; name="note"\r\n\r\ntext\r\n'
                if rng.random() < 0.3
                else b"",
                b'--limit\r\nContent-Disposition: form-data; name="file"; filename="' + name + b'"\r\n',
                b"Content-Type: " + rng.choice((b"image/png", b"text/html", rng.choice(_VALUES))) + b"\r\n\r\n",
                self._body(),
                b"\r\n--limit--\r\n",
            ]
        )
        return Wire(
            b"POST /upload HTTP/1.1",
            [
                b"Host: t",
                b"Content-Length: %d" % len(body),
                self._signature("/upload"),
                b"Content-Type: multipart/form-data; boundary=limit",
            ],
            body,
        )

    def _delete(self) -> Wire:
        path = self._path()
        return Wire(
            b"DELETE %b HTTP/1.1" % slots.target(path, slots.delete_token(path, DELETE_SECRET, self._secret)).encode(),
            [b"Host: t"],
        )

    def _options(self) -> Wire:
        return Wire(
            b"OPTIONS /upload/x HTTP/1.1", [b"Host: t", b"Origin: http://u", b"Access-Control-Request-Method: PUT"]
        )

    # ---- changes

    def _change_method(self, wire: Wire) -> None:
        wire.line = self.random.choice(_METHODS) + b" " + wire.line.partition(b" ")[2]

    def _change_target(self, wire: Wire) -> None:
        method, _, rest = wire.line.partition(b" ")
        target, _, version = rest.rpartition(b" ")
        rng = self.random
        spelling = rng.choice(_SPELLINGS)
        path, mark, query = target.partition(b"?")
        target = rng.choice(
            (
                b"/upload/" + spelling + mark + query,
                path + b"/" + spelling + mark + query,
                spelling,
                b"/" + spelling,
                b"http://t" + target,
                path + rng.choice(_QUERIES),
                target + b"&" + rng.choice(_QUERIES)[1:],
                path.replace(b"/", rng.choice((b"//", b"%2f", b"\\", b"/./")), 2) + mark + query,
                b"*",
            )
        )
        wire.line = method + b" " + target + b" " + version

    def _change_version(self, wire: Wire) -> None:
        wire.line = wire.line.rpartition(b" ")[0] + b" " + self.random.choice(_VERSIONS)

    def _pick(self, wire: Wire) -> int:
        return self.random.randrange(len(wire.fields)) if wire.fields else -1

    def _change_value(self, wire: Wire) -> None:
        at = self._pick(wire)
        if at >= 0:
            wire.fields[at] = wire.fields[at].partition(b":")[0] + b": " + self.random.choice(_VALUES)

    def _change_name(self, wire: Wire) -> None:
        at = self._pick(wire)
        if at >= 0:
            wire.fields[at] = self.random.choice(_NAMES) + b":" + wire.fields[at].partition(b":")[2]

    def _add_field(self, wire: Wire) -> None:
        field = (
            self.random.choice(_NAMES) + self.random.choice((b": ", b":", b" : ", b":\t")) + self.random.choice(_VALUES)
        )
        wire.fields.insert(self.random.randint(0, len(wire.fields)), field)

    def _double_field(self, wire: Wire) -> None:
        at = self._pick(wire)
        if at >= 0:
            wire.fields.append(wire.fields[at])

    def _drop_field(self, wire: Wire) -> None:
        at = self._pick(wire)
        if at >= 0:
            del wire.fields[at]

    def _many_fields(self, wire: Wire) -> None:
        wire.fields += [b"X-%d: y" % number for number in range(self.random.choice((50, 97, 99, 150)))]

    def _change_body(self, wire: Wire) -> None:
        rng = self.random
        cut = rng.randint(0, len(wire.body))
        wire.body = rng.choice(
            (
                wire.body[:cut],
                wire.body + b"x",
                wire.body + wire.body,
                b"",
                wire.body[cut:],
                self._change_bytes(wire.body),
            )
        )

    def _change_framing(self, wire: Wire) -> None:
        rng = self.random
        wire.fields = [f for f in wire.fields if not f.startswith((b"Content-Length", b"Transfer-Encoding"))]
        if rng.random() < 0.7:
            wire.fields.append(
                b"Content-Length: " + rng.choice((*_NUMBERS, b"%d" % len(wire.body), b"%d" % (len(wire.body) + 1)))
            )
        if rng.random() < 0.5:
            wire.fields.append(
                b"Transfer-Encoding: " + rng.choice((b"chunked", b"chunked", b"Chunked", b"gzip", b"chunked, chunked"))
            )

    def _change_chunks(self, wire: Wire) -> None:
        """Change one of the first size lines of a chunked body, or make a body that looks like one."""
        rng = self.random
        lines = wire.body.split(b"\r\n", 6)
        at = rng.randrange(len(lines))
        lines[at] = rng.choice(
            (*_NUMBERS, b"ffffffffffffffff", b"1;" + b"a" * 5000, b"1;a\n", b"fffffffffffffff", b"\0")
        )
        wire.body = b"\r\n".join(lines)

    def _change_bytes(self, data: bytes) -> bytes:
        rng = self.random
        if not data:
            return data
        # Mostly in the head, where every byte means something.
        at = rng.randrange(min(len(data), 400))
        end = min(len(data), at + rng.randint(1, 8))
        return rng.choice(
            (
                lambda: data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :],
                lambda: data[:at] + data[end:],
                lambda: data[:at] + data[at:end] * 3 + data[end:],
                lambda: data[:at] + rng.choice(_VALUES) + data[at:],
                lambda: data[:at] + rng.choice((b"\r\n", b"\n", b"\r", b"\0", b"\r\n\r\n", b" ", b"\t")) + data[at:],
                lambda: data.replace(b"\r\n", b"\n", rng.randint(1, 3)),
            )
        )()
