"""What a request wants to do, as far as permission is concerned."""

import enum


class Operation(enum.Enum):
    """The six things that a signature or a token may permit."""

    PUT = "put"
    """One file, its bytes in this request's body, to be stored under the request's path."""
    UPLOAD = "upload"
    """One file in a multipart form; the server chooses the path."""
    CREATE = "create"
    """The beginning of a resumable upload."""
    CHUNK = "chunk"
    """Anything done to a resumable upload that exists: more bytes, its status, its end."""
    DELETE = "delete"
    """A stored file goes away."""
    DOWNLOAD = "download"
    """A stored file is read where reading needs permission (below `/download/`)."""


METHODS: dict[Operation, frozenset[str]] = {
    Operation.PUT: frozenset({"PUT"}),
    Operation.UPLOAD: frozenset({"POST"}),
    Operation.CREATE: frozenset({"POST", "PUT"}),
    Operation.CHUNK: frozenset({"PUT", "POST", "PATCH", "GET", "HEAD", "DELETE"}),
    Operation.DELETE: frozenset({"DELETE"}),
    Operation.DOWNLOAD: frozenset({"GET", "HEAD"}),
}
"""The HTTP methods with which each operation can be asked for at all."""
