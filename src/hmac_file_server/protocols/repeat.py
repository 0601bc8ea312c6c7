"""A part of an upload that is sent again after the upload was published: held against the file, not stored."""

from hmac_file_server.files.contract import FileStore, StoragePath
from hmac_file_server.uploads import Check, UploadRefused

_STEP = 1 << 20


class RepeatedBody:
    """The sink of such a body. A file that is gone by now cannot be compared with, and is taken at its word."""

    __slots__ = ("_check", "_offset", "_reader")

    def __init__(self, files: FileStore, path: StoragePath, offset: int, check: Check | None) -> None:
        """The body belongs at `offset` of the file at `path`; `check` is fed with it. Raises StorageError."""
        self._check = check
        self._reader = files.open(path)
        self._offset = offset

    def write(self, view: memoryview) -> None:
        """See `BodySink`. Raises UploadRefused `chunk_differs` and StorageError."""
        if self._check is not None:
            self._check.update(view)
        reader = self._reader
        if reader is None:
            return
        position = 0
        while position < len(view):
            there = reader.read(self._offset, min(_STEP, len(view) - position))
            if not there or not there.startswith(view[position : position + len(there)]):
                raise UploadRefused("chunk_differs", "Other bytes are stored at this place of the upload.")
            position += len(there)
            self._offset += len(there)

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
