"""Reading what a request claims: numbers, MACs, sizes and types, all strictly."""

import binascii
import re
from typing import Final

from hmac_file_server.auth.messages import DEFAULT_MEDIA_TYPE
from hmac_file_server.auth.operation import Operation
from hmac_file_server.auth.refusals import Malformed
from hmac_file_server.auth.signed_request import SignedRequest

_NUMBER: Final = re.compile(rb"0|[1-9][0-9]{0,18}")
_SAFE_TYPE: Final = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,254}")


def number(text: bytes, what: str) -> int:
    """A decimal number in its only spelling: ASCII digits, no sign, no leading zero, at most 19 of them.

    `int()` alone would take "+10", "1_0", " 10 " and digits of other scripts. Raises Malformed.
    """
    if _NUMBER.fullmatch(text) is None:
        raise Malformed(f"{what} is not a decimal number")
    return int(text)


def mac(given: bytes) -> bytes:
    """The 32 bytes behind 64 hex digits of either case. Raises Malformed."""
    if len(given) == 64:
        try:
            return binascii.a2b_hex(given)
        except binascii.Error:
            pass
    raise Malformed("the signature is not 64 hexadecimal digits")


def media_type(request: SignedRequest) -> bytes:
    """Content-Type as sent; XEP-0363 reads a missing one as application/octet-stream."""
    return request.header(b"content-type") or DEFAULT_MEDIA_TYPE


def safe_media_type(text: str) -> str:
    """The type itself when it can stand in a header (printable ASCII, at most 255), else octet-stream."""
    return text if _SAFE_TYPE.fullmatch(text) is not None else DEFAULT_MEDIA_TYPE.decode()


def announced_size(request: SignedRequest, operation: Operation) -> int | None:
    """Bytes of the whole file as the request announces them, or None when it does not.

    PUT: Content-Length. UPLOAD: X-Total-Size (the form around the file has its own length). CREATE:
    Upload-Length or X-Total-Size, else Content-Length, which then is the whole file. CHUNK: Content-Length
    of this part. Requests without a body count as 0. Raises Malformed when a field is no number, or
    two of them differ.
    """
    if operation is Operation.PUT:
        return request.content_length
    if operation is Operation.UPLOAD or operation is Operation.CREATE:
        sizes = {
            number(value, name.decode())
            for name in (b"x-total-size", b"upload-length")
            if (value := request.header(name)) is not None
        }
        if len(sizes) > 1:
            raise Malformed("x-total-size and upload-length differ")
        if sizes:
            return sizes.pop()
        return None if operation is Operation.UPLOAD else request.content_length
    if request.method in {"GET", "HEAD", "DELETE"}:
        return request.content_length or 0
    return request.content_length


def signed_methods(method: str) -> tuple[str, ...]:
    """Methods whose signature permits this one: who may GET may HEAD, nothing else follows from anything."""
    return ("HEAD", "GET") if method == "HEAD" else (method,)
