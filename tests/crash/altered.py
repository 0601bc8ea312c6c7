"""A server with something altered, as a fixture starts it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from tests.crash.altered_server import ARMED
from tests.fixtures.child import Child
from tests.fixtures.server import FileServer, Settings, environment

_ROOT: Final = Path(__file__).parent.parent.parent


class AlteredServer(FileServer):
    """See `altered_server`."""

    def __init__(self, folder: Path, settings: Settings, alteration: str) -> None:
        super().__init__(folder, settings)
        self.alteration = alteration

    def start(self) -> None:
        """Start and wait for `GET /ready`, as the unaltered one does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        assert self.settings is not None
        self.write_config(self.settings)
        env = environment()
        self.child = Child(
            "altered hmac-file-server",
            [
                *(sys.executable, "-m", "tests.crash.altered_server", self.alteration),
                *("serve", "--config", str(self.config)),
            ],
            log=self.log,
            env={**env, "PYTHONPATH": os.pathsep.join([str(_ROOT), env["PYTHONPATH"]])},
            cwd=self.folder,
        )
        self.child.wait_ready(self._ready)

    def arm(self) -> None:
        """From here on the process that comes to the moment kills itself; the first only."""
        (self.folder / ARMED).touch()
