"""Checks of stored files, and what is removed after a run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bench import client, rows
from bench.client import body_slice, stamp
from bench.errors import BenchError, MismatchError
from bench.rows import GIB, KIB, LARGE, ROWS, disk_needed, paths
from bench.storage import check_content, check_stored, remove_large

PATTERN = bytes(range(256)) * 4


def store(root: Path, path: str, content: bytes) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def test_exactly_the_expected_files(tmp_path: Path) -> None:
    wanted = ["a/1", "a/2", "b/1"]
    for path in wanted:
        store(tmp_path, path, b"xyz")
    check_stored(tmp_path, wanted, 3)
    with pytest.raises(MismatchError, match="instead of 4"):
        check_stored(tmp_path, wanted, 4)
    with pytest.raises(MismatchError, match="a holds 2 files instead of 1"):
        check_stored(tmp_path, ["a/1"], 3)
    with pytest.raises(MismatchError, match="a holds 2 files instead of 3"):
        check_stored(tmp_path, ["a/1", "a/2", "a/3"], 3)
    with pytest.raises(MismatchError, match="was not made"):
        check_stored(tmp_path, ["c/1"], 3)


def test_a_link_in_place_of_a_file_is_noticed(tmp_path: Path) -> None:
    store(tmp_path, "real", b"xyz")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1").symlink_to(tmp_path / "real")
    with pytest.raises(MismatchError):
        check_stored(tmp_path, ["a/1"], 3)


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 5000, 20_000])
def test_content_is_checked_at_start_middle_and_end(tmp_path: Path, size: int) -> None:
    body = body_slice(PATTERN, 5, 6, 0, size)
    assert len(body) == size
    check_content(store(tmp_path, "good", body), PATTERN, 5, 6, size)
    for at in {0, size // 2, size - 1} if size else set():
        spoilt = bytearray(body)
        spoilt[at] ^= 1
        with pytest.raises(MismatchError):
            check_content(store(tmp_path, "bad", bytes(spoilt)), PATTERN, 5, 6, size)


def test_a_body_is_the_stamp_and_then_the_pattern() -> None:
    whole = body_slice(PATTERN, 1, 2, 0, 3000)
    assert whole[:32] == stamp(1, 2) == b"00000000000000010000000000000002"
    assert all(whole[o] == PATTERN[o % len(PATTERN)] for o in range(32, 3000))
    for offset, length in [(0, 10), (10, 50), (31, 2), (32, 1), (1023, 2), (2990, 10)]:
        assert body_slice(PATTERN, 1, 2, offset, length) == whole[offset : offset + length]


def test_bodies_differ() -> None:
    assert len({stamp(seed, index) for seed in range(20) for index in range(20)}) == 400
    assert len(stamp(2**64 - 1, 2**64 - 1)) == client.STAMP_LENGTH


def test_only_large_regular_files_go(tmp_path: Path) -> None:
    small = store(tmp_path, "a/small", b"x" * (LARGE - 1))
    large = store(tmp_path, "a/large", b"x" * LARGE)
    (tmp_path / "a" / "link").symlink_to(small)
    database = store(tmp_path, ".private/state.db", b"x" * LARGE)
    assert remove_large([tmp_path], ".private") == LARGE
    assert not large.exists()
    assert small.exists()
    assert database.exists()
    assert (tmp_path / "a" / "link").is_symlink()


def test_a_second_name_goes_too_and_its_bytes_count_once(tmp_path: Path) -> None:
    large = store(tmp_path, "a/large", b"x" * LARGE)
    blobs = tmp_path / ".private" / "blobs"
    blobs.mkdir(parents=True)
    os.link(large, blobs / "digest")
    assert remove_large([tmp_path, blobs], ".private") == LARGE
    assert os.listdir(blobs) == []
    assert remove_large([tmp_path / "missing"]) == 0


def test_paths_differ_between_runs_and_files() -> None:
    row = ROWS["put-10k"]
    made = [path for run in ("1", "2") for path in paths(row, run, 2500)]
    assert len(set(made)) == 5000
    assert len({path.rpartition("/")[0] for path in made}) == 6  # a thousand files a folder


def test_slot_folders_hold_one_file_each() -> None:
    made = paths(ROWS["put-10k-folders"], "1", 300)
    assert len({path.rpartition("/")[0] for path in made}) == 300


def test_synced_servers_get_fewer_requests() -> None:
    assert ROWS["put-10k"].requests_for("full") == ROWS["put-10k"].synced_requests
    assert ROWS["put-10k"].requests_for("relaxed") == ROWS["put-10k"].requests_for(None) == ROWS["put-10k"].requests
    assert ROWS["put-1g"].requests_for("full") == 1


def test_disk_needed_adds_small_files_and_takes_the_largest_large_row() -> None:
    names = {key: ["one", "two"] for key in ROWS}
    small, large, download = ROWS["put-10k"], ROWS["put-1g"], ROWS["get-1g"]
    assert disk_needed([], {}, 5) == 2 * GIB
    assert disk_needed([large], names, 5) == 3 * GIB
    assert disk_needed([large, download], names, 5) == 4 * GIB
    per_file = 12 * KIB + 1024
    assert disk_needed([small], names, 5) == 2 * GIB + 2 * small.requests * per_file * 5


def test_row_keys_are_unique_and_variants_known() -> None:
    from bench.peers.ours import VARIANTS

    for key, row in ROWS.items():
        assert key == row.key
        assert set(row.variants) <= set(VARIANTS)
        assert row.mode in {"put", "get"}
        assert (row.files > 0) == (row.mode == "get")
    assert rows.LARGE < 256 * rows.MIB


def test_mismatch_is_a_bench_error() -> None:
    assert issubclass(MismatchError, BenchError)
