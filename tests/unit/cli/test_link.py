"""`link`: links to the plain form, and QR codes in the terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import segno
from tests.fixtures.command_line import Run
from tests.fixtures.server import environment

from hmac_file_server.auth import Gate, Grant, KeyRing, Operation
from hmac_file_server.clock import SystemClock
from hmac_file_server.config.base_paths import BasePaths
from hmac_file_server.http import Request

SECRET = "it-is-secret-it-is-secret-it-is-secret"
LINK = ("link", "--secret-file", "secret", "--url", "https://files.example.org/x")
BLOCKS = {" ": (True, True), "\u2580": (False, True), "\u2584": (True, False), "\u2588": (False, False)}
"""Character to (upper module is dark, lower module is dark): what is printed is what shines."""


@pytest.fixture(autouse=True)
def secret(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.touch(0o600)
    file.write_text(SECRET)


def code_of(text: str) -> list[list[bool]]:
    """The modules of a code in half blocks."""
    rows: list[list[bool]] = []
    for line in text.splitlines():
        rows.append([BLOCKS[character][0] for character in line])
        rows.append([BLOCKS[character][1] for character in line])
    return rows


def expected(address: str) -> list[list[bool]]:
    code = segno.make(address, error="l", micro=False)
    return [[bool(module) for module in row] for row in code.matrix_iter(border=2)]


def test_a_link_to_the_form(run: Run) -> None:
    result = run(*LINK, "--form", "--files", "2")
    assert (result.code, len(result.lines)) == (0, 1)
    url = urlsplit(result.lines[0])
    assert (url.path, url.fragment) == ("/x/", "")
    # As the form will post it.
    gate = Gate(KeyRing([SECRET.encode()]), base_paths=BasePaths(["/"]), clock=SystemClock())
    grant = gate.authorise(Request("POST", "/upload", url.query.encode(), {}, http10=False), Operation.UPLOAD)
    assert isinstance(grant, Grant), grant
    assert grant.max_files == 2


@pytest.mark.parametrize("form", [(), ("--form",)])
def test_a_code_of_the_link(run: Run, form: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", out := io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert run(*LINK, *form, "--qr").code == 0
    out.seek(0)
    address, _, code = out.read().partition("\n")
    assert address.startswith("https://files.example.org/x/" + ("?ticket=" if form else "#ticket="))
    modules = code_of(code)
    wanted = expected(address)
    # An odd number of rows leaves half a line.
    assert modules[: len(wanted)] == wanted
    assert len(modules) - len(wanted) in {0, 1}


def test_where_there_are_no_blocks(tmp_path: Path) -> None:
    """Spaces in two colours, as every terminal has them."""
    done = subprocess.run(
        [sys.executable, "-m", "hmac_file_server", *LINK, "--qr"],
        cwd=tmp_path,
        env={**environment(), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=60,
        check=True,
    )
    address, *lines = done.stdout.decode("ascii").splitlines()
    rows = []
    for line in lines:
        row: list[bool] = []
        for colour, spaces in re.findall(r"\x1b\[(7|49)m( +)", line):
            row += [colour == "49"] * (len(spaces) // 2)
        rows.append(row)
    assert [row for row in rows if row] == expected(address)


def test_in_a_terminal_the_colours_are_said(tmp_path: Path) -> None:
    """A dark code on light ground, whatever the terminal's own colours are."""
    ours, theirs = pty.openpty()
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", "hmac_file_server", *LINK, "--qr"],
            cwd=tmp_path,
            env={**environment(), "PYTHONIOENCODING": "utf-8"},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
        )
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
            if not piece:
                break
            shown += piece
        assert child.wait(60) == 0
    finally:
        os.close(ours)
    address, *lines = shown.decode().replace("\r\n", "\n").splitlines()
    assert address.startswith("https://")
    assert "\x1b" not in address
    found = [re.fullmatch(r"\x1b\[97;40m(.*)\x1b\[0m", line) for line in lines]
    code = "\n".join(match.group(1) for match in found if match is not None)
    assert len(code.splitlines()) == len(lines)
    wanted = expected(address)
    assert code_of(code)[: len(wanted)] == wanted


def test_a_link_alone_is_one_line(run: Run) -> None:
    assert len(run(*LINK).lines) == 1
