"""A server with something altered, as a fixture starts it."""

from __future__ import annotations

from pathlib import Path

from tests.crash.altered_server import ARMED
from tests.fixtures.server import FileServer, Settings


class AlteredServer(FileServer):
    """See `altered_server`."""

    def __init__(self, folder: Path, settings: Settings, alteration: str) -> None:
        super().__init__(folder, settings, program=("tests.crash.altered_server", alteration))

    def arm(self) -> None:
        """From here on the process that comes to the moment kills itself; the first only."""
        (self.folder / ARMED).touch()
