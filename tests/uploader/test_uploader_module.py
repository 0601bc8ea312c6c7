"""uploader.js as a module: its types, its package, what it computes by itself, and the guide's way to use it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from tests.fixtures.content import content
from tests.fixtures.node import environment, node, package
from tests.fixtures.server import FileServer
from tests.guide import printed
from tests.uploader.conftest import StartTap
from tests.uploader.uploading import HERE, MIB, MODULE, signature


def run(*command: str, cwd: Path = HERE) -> subprocess.CompletedProcess[str]:
    search = f"{Path(node()).parent}:/usr/bin:/bin"
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**environment(), "PATH": search},
        check=False,
        timeout=100,
    )


def tsc(*words: str, cwd: Path = HERE) -> None:
    done = run(str(package("typescript").parent / ".bin" / "tsc"), *words, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr


def test_unit_tests_in_javascript() -> None:
    files = sorted(str(each) for each in (HERE / "unit").glob("*.test.mjs"))
    assert len(files) == 2
    done = run(node(), "--test", "--test-reporter=tap", *files)
    assert done.returncode == 0, done.stdout[-8000:]
    assert "# fail 0" in done.stdout


def test_types_of_the_module() -> None:
    tsc("-p", str(HERE / "tsconfig.json"))


def test_package_can_be_published(tmp_path: Path) -> None:
    """What `npm pack` would put into it has a module and its types, and both can be used."""
    about = json.loads((MODULE.parent / "package.json").read_text(encoding="utf-8"))
    folder = tmp_path / "node_modules" / about["name"]
    folder.mkdir(parents=True)
    for name in ("uploader.js", "package.json"):
        shutil.copy(MODULE.parent / name, folder)
    types = package("@types/node").parent
    _, *words = about["scripts"]["prepack"].split()
    tsc(*words, "--typeRoots", str(types), cwd=folder)
    assert {each.name for each in folder.iterdir()} == {*about["files"], "package.json"}

    (tmp_path / "use.ts").write_text(
        f"""
        import {{ NetworkResilientUploader, UploadError, FileStore, type Result }} from '{about["name"]}';
        export async function send(path: string): Promise<Result> {{
          const file = await NetworkResilientUploader.fromPath(path);
          const uploader = new NetworkResilientUploader(file, 'https://files.example.org/upload/chunked', {{
            ticket: 'x', parallel: 2, store: new FileStore('/tmp/x'), digest: 'sha-256',
          }});
          uploader.addEventListener('progress', (event) => console.log((event as CustomEvent).detail));
          // @ts-expect-error: no such option
          new NetworkResilientUploader(file, 'x', {{ paralel: 2 }});
          return uploader.upload();
        }}
        export const isOurs = (error: unknown): string | null => error instanceof UploadError ? error.code : null;
        """,
        encoding="utf-8",
    )
    tsc(
        *("use.ts", "--strict", "--noEmit", "--target", "es2022", "--module", "nodenext", "--types", "node"),
        *("--typeRoots", str(types)),
        cwd=tmp_path,
    )
    done = run(
        node(), "--input-type=module", "-e", f"console.log(Object.keys(await import('{about['name']}')).sort().join())",
        cwd=tmp_path,
    )  # fmt: skip
    names = set(done.stdout.strip().split(","))
    assert {"NetworkResilientUploader", "UploadError", "FileStore", "IndexedDBStore", "LocalStorageStore"} <= names


def test_browsers_need_nothing_of_node(tmp_path: Path) -> None:
    """A bundler for browsers finds nothing in it that it would have to resolve."""
    bundle = tmp_path / "bundle.js"
    done = run(
        str(package("esbuild").parent / ".bin" / "esbuild"), str(MODULE), "--bundle", "--platform=browser",
        "--format=esm", f"--outfile={bundle}", "--log-level=warning",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert bundle.stat().st_size > 10_000


def test_guide_s_loop_with_this_class(server: FileServer, start_tap: StartTap, tmp_path: Path) -> None:
    """The guide's `upload()`, line by line, on this class: startSession, then uploadChunk for each chunk."""
    path = tmp_path / "guide.bin"
    path.write_bytes(content(12 * MIB + 5, "guide"))
    printed_loop = printed.CLASS[
        printed.CLASS.index("async upload() {") : printed.CLASS.index("async startSession() {")
    ]
    body = printed_loop.strip().removeprefix("async upload() {").removesuffix("}")
    script = tmp_path / "guide.mjs"
    script.write_text(
        f"""
        import {{ NetworkResilientUploader }} from '{MODULE.as_uri()}';
        const file = await NetworkResilientUploader.fromPath(process.argv[2]);
        class Guide extends NetworkResilientUploader {{ async upload() {{ {body} }} }}
        const uploader = new Guide(file, process.argv[3], {{ signature: '{signature()}' }});
        await uploader.upload();
        await file.close();
        """,
        encoding="utf-8",
    )
    tap = start_tap(server)
    done = run(node(), str(script), str(path), f"{tap.url}/upload/chunked")
    assert done.returncode == 0, done.stderr
    *_, last = done.stdout.splitlines()
    assert last == "Upload completed!"
    assert tap.sent_twice() == 0
    (name,) = server.files()
    assert (server.storage / name).read_bytes() == path.read_bytes()


