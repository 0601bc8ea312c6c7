"""The exact bytes that each scheme signs. The verifier and the signer both take them from here.

Why no field can be moved into its neighbour: paths hold no control characters (so neither NUL nor
LF), sizes and expiries are canonical decimal digits, methods are tokens. v1 ends in its size, which
holds no space. The layouts cannot be taken for each other either: v1 has no NUL and no LF, v2 and
token have two NUL, the delete form one, v3 has LF, the path-only X-Signature begins with "/", which
no storage path does, and the strong one begins with its own label.
"""

from typing import Final

DEFAULT_MEDIA_TYPE: Final = b"application/octet-stream"
STRONG_LABEL: Final = b"hmac-file-server X-Signature 2"


def v1(path: bytes, size: int) -> bytes:
    """`path SP size` (Prosody mod_http_upload_external v1, ejabberd external_secret)."""
    return b"%b %d" % (path, size)


def v2(path: bytes, size: int, media_type: bytes) -> bytes:
    """`path NUL size NUL type` (Prosody mod_http_upload_external v2, Metronome's token)."""
    return b"%b\0%d\0%b" % (path, size, media_type)


def delete_token(path: bytes, delete_secret: bytes) -> bytes:
    """`path NUL delete-secret` (Metronome http_upload_external, DELETE)."""
    return b"%b\0%b" % (path, delete_secret)


def v3(method: bytes, path: bytes, expires: int) -> bytes:
    """`METHOD LF expires LF /path` (hmac-file-server). The path is absolute."""
    return b"%b\n%d\n%b" % (method, expires, path)


def x_signature(path: bytes) -> bytes:
    """The absolute path alone (the guide's X-Signature)."""
    return path


def x_signature_strong(method: bytes, path: bytes, filename: bytes, size: int, expires: int) -> bytes:
    """`label NUL METHOD NUL /path NUL filename NUL size NUL expires`; file name as in the header."""
    return b"%b\0%b\0%b\0%b\0%d\0%d" % (STRONG_LABEL, method, path, filename, size, expires)
