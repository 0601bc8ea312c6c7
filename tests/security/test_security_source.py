"""What the source must not have, for no behaviour would show it: a way out, an unpacker, a regular expression that explodes."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.security.ambiguity import ambiguity

import hmac_file_server

SOURCE = Path(hmac_file_server.__file__).parent
# What runs as the server. The client and the commands are programs of their own.
ROOMS = (
    "auth", "config", "files", "http", "network", "protocols", "stores", "telemetry", "uploads", "web", "workers", "clock.py",
    "processes.py", "resilience.py", "server.py", "sessions.py",
)  # fmt: skip
MODULES = sorted(
    path for room in ROOMS for path in ([SOURCE / room] if room.endswith(".py") else (SOURCE / room).rglob("*.py"))
)


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def called(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def test_every_module_is_looked_at() -> None:
    assert len(MODULES) > 90
    assert {path.parent.name for path in MODULES} >= {"auth", "http", "protocols", "files", "uploads"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_s_12_s_13_s_16_s_23_s_24_s_60_nothing_fetches_unpacks_decodes_or_runs(path: Path) -> None:
    """No URL is fetched and no hook called (Uppy, tusd), no body decompressed (aiohttp), no archive or picture opened."""
    forbidden = {
        "urllib.request", "http.client", "requests", "httpx", "aiohttp", "ftplib", "smtplib", "telnetlib", "xmlrpc",
        "zipfile", "tarfile", "shutil.unpack_archive", "bz2", "lzma", "PIL", "magic", "brotli", "zstandard",
        "subprocess", "pickle", "marshal", "shelve", "xml", "ctypes", "code", "runpy", "pty",
    }  # fmt: skip
    found = [name for name in imported(path) if any(name == bad or name.startswith(bad + ".") for bad in forbidden)]
    assert found == []
    calls = set(called(path))
    assert calls & {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "os.execvp"} == set()
    assert not [call for call in calls if call.split(".")[-1] in {"decompress", "decompressobj", "create_connection"}]


def test_s_16_compression_is_of_our_own_pages_and_checksums_only() -> None:
    users = {
        str(path.relative_to(SOURCE)): sorted(call for call in called(path) if call.startswith(("zlib.", "gzip.")))
        for path in MODULES
        if {"zlib", "gzip"} & set(imported(path))
    }
    assert {call for calls in users.values() for call in calls} <= {"zlib.crc32", "gzip.compress"}, users


def test_s_12_only_redis_is_connected_to() -> None:
    """Every `.connect(` of the server: to SQLite, and a probe of our own Unix socket before it is bound."""
    found = {
        (str(path.relative_to(SOURCE)), call)
        for path in MODULES
        for call in called(path)
        if call.split(".")[-1] in {"connect", "connect_ex", "sock_connect", "open_connection"}
    }
    assert {name for name, _ in found} <= {
        "files/metadata.py", "stores/sqlite.py", "stores/tables.py", "network/listening.py", "network/handoff.py",
    }, found  # fmt: skip


def patterns() -> list[tuple[str, re.Pattern[str] | re.Pattern[bytes]]]:
    """Every regular expression of the package that is compiled when its module is imported, and where it is."""
    found = []
    for module in pkgutil.walk_packages([str(SOURCE)], "hmac_file_server."):
        if module.name.endswith("__main__"):
            continue
        values = vars(importlib.import_module(module.name))
        found += [(f"{module.name}.{name}", value) for name, value in values.items() if isinstance(value, re.Pattern)]
    return found


PATTERNS = patterns()


def test_there_are_patterns() -> None:
    assert len(PATTERNS) > 50


def test_every_pattern_is_compiled_where_it_can_be_found() -> None:
    """One that is written into a function, or given to `re` as text, is none of `PATTERNS`; only fixed ones are there."""
    loose = []
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {f"re.{name}" for name in ("match", "search", "fullmatch", "sub", "split", "findall", "finditer")}:  # fmt: skip
                argument = node.args[0]
                loose.append((path.name, ast.literal_eval(argument) if isinstance(argument, ast.Constant) else None))
    for name, pattern in loose:
        assert pattern is not None, name
        assert ambiguity(re.compile(pattern)) is None, (name, pattern)


@pytest.mark.parametrize(("name", "pattern"), PATTERNS, ids=[name for name, _ in PATTERNS])
def test_s_58_no_pattern_can_be_made_to_explode(name: str, pattern: re.Pattern[str] | re.Pattern[bytes]) -> None:
    """Two ways through a pattern for one text, again and again: that is where ReDoS comes from."""
    assert ambiguity(pattern) is None, name


@pytest.mark.parametrize(
    ("pattern", "kind"),
    [
        (r"(a+)+b", "exponential"),
        (r"(a|a)*b", "exponential"),
        (r"(?:\w+\s?)*$", "exponential"),
        (r"(?:[ \t]*;?[ \t]*x?)*y", "exponential"),
        (r"a*a*b", "polynomial"),
        (r"[ \t]*;[ \t]*x", None),
        (r"\s+$", None),
        (r"[a-z]*[a-m]*!", "polynomial"),
        (r"(?:a|b)*c", None),
        (r"(?:ab|a)*c", None),
        (r"(?:[a-z]+,)*[a-z]+", None),
        (r"(?:[a-z]+,?)*!", "exponential"),
        (r"(?:a{1,3}){5}b", None),
        (r".*,.*,.*;", "polynomial"),
    ],
)
def test_the_judge_of_patterns_finds_what_is_known(pattern: str, kind: str | None) -> None:
    """The patterns of CVE-2020-8135's kind, of python-multipart CVE-2024-24762, and harmless relatives."""
    assert ambiguity(re.compile(pattern)) == kind
