"""What is remembered of uploads: private, whole after a crash, one run at a time, never in the way."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fixtures.server import environment

from hmac_file_server.client.state import (
    LIFETIME,
    Entry,
    Fingerprint,
    HeldEntry,
    StateStore,
    UploadHeld,
    default_folder,
)

FILE = Fingerprint("/home/a/film.mkv", 10, 20, 30, "https://files.example.org", "chunked", "film.mkv")
SESSION = {"session_id": "1_abc", "chunk_size": 5}
NOW = 1_900_000_000.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "uploads"


@pytest.fixture
def store(folder: Path) -> StateStore:
    return StateStore(folder)


@pytest.fixture
def held(store: StateStore) -> Iterator[HeldEntry]:
    with store.hold(FILE) as entry:
        yield entry


def test_a_later_run_finds_what_was_saved(folder: Path) -> None:
    with StateStore(folder).hold(FILE) as held:
        assert held.load() is None
        assert held.remembered
        held.save(Entry(SESSION, None))
        assert held.load() == Entry(SESSION, None)
    with StateStore(folder).hold(FILE) as held:
        assert held.load() == Entry(SESSION, None)
        held.delete()
        assert held.load() is None
    assert os.listdir(folder) == []


def test_what_is_saved_replaces_what_was(held: HeldEntry, folder: Path) -> None:
    for number in range(3):
        held.save(Entry({"number": number}))
        assert held.load() == Entry({"number": number})
    assert sorted(os.listdir(folder)) == [FILE.key + ".json", FILE.key + ".lock"]


def test_folder_and_files_are_private(folder: Path) -> None:
    mask = os.umask(0)
    try:
        with StateStore(folder).hold(FILE) as held:
            held.save(Entry(SESSION))
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            for name in os.listdir(folder):
                assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    finally:
        os.umask(mask)


@pytest.mark.parametrize(
    "other",
    [
        replace(FILE, path="/home/a/film2.mkv"), replace(FILE, size=11), replace(FILE, mtime_ns=21),
        replace(FILE, inode=31), replace(FILE, target="https://other.example.org"), replace(FILE, protocol="tus"),
        replace(FILE, name="other"),
    ],
)  # fmt: skip
def test_another_upload_is_another_entry(store: StateStore, other: Fingerprint) -> None:
    with store.hold(FILE) as one, store.hold(other) as two:
        one.save(Entry(SESSION))
        assert two.load() is None


@given(st.text(), st.text(), st.text(), st.text())
def test_fields_do_not_run_into_each_other(one: str, two: str, three: str, four: str) -> None:
    first = Fingerprint(one, 1, 1, 1, two, "tus", "x")
    second = Fingerprint(three, 1, 1, 1, four, "tus", "x")
    assert (first.key == second.key) == ((one, two) == (three, four))
    assert len(first.key) == 32


def test_the_fingerprint_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    link = tmp_path / "link"
    link.symlink_to(file)
    one = Fingerprint.of(file, file.stat(), "https://h", "tus", "n")
    assert Fingerprint.of(link, link.stat(), "https://h", "tus", "n") == one
    os.utime(file, ns=(1, 1))
    assert Fingerprint.of(file, file.stat(), "https://h", "tus", "n").key != one.key


def test_a_name_that_is_no_unicode(tmp_path: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    file.write_bytes(b"")
    fingerprint = Fingerprint.of(file, file.stat(), "https://h", "tus", file.name)
    with StateStore(tmp_path / "state").hold(fingerprint) as held:
        held.save(Entry(SESSION))
        assert held.load() == Entry(SESSION)


# ---- one run at a time


def test_a_second_run_is_told_who_has_it(store: StateStore, held: HeldEntry, folder: Path) -> None:
    with pytest.raises(UploadHeld) as refusal:
        store.hold(FILE)
    assert refusal.value.pid == os.getpid()
    assert str(os.getpid()) in str(refusal.value)
    with pytest.raises(UploadHeld):
        StateStore(folder).hold(FILE)
    held.close()
    held.close()
    with store.hold(FILE) as again:
        assert again.remembered


def test_a_killed_run_has_nothing_any_more(folder: Path) -> None:
    program = (
        "import sys\nfrom hmac_file_server.client.state import *\n"
        f"held = StateStore({str(folder)!r}).hold({FILE!r})\nheld.save(Entry({SESSION!r}))\n"
        "print('held', flush=True)\nsys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    )
    with child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"held\n"
            with pytest.raises(UploadHeld) as refusal:
                StateStore(folder).hold(FILE)
            assert refusal.value.pid == child.pid
        finally:
            child.kill()
    with StateStore(folder).hold(FILE) as held:
        assert held.load() == Entry(SESSION)


def test_two_never_have_it_at_once_however_fast_they_come_and_go(folder: Path) -> None:
    inside: list[int] = []
    worst: list[int] = []
    refused: list[int] = []

    def work() -> None:
        store = StateStore(folder)
        for _ in range(50):
            try:
                with store.hold(FILE):
                    inside.append(1)
                    worst.append(len(inside))
                    inside.pop()
            except UploadHeld:
                refused.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(worst) + len(refused) == 200
    assert set(worst) == {1}


# ---- damaged and old entries


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"null", b"[]", b'{"version": 1}', b'{"version": 2, "session": {}}', b"\xff\xfe", b"[" * 100_000,
        b'{"version": 1, "session": []}', b'{"version": 1, "session": {}, "expires": "soon"}', b" " * (2 << 20),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_ignored_and_replaced(store: StateStore, folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True)
    (folder / (FILE.key + ".json")).write_bytes(content)
    with store.hold(FILE) as held:
        assert held.load() is None
        held.save(Entry(SESSION))
        assert held.load() == Entry(SESSION)
    assert store.problem is None


def test_a_folder_in_its_place_is_a_problem_that_is_told(store: StateStore, folder: Path) -> None:
    (folder / (FILE.key + ".json")).mkdir(parents=True)
    with store.hold(FILE) as held:
        assert held.load() is None
        held.save(Entry(SESSION))
        assert not held.remembered
    assert store.problem is not None


def test_links_are_not_followed(store: StateStore, folder: Path, tmp_path: Path) -> None:
    folder.mkdir(parents=True)
    victim = tmp_path / "victim"
    victim.write_text(json.dumps({"version": 1, "session": SESSION}))
    for suffix in (".json", ".new"):
        (folder / (FILE.key + suffix)).symlink_to(victim)
    before = victim.read_bytes()
    with store.hold(FILE) as held:
        assert held.load() is None
        held.save(Entry(SESSION))
    assert victim.read_bytes() == before


def test_what_a_crash_left_half_written_changes_nothing(store: StateStore, folder: Path) -> None:
    with store.hold(FILE) as held:
        held.save(Entry(SESSION))
        (folder / (FILE.key + ".new")).write_bytes(b'{"vers')
    with store.hold(FILE) as held:
        assert held.load() == Entry(SESSION)


def test_expired_entries_count_no_more_and_are_swept(folder: Path) -> None:
    now = [NOW]
    store = StateStore(folder, clock=lambda: now[0])
    late = replace(FILE, path="/late")
    for fingerprint, expires in ((FILE, NOW + 10), (late, NOW + 100)):
        with store.hold(fingerprint) as held:
            held.save(Entry(SESSION, expires))
    (folder / "notes.txt").write_text("not ours")
    assert store.sweep() == 0
    now[0] = NOW + 10
    with store.hold(FILE) as held:
        assert held.load() is None
    assert store.sweep() == 1
    with store.hold(late) as held:
        assert held.load() == Entry(SESSION, NOW + 100)
    assert sorted(os.listdir(folder)) == sorted([late.key + ".json", "notes.txt"])


def test_entries_without_an_end_are_swept_after_a_month(folder: Path) -> None:
    store = StateStore(folder)
    with store.hold(FILE) as held:
        held.save(Entry(SESSION))
    path = folder / (FILE.key + ".json")
    age = path.stat().st_mtime - LIFETIME
    assert store.sweep() == 0
    os.utime(path, (age, age))
    assert store.sweep() == 1
    assert os.listdir(folder) == []


def test_a_sweep_takes_no_upload_from_a_run(folder: Path) -> None:
    now = [NOW]
    store = StateStore(folder, clock=lambda: now[0])
    with store.hold(FILE) as held:
        held.save(Entry(SESSION, NOW + 1))
        now[0] = NOW + 2
        assert store.sweep() == 0
        assert (folder / (FILE.key + ".json")).exists()


@pytest.mark.parametrize(
    ("names", "days", "swept"),
    [
        ([".lock"], 0, False), ([".lock"], 2, True), ([".new"], 0, False), ([".new"], 2, True),
        ([".lock", ".new"], 2, True), ([".json"], 2, False), ([".json", ".lock"], 29, False), ([".json"], 31, True),
    ],
)  # fmt: skip
def test_a_sweep_clears_what_crashes_left(
    folder: Path, store: StateStore, names: list[str], days: float, swept: bool
) -> None:
    """An entry that cannot be read may be of a later version, and is kept for a month."""
    folder.mkdir(parents=True)
    for suffix in names:
        path = folder / (FILE.key + suffix)
        path.write_bytes(b"123")
        age = path.stat().st_mtime - days * 86400
        os.utime(path, (age, age))
    assert store.sweep() == int(swept and ".json" in names)
    assert sorted(os.listdir(folder)) == ([] if swept else sorted(FILE.key + suffix for suffix in names))


def test_a_run_that_begins_during_a_sweep_is_not_refused(folder: Path) -> None:
    """Thousands of times: a sweep locks nothing that is in use, and what it locks is free again in a moment."""
    ended = threading.Event()
    sweeps: list[int] = []

    def sweep() -> None:
        store = StateStore(folder)
        while not ended.is_set():
            sweeps.append(store.sweep())

    thread = threading.Thread(target=sweep)
    thread.start()
    try:
        store = StateStore(folder)
        for number in range(300):
            with store.hold(FILE) as held:
                assert held.remembered
                held.save(Entry(SESSION, 0.0 if number % 2 else None))
    finally:
        ended.set()
        thread.join()
    assert store.problem is None


def test_a_sweep_of_nothing(store: StateStore) -> None:
    assert store.sweep() == 0


# ---- where


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_STATE_HOME": "/somewhere"}, "/somewhere/hmac-file-server/uploads"),
        ({"XDG_STATE_HOME": "relative"}, "~/.local/state/hmac-file-server/uploads"),
        ({"XDG_STATE_HOME": ""}, "~/.local/state/hmac-file-server/uploads"),
        ({}, "~/.local/state/hmac-file-server/uploads"),
    ],
)
def test_the_folder_is_where_such_things_belong(environ: dict[str, str], expected: str) -> None:
    assert default_folder(environ) == Path(expected).expanduser()


def test_without_a_folder_everything_works_and_nothing_is_remembered(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = StateStore(tmp_path / "file" / "below")
    with store.hold(FILE) as held:
        held.save(Entry(SESSION))
        assert held.load() is None
        held.delete()
        assert not held.remembered
    assert store.problem is not None
    assert str(tmp_path / "file" / "below") in store.problem
    assert store.sweep() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_a_read_only_home_is_a_problem_told_once(tmp_path: Path) -> None:
    program = (
        "from hmac_file_server.client.state import *\n"
        f"store = StateStore({str(tmp_path / 'home' / 'uploads')!r})\n"
        f"held = store.hold({FILE!r})\nheld.save(Entry({SESSION!r}))\nprint(store.problem, held.remembered)\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    script = f"mount -t tmpfs -o ro none '{home}' && exec '{sys.executable}' -c \"$PROGRAM\""
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        env={**environment(), "PROGRAM": program}, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    if "denied" in done.stderr or "not permitted" in done.stderr:
        pytest.skip("mounts are not permitted here")
    assert done.stdout == f"{home / 'uploads'}: Read-only file system False\n"


def test_a_disk_that_fails_is_a_problem_and_no_error(store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    with store.hold(FILE) as held:
        held.save(Entry(SESSION))
        monkeypatch.setattr("os.fsync", fail)
        held.save(Entry({"other": 1}))
        assert not held.remembered
        # What was there before is still whole.
        assert held.load() == Entry(SESSION)
    assert store.problem is not None
    assert "No space left" in store.problem


def test_a_session_is_written_before_it_replaces_another(store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    sync, rename = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def renamed(old: Path, new: Path) -> None:
        steps.append("rename")
        rename(old, new)

    monkeypatch.setattr("os.fsync", synced)
    monkeypatch.setattr("os.replace", renamed)
    with store.hold(FILE) as held:
        held.save(Entry(SESSION))
    assert steps == ["file", "rename", "folder"]