def test_documented_example_for_node(server: FileServer, tmp_path: Path) -> None:
    """The second example of docs/uploader.md, with the names of this test; twice, for the result is the same."""
    text = (MODULE.parents[3] / "docs" / "uploader.md").read_text(encoding="utf-8")
    example = text.split("```js\n")[1].split("```")[0]
    path = tmp_path / "large_file.zip"
    path.write_bytes(content(3 * MIB, "example"))
    for name, here in {
        "'hmac-file-server-uploader'": f"'{MODULE.as_uri()}'",
        "'large_file.zip'": f"'{path}'",
        "https://files.example.org": server.url,
        "/var/lib/backup/uploads": str(tmp_path / "sessions"),
        "  signature,": f"  signature: '{signature()}',",
    }.items():
        assert name in example
        example = example.replace(name, here)
    script = tmp_path / "example.mjs"
    script.write_text(example, encoding="utf-8")
    done = run(node(), str(script))
    assert done.returncode == 0, done.stderr
    (name,) = server.files()
    assert done.stdout.strip().endswith("/large_file.zip")
    assert (server.storage / name).read_bytes() == path.read_bytes()


def test_where_there_is_only_fetch(server: FileServer, start_tap: StartTap, tmp_path: Path) -> None:
    """As in a service worker: neither Node nor XMLHttpRequest, and a Blob."""
    body = content(7 * MIB + 3, "fetched")
    path = tmp_path / "fetched.bin"
    path.write_bytes(body)
    tap = start_tap(server, hold_after=3 * MIB)
    script = tmp_path / "worker.mjs"
    script.write_text(
        f"""
        import {{ readFileSync }} from 'node:fs';
        const file = new File([readFileSync('{path}')], 'fetched.bin');
        const say = console.log;
        globalThis.process = undefined;
        const {{ NetworkResilientUploader }} = await import('{MODULE.as_uri()}');
        const options = {{ signature: '{signature()}', retryDelay: {{ base: 20 }} }};
        const uploader = new NetworkResilientUploader(file, '{tap.url}/upload/chunked', options);
        uploader.addEventListener('retry', ({{ detail }}) => say('retry', detail.error.code));
        say((await uploader.upload()).url);
        """,
        encoding="utf-8",
    )
    child = subprocess.Popen(
        [node(), str(script)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
    )
    try:
        assert tap.held.wait(30)
        tap.reset_clients()
        printed_lines, _ = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 0, printed_lines
    *retries, url = printed_lines.splitlines()
    assert set(retries) == {"retry network"}
    assert url.endswith("/fetched.bin")
    (name,) = server.files()
    assert (server.storage / name).read_bytes() == body
    assert not tap.known_sent_again
