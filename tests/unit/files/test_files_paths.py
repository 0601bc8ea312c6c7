"""Path text: what is accepted is kept as it is, and no spelling of anything leads out or into the private folder."""

from __future__ import annotations

import itertools
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.files.stores import opened, put, tree

from hmac_file_server.files.contract import Metadata, Outcome, PathRefused, StorageError, StoragePath
from hmac_file_server.files.paths import MAX_PATH, MAX_SEGMENT, PRIVATE, parse

KEPT = [
    "a",
    "a/b/c",
    "...",
    "..a",
    "a..",
    ".hidden",
    "a.",
    " a",
    "a ",
    "-rf",
    "~",
    "$HOME",
    "%2e%2e",
    "%2f",
    "100%",
    "a+b",
    "a#b",
    "a?b",
    "a&b=c",
    'quo"te',
    "semi;colon",
    "<script>",
    "*",
    "CON",
    "NUL.txt",
    "aux ",
    "a:b",
    "C:",
    "😀/😀.png",
    unicodedata.normalize("NFC", "é.txt"),
    unicodedata.normalize("NFD", "é.txt"),
    "\u202egnp.exe",
    "\u2028",
    "\u00a0",
    "日本語/ファイル.jpg",
    "x" * MAX_SEGMENT,
    "é" * 127,
    "/".join(["x" * 100] * 10),
    "/".join(["d"] * 512),
    ".hmac-file-server2",
    "a/.hmac-file-server",
    "hmac-file-server",
    "state.db",
]

REFUSED = [
    ("", "path_empty"),
    ("/", "path_absolute"),
    ("/a", "path_absolute"),
    ("//a", "path_absolute"),
    ("/..", "path_absolute"),
    ("a/", "path_segment"),
    ("a//b", "path_segment"),
    (".", "path_segment"),
    ("..", "path_segment"),
    ("./a", "path_segment"),
    ("../a", "path_segment"),
    ("a/.", "path_segment"),
    ("a/..", "path_segment"),
    ("a/../b", "path_segment"),
    ("a/./b", "path_segment"),
    ("a\x00b", "path_control"),
    ("a\nb", "path_control"),
    ("a\x7f", "path_control"),
    ("a\x85", "path_control"),
    ("..\n", "path_control"),
    ("a\\b", "path_backslash"),
    ("..\\..\\etc", "path_backslash"),
    ("\ud800", "path_encoding"),
    ("a/\udcff", "path_encoding"),
    ("x" * (MAX_SEGMENT + 1), "path_segment_too_long"),
    ("a/" + "é" * 128, "path_segment_too_long"),
    ("/".join(["x" * 102] * 10), "path_too_long"),
    ("/".join(["d"] * 513), "path_too_long"),
    (PRIVATE, "path_private"),
    (PRIVATE + "/state.db", "path_private"),
    (PRIVATE.upper() + "/state.db", "path_private"),
    (PRIVATE + "./x", "path_private"),
    (PRIVATE + " /x", "path_private"),
    (".hmac-file-\u017ferver/x", "path_private"),
    (".hmac\u2010file-server".replace("\u2010", "-\u200b") + "/x", "path_private"),
    ("\uff0ehmac-file-server/x", "path_private"),
    (".hmac-\ufb01le-server/x", "path_private"),
]


@pytest.mark.parametrize("text", KEPT)
def test_kept_as_it_is(text: str) -> None:
    assert parse(text) == text


@pytest.mark.parametrize(("text", "code"), REFUSED)
def test_refused_with_its_code(text: str, code: str) -> None:
    with pytest.raises(PathRefused) as refused:
        parse(text)
    assert refused.value.code == code
    assert len(text) < 3 or text not in refused.value.reason


@given(st.text())
def test_any_text_is_a_safe_path_or_refused(text: str) -> None:
    try:
        path = parse(text)
    except PathRefused:
        return
    assert path == text
    assert len(path.encode()) <= MAX_PATH
    for segment in path.split("/"):
        assert segment not in {"", ".", ".."}
        assert 1 <= len(segment.encode()) <= MAX_SEGMENT
        assert not set(segment) & {chr(c) for c in range(32)}
    assert path.split("/")[0].casefold() != PRIVATE


