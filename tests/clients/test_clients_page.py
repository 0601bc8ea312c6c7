"""docs/clients.md: every block of code on it does what the page says."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urljoin

import pytest
from tests.clients.arrivals import SIGNED, check_arrival, endpoint, write
from tests.clients.conftest import StartRelay
from tests.clients.uppy import bundle, website
from tests.fixtures import node, slots
from tests.fixtures.child import program
from tests.fixtures.chromium import running_chromium
from tests.fixtures.content import content
from tests.fixtures.server import SECRET, FileServer

MIB = 1 << 20
LARGE = 12 * MIB + 345
HELD = 6 * MIB
NAME = "holiday.mp4"
PRINTED = "https://files.example.org"
PAGE = Path(__file__).parent.parent.parent / "docs" / "clients.md"
BLOCKS = [(found[1], found[2]) for found in re.finditer(r"```(\w+)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)]


def block(language: str, word: str) -> str:
    """The only block of a language that has the word."""
    [found] = [code for kind, code in BLOCKS if kind == language and word in code]
    return found


def at(url: str, code: str) -> str:
    """The code with a server's URL in the place of the printed one."""
    assert PRINTED in code
    return code.replace(PRINTED, url)


def shell(code: str, folder: Path, **variables: str) -> str:
    """What a shell prints that runs the code with these variables."""
    for name in ("curl", "openssl"):
        program(name, name)
    done = subprocess.run(
        ["sh", "-euc", code],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **variables},  # neither a .curlrc nor a proxy
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    return done.stdout.decode()


def test_every_block_is_tested() -> None:
    assert [language for language, _ in BLOCKS] == ["sh", "js", "js", "python", "python", "sh", "sh"]


def test_the_signature(tmp_path: Path) -> None:
    printed = shell(block("sh", "openssl") + 'printf %s "$SIGNATURE"', tmp_path, SECRET=SECRET)
    assert printed == SIGNED["X-Signature"]


def test_tus_js_client(shared_server: FileServer, tmp_path: Path) -> None:
    body = content(LARGE, "page tus-js-client")
    file = write(tmp_path, NAME, body)
    node.package("tus-js-client")
    done = subprocess.run(
        [node.node(), "--input-type=module"],
        cwd=node.PACKAGES,  # packages are looked for from there
        env={**node.environment(), "SIGNATURE": SIGNED["X-Signature"]},
        input=at(shared_server.url, block("js", "tus-js-client")).replace(f"'{NAME}')", f"'{file}')"),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    check_arrival(shared_server, done.stdout.strip(), body, NAME)


def test_uppy(shared_server: FileServer, tmp_path: Path) -> None:
    body = content(LARGE, "page uppy")
    file = write(tmp_path, NAME, body)
    code = at(shared_server.url, block("js", "@uppy/core")) + "window.uppy = uppy;"
    with website(bundle(tmp_path, code)) as site, running_chromium() as browser:
        page = browser.new_page()
        page.add_init_script(f"window.signature = '{SIGNED['X-Signature']}'")
        page.goto(site)
        page.set_input_files("input", file)
        url = page.evaluate(
            """async () => {
                const [file] = document.querySelector('input').files;
                uppy.addFile({ name: file.name, type: file.type, data: file });
                return (await uppy.upload()).successful[0].uploadURL;
            }"""
        )
        page.close()
    check_arrival(shared_server, url, body, NAME)


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
@pytest.mark.parametrize("package", ["tusclient", "aiotus"])
def test_python(shared_server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    body = content(LARGE, f"page {package}")
    write(tmp_path, NAME, body)
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(at(shared_server.url, block("python", package)), {"signature": SIGNED["X-Signature"]})
    check_arrival(shared_server, urljoin(endpoint(shared_server), printed.getvalue().strip()), body, NAME)


def test_curl_by_tus(shared_server: FileServer, start_relay: StartRelay, tmp_path: Path) -> None:
    """The loop sends what was cut off."""
    body = content(LARGE, "page curl tus")
    write(tmp_path, NAME, body)
    relay = start_relay(shared_server, HELD)
    with ThreadPoolExecutor(1) as pool:
        code = at(relay.url, block("sh", "SERVER="))
        printed = pool.submit(shell, code, tmp_path, SIGNATURE=SIGNED["X-Signature"])
        assert relay.held.wait(60)
        relay.reset()
        check_arrival(shared_server, printed.result(60).strip(), body, NAME)


@pytest.mark.parametrize("is_cut", [False, True], ids=["whole", "cut"])
def test_curl_by_the_draft(shared_server: FileServer, start_relay: StartRelay, tmp_path: Path, is_cut: bool) -> None:
    """The second half of the lines is for the upload that was cut off."""
    body = content(LARGE, f"page curl draft {is_cut}")
    write(tmp_path, NAME, body)
    relay = start_relay(shared_server, HELD)
    path = f"page/{is_cut}/{NAME}"
    with ThreadPoolExecutor(1) as pool:
        link = slots.url(relay.url, path, LARGE)
        sent = pool.submit(shell, block("sh", "$LINK"), tmp_path, FILE=NAME, LINK=link)
        assert relay.held.wait(60)
        if is_cut:
            relay.reset()
        else:
            relay.release()
        sent.result(60)
    assert shared_server.request("GET", f"/upload/{path}").body == body
