"""docs/client.md: every block of Python is run as it stands, against a server, and what arrives is what was sent."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fixtures.content import content
from tests.fixtures.server import SECRET, FileServer, StartServer
from tests.server.signatures import ticket

from hmac_file_server.client import AsyncUploader, StateStore
from hmac_file_server.client.retrying import BASE, CAP

pytestmark = pytest.mark.server

PAGE = Path(__file__).parents[2] / "docs" / "client.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
FILES = {"holiday.mov": content(3_000_000, "holiday"), "notes.txt": b"notes\n"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    home = tmp_path / "home"
    home.mkdir()
    for name, data in FILES.items():
        (home / name).write_bytes(data)
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    before = Path.cwd()
    os.chdir(home)
    yield home
    os.chdir(before)


def for_server(code: str, server: FileServer) -> str:
    """The block with this server's URL, ticket and secret in the place of the example's."""
    code = code.replace("https://files.example.org", server.url)
    code = code.replace("eyJ...", ticket(prefix=""))
    return code.replace('"the server\'s secret"', repr(SECRET))


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block(server: FileServer, folder: Path, number: int) -> None:
    printed = io.StringIO()
    threads = set(threading.enumerate())
    with contextlib.redirect_stdout(printed):
        exec(compile(for_server(BLOCKS[number], server), f"block {number}", "exec"), {"__name__": "example"})
    code = BLOCKS[number]
    if ".upload(" in code and "except" not in code:
        stored = sorted(path.read_bytes() for path in (server.storage / name for name in server.files()))
        names = set(re.findall(r'upload\("([^"]+)"', code))
        assert stored == sorted(FILES[name] for name in names)
    if "print" in code:
        assert printed.getvalue().strip()
    if "except" in code:
        assert printed.getvalue().startswith("the server says no: ")
        assert "bad_signature" in printed.getvalue()
    if "there was none" in code:
        assert printed.getvalue() == "there was none\n"
    # The page says that nothing is left of uploads that are complete.
    assert not list(folder.glob("state/**/*.json"))
    assert set(threading.enumerate()) <= threads


def test_the_page_has_its_examples() -> None:
    assert len(BLOCKS) >= 7
    assert not re.findall(r"^```(?!python\n|$)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_page_tells_every_option_and_its_default() -> None:
    parameters = inspect.signature(AsyncUploader).parameters
    table = PAGE.read_text(encoding="utf-8").partition("## Options")[2]
    told = dict(re.findall(r"^\| (`[^|]+`) \|([^|]*)\|", table, re.MULTILINE))
    names = {name for row in told for name in re.findall(r"`(\w+)`", row)}
    # How randomness and time come in is for tests.
    assert names == set(parameters) - {"target", "draw", "clock"}
    for row, defaults in told.items():
        told_values = re.findall(r'`?("?[\w.]+"?)`?', defaults)
        if told_values:
            given = [parameters[name].default for name in re.findall(r"`(\w+)`", row)]
            flat = [value for one in given for value in (one if isinstance(one, tuple) else (one,))]
            spelled = [
                repr(value).replace("'", '"') if not isinstance(value, float) else f"{value:g}" for value in flat
            ]
            assert told_values == spelled
    assert (BASE, CAP) == (0.25, 30.0)


def test_no_secret_comes_with_the_state(start_server: StartServer, folder: Path) -> None:
    server = start_server({"uploads": {"chunk_size": 100_000}})
    code = for_server(next(block for block in BLOCKS if "goes on where" in block), server)
    written: list[str] = []
    original = StateStore._write

    def spy(self: StateStore, *arguments: object) -> None:
        original(self, *arguments)  # type: ignore[arg-type]
        written.extend(path.read_text() for path in folder.glob("state/**/*.json"))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(StateStore, "_write", spy)
        exec(compile(code, "state", "exec"), {})
    assert len(written) >= 2
    assert not any(SECRET in text for text in written)
