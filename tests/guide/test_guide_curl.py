"""The guide's curl lines, typed into a shell as they are printed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from tests.fixtures.child import program
from tests.fixtures.content import content
from tests.fixtures.server import FileServer
from tests.guide import printed
from tests.guide.servers import StartGuideServer, download, signature

MIB = 1 << 20
CHUNKED = "/upload/chunked"


@dataclass(frozen=True, slots=True)
class Shell:
    """A shell in a folder with the files that the lines name."""

    folder: Path
    server: FileServer

    def type(self, text: str, **filled_in: str) -> dict[str, object]:
        """Run the text with port and `filled_in` in their places; the JSON that curl prints."""
        places = {
            "session": printed.SESSION,
            "signature": printed.SIGNATURE,
            "path": CHUNKED,
            "status_path": "/upload/status?",
            "number": "X-Chunk-Number: 0",
            "file": "chunk_0.bin",
            "size": str(printed.TOTAL_SIZE),
            "method": "-X PUT" if "-X PUT" in text else "-X POST",
        }
        command = text.replace(printed.PORT, f":{self.server.port}/")
        for name, value in filled_in.items():
            assert places[name] in command
            command = command.replace(places[name], value)
        program("curl", "curl")
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self.folder,
            # Neither a .curlrc nor a proxy of this machine.
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert isinstance(answer, dict)
        return answer

    def create(self, **filled_in: str) -> dict[str, object]:
        """The line that starts a session, signed."""
        path = filled_in.get("path", CHUNKED)
        return self.type(printed.CREATE, signature=signature(self.server, path), **filled_in)

    def chunk(self, session: object, number: int, body: bytes, **filled_in: str) -> dict[str, object]:
        """The line that sends chunk 0, for any chunk."""
        assert isinstance(session, str)
        file = f"chunk_{number}.bin"
        (self.folder / file).write_bytes(body)
        answer = self.type(
            printed.CHUNK,
            session=session,
            number=f"X-Chunk-Number: {number}",
            file=file,
            **filled_in,
        )
        (self.folder / file).unlink()
        return answer

    def status(self, session: object, **filled_in: str) -> dict[str, object]:
        """The line that asks how far it is."""
        assert isinstance(session, str)
        return self.type(printed.STATUS, session=session, **filled_in)


@pytest.fixture
def large() -> bytes:
    """A file of the size that the lines speak of."""
    return content(printed.TOTAL_SIZE, "large_file.zip")


def answer_of(text: str) -> dict[str, object]:
    """What the guide prints as the answer to a line."""
    answer = json.loads(text.partition("# Response: ")[2])
    assert isinstance(answer, dict)
    return answer


def printed_part(answer: dict[str, object], text: str) -> dict[str, object]:
    """Of an answer, the fields that the guide prints."""
    return {name: answer[name] for name in answer_of(text)}


def check_session(answer: dict[str, object]) -> str:
    """The id is of the printed shape: epoch seconds, "_", something that nobody guesses."""
    session = answer["session_id"]
    assert isinstance(session, str)
    found = re.fullmatch(r"([0-9]{10})_([0-9A-Za-z_-]{16,})", session)
    assert found is not None, session
    assert abs(int(found[1]) - time.time()) < 3600
    return session


@pytest.mark.parametrize(
    ("configuration", "chunk_size", "hours"),
    [(printed.CONFIGURATION, 10 * MIB, 48), ("", 5 * MIB, 24)],
    ids=["as configured in the guide", "as answered in the guide"],
)
def test_a_chunked_upload(
    start_guide_server: StartGuideServer, tmp_path: Path, large: bytes, configuration: str, chunk_size: int, hours: int
) -> None:
    """The guide configures 10 MiB and 48 hours; the answers that it prints are those of the defaults."""
    server = start_guide_server(configuration=configuration)
    shell = Shell(tmp_path, server)
    count = len(large) // chunk_size
    created = shell.create()
    session = check_session(created)
    expected = {"session_id": session, "chunk_size": chunk_size, "total_chunks": count}
    assert printed_part(created, printed.CREATE) == expected
    if not configuration:
        assert expected == {**answer_of(printed.CREATE), "session_id": session}
    expires = datetime.fromisoformat(str(created["expires_at"]))
    assert abs(expires.timestamp() - time.time() - hours * 3600) < 600

    for number in range(count):
        done = number + 1
        answer = shell.chunk(session, number, large[number * chunk_size : done * chunk_size])
        assert printed_part(answer, printed.CHUNK) == {
            "success": True,
            "chunk": number,
            "uploaded_bytes": done * chunk_size,
            "total_size": len(large),
            "progress": done / count,
            "completed": done == count,
        }
        if number == 0 and not configuration:
            assert printed_part(answer, printed.CHUNK) == answer_of(printed.CHUNK)
        if done == count // 2:
            halfway = {**answer_of(printed.STATUS), "session_id": session, "chunks": done}
            assert printed_part(shell.status(session), printed.STATUS) == halfway
            if not configuration:
                assert halfway["chunks"] == answer_of(printed.STATUS)["chunks"]

    assert answer["filename"] == "large_file.zip"
    assert answer["size"] == len(large)
    finished = shell.status(session)
    assert printed_part(finished, printed.STATUS) == {
        **halfway,
        "uploaded_bytes": len(large),
        "progress": 1,
        "completed": True,
        "chunks": count,
    }
    assert finished["url"] == answer["url"]
    got = download(server, answer["url"])
    assert got.body == large
    assert "large_file.zip" in got.headers["content-disposition"]


def test_the_traditional_upload(server: FileServer, tmp_path: Path, large: bytes) -> None:
    (tmp_path / "large_file.zip").write_bytes(large)
    answer = Shell(tmp_path, server).type(printed.TRADITIONAL, signature=signature(server, "/upload"))
    (tmp_path / "large_file.zip").unlink()
    assert {name: answer[name] for name in ("success", "filename", "size")} == {
        "success": True,
        "filename": "large_file.zip",
        "size": len(large),
    }
    assert download(server, answer["url"]).body == large


@pytest.mark.parametrize("path", [CHUNKED, "/chunked-upload"])
@pytest.mark.parametrize("create_method", ["POST", "PUT"])
@pytest.mark.parametrize("chunk_method", ["POST", "PUT"])
def test_methods_and_aliases(
    server: FileServer, tmp_path: Path, path: str, create_method: str, chunk_method: str
) -> None:
    """ "Endpoint: POST/PUT /upload/chunked"; the other paths are those of later releases of the original."""
    body = content(10 * MIB + 345, f"{path} {create_method} {chunk_method}")
    shell = Shell(tmp_path, server)
    status_path = "/upload-status?" if path == "/chunked-upload" else "/upload/status?"
    created = shell.create(path=path, method=f"-X {create_method}", size=str(len(body)))
    session = check_session(created)
    assert created["total_chunks"] == 2
    with_method = {"path": path, "method": f"-X {chunk_method}"}
    first = shell.chunk(session, 0, body[: 10 * MIB], **with_method)
    assert (first["chunk"], first["completed"]) == (0, False)
    assert shell.status(session, status_path=status_path)["uploaded_bytes"] == 10 * MIB
    last = shell.chunk(session, 1, body[10 * MIB :], **with_method)
    assert (last["chunk"], last["completed"]) == (1, True)
    assert shell.status(session, status_path=status_path)["completed"] is True
    assert download(server, last["url"]).body == body


def test_the_printed_session_does_not_exist(server: FileServer, tmp_path: Path) -> None:
    """Lines that nobody has filled in are refused, not misunderstood."""
    shell = Shell(tmp_path, server)
    assert shell.status(printed.SESSION)["status"] == 404
    assert shell.chunk(printed.SESSION, 0, b"x")["status"] == 404
    assert shell.type(printed.CREATE)["status"] == 403
    assert server.request("GET", "/ready").status == 200
