"""`python -m bench.switch`: what it is told, what it runs and leaves out, what it writes."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bench import switch
from bench.errors import BenchError
from bench.switching import clients, page, servers
from bench.switching.clients import CLIENTS, Client, Job
from bench.switching.journey import Upload
from bench.switching.outcome import DONE, NEVER, Outcome, Outcomes
from bench.switching.scenario import Scenario
from bench.switching.servers import KINDS, External, Passage, Site
from tests.guide import printed

SITE = Site(
    "http://10.0.0.1:8080",
    "http://10.0.0.1:8080/tus/",
    {"X-Signature": "tus-signature"},
    "http://10.0.0.1:8080/upload/chunked",
    {"X-Signature": "chunk-signature"},
    "a-secret",
)


def outcome_of(client: str, server: str, what: Scenario, **changes: object) -> Outcome:
    made = Outcome(
        client, server, what.key, DONE, 1.04 * what.ideal, 10, what.size + 5000, what.size + 4000, what.size + 300,
        4, 0, 0, 0.9, True, ((1.0, 5), (50.0, what.size)),
    )  # fmt: skip
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Stands in for the runs, which need namespaces; who uploaded to whom."""
    found: list[tuple[str, str]] = []

    def run(client: Client, server: servers.Kind, what: Scenario, upload: Upload, work: Path) -> Outcome:
        assert upload.path.stat().st_size == what.size
        assert servers.digest_of(upload.path) == upload.digest
        found.append((client.name, server.name))
        if client.name == "curl":
            raise BenchError("curl broke")
        ended = DONE if client.name in ("python", "uploader.js", "python-tus", "page") else NEVER
        return outcome_of(client.name, server.name, what, ended=ended)

    monkeypatch.setattr(switch, "run", run)
    for kind in (servers.TusServer, servers.TuspyServer):
        monkeypatch.setattr(kind, "missing", lambda _: "")
    there = {name: dataclasses.replace(client, needs=clients.nothing) for name, client in CLIENTS.items()}
    monkeypatch.setattr(clients, "CLIENTS", there)
    return found


def command(folder: Path, *options: str) -> int:
    return switch.main(
        ["--json", str(folder / "switch.json"), "--work", str(folder / "work"), "--size", "64KiB", *options]
    )


def test_who_uploads_to_whom(ran: list[tuple[str, str]], tmp_path: Path) -> None:
    """Clients of the chunk API only to the server that has it."""
    assert command(tmp_path) == 1, "one of the runs failed"
    to_ours = [client for client, server in ran if server == "ours"]
    assert to_ours == list(CLIENTS)
    for server in ("@tus/server", "tuspyserver"):
        assert [client for client, to in ran if to == server] == ["python-tus", "tus-js-client", "tuspy"]


