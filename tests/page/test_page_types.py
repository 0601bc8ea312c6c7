"""The page's scripts through the compiler: their JSDoc types are right."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.fixtures import node

WEB = Path(__file__).parents[2] / "src" / "hmac_file_server" / "web"


def test_types(tmp_path: Path) -> None:
    options = {
        "allowJs": True,
        "checkJs": True,
        "strict": True,
        "noEmit": True,
        "noUncheckedIndexedAccess": True,
        "noImplicitReturns": True,
        "target": "es2022",
        "module": "es2022",
        "moduleResolution": "bundler",
        "lib": ["es2023", "dom", "dom.iterable", "dom.asynciterable"],
        # The uploader is for Node as well.
        "types": ["node"],
        "typeRoots": [str(node.PACKAGES / "node_modules" / "@types")],
    }
    project = tmp_path / "tsconfig.json"
    project.write_text(json.dumps({"compilerOptions": options, "files": [str(WEB / "upload-page.js")]}))
    done = subprocess.run(
        [node.node(), str(node.package("typescript") / "bin" / "tsc"), "--project", str(project)],
        env=node.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
