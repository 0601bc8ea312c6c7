"""Checks a store against its metadata, also while a server works on it, and repairs what can be repaired.

Files of people are never removed or changed by a repair: it drops rows of files that are gone, gives files
without a row one, takes the names of damaged or unused blobs away, removes spools that a crash left, and
sets modes. A file whose bytes are not those that were uploaded is reported and stays.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from hmac_file_server.clock import Clock, SystemClock
from hmac_file_server.files import media_types
from hmac_file_server.files.contract import PathRefused, StorageError
from hmac_file_server.files.dedup import Blobs
from hmac_file_server.files.directories import Directories, Directory, is_link, is_regular
from hmac_file_server.files.disk import Disk, storage_error
from hmac_file_server.files.drafts import is_draft_name
from hmac_file_server.files.expiry import walk
from hmac_file_server.files.metadata import MetadataTable, Row
from hmac_file_server.files.paths import PRIVATE, parse
from hmac_file_server.files.spool import Spools, hasher

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_STEP: Final = 1 << 20
_SETTLED: Final = 60.0
"""Seconds for which a file without a row, or a blob without a second name, may be work in progress."""
_ORPHAN_AGE: Final = 3600.0
_BAD_MODE: Final = 0o133 | 0o7000
"""Bits that no stored file should have: execution, writing by others, set-id."""


class Problem(NamedTuple):
    """One finding. `path` is below the root."""

    code: str
    path: str
    text: str


class Report(msgspec.Struct, frozen=True):
    """What a check found: `repaired` are those of `problems` that are none any more.

    `files` and `bytes` count what was looked at.
    """

    problems: tuple[Problem, ...]
    repaired: tuple[Problem, ...]
    files: int
    bytes: int


def check(root: Path, *, repair: bool, clock: Clock | None = None, disk: Disk | None = None) -> Report:
    """Check the store at `root`.

    Codes: database_damaged, row_without_file, file_without_row, size_mismatch, digest_mismatch,
    blob_mismatch, orphan_blob, orphan_spool, wrong_mode, symlink, not_a_file, unreadable, strange_name.
    Raises StorageError when there is no store or it cannot be read at all.
    """
    checker = _Check(root, repair, SystemClock() if clock is None else clock, Disk() if disk is None else disk)
    try:
        checker.run()
    except OSError as error:
        raise storage_error(error) from error
    finally:
        checker.close()
    return Report(tuple(checker.problems), tuple(checker.repaired), checker.files, checker.bytes)


class _Check:
    def __init__(self, root: Path, repair: bool, clock: Clock, disk: Disk) -> None:
        self._root = root
        self._repair = repair
        self._disk = disk
        self._now = clock.time()
        self._monotonic = clock.monotonic
        self.problems: list[Problem] = []
        self.repaired: list[Problem] = []
        self.files = 0
        self.bytes = 0
        self._digests: dict[tuple[int, int, str], str] = {}
        self._metadata: MetadataTable | None = None
        self._rows: dict[str, Row] = {}
        self._rows_known = True

    def run(self) -> None:
        disk = self._disk
        root_fd = disk.open(os.fspath(self._root), _FOLDER & ~os.O_NOFOLLOW)
        self._directories = Directories(disk, root_fd, monotonic=self._monotonic)
        try:
            private_fd = disk.open(PRIVATE, _FOLDER, dir_fd=root_fd)
        except FileNotFoundError:
            private_fd = -1
        if private_fd >= 0:
            try:
                self._private(private_fd)
            finally:
                disk.close(private_fd)
        self._tree()

    def close(self) -> None:
        if self._metadata is not None:
            self._metadata.close()

    def _found(self, code: str, path: str, text: str, mend: Callable[[], object] | None = None) -> None:
        problem = Problem(code, path, text)
        if self._repair and mend is not None:
            try:
                mend()
                self.repaired.append(problem)
            except OSError as error:
                problem = Problem(code, path, f"{text}; the repair failed: {storage_error(error)}")
            except StorageError as error:
                problem = Problem(code, path, f"{text}; the repair failed: {error}")
        self.problems.append(problem)

    # -- the private folder

    def _private(self, private_fd: int) -> None:
        disk = self._disk
        if disk.fstat(private_fd).st_mode & 0o077:
            self._found("wrong_mode", PRIVATE, "others may look into it", lambda: disk.fchmod(private_fd, 0o700))
        try:
            disk.stat("state.db", dir_fd=private_fd, follow_symlinks=False)
            present = True
        except FileNotFoundError:
            present = False
        if present or self._repair:
            self._database()
        for name, look in (("spool", self._spool), ("uploads", self._uploads), ("blobs", self._blobs)):
            try:
                fd = disk.open(name, _FOLDER, dir_fd=private_fd)
            except FileNotFoundError:
                continue
            look(fd)

    def _database(self) -> None:
        try:
            self._metadata = MetadataTable(self._disk, os.fspath(self._root / PRIVATE / "state.db"), full=True)
            damage = self._metadata.damage()
            self._rows = {row.path: row for row in self._metadata.select("1")}
        except StorageError as error:
            self._found("database_damaged", f"{PRIVATE}/state.db", str(error))
            self._rows_known = False
            return
        for line in damage:
            self._found("database_damaged", f"{PRIVATE}/state.db", line)

    def _spool(self, fd: int) -> None:
        spools = Spools(self._disk, fd, random=os.urandom, hash_name="blake3", hash_limit=0, hashing=False)
        for name in spools.orphans(self._now - _ORPHAN_AGE):
            self._found(
                "orphan_spool",
                f"{PRIVATE}/spool/{name}",
                "left by an upload that a crash ended",
                lambda name=name: spools.drop(name),  # type: ignore[misc]
            )
        spools.shut()

    def _uploads(self, fd: int) -> None:
        """Which drafts are of use is for the engine to say, by its sessions. Here, only what can be none of them."""
        try:
            for name in self._disk.listdir(fd):
                shown = name.encode("utf-8", "backslashreplace").decode()
                path = f"{PRIVATE}/uploads/{shown}"
                try:
                    found = self._disk.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if not is_draft_name(name):
                    self._found("strange_name", path, "no upload has that name")
                elif not is_regular(found.st_mode):
                    self._found("not_a_file", path, "it has the name of an upload, and is no plain file")
        finally:
            self._disk.close(fd)

    def _blobs(self, fd: int) -> None:
        disk = self._disk
        directories = Directories(disk, fd, monotonic=self._monotonic)
        spools = Spools(
            disk, disk.open(".", _FOLDER, dir_fd=fd), random=os.urandom, hash_name="blake3", hash_limit=0, hashing=False
        )
        blobs = Blobs(disk, directories, spools, max_size=0)
        for name in blobs.names():
            shard = directories.find(name[:2])
            if shard is None:
                continue
            path = f"{PRIVATE}/blobs/{name[:2]}/{name}"
            try:
                found = disk.stat(name, dir_fd=shard.fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            unlink = self._unlinker(shard, name)
            if not is_regular(found.st_mode):
                self._found("blob_mismatch", path, "it is no file", unlink)
            elif found.st_nlink == 1:
                if self._now - found.st_ctime > _SETTLED:
                    self._found("orphan_blob", path, "no file uses it", unlink)
            else:
                try:
                    whole = any(self._hash(name, shard, kind) == name for kind in ("blake3", "sha256"))
                except OSError as error:
                    self._found("unreadable", path, f"reading failed: {storage_error(error)}")
                else:
                    if not whole:
                        self._found("blob_mismatch", path, "its bytes are not those of its name", unlink)
        spools.shut()

    def _unlinker(self, directory: Directory, name: str) -> Callable[[], object]:
        return lambda: self._disk.unlink(name, dir_fd=directory.fd)

    # -- the tree

    def _tree(self) -> None:
        missing = dict(self._rows)
        for path, found in walk(self._disk, self._directories):
            row = missing.pop(path, None)
            if is_link(found.st_mode):
                self._found("symlink", path, "links are never followed, so it is not served")
            elif not is_regular(found.st_mode):
                self._found("not_a_file", path, "it is no plain file, so it is not served")
            else:
                self.files += 1
                self.bytes += found.st_size
                self._file(path, found, row)
        for path, row in missing.items():
            self._missing(path, row)

    def _missing(self, path: str, row: Row) -> None:
        head, _, name = path.rpartition("/")
        directory = self._directories.find(head)
        if directory is not None:
            try:
                self._disk.stat(name, dir_fd=directory.fd, follow_symlinks=False)
                return  # came after the walk had passed
            except OSError as error:
                if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}:
                    raise
        metadata = self._metadata
        mend = None if metadata is None else (lambda: metadata.remove([row]))
        self._found("row_without_file", path, "the database knows a file that is not there", mend)

    def _file(self, path: str, found: os.stat_result, row: Row | None) -> None:
        head, _, name = path.rpartition("/")
        directory = self._directories.find(head)
        if directory is None:
            return
        if found.st_mode & _BAD_MODE:
            self._found(
                "wrong_mode",
                path,
                "it may be executed, or written by others",
                lambda: self._chmod(directory, name, found.st_mode & 0o7777 & ~_BAD_MODE),
            )
        if row is None:
            self._rowless(path, found)
        elif row.size != found.st_size:
            self._found("size_mismatch", path, f"{found.st_size} bytes instead of the {row.size} uploaded")
        elif row.digest is not None:
            kind, _, expected = row.digest.partition(":")
            try:
                actual = self._hash(name, directory, kind)
            except OSError as error:
                self._found("unreadable", path, f"reading failed: {storage_error(error)}")
                return
            if actual is not None and actual != expected:
                self._found("digest_mismatch", path, "its bytes are not those that were uploaded")

    def _rowless(self, path: str, found: os.stat_result) -> None:
        try:
            parse(path)
        except PathRefused as error:
            shown = path.encode("utf-8", "backslashreplace").decode()
            self._found("strange_name", shown, f"no request can reach it: {error.reason}")
            return
        if self._now - found.st_ctime <= _SETTLED:
            return  # its row may be on the way
        if not self._rows_known:
            return
        metadata = self._metadata
        row = Row(path, media_types.by_name(path), None, None, found.st_size, None, found.st_mtime, None, None)
        mend = None if metadata is None else (lambda: metadata.put([row], heal=True))
        self._found("file_without_row", path, "it did not come through this server", mend)

    def _chmod(self, directory: Directory, name: str, mode: int) -> None:
        fd = self._disk.open(name, _READ, dir_fd=directory.fd)
        try:
            self._disk.fchmod(fd, mode)
        finally:
            self._disk.close(fd)

    def _hash(self, name: str, directory: Directory, kind: str) -> str | None:
        """Hex digest of the file's bytes, read once for all its names; None when it has gone."""
        disk = self._disk
        try:
            fd = disk.open(name, _READ, dir_fd=directory.fd)
        except FileNotFoundError:
            return None
        try:
            found = disk.fstat(fd)
            key = (found.st_dev, found.st_ino, kind)
            if key not in self._digests:
                digest = hasher(kind)()
                offset = 0
                while piece := disk.pread(fd, _STEP, offset):
                    digest.update(piece)
                    offset += len(piece)
                self._digests[key] = digest.hexdigest()
            return self._digests[key]
        finally:
            disk.close(fd)
