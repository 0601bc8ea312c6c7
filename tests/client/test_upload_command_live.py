"""`upload` against the real server: every protocol and permission, and how it ends."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from tests.client.upload_run import Ended, command, fetched, running, upload, variables
from tests.fixtures import slots
from tests.fixtures.child import accepts, free_port, program, wait_until
from tests.fixtures.content import content
from tests.fixtures.server import SECRET, FileServer, StartServer
from tests.fixtures.server import running as server_in
from tests.server import signatures

MIB = 1 << 20
DATA = content(12 * MIB + 5, "upload command")
PROTOCOLS = ["chunked", "tus", "put"]

pytestmark = pytest.mark.server


def link(server: FileServer, **claims: object) -> str:
    permitted = {"prefix": "", "ops": ["upload", "create", "chunk"], **claims}
    return f"{server.url}/#ticket={signatures.ticket(**permitted)}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "files"
    made.mkdir()
    (made / "film.bin").write_bytes(DATA)
    (made / "small.txt").write_bytes(b"small")
    (made / "empty").write_bytes(b"")
    (made / "secret").write_text(SECRET + "\n")
    return made


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.mark.parametrize(
    "options", [[], ["--protocol", "tus"], ["--protocol", "tus", "--parallel", "4"], ["--protocol", "put"]]
)
def test_files_by_a_link(shared_server: FileServer, folder: Path, state: Path, options: list[str]) -> None:
    done = upload("film.bin", "small.txt", "empty", "--to", link(shared_server), *options, state=state, folder=folder)
    assert done.code == 0, done.err
    assert [fetched(shared_server, url) for url in done.urls] == [DATA, b"small", b""]
    assert [url.rpartition("/")[2] for url in done.urls] == ["film.bin", "small.txt", "empty"]
    lines = done.err.splitlines()
    assert [line.partition(":")[0] for line in lines[:3]] == ["film.bin", "small.txt", "empty"]
    assert lines[3].startswith("3 files uploaded, 12.0 MiB in ")
    # What was complete is remembered no more.
    assert [path for path in state.rglob("*") if path.is_file()] == []


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    yield from server_in(tmp_path_factory.mktemp("strict"), {"security": {"strict_signatures": True}})


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_secret_against_a_strict_server(strict: FileServer, folder: Path, state: Path, protocol: str) -> None:
    server = strict
    done = upload(
        "film.bin", "--to", server.url, "--secret-file", "secret", "--protocol", protocol, "--name", "tr\u00e8s 1.bin",
        state=state, folder=folder,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert fetched(server, done.urls[0]) == DATA
    assert done.urls[0].endswith("/tr%C3%A8s%201.bin")


def test_a_link_in_the_environment_and_json(shared_server: FileServer, folder: Path, state: Path) -> None:
    done = upload(
        "film.bin", "small.txt", "--json", "--type", "text/x-mine",
        state=state, folder=folder, HMAC_FILE_SERVER_LINK=link(shared_server),
    )  # fmt: skip
    assert done.code == 0
    assert done.err == ""
    assert {event["event"] for event in done.events} <= {"start", "progress", "done"}
    film, small = [event for event in done.events if event["event"] == "done"]
    assert film["digest"] == "blake3:" + blake3(DATA).hexdigest()
    assert (film["size"], film["sent"], film["resumed"]) == (len(DATA), len(DATA), 0)
    assert small["size"] == 5
    path = film["url"].removeprefix(shared_server.url)
    assert shared_server.request("HEAD", path).headers["content-type"] == "text/x-mine"


def test_a_slot_of_an_xmpp_server(shared_server: FileServer, folder: Path, state: Path) -> None:
    url = slots.url(shared_server.url, "0123/film.bin", len(DATA))
    done = upload("film.bin", "--to", url, "--json", state=state, folder=folder)
    assert done.code == 0, done.err
    assert done.event("done")["url"] == url.partition("?")[0]
    assert fetched(shared_server, url.partition("?")[0]) == DATA


def test_a_slot_where_nothing_is_resumed(start_server: StartServer, folder: Path, state: Path) -> None:
    server = start_server({"uploads": {"resumable_uploads_enabled": False}})
    url = slots.url(server.url, "4567/film.bin", len(DATA))
    done = upload("film.bin", "--to", url, state=state, folder=folder)
    assert done.code == 0, done.err
    assert fetched(server, url.partition("?")[0]) == DATA


def test_a_ticket_by_other_ways(shared_server: FileServer, folder: Path, state: Path) -> None:
    url = shared_server.url
    ticket = signatures.ticket(prefix="", ops=["upload", "create", "chunk"])
    done = upload("small.txt", "--to", f"{url}/?ticket={ticket}", state=state, folder=folder)
    assert done.code == 0, done.err
    done = upload("small.txt", "--to", url, state=state, folder=folder, HMAC_FILE_SERVER_TICKET=ticket)
    assert done.code == 0, done.err


def test_a_pipe(shared_server: FileServer, folder: Path, state: Path) -> None:
    done = subprocess.run(
        [*command(), "upload", "-", "--name", "piped.bin", "--quiet", "--to", link(shared_server)],
        input=DATA, capture_output=True, env=variables(state), cwd=folder, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert fetched(shared_server, done.stdout.decode().strip()) == DATA
    assert done.stdout.strip().endswith(b"/piped.bin")


class TlsServer(FileServer):
    """Ready when its port accepts: the fixture asks in plain HTTP."""

    def _ready(self) -> bool:
        return accepts(self.port)


@pytest.fixture
def certified(tmp_path: Path) -> Iterator[tuple[TlsServer, Path]]:
    """A server with TLS, and the certificate that it is known by."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            program("openssl", "openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1",
            "-keyout", str(key), "-out", str(certificate),
        ],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    settings = {"server": {"tls_certificate": str(certificate), "tls_key": str(key)}}
    server = TlsServer(tmp_path / "server", settings)
    server.start()
    try:
        yield server, certificate
    finally:
        server.stop()


