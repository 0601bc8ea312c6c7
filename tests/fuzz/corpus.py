"""Inputs that once showed a fault, in a parser or in its oracle; they are run for ever."""

from __future__ import annotations

from tests.fuzz.target import joined

_FORM = b"multipart/form-data; boundary=b"
_DISPOSITION = b'\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"'

FOUND: dict[str, tuple[bytes, ...]] = {
    # A bare LF in a header line of a form was taken when the whole line came at once, and refused when it came in pieces.
    "form": (
        joined(_FORM, _DISPOSITION + b'\r"\nContent-Type: image/png\r\n\r\n\r\n--b--'),
        joined(_FORM, _DISPOSITION + b"\nContent-Type: image/png\r\n\r\nx\r\n--b--"),
    ),
    # Names that were cut to their length just behind a space ended in it.
    "file-names": (b"x" * 199 + b" " + b"y" * 50, b"%. -\r\n1 " + "\u0080\u200b".encode() * 60 + b" y"),
    # Durations below a tenth of a microsecond were shown with an exponent, which is none of their spellings.
    "durations": (b"4ns", b"4ns0ms", b"99ns", b"1000000000000500ns"),
    # A command line that is not UTF-8 brings surrogates: refused as text that cannot be encoded, not as a link.
    "client-links": (b"http://h/\xff", b"https://files.exap://[::1]:8080/base/?ticket=a.b.c"),
    "request-target": (b"/.hmac-file-serverx",),
    "request-head": (
        b"POST /upload HTTP/1.1\r\nHost: t:(0\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: t\r\nConnection: keep-alive, close\r\nProxy-Connection: cction\r\n",
    ),
    "upload-checksum": (b"sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAa=",),
    "jwt-claims": (
        joined(b'{"alg":"HS256","typ":"ticket+jwt"}', b'{"exp":4000000000,"aud":"hmac-file-server","prefix":"","o\xb6ps":["upload"]}'),
    ),
    "addresses": (b"[fe80::1%e-1tun\xffx:/h0]:1",),
    "toml": (b"a = -11\r\r\n\n",),
    "pages": (b"url=Http://t/?a=b",),
}  # fmt: skip
