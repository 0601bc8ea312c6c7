"""The commands against the real server: what they sign works, what they set counts, what they log is clean."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fixtures.child import free_port, program, wait_until
from tests.fixtures.server import DELETE_SECRET, SECRET, Answer, FileServer, environment

GUIDE_SAMPLE = """\
[uploads]
chunked_uploads_enabled = true      # Enable chunked uploads
resumable_uploads_enabled = true    # Enable resumable functionality
chunk_size = "10MB"                 # Chunk size (optimized for performance)
max_resumable_age = "48h"           # Session persistence time

[timeouts]
readtimeout = "4800s"               # 80 minutes (extended for large files)
writetimeout = "4800s"              # 80 minutes (extended for large files)
idletimeout = "4800s"               # 80 minutes (extended for large files)

[server]
enable_dynamic_workers = true       # Enable dynamic worker scaling
worker_scale_up_thresh = 50         # Scale up when queue reaches 50
worker_scale_down_thresh = 10       # Scale down when queue drops to 10

[workers]
numworkers = 4                      # Base number of workers
uploadqueuesize = 50                # Upload queue size

[deduplication]
enabled = true                      # Enable file deduplication
maxsize = "1GB"                     # Deduplicate files under 1GB only

[server]
networkevents = true                # Enable network monitoring
"""
BODY = b"some bytes of a file\n"


def command(folder: Path, *arguments: str, code: int = 0) -> list[str]:
    """Run a command of ours in the folder: the lines it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "hmac_file_server", *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout.splitlines()


def sign(server: FileServer, *arguments: str) -> list[str]:
    return command(server.folder, "sign", *arguments, "--config", str(server.config))