def test_tls(certified: tuple[TlsServer, Path], folder: Path, state: Path) -> None:
    server, certificate = certified
    to = link(server).replace("http://", "https://")
    done = upload("film.bin", "--to", to, "--quiet", state=state, folder=folder, SSL_CERT_FILE=str(certificate))
    assert done.code == 0, done.err
    (stored,) = server.files()
    assert (server.storage / stored).read_bytes() == DATA
    assert done.urls[0].startswith("https://")
    # Of a server that nobody vouches for, nothing is taken.
    done = upload("small.txt", "--to", to, "--give-up-after", "1s", state=state, folder=folder)
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert "certificate" in done.err
    assert server.files() == {stored}


# ---- refusals


def refused(done: Ended, words: str) -> None:
    assert done.code == 1
    assert done.out == ""
    assert len(done.err.splitlines()) == 1, done.err
    assert done.err.startswith("hmac-file-server: film.bin: ")
    assert words in done.err


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_the_server_refuses(shared_server: FileServer, folder: Path, state: Path, protocol: str) -> None:
    wrong = {
        "chunked": ("too_large", link(shared_server, max_size=5)),
        "tus": ("token_expired", link(shared_server, exp=5)),
        "put": ("bad_token", f"{shared_server.url}/#ticket=aaaa.bbbb.cccc"),
    }
    code, to = wrong[protocol]
    refused(upload("film.bin", "--to", to, "--protocol", protocol, state=state, folder=folder), code)


def test_one_refusal_does_not_stop_the_others(shared_server: FileServer, folder: Path, state: Path) -> None:
    done = upload(
        "film.bin", "missing", "small.txt", "--json", "--to", link(shared_server, max_size=100),
        state=state, folder=folder,
    )  # fmt: skip
    assert done.code == 1
    assert [event["code"] for event in done.events if event["event"] == "error"] == ["too_large", "source_unreadable"]
    assert done.event("done")["file"] == "small.txt"
    assert len(done.err.splitlines()) == 2


def test_a_server_that_is_not_there(folder: Path, state: Path) -> None:
    done = upload(
        "film.bin", "--to", f"http://127.0.0.1:{free_port()}", "--ticket", "a.b.c", "--give-up-after", "1s",
        state=state, folder=folder,
    )  # fmt: skip
    refused(done, "no progress for 1 s")


def test_without_a_place_for_state(shared_server: FileServer, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    done = upload("small.txt", "--to", link(shared_server), state=tmp_path / "file", folder=folder)
    assert done.code == 0
    assert fetched(shared_server, done.urls[0]) == b"small"
    notes = [line for line in done.err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1
    assert "will not be continued" in notes[0]


def test_nothing_secret_is_left_behind(shared_server: FileServer, folder: Path, state: Path) -> None:
    """What is remembered while an upload runs holds neither ticket nor secret."""
    told = link(shared_server)
    ticket = told.partition("=")[2]
    for arguments, private in (
        (["--to", told], ticket),
        (["--to", shared_server.url, "--secret-file", "secret"], SECRET),
    ):
        with running("film.bin", "--json", *arguments, state=state, folder=folder) as run:
            wait_until(lambda: any(event["event"] == "start" for event in run.events()), "the upload has begun")
            run.kill()
            for path in state.rglob("*.json"):
                text = path.read_text()
                assert private not in text
                assert ticket.partition(".")[2] not in text


# ---- terminals


class Terminal:
    """A pseudo terminal, and what is shown on it."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 110, 0, 0))
        self.shown = b""

    def read(self) -> str:
        """Everything until its end."""
        os.close(self.slave)
        while True:
            try:
                piece = os.read(self.master, 65536)
            except OSError:
                break
            if not piece:
                break
            self.shown += piece
        os.close(self.master)
        return self.shown.decode()


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


def test_bars_on_a_terminal(shared_server: FileServer, folder: Path, state: Path, terminal: Terminal) -> None:
    child = subprocess.Popen(
        [*command(), "upload", "film.bin", "small.txt", "missing", "--to", link(shared_server)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=terminal.slave,
        env=variables(state, TERM="xterm"), cwd=folder,
    )  # fmt: skip
    shown = terminal.read()
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 1
    assert len(out.splitlines()) == 2
    assert "film.bin: 12.0 MiB in " in shown
    assert "hmac-file-server: missing: cannot be read: No such file or directory" in shown
    assert "total, 1 of 3 files" in shown
    assert "%" in shown
    assert "2 files uploaded, 12.0 MiB in " in shown
    assert "; 1 failed" in shown
    # The cursor is shown again.
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l")


def test_results_on_the_same_terminal(shared_server: FileServer, folder: Path, state: Path, terminal: Terminal) -> None:
    child = subprocess.Popen(
        [*command(), "upload", "small.txt", "--to", link(shared_server)],
        stdin=terminal.slave, stdout=terminal.slave, stderr=terminal.slave,
        env=variables(state, TERM="xterm"), cwd=folder,
    )  # fmt: skip
    shown = terminal.read()
    assert child.wait(60) == 0
    plain = re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", shown)
    (url,) = [line for line in plain.splitlines() if line.startswith("http")]
    assert fetched(shared_server, url.strip()) == b"small"


def test_the_command_starts_quickly_enough_to_show_its_help() -> None:
    done = subprocess.run([*command(), "upload", "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "continues where the last one stopped" in " ".join(done.stdout.split())
