"""The check of a store: every finding, what a repair mends, and what it leaves alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.unit.files.stores import FailingDisk, ManualClock, get, open_descriptors, opened, put, tree
from tests.unit.files.test_files_dedup import blob

from hmac_file_server.files.contract import StorageError
from hmac_file_server.files.fsck import Report, check
from hmac_file_server.files.paths import PRIVATE

LATER = ManualClock(now=4_000_000_000.0)
"""So late that nothing on the disk is work in progress."""
BODY = b"hello world"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with opened(tmp_path / "root", dedup=True) as store:
        put(store, "a/f.txt", BODY)
        put(store, "twin", BODY)
        put(store, "empty", b"")
    return tmp_path / "root"


def codes(report: Report) -> list[tuple[str, str]]:
    return sorted((problem.code, problem.path) for problem in report.problems)


def mended(root: Path) -> None:
    """A repair mends what was found, and a second look finds nothing."""
    found = check(root, repair=True, clock=LATER)
    assert found.repaired == found.problems
    assert check(root, repair=False, clock=LATER).problems == ()


def test_a_sound_store_has_no_problems(root: Path) -> None:
    before = open_descriptors()
    report = check(root, repair=False, clock=LATER)
    assert report == Report((), (), 3, 2 * len(BODY))
    assert open_descriptors() <= before


def test_a_check_changes_nothing(root: Path) -> None:
    (root / "empty").chmod(0o777)
    (root / "foreign").write_bytes(b"x")
    (root / PRIVATE / "spool" / "left").write_bytes(b"x")
    before = tree(root), sorted((root / PRIVATE).rglob("*"))
    first = codes(check(root, repair=False, clock=LATER))
    assert len(first) == 3
    assert codes(check(root, repair=False, clock=LATER)) == first
    assert (tree(root), sorted((root / PRIVATE).rglob("*"))) == before


def test_a_row_without_a_file(root: Path) -> None:
    (root / "a/f.txt").unlink()
    assert codes(check(root, repair=False, clock=LATER)) == [("row_without_file", "a/f.txt")]
    mended(root)


def test_a_file_without_a_row_gets_one(root: Path) -> None:
    (root / "foreign.png").write_bytes(b"x")
    os.utime(root / "foreign.png", (0, 1_500_000_000))
    assert codes(check(root, repair=False, clock=LATER)) == [("file_without_row", "foreign.png")]
    mended(root)
    with opened(root) as store:
        row = store.metadata.get("foreign.png")
        assert row is not None
        assert (row.size, row.created, row.media_type) == (1, 1_500_000_000.0, "image/png")


def test_a_file_that_was_published_a_moment_ago_is_no_problem(root: Path) -> None:
    (root / "fresh").write_bytes(b"x")
    now = ManualClock(now=(root / "fresh").stat().st_ctime + 1)
    assert check(root, repair=True, clock=now).problems == ()


def test_another_size_is_reported_and_left(root: Path) -> None:
    (root / "empty").write_bytes(b"grown")
    report = check(root, repair=True, clock=LATER)
    assert codes(report) == [("size_mismatch", "empty")]
    assert report.repaired == ()
    assert (root / "empty").read_bytes() == b"grown"


def test_other_bytes_are_reported_and_their_blob_is_used_no_more(root: Path) -> None:
    (root / "twin").write_bytes(b"HELLO world")
    report = check(root, repair=True, clock=LATER)
    assert [code for code, _ in codes(report)] == ["blob_mismatch", "digest_mismatch", "digest_mismatch"]
    assert [problem.code for problem in report.repaired] == ["blob_mismatch"]
    assert (root / "twin").read_bytes() == b"HELLO world"
    with opened(root, dedup=True) as store:
        put(store, "new", BODY)
        assert get(store, "new") == BODY
    assert (root / "new").stat().st_ino != (root / "twin").stat().st_ino


def test_blobs_that_nobody_uses(root: Path) -> None:
    (root / "a/f.txt").unlink()
    (root / "twin").unlink()
    assert ("orphan_blob", str(blob(root, BODY).relative_to(root))) in codes(check(root, repair=False, clock=LATER))
    mended(root)
    assert not blob(root, BODY).exists()


def test_a_blob_that_is_a_link(root: Path) -> None:
    blob(root, BODY).unlink()
    blob(root, BODY).symlink_to("/etc/passwd")
    assert [code for code, _ in codes(check(root, repair=False, clock=LATER))] == ["blob_mismatch"]
    mended(root)


def test_spools_that_a_crash_left(root: Path) -> None:
    left = root / PRIVATE / "spool" / "0123"
    left.write_bytes(b"x")
    assert check(root, repair=True, clock=ManualClock(now=left.stat().st_mtime + 60)).problems == ()
    assert codes(check(root, repair=False, clock=LATER)) == [("orphan_spool", f"{PRIVATE}/spool/0123")]
    mended(root)
    assert not left.exists()


@pytest.mark.parametrize("mode", [0o755, 0o666, 0o642, 0o4640])
def test_modes(root: Path, mode: int) -> None:
    (root / "empty").chmod(mode)
    assert codes(check(root, repair=False, clock=LATER)) == [("wrong_mode", "empty")]
    mended(root)
    assert (root / "empty").stat().st_mode & 0o7777 == mode & 0o644


def test_the_mode_of_the_private_folder(root: Path) -> None:
    (root / PRIVATE).chmod(0o755)
    assert codes(check(root, repair=False, clock=LATER)) == [("wrong_mode", PRIVATE)]
    mended(root)
    assert (root / PRIVATE).stat().st_mode & 0o777 == 0o700


def test_what_is_not_served_is_reported_and_left(root: Path) -> None:
    (root / "link").symlink_to("/etc/passwd")
    (root / "a/folderlink").symlink_to("/etc")
    os.mkfifo(root / "pipe")
    (root / "bad\nname").write_bytes(b"x")
    with open(os.fsencode(root) + b"/\xff", "wb"):
        pass
    report = check(root, repair=True, clock=LATER)
    assert codes(report) == [
        ("not_a_file", "pipe"),
        ("strange_name", "\\udcff"),
        ("strange_name", "bad\nname"),
        ("symlink", "a/folderlink"),
        ("symlink", "link"),
    ]
    assert report.repaired == ()
    assert (root / "link").is_symlink()


def test_a_database_that_is_none(root: Path) -> None:
    for name in ("state.db-wal", "state.db-shm"):
        (root / PRIVATE / name).unlink(missing_ok=True)
    (root / PRIVATE / "state.db").write_bytes(b"this is no database" * 100)
    before = tree(root)
    report = check(root, repair=True, clock=LATER)
    assert codes(report) == [("database_damaged", f"{PRIVATE}/state.db")]
    assert report.files == 3
    assert tree(root) == before


def test_a_database_that_was_removed_is_made_again(root: Path) -> None:
    for file in (root / PRIVATE).glob("state.db*"):
        file.unlink()
    assert {code for code, _ in codes(check(root, repair=False, clock=LATER))} == {"file_without_row"}
    assert not (root / PRIVATE / "state.db").exists()
    mended(root)
    with opened(root) as store:
        assert get(store, "a/f.txt") == BODY
        assert store.metadata.get("a/f.txt") is not None


def test_a_tree_that_no_server_has_used_yet(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/f").write_bytes(b"x")
    report = check(tmp_path, repair=True, clock=LATER)
    assert codes(report) == [("file_without_row", "a/f")]
    assert report.repaired == ()
    assert sorted(os.listdir(tmp_path)) == ["a"]


def test_no_tree_at_all(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        check(tmp_path / "none", repair=False, clock=LATER)


def test_a_file_that_cannot_be_read(root: Path) -> None:
    disk = FailingDisk(frozenset({"pread"}), 0, times=9)
    report = check(root, repair=False, clock=LATER, disk=disk)
    assert {code for code, _ in codes(report)} == {"unreadable"}


def test_while_a_server_works_on_it(root: Path) -> None:
    with opened(root, dedup=True) as store:
        spool = store.spool()
        spool.write(b"under way")
        assert check(root, repair=True, clock=LATER).problems == ()
        put(store, "more", b"x")
        assert check(root, repair=True, clock=LATER).problems == ()
        assert get(store, "more") == b"x"
