"""Requests for a fuzzer: valid ones of every kind, and what a hand that knows HTTP does to them."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.fixtures import slots
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
)  # fmt: skip
_NAMES = (
    b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Expect", b"Range", b"If-Range", b"If-None-Match", b"If-Match",
    b"If-Modified-Since", b"If-Unmodified-Since", b"Content-Type", b"Content-Encoding", b"Content-Range", b"Authorization", b"TE",
    b"X-Signature", b"X-Signature-Expires", b"X-Filename", b"X-Total-Size", b"X-Upload-Session-ID", b"X-Chunk-Number", b"Upgrade",
    b"Trailer", b"Content-Disposition", b"X-HTTP-Method-Override", b"Proxy-Connection", b"Keep-Alive", b"Cookie", b"Forwarded",
    b"X-Forwarded-For", b"X-Forwarded-Proto", b"Tus-Resumable", b"Upload-Length", b"Upload-Offset", b"Upload-Complete", b"Accept",
    b"Origin", b"Access-Control-Request-Method", b"Max-Forwards", b"Content-Digest", b"Digest", b"X Y", b"X:", b"", b"\xe9", b"Host ",
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
    """Endless requests from one seed. `signed`: the storage paths that some request of it may store under."""

    def __init__(self, seed: int, existing: str) -> None:
        self.random = random.Random(seed)
        self.signed: set[str] = set()
        self._existing = existing
        self._count = 0
        self._kinds: tuple[Callable[[], Wire], ...] = (
            self._get, self._get, self._range, self._put_v1, self._put_v1, self._put_v2, self._put_signature,
            self._put_chunked, self._put_chunked, self._put_bearer, self._form, self._form, self._delete, self._options,
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
        wire = rng.choice(self._kinds)()
        for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
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
        path = f"fuzz/{number}.{self.random.choice(('bin', 'html', 'jpg'))}"
        self.signed.add(path)
        return path

    def _body(self) -> bytes:
        return self.random.randbytes(self.random.choice((0, 1, 3, 10, 100, 1000, 1000, 20_000)))

    def _get(self) -> Wire:
        path = self._existing if self.random.random() < 0.6 else f"fuzz/{self.random.randint(0, self._count + 2)}.bin"
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
        return self._put(path, slots.v1(path, len(body)), body, *fields)

    def _put_v2(self) -> Wire:
        path, body = self._path(), self._body()
        return self._put(path, slots.v2(path, len(body), "image/png"), body, b"Content-Type: image/png")

    def _put_bearer(self) -> Wire:
        path, body = self._path(), self._body()
        slot, _, name = path.partition("/")
        token = slots.bearer({"slot": slot, "filename": name, "filesize": len(body), "exp": 4_000_000_000})
        return self._put(path, "", body, b"Authorization: " + token.encode())

    def _put_signature(self) -> Wire:
        path, body = self._path(), self._body()
        signature = slots.x_signature("/upload/" + path).encode()
        return self._put(path, "", body, b"X-Signature: " + signature)

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
                b"X-Signature: " + slots.x_signature("/upload").encode(),
                b"Content-Type: multipart/form-data; boundary=limit",
            ],
            body,
        )

    def _delete(self) -> Wire:
        path = self._path()
        return Wire(b"DELETE %b HTTP/1.1" % slots.target(path, slots.delete_token(path)).encode(), [b"Host: t"])

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