def test_what_is_known_is_not_run_again(
    ran: list[tuple[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ("--client", "python", "--client", "tuspy", "--server", "ours")
    assert command(tmp_path, *chosen) == 0
    assert command(tmp_path, *chosen) == 0
    assert ran == [("python", "ours"), ("tuspy", "ours")]
    assert "python to ours: known" in capsys.readouterr().err
    assert command(tmp_path, *chosen, "--every", "4s") == 0
    assert len(ran) == 4
    assert command(tmp_path, *chosen, "--again") == 0
    assert len(ran) == 6


def test_what_failed_is_run_again(
    ran: list[tuple[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(tmp_path, "--client", "curl", "--server", "ours") == 1
    assert command(tmp_path, "--client", "curl", "--server", "ours") == 1
    assert len(ran) == 2
    assert "curl to ours: failed: curl broke" in capsys.readouterr().err


def test_what_is_missing_is_left_out(
    ran: list[tuple[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(servers.TuspyServer, "missing", lambda _: "run something")
    assert command(tmp_path, "--client", "tuspy") == 1
    assert ran == [("tuspy", "ours"), ("tuspy", "@tus/server")]
    assert "tuspy to tuspyserver: left out: run something" in capsys.readouterr().err


def test_multipath_is_for_those_who_speak_it(ran: list[tuple[str, str]], tmp_path: Path) -> None:
    assert command(tmp_path, "--mptcp", "--server", "ours") == 0
    assert ran == [("python", "ours"), ("python-tus", "ours")]


def test_a_goal_that_is_missed_is_an_exit_code(
    ran: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        switch, "run", lambda c, s, what, *_: outcome_of(c.name, s.name, what, seconds=what.ideal * 1.2)
    )
    assert command(tmp_path, "--client", "python", "--server", "ours") == 1
    assert "time to the ideal, the slowest of our clients" in capsys.readouterr().out
    assert ran == []


def test_another_file_ends_it_all(
    ran: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(switch, "run", lambda c, s, what, *_: outcome_of(c.name, s.name, what, equal=False))
    assert command(tmp_path) == 1
    assert "another file than was sent" in capsys.readouterr().err
    assert ran == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--client", "nobody"), "unknown client nobody; there are uploader.js"),
        (("--server", "nobody"), "unknown server nobody; there are ours"),
        (("--server", "x=https://example.org/"), "NAME=http://HOST"),
        (("--client", "curl", "--server", "tuspyserver"), "a protocol in common"),
        (("--every", "1s", "--outage", "2s"), "outage must be shorter"),
    ],
)
def test_what_cannot_be(
    ran: list[tuple[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], words: str
) -> None:
    assert command(tmp_path, *options) == 1
    assert words in capsys.readouterr().err
    assert ran == []


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        switch.main(["--size", "much"])
    assert ended.value.code == 2
    assert "such as 100MiB" in capsys.readouterr().err


def test_the_drawing_and_the_page(
    ran: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there, drawing = tmp_path / "docs" / "switching.md", tmp_path / "docs" / "switching.svg"
    there.parent.mkdir()
    there.write_text(f"before\n{page.BEGIN}\n{page.END}\nafter\n")
    monkeypatch.setattr(switch, "PAGE", there)
    monkeypatch.setattr(switch, "DRAWING", drawing)
    monkeypatch.setattr(switch, "PROJECT", tmp_path)
    monkeypatch.setattr(switch, "versions", lambda: {"tuspy": "1.1.0"})
    chosen = ("--client", "python", "--client", "tuspy", "--server", "ours")
    assert command(tmp_path, *chosen, "--mptcp") == 0
    assert command(tmp_path, *chosen, "--write-docs", "--plot", str(tmp_path / "own.svg")) == 0
    text = there.read_text()
    assert text.index("| Python client, chunks | ours |") < text.index("| tuspy, `retries=5` | ours | never |")
    assert "Multipath TCP" in text
    assert drawing.read_text() == (tmp_path / "own.svg").read_text()
    assert "Python client, chunks, 0.0 s" in drawing.read_text()
    assert "written: docs/switching.md, docs/switching.svg" in capsys.readouterr().out
    assert len(ran) == 3


def test_a_page_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no outcomes"):
        switch.write_docs(Scenario(), Outcomes(tmp_path / "none.json"))


def test_versions_are_those_of_what_runs() -> None:
    found = switch.versions()
    assert found["tuspy"].startswith("1.")
    assert all(any(c.isdigit() for c in version) for version in found.values())


# --- clients ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", CLIENTS.values(), ids=list(CLIENTS))
def test_every_client_is_told_the_file_and_the_server(client: Client, tmp_path: Path) -> None:
    job = Job(tmp_path / "upload.bin", SITE, tmp_path)
    words = list(client.begin(job))
    written = " ".join(file.read_text(encoding="utf-8") for file in tmp_path.iterdir())
    everything = " ".join(words) + written
    assert str(job.path) in everything
    assert SITE.base in everything
    assert Path(words[0]).name in {"python", "python3", "node", "sh"} or words[0].endswith("python")
    for word in words[1:]:
        if word.endswith((".py", ".mjs", ".sh", ".cjs")) and "upload.bin" not in word:
            assert Path(word).exists()
    if client.chunked and client.name != "page":
        assert "chunk-signature" in everything


def test_the_guides_class_is_as_printed(tmp_path: Path) -> None:
    CLIENTS["guide"].begin(Job(tmp_path / "upload.bin", SITE, tmp_path))
    script = (tmp_path / "upload.cjs").read_text(encoding="utf-8")
    assert script.startswith(printed.CLASS.replace("YOUR_HMAC_SIGNATURE", "chunk-signature"))


def test_clients_keep_their_order() -> None:
    assert [client.name for client in clients.chosen(["guide", "python"])] == ["python", "guide"]
    assert clients.chosen([]) == list(CLIENTS.values())


def test_the_surroundings_hold_nothing_that_changes_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NODE_OPTIONS", "CURL_HOME", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("LANG", "C.UTF-8")
    found = clients.surroundings()
    assert found["LANG"] == "C.UTF-8"
    assert not {"NODE_OPTIONS", "CURL_HOME", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"} & set(found)
    assert str(servers.PROJECT) in found["PYTHONPATH"]


# --- servers ---------------------------------------------------------------------------------------------------


def test_what_a_server_has_is_found(tmp_path: Path) -> None:
    site = dataclasses.replace(SITE, folder=tmp_path)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "other").write_bytes(b"12345")
    file = tmp_path / "deep" / "er" / "file"
    file.write_bytes(b"abcde")
    digest = servers.digest_of(file)
    assert site.has(5, digest, "") is True
    assert site.has(6, digest, "") is False
    file.write_bytes(b"abcdX")
    assert site.has(5, digest, "") is False
    assert SITE.has(5, digest, "http://127.0.0.1:1/") is None


def test_names_of_servers() -> None:
    assert [kind.name for kind in servers.chosen([])] == list(KINDS)
    [mine, other] = servers.chosen(["ours", "tusd=http://127.0.0.1:1080/files/"])
    assert (mine.name, mine.chunked) == ("ours", True)
    assert (other.name, other.chunked) == ("tusd", False)


def test_a_server_that_does_not_answer() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        reason = External("tusd", f"http://127.0.0.1:{port}/files/").missing()
    assert reason.startswith(f"tusd does not answer at 127.0.0.1:{port}: ")


@contextmanager
def answering(body: bytes) -> Iterator[str]:
    """A server that gives everybody the same; its URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock:
                if sock.recv(4096):
                    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/x"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def test_what_can_be_downloaded_is_looked_at(tmp_path: Path) -> None:
    body = b"some content" * 9000
    (tmp_path / "body").write_bytes(body)
    with answering(body) as url:
        assert servers.download(url) == servers.digest_of(tmp_path / "body")
        assert External("other", url).missing() == ""
    assert servers.download("http://127.0.0.1:1/") is None


def test_a_passage_carries_both_ways_until_either_side_ends() -> None:
    client, near = socket.socketpair()
    far, server = socket.socketpair()
    passage = Passage(near, far)
    with client, server:
        client.settimeout(20)
        server.settimeout(20)
        client.sendall(b"question")
        assert server.recv(100) == b"question"
        client.shutdown(socket.SHUT_WR)
        assert server.recv(100) == b""
        server.sendall(b"answer")
        server.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b"answer"
        assert client.recv(100) == b""
    passage.close()


def test_a_passage_is_closed_while_nobody_says_anything() -> None:
    client, near = socket.socketpair()
    far, server = socket.socketpair()
    with client, server:
        Passage(near, far).close()
        client.settimeout(20)
        assert client.recv(1) == b""


def test_the_job_file_says_everything(tmp_path: Path) -> None:
    told = json.loads(Path(Job(tmp_path / "upload.bin", SITE, tmp_path).file()).read_text(encoding="utf-8"))
    assert told == {
        "path": str(tmp_path / "upload.bin"),
        "name": "upload.bin",
        "base": SITE.base,
        "tus": SITE.tus,
        "tusFields": {"X-Signature": "tus-signature"},
        "chunked": SITE.chunked,
        "chunkedFields": {"X-Signature": "chunk-signature"},
        "secret": "a-secret",
    }
