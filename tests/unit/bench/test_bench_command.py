"""The command line, the choice of rows and servers, signed targets, `--peer`."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import signing
from bench.command import chosen_peers, chosen_rows, main, taking_part, work_folder
from bench.errors import BenchError, UnavailableError
from bench.peers import external, nginx, ours
from bench.peers.contract import Placement, Server, free_port
from bench.peers.external import External
from bench.peers.ours import VARIANTS, Ours
from bench.rows import ROWS


@pytest.fixture(autouse=True)
def _keep_the_handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("secret", "path", "size", "expected"),
    [
        # Published by the Prosody module's documentation and by prosody-filer's own test.
        (b"secret string", "foo/bar.jpg", 1048576, "e6df55a04516617d6a86ad6ca23879819591085a1a8c0041f4da06824f5d2db7"),
        (
            b"mysecret",
            "thomas/abc/catmetal.jpg",
            23026,
            "7b8879e2d1c733b423a70cde30cecc3a3c64a03f790d1b5bcbb2a6aca52b477e",
        ),
    ],
)
def test_slot_v1_vectors(secret: bytes, path: str, size: int, expected: str) -> None:
    assert signing.slot_v1(secret, path, size) == expected
    assert signing.put_target("/upload/", path, size, secret) == f"/upload/{path}?v={expected}"


def test_targets_without_a_secret_and_with_odd_names() -> None:
    assert signing.put_target("/", "a b/ü.bin", 1, None) == "/a%20b/%C3%BC.bin"
    assert signing.get_target("/upload/", "a/b?c#d") == "/upload/a/b%3Fc%23d"


def test_rows_keep_the_order_of_the_table() -> None:
    assert [row.key for row in chosen_rows("get-10k,put-1g")] == ["put-1g", "get-10k"]
    assert chosen_rows(None) == list(ROWS.values())
    with pytest.raises(BenchError, match="unknown row nope"):
        chosen_rows("put-1g,nope")


def test_servers_and_peers() -> None:
    assert [peer.name for peer in chosen_peers("ours,nginx", ["x=http://127.0.0.1:1/"])] == ["nginx", "ours", "x"]
    assert [peer.name for peer in chosen_peers(None, [])] == ["nginx", "aiohttp", *VARIANTS]
    with pytest.raises(BenchError, match="unknown server nope"):
        chosen_peers("nope", [])
    with pytest.raises(BenchError, match="two servers are called nginx"):
        chosen_peers("nginx", ["nginx=http://127.0.0.1:1/"])


def test_our_settings_take_part_only_where_they_matter() -> None:
    names = ["nginx", "aiohttp", *VARIANTS, "other"]
    assert taking_part(ROWS["get-1g"], names) == ["nginx", "aiohttp", "ours", "other"]
    assert taking_part(ROWS["put-10k"], names) == names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=http://127.0.0.1:80", External("a", "127.0.0.1", 80, "/")),
        ("a=http://127.0.0.1/x", External("a", "127.0.0.1", 80, "/x/")),
        (
            "a=http://localhost:8081/upload/,secret=a=b,pid=12,files=/srv/f",
            External("a", "localhost", 8081, "/upload/", b"a=b", 12, Path("/srv/f")),
        ),
    ],
)
def test_peer_option(text: str, expected: External) -> None:
    assert external.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "=http://h/",
        "a=https://h/",
        "a=h:80",
        "a=http://",
        "a=http://h:port/",
        "a=http://h:99999/",
        "a=http://h/,pid=x",
        "a=http://h/,what=1",
    ],
)
def test_wrong_peer_option(text: str) -> None:
    with pytest.raises(BenchError):
        external.parse(text)


def test_a_peer_that_is_not_there(tmp_path: Path) -> None:
    peer = external.parse(f"gone=http://127.0.0.1:{free_port()}/")
    with pytest.raises(UnavailableError, match="gone does not answer"):
        peer.start(tmp_path, Placement(frozenset({0}), 1))


def test_nginx_configuration() -> None:
    text = nginx.configuration(Path("/w"), 1234, 1, as_root=True)
    assert "user root;" in text
    assert "listen 127.0.0.1:1234;" in text
    for wanted in ("worker_processes 1;", "client_body_buffer_size 512k;", "tcp_nopush on;", "sendfile on;", "access_log off;",
                   "create_full_put_path on;", "client_body_temp_path /w/body;"):  # fmt: skip
        assert wanted in text
    assert text.count("{") == text.count("}")
    wide = nginx.configuration(Path("/w"), 1234, 2, as_root=False)
    assert "user " not in wide
    assert "listen 127.0.0.1:1234 reuseport;" in wide


def test_missing_programs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_args, **_kw: None)
    with pytest.raises(UnavailableError, match="nginx-light"):
        nginx.Nginx().start(tmp_path, Placement(frozenset({0}), 1))


def test_our_variants_differ_in_what_their_names_say() -> None:
    assert VARIANTS["ours"].settings() == {
        "deduplication.enabled": "false", "uploads.durability": "relaxed", "logging.level": "warning",
    }  # fmt: skip
    assert VARIANTS["ours-dedup"].settings()["deduplication.enabled"] == "true"
    assert VARIANTS["ours-full"].settings()["uploads.durability"] == "full"
    assert VARIANTS["ours-log"].settings()["logging.level"] == "info"
    both = VARIANTS["ours-dedup-full"].settings()
    assert (both["deduplication.enabled"], both["uploads.durability"]) == ("true", "full")


def test_our_configuration_is_accepted_by_the_loader(tmp_path: Path) -> None:
    from hmac_file_server.config import load

    config = tmp_path / "config.toml"
    config.touch(mode=0o600)
    config.write_text(ours.CONFIGURATION.format(port=1, storage=tmp_path, secret="ab" * 32, processes=1))
    for variant in VARIANTS.values():
        loaded = load(config, environ={}, overrides=[f"{key}={value}" for key, value in variant.settings().items()])
        assert loaded.settings.deduplication.enabled is variant.dedup
        assert loaded.settings.uploads.durability == variant.durability
        assert loaded.settings.server.processes == 1
        assert loaded.settings.deduplication.maxsize >= 2**30
        assert loaded.warnings == ()


def test_our_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HMAC_FILE_SERVER_BENCH_COMMAND", "/opt/serve")
    made = ours.command(Path("/c.toml"), {"a.b": "1"})
    assert made == ["/opt/serve", "serve", "--config", "/c.toml", "--set", "a.b=1"]


def test_a_server_that_ends_at_once_is_reported_with_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "broken"
    program.write_text("#!/bin/sh\necho 'config.toml:3: no such key'; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("HMAC_FILE_SERVER_BENCH_COMMAND", str(program))
    with pytest.raises(UnavailableError, match="no such key"):
        Ours().start(tmp_path / "work", Placement(frozenset({0}), 1))


def test_a_server_of_others_is_never_stopped() -> None:
    server = Server("x", "h", 1, "h:1")
    server.stop()
    assert server.alive()
    assert server.last_words() == ""
    assert server.stored("a") is None


def test_the_work_folder_goes_also_after_an_error(tmp_path: Path) -> None:
    def work_and_fail() -> None:
        with work_folder(tmp_path / "new") as folder:
            (folder / "file").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work_and_fail()
    assert list((tmp_path / "new").iterdir()) == []


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^{key} ", shown, re.MULTILINE) for key in ROWS)
    assert all(name in shown for name in VARIANTS)


def test_errors_are_one_line_and_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--rows", "nope"]) == 1
    assert capsys.readouterr().err.startswith("bench: unknown row nope")


@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--rounds", "x"], ["nope"], ["--nope"]])
def test_usage_errors_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_one_core_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0})
    assert main(["--servers", "nginx"]) == 1
    assert "two are needed" in capsys.readouterr().err


def test_report_of_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "gone.json")]) == 1
    assert "gone.json" in capsys.readouterr().err
