"""The configuration: sizes, durations, addresses, TOML, and all of it merged."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from tests.fuzz.target import Target, joined, split

from hmac_file_server.config import ConfigError, addresses, document, durations, load, sizes


def size(data: bytes) -> bool:
    text = data.decode("utf-8", "replace")
    try:
        found = sizes.parse(text)
    except ValueError:
        return False
    assert 0 <= found <= sizes.LARGEST
    assert sizes.parse(sizes.show(found)) == found
    assert any(letter in "0123456789" for letter in text)
    return True


def duration(data: bytes) -> bool:
    text = data.decode("utf-8", "replace")
    try:
        found = durations.parse(text)
    except ValueError:
        return False
    assert 0 <= found <= durations.LONGEST
    again = durations.parse(durations.show(found))
    # Above some years a float has no nanoseconds.
    assert again == found or abs(again - found) < max(1e-9, found * 1e-15), (found, durations.show(found))
    return True


def address(data: bytes) -> bool:
    text = data.decode("utf-8", "surrogateescape")
    try:
        found = addresses.parse(text)
    except ValueError:
        return False
    assert addresses.parse(str(found)) == found
    assert 0 <= found.port <= 65535
    if found.path:
        assert found.path.startswith("/")
    else:
        assert found.host
        # A zone is a name of an interface; whether there is one is seen when it is listened on.
        assert not set(found.host.partition("%")[0]) & set("/[] \0\n@?#")
    assert isinstance(found.url, str)
    return True


def _flat(tree: dict[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    for name, below in tree.items():
        if isinstance(below, dict) and below:
            found |= _flat(below, (*path, name))
        else:
            found[*path, name] = below
    return found


def _same(one: object, other: object) -> bool:
    return repr(one) == repr(other)  # nan is like nan


def toml(data: bytes) -> bool:
    """What the standard library takes whole is taken here too, with the same values."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False
    try:
        whole = _flat(tomllib.loads(text.removeprefix("\ufeff")))
    except (tomllib.TOMLDecodeError, RecursionError):
        whole = None
    try:
        found = document.parse(text, "f")
    except ConfigError as error:
        return not _located(error, text, whole is not None)
    for item in found.items:
        assert 1 <= item.line <= text.count("\n") + 1
    if whole is not None and not found.repeated:
        ours = {item.path: item.value for item in found.items}
        whole = {path: value for path, value in whole.items() if value != {} or path in ours}
        assert _same(sorted(ours.items(), key=repr), sorted(whole.items(), key=repr)), (ours, whole)
    return bool(found.items)


def _located(error: ConfigError, text: str, valid: bool) -> bool:
    assert error.code == "syntax"
    assert error.line is None or 1 <= error.line <= text.count("\n") + 1
    # Lists of tables are refused by their name, and a key of a table that was given as a value.
    assert not valid or "[[" in text or "." in text or "{" in text, text
    return True


def _told(error: ConfigError, kept: bool) -> bool:
    assert str(error)
    assert all(each.code for each in error.all)
    assert not kept or _SECRET not in str(error)
    return True


def merged(data: bytes) -> bool:
    """A file, a variable and an override: settings, or errors that say where."""
    if b"file" in data.lower() or b"\0" in data:
        return False  # names of other files are of no interest here, and some of them never end
    text, variable, value, override = split(data, 4)
    # Only as the value of a key of this name is it known for a secret.
    kept = data.count(_SECRET.encode()) == 1 and f'\nsecret = "{_SECRET}"\n'.encode() in text
    fd = os.memfd_create("config")
    try:
        os.write(fd, text)
        os.lseek(fd, 0, os.SEEK_SET)
        environ = {"HMAC_FILE_SERVER_" + variable.decode("utf-8", "replace"): value.decode("utf-8", "replace")}
        overrides = [override.decode("utf-8", "replace")] if override else []
        loaded = load(Path(f"/proc/self/fd/{fd}"), environ=environ, overrides=overrides)
    except ConfigError as error:
        return not _told(error, kept)
    finally:
        os.close(fd)
    assert set(loaded.origins)
    assert not kept or _SECRET not in repr(loaded.settings)
    assert not kept or _SECRET not in "".join(loaded.warnings)
    return bool(text)


_SECRET = "it-is-secret-it-is-secret-it-is-secret"
_TOML = f"""
[server]
listen_address = "127.0.0.1:8080"
max_upload_size = "1.5GiB"
processes = 2
[security]
secret = "{_SECRET}"
schemes = ["v1", "signature"]
[timeouts]
stall_timeout = "1m30s"
[uploads]
chunk_size = "1MB"
durability = "relaxed"
[server]
min_free_bytes = "1MB"
""".encode()

TARGETS = (
    Target("sizes", size, (b"10MB", b"1.5GiB", b"8192", b"0", b" 1 kb ", b"9223372036854775807", b"1.5", "\u0661MB".encode()), (b"MB", b"GiB", b".", b"tb", b"9" * 19, b" ")),
    Target("durations", duration, (b"48h", b"1h30m", b"500ms", b"30d", "5\u00b5s".encode(), b"1.5s", b"0", b"10", b"1000y", b"999999999999999.999999999ns"), (b"h", b"ms", b"ns", b".", b"y", "\u03bcs".encode(), b"9" * 15)),
    Target("addresses", address, (b"127.0.0.1:8080", b"[::]:80", b"localhost:0", b":8080", b"8080", b"unix:/run/x.sock", b"*:80", b"[fe80::1%eth0]:1", "h\u00f6st:1".encode()), (b":", b"[", b"]", b"unix:/", b"::", b"%", b"*", b"65535")),
    Target("toml", toml, (_TOML, b"a = 1\n[b.c]\nd = [1,\n2]\n", b'a = """x\n[y]\n"""\n', b"[[a]]\n", b"a = {b = 1, c = {d = 2}}\n", b"[a]\nb=1\n[a.c]\nd=2\n[a]\ne=3\n", b'"a b".c = 1 # x\n', b"a.b = 1\r\n", b"a = nan\n", b"a = '''\n'''"),
           (b"[", b"]", b"=", b'"""', b"'''", b"#", b"\n", b"{", b"}", b",", b".", b'"', b"\\")),
    Target("configuration", merged, (joined(_TOML, b"SERVER__PROCESSES", b"3", b"uploads.chunk_size=2MB"), joined(b"", b"LOGGING__LEVEL", b"debug", b"timeouts.min_rate=0"), joined(b"[redis]\nenabled = true\nurl = 'redis://:x@h:1/0'\n", b"X", b"", b"security.secret=x"),
                                     joined(b"[server]\nlistenport = 8080\nstoragepath = './x'\n[uploads]\nallowedextensions = ['.a']\n", b"NETWORK__TRUSTED_PROXIES", b"10.0.0.0/8, ::1", b"a")),
           (b"[server]\n", b"[uploads]\n", b"[security]\n", b"=", b'"', b"__", b"true", b"[]", b"{}", b"\x1f", b"-1", b"1e9", b"[logging]\n", b"[network]\n", b"[redis]\n", b"inf")),
)  # fmt: skip