def shell(server: FileServer, line: str) -> str:
    """Run a printed curl command: what it prints, and then the status."""
    curl = program("curl", "curl")
    assert line.startswith("curl ")
    done = subprocess.run(
        ["sh", "-c", f"{shlex.quote(curl)} -sS -w '%{{http_code}}' {line.removeprefix('curl ')}"],
        cwd=server.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def said(server: FileServer, text: str) -> None:
    """Wait until the server's log has the text."""
    wait_until(lambda: text in server.log_text(), f"{text!r} in the log")


def configured(folder: Path, settings: dict[str, dict[str, object]]) -> Iterator[FileServer]:
    server = FileServer(folder, settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    yield from configured(tmp_path, {})


@pytest.mark.parametrize("scheme", ["v1", "v2", "token", "v3", "signature", "jwt"])
def test_every_scheme_uploads_by_its_printed_curl_line(module_server: FileServer, scheme: str) -> None:
    file = module_server.folder / "it's a file.txt"
    file.write_bytes(BODY)
    path = f"/upload/{scheme}/tr\u00e8s $HOME `cool` & 'quoted'.txt"
    lines = sign(module_server, "PUT", path, "--scheme", scheme, "--file", str(file))
    assert shell(module_server, lines[-1]).endswith("201")
    stored = module_server.storage / path.removeprefix("/upload/")
    assert stored.read_bytes() == BODY


def test_a_form_a_download_and_deletions_by_their_printed_curl_lines(module_server: FileServer) -> None:
    file = module_server.folder / "form.txt"
    file.write_bytes(BODY)
    for extra in ([], ["--file", str(file)], ["--scheme", "jwt"]):
        line = sign(module_server, "POST", "/upload", *extra)[-1].replace("@FILE", f"@{file}")
        answer, status = (text := shell(module_server, line))[:-3], text[-3:]
        assert status == "200"
        assert json.loads(answer)["size"] == len(BODY)
    url = json.loads(answer)["url"]
    path = url.removeprefix("/upload").removeprefix("/")
    (module_server.folder / "form.txt").unlink()
    assert shell(module_server, sign(module_server, "GET", f"/download/{path}")[-1]).endswith("200")
    assert (module_server.folder / "form.txt").read_bytes() == BODY
    assert shell(module_server, sign(module_server, "DELETE", f"/{path}")[-1]).endswith("204")
    assert module_server.request("GET", url).status == 404


def test_a_link_uploads_and_its_number_of_files_counts(module_server: FileServer) -> None:
    (line,) = command(
        module_server.folder, "link", "--files", "1", "--max-size", "1KB", "--config", str(module_server.config)
    )
    base, _, ticket = line.partition("/#ticket=")
    assert base == module_server.url
    headers = {"Authorization": f"Bearer {ticket}", "Content-Type": "multipart/form-data; boundary=xyz"}

    def post(body: bytes) -> Answer:
        head = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
        return module_server.request("POST", "/upload", head + body + b"\r\n--xyz--\r\n", headers)

    assert post(b"x" * 1025).status == 413
    stored = post(BODY)
    assert stored.status == 200
    assert module_server.request("GET", str(stored.json()["url"])).body == BODY
    assert post(BODY + b"!").status == 403
    # The link chooses no paths.
    assert module_server.request("PUT", "/link/a", BODY, {"Authorization": headers["Authorization"]}).status == 403


def test_files_and_fsck_beside_a_running_server(module_server: FileServer) -> None:
    file = module_server.folder / "f"
    file.write_bytes(BODY)
    for name in ("one", "two"):
        shell(module_server, sign(module_server, "PUT", f"/beside/{name}", "--file", str(file))[-1])
    config = ("--config", str(module_server.config))
    listed = [json.loads(line) for line in command(module_server.folder, "files", "list", "beside/", "--json", *config)]
    assert [(entry["path"], entry["size"]) for entry in listed] == [
        ("beside/one", len(BODY)),
        ("beside/two", len(BODY)),
    ]
    command(module_server.folder, "files", "delete", "beside/one", *config)
    assert module_server.request("GET", "/beside/one").status == 404
    assert module_server.request("GET", "/beside/two").body == BODY
    assert command(module_server.folder, "fsck", *config)[-1].endswith("no problems")


def test_the_guides_sample_starts_the_server_as_printed(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(GUIDE_SAMPLE)
    port = free_port()
    # Only what belongs to the machine that runs the tests: its ports and the room on its disk.
    overrides = (
        f"server.listen_address=127.0.0.1:{port}",
        f"admin.listen_address=127.0.0.1:{free_port()}",
        "server.min_free_bytes=1MB",
    )
    server = FileServer(tmp_path, None, overrides, port)
    server.start()
    try:
        secret = (tmp_path / "data" / ".hmac-file-server" / "secret").read_text().strip()
        assert len(secret) == 64
        (tmp_path / "f").write_bytes(BODY)
        url = ("--url", server.url)
        lines = command(tmp_path, "sign", "PUT", "/upload/u1/f", "--file", "f", *url)  # the embedded secret is found
        assert shell(server, lines[-1]).endswith("201")
        assert server.request("GET", "/upload/u1/f").body == BODY
        assert "[server] is there already in line 12; both are used as one" in server.log_text()
        assert secret not in server.log_text()
    finally:
        server.stop()


@pytest.mark.parametrize("style", ["text", "json"])
def test_neither_secrets_nor_signatures_are_logged(tmp_path: Path, style: str) -> None:
    for server in configured(tmp_path, {"logging": {"level": "debug", "format": style}}):
        (tmp_path / "f").write_bytes(BODY)
        canaries = {SECRET, DELETE_SECRET}
        for number, scheme in enumerate(("v1", "v2", "token", "v3", "signature", "jwt")):
            lines = sign(server, "PUT", f"/n/{number}", "--scheme", scheme, "--file", "f")
            shell(server, lines[-1])
            query = lines[0].partition("?")[2]
            canaries |= {part.partition("=")[2] for part in query.split("&") if part and not part.startswith("expires")}
            canaries |= {
                line.rpartition(" ")[2] for line in lines[1:-1] if line.startswith(("X-Signature: ", "Authorization: "))
            }
        wrong = "ab" * 32
        for target, headers in (
            (f"/n/x?v={wrong}", {}),
            ("/n/x", {"X-Signature": wrong}),
            ("/n/x", {"Authorization": f"Bearer {wrong}"}),
            (f"/n/x?ticket={wrong}", {}),
        ):
            assert server.request("PUT", target, BODY, headers).status in {401, 403}
        canaries.add(wrong)
        assert len(canaries) >= 9
        server.stop()
        log = server.log_text()
        assert "signature_refused" in log or "Signature refused" in log
        assert "/n/5" in log
        assert [canary for canary in canaries if canary in log] == []
        if style == "json":
            assert all("time" in json.loads(line) for line in log.splitlines())


def test_a_file_name_cannot_forge_a_line(server: FileServer) -> None:
    (server.folder / "f").write_bytes(BODY)
    path = "/u/\u202e\u2028 2025-01-01 00:00:00 INFO forged \U000e0001"
    shell(server, sign(server, "PUT", path, "--file", "f")[-1])
    server.stop()
    log = server.log_text()
    assert "forged" in log
    assert not {"\u202e", "\u2028", "\U000e0001"} & set(log)
    assert [line for line in log.split("\n") if line.startswith("2025-01-01")] == []


def test_sighup_takes_what_it_can_and_says_what_needs_a_restart(tmp_path: Path) -> None:
    for server in configured(tmp_path, {}):
        (tmp_path / "f").write_bytes(BODY)
        old = sign(server, "PUT", "/r/old", "--file", "f")[-1]
        server.write_config(
            {"security": {"secret": ["a-new-secret-of-more-than-32-bytes!"]}, "server": {"mptcp": False}}
        )
        os.kill(server.pid, signal.SIGHUP)
        said(server, "Configuration reloaded")
        log = server.log_text()
        assert "Configuration reloaded, changed: security.secret" in log
        assert "a restart is needed for server.mptcp" in log
        new = sign(server, "PUT", "/r/new", "--file", "f")[-1]
        assert shell(server, new).endswith("201")
        assert shell(server, old.replace("--fail-with-body", "")).endswith("403")


def test_a_configuration_with_a_mistake_is_not_taken(tmp_path: Path) -> None:
    for server in configured(tmp_path, {}):
        before = server.config.read_text()
        server.config.write_text(before + '\n[uploads]\ndurability = "some"\n')
        os.kill(server.pid, signal.SIGHUP)
        said(server, "Configuration not reloaded")
        assert 'uploads.durability: "some" is not allowed' in server.log_text()
        assert server.request("GET", "/health").status == 200


def test_a_log_file_that_was_moved_is_opened_anew(tmp_path: Path) -> None:
    log, moved = tmp_path / "own.log", tmp_path / "own.log.1"
    for server in configured(tmp_path, {"logging": {"file": str(log)}}):
        server.request("GET", "/first")
        wait_until(lambda: "/first" in log.read_text(), "the first line")
        log.rename(moved)
        os.kill(server.pid, signal.SIGHUP)
        wait_until(log.exists, "the new file")
        server.request("GET", "/second")
        wait_until(lambda: "/second" in log.read_text(), "the second line")
        assert "/second" not in moved.read_text()
        assert server.log_text() == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[server]\nlisten_address = '127.0.0.1'\n", "config.toml:2: server.listen_address:"),
        ("[server\n", "config.toml:1: no valid TOML"),
        ("[security]\nsecret = 'changeme'\n", "config.toml:2: security.secret: this secret is printed in public"),
        ("[server]\ntls_certificate = 'none'\ntls_key = 'none'\n", "No such file or directory"),
    ],
)
def test_a_server_that_cannot_start_says_why_in_one_line(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "hmac_file_server", "serve", "--config", "config.toml"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert reason in last
    assert "Traceback" not in done.stderr
