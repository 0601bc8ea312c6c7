"""`init`: the file it writes and the snippets it prints."""

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from tests.fixtures.command_line import Result, Run

from hmac_file_server.cli.init import configuration_text
from hmac_file_server.cli.snippets import SNIPPETS, Site
from hmac_file_server.config import load

DOCS = Path(__file__).parents[3] / "docs"

SITE = Site(
    url="https://upload.example.org/",
    xmpp_domain="example.org",
    backend="127.0.0.1:8080",
    secret="SECRET",
    delete_secret="DELETE_SECRET",
    size_limit=1024**3,
    config_file="/etc/hmac-file-server/config.toml",
    storage_path="/var/lib/hmac-file-server",
    program="/opt/hmac-file-server/bin/hmac-file-server",
)
"""The values that the documentation shows."""


def snippet(result: Result, title: str) -> str:
    _, found, rest = result.out.partition(f"--- {title} ---\n")
    assert found
    return rest.partition("\n--- ")[0]


def test_the_file_is_private_complete_and_usable(run: Run, tmp_path: Path) -> None:
    result = run("init", "site")
    path = tmp_path / "site" / "config.toml"
    assert (result.code, result.err) == (0, "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    loaded = load(path, environ={}, overrides=())
    assert loaded.warnings == ()
    settings = loaded.settings
    assert settings.server.storage_path == tmp_path / "site" / "data"
    assert settings.server.base_path == ("/", "/upload/")
    assert "127.0.0.1/32" in settings.server.trusted_proxies
    assert len(settings.security.secret[0]) == 64
    assert settings.security.delete_secret is not None
    assert settings.security.delete_secret != settings.security.secret[0]
    assert f"serve --config {path}" in result.out


def test_by_default_it_writes_into_this_folder(run: Run, tmp_path: Path) -> None:
    assert run("init").code == 0
    assert (tmp_path / "config.toml").exists()


def test_secrets_differ_from_run_to_run(run: Run) -> None:
    run("init", "a")
    run("init", "b")
    first, second = (load(Path(d, "config.toml"), environ={}, overrides=()).settings for d in "ab")
    assert first.security.secret != second.security.secret


def test_a_file_that_is_there_is_not_touched(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("# mine\n")
    result = run("init")
    assert (result.code, result.out) == (1, "")
    assert result.err == f"hmac-file-server: {path} is there already; nothing was changed\n"
    assert path.read_text() == "# mine\n"


def test_a_folder_that_cannot_be_made(run: Run, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    result = run("init", "f/x")
    assert result.code == 1
    assert result.err == "hmac-file-server: f/x: Not a directory\n"


def test_snippets_hold_the_values_of_the_file(run: Run, tmp_path: Path) -> None:
    result = run("init", "--url", "https://files.example.net/up/", "--listen", "127.0.0.1:9999")
    security = load(tmp_path / "config.toml", environ={}, overrides=()).settings.security
    secret = security.secret[0].reveal().decode()
    assert result.out.count(secret) == 5
    assert result.out.count("https://files.example.net/up") == 7
    assert result.out.count("127.0.0.1:9999") == 2
    assert f"--config {tmp_path}/config.toml" in result.out
    assert f"ReadWritePaths={tmp_path}/data" in result.out
    assert 'put_url: "https://files.example.net/up"\n' in result.out
    assert load(tmp_path / "config.toml", environ={}, overrides=()).settings.server.base_path == (
        "/",
        "/upload/",
        "/up/",
    )


@pytest.mark.parametrize(
    ("arguments", "component"),
    [
        ([], "upload.example.org"),
        (["--url", "https://files.example.net/", "--xmpp-domain", "chat.example.org"], "upload.chat.example.org"),
        (["--url", "https://files.chat.example.org/", "--xmpp-domain", "example.org"], "files.chat.example.org"),
        (["--url", "http://localhost:8080/", "--xmpp-domain", "localhost"], "upload.localhost"),
    ],
)
def test_the_component_is_below_the_xmpp_domain(run: Run, arguments: list[str], component: str) -> None:
    result = run("init", *arguments, "--snippet", "prosody-v2")
    assert f'Component "{component}" "http_upload_external"' in result.out


@pytest.mark.parametrize("name", SNIPPETS)
def test_one_snippet_alone(run: Run, name: str) -> None:
    result = run("init", "--snippet", name)
    assert re.findall(r"^--- (.*) ---$", result.out, re.MULTILINE) == [SNIPPETS[name][0]]


def test_no_snippet(run: Run) -> None:
    assert len(run("init", "--snippet", "none").lines) == 2


def test_a_listener_of_the_own_choice_is_checked(run: Run, tmp_path: Path) -> None:
    assert run("init", "--listen", "x:y").code == 2
    assert not (tmp_path / "config.toml").exists()


# The snippets themselves, as far as no server is needed


def test_the_unit_is_hardened(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    unit = tmp_path / "hmac-file-server.service"
    unit.write_text(SNIPPETS["systemd"][1](SITE))
    text = unit.read_text()
    for line in (
        "NoNewPrivileges=true",
        "LimitCORE=0",
        "ProtectSystem=strict",
        "ReadWritePaths=/var/lib/hmac-file-server",
        "PrivateTmp=true",
        "PrivateDevices=true",
        "ProtectKernelTunables=true",
        "RestrictNamespaces=true",
        "LockPersonality=true",
        "MemoryDenyWriteExecute=true",
        "SystemCallFilter=@system-service",
        "UMask=0077",
        "User=hmac-file-server",
        "Restart=on-failure",
        "ExecReload=/bin/kill -HUP $MAINPID",
    ):
        assert f"\n{line}\n" in text
    if analyze is None:
        pytest.skip("systemd-analyze is not here")
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", str(unit)], capture_output=True, text=True, check=False
    )
    found = re.search(r"Overall exposure level for .*: (\d+\.\d+)", done.stdout)
    if found is None:
        pytest.skip(f"systemd-analyze does not work here: {done.stderr[:200]}")
    assert float(found[1]) <= 2.0


def test_nginx_takes_its_snippet(tmp_path: Path) -> None:
    nginx, openssl = shutil.which("nginx"), shutil.which("openssl")
    if nginx is None or openssl is None:
        pytest.skip("nginx or openssl is not here")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=x",
         "-keyout", str(tmp_path / "privkey.pem"), "-out", str(tmp_path / "fullchain.pem")],
        capture_output=True, check=True,
    )  # fmt: skip
    text = SNIPPETS["nginx"][1](SITE).replace("/etc/letsencrypt/live/upload.example.org", str(tmp_path))
    path = tmp_path / "nginx.conf"
    path.write_text(f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{text}}}\n")
    done = subprocess.run([nginx, "-t", "-q", "-p", str(tmp_path), "-e", "stderr", "-c", str(path)],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_nginx_neither_stores_nor_repeats_uploads() -> None:
    text = SNIPPETS["nginx"][1](SITE)
    for line in (
        "proxy_request_buffering off;",
        "client_max_body_size 0;",
        "proxy_next_upstream off;",
        "listen [::]:443",
    ):
        assert line in text


def test_prosody_takes_its_snippets(tmp_path: Path) -> None:
    luac = shutil.which("luac5.4") or shutil.which("luac")
    lua = shutil.which("lua5.4") or shutil.which("lua")
    if luac is None and lua is None:
        pytest.skip("no Lua is here")
    path = tmp_path / "c.lua"
    path.write_text(
        "".join(SNIPPETS[name][1](SITE) for name in ("prosody-v1", "prosody-v2", "prosody-jwt", "metronome"))
    )
    command = [luac, "-p", str(path)] if luac else [str(lua), "-e", f"assert(loadfile('{path}'))"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_values_with_quotes_stay_values() -> None:
    from dataclasses import replace

    odd = replace(SITE, secret='a"b\\c')
    for name in ("prosody-v1", "prosody-v2", "prosody-jwt", "metronome", "ejabberd"):
        assert '"a\\"b\\\\c"' in SNIPPETS[name][1](odd)


def test_the_file_quotes_its_values(tmp_path: Path) -> None:
    from dataclasses import replace

    folder = tmp_path / 'a "b" \\ c'
    folder.mkdir()
    path = folder / "config.toml"
    text = configuration_text(replace(SITE, storage_path=str(folder / "data"), secret="x" * 32, delete_secret="y" * 32))
    path.write_text(text)
    os.chmod(path, 0o600)
    loaded = load(path, environ={}, overrides=())
    assert loaded.warnings == ()
    assert loaded.settings.server.storage_path == folder / "data"


@pytest.mark.parametrize("name", SNIPPETS)
def test_the_documentation_shows_the_same(name: str) -> None:
    text = (DOCS / "installation.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"<!-- snippet: {name} -->\n\n?```[a-z]*\n(.*?)```", text, re.DOTALL)
    assert blocks == [SNIPPETS[name][1](SITE)]