def spellings() -> list[str]:
    """More than two thousand attempts to leave the root or to reach the private folder."""
    dots = [
        "..",
        ".",
        "...",
        "....",
        "․․",
        "。。",
        "．．",
        "‥",
        "..\u200b",
        ". .",
        ".. ",
        " ..",
        "..\x00",
        ".%2e",
        "%2e%2e",
        "%252e%252e",
        "..;",
        "..%00",
    ]
    slashes = ["/", "//", "\\", "%2f", "%5c", "∕", "／", "⧸", "\u2215", "/./", "/../", "\\/", "%c0%af", "/\x00/"]
    goals = ["outside", "outside/secret", "etc/passwd", f"{PRIVATE}/state.db", f"{PRIVATE}/lock"]
    made = [
        head + (dot + slash) * depth + goal
        for dot, slash, depth, goal, head in itertools.product(dots, slashes, (1, 2), goals, ("", "a/"))
    ]
    cases = [
        PRIVATE,
        PRIVATE.upper(),
        PRIVATE.title(),
        ".hMaC-fIlE-sErVeR",
        ".hmac-file-\u017ferver",
        "．hmac-file-server",
    ]
    tails = ["", "/", "/.", "/state.db", "/spool/x", "/blobs/aa/bb", "//state.db", "\\state.db", "/../x"]
    heads = ["", "./", "a/../", "/", "//", "x/../../", "link/../", "\u200b", "\ufeff", "\u00ad"]
    ends = ["", ".", "..", " ", "\u200b", "\u00ad", "\ufe0f", "::$DATA", "\x00", "\u0301"]
    made += [head + case + end + tail for head, case, end, tail in itertools.product(heads, cases, ends, tails)]
    planted = [
        "link/secret",
        "linkfile",
        "deep/link/secret",
        "a/linkup/outside/secret",
        "self/self/self",
        "procroot/etc/passwd",
    ]
    made += planted + [p + s for p in planted for s in ("/", "/.", "/..", "/x", "\x00")]
    made += ["a/" * n + "../" * n + goal for n in range(1, 40) for goal in goals]
    made += ["x" * n for n in (256, 1000, 1025, 4096, 70_000)] + ["../" * 1000 + "etc/passwd", "a/" * 5000]
    return made


def test_no_spelling_leads_out_of_the_root_or_into_the_private_folder(tmp_path: Path) -> None:
    root, outside = tmp_path / "outer" / "root", tmp_path / "outer" / "outside"
    outside.mkdir(parents=True)
    (outside / "secret").write_bytes(b"outside")
    (tmp_path / "outer" / "secret").write_bytes(b"outside")
    (root / "a").mkdir(parents=True)
    (root / "deep").mkdir()
    for link, target in (
        ("link", outside),
        ("deep/link", outside),
        ("a/linkup", ".."),
        ("linkfile", outside / "secret"),
        ("self", "."),
        ("procroot", "/proc/self/root"),
        ("state", PRIVATE),
    ):
        (root / link).symlink_to(target)
    texts = spellings()
    assert len(set(texts)) > 2000
    accepted = 0
    with opened(root, durability="relaxed") as store:
        before = {k: v for k, v in tree(tmp_path / "outer").items() if not k.startswith("root")}
        private = {path: path.stat().st_ino for path in (root / PRIVATE).rglob("*")}
        for text in texts:
            try:
                path = parse(text)
            except PathRefused:
                continue
            reader = store.open(path)
            assert reader is None or reader.entry.size == 1, text
            if reader is not None:
                reader.close()
            assert store.compare(StoragePath("linkfile")) is None
            try:
                outcome = put(store, text, b"1").outcome
            except StorageError as error:
                pytest.fail(f"{text!r}: {error}")
            accepted += outcome is Outcome.CREATED
            written = root / text
            if outcome is Outcome.CREATED:
                assert written.read_bytes() == b"1"
                assert not any(parent.is_symlink() for parent in [written, *written.parents][: text.count("/") + 1])
        assert accepted > 100, "some spellings are harmless names and must work"
        after = {k: v for k, v in tree(tmp_path / "outer").items() if not k.startswith("root")}
        assert after == before
        assert {path: path.stat().st_ino for path in private} == private
        inodes = set(private.values())
        for folder, _, files in os.walk(root):
            if PRIVATE not in Path(folder).parts:
                assert not inodes & {(Path(folder) / name).lstat().st_ino for name in files}


@pytest.mark.parametrize("path", ["link", "link/secret", "deep/link/secret", "state/state.db"])
def test_planted_links_are_refused_everywhere(tmp_path: Path, path: str) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"outside")
    (root / "deep").mkdir(parents=True)
    (root / "link").symlink_to(outside)
    (root / "deep/link").symlink_to(outside)
    (root / "state").symlink_to(PRIVATE)
    with opened(root) as store:
        before = tree(tmp_path)
        storage_path = parse(path)
        assert store.open(storage_path) is None
        assert store.head(storage_path) is None
        assert store.compare(storage_path) is None
        assert not store.delete(storage_path, "asked")
        published = put(store, path, b"outside")
        assert (published.outcome, published.entry) == (Outcome.CONFLICT, None)
        assert tree(tmp_path) == before


def test_a_private_folder_under_another_name_is_not_entered(tmp_path: Path) -> None:
    """What a bind mount or a case-folding directory would do: the folder is known by its inode as well."""
    root = tmp_path / "root"
    with opened(root) as store:
        private_fd = os.open(root / PRIVATE, os.O_RDONLY)
        try:
            found = os.fstat(private_fd)
            assert store._directories._hidden == (found.st_dev, found.st_ino)
        finally:
            os.close(private_fd)
        # parse() refuses the spelling; a path that got round it meets the second line of defence.
        assert store.open(StoragePath(f"{PRIVATE}/state.db")) is None
        published = store.publish(store.spool(), StoragePath(f"{PRIVATE}/x"), Metadata())
        assert published.outcome is Outcome.CONFLICT
        assert not (root / PRIVATE / "x").exists()
