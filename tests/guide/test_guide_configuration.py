"""The guide's configuration, as printed, runs the server."""

from __future__ import annotations

import hashlib
import re

from tests.fixtures.server import FileServer
from tests.guide import printed


def test_the_listings_are_as_the_guide_prints_them() -> None:
    """Nobody has tidied them up."""
    digests = {text[:9]: hashlib.sha256(text.encode()).hexdigest() for text in (printed.CONFIGURATION, printed.LISTING)}
    assert digests == {
        "[uploads]": "7af16e88b71567e639e20cde3c10adf941eeae97105171b1d7e8b688c9c46d86",
        "class Net": "c8c366aa1590744fb476a53b817e641570a8d58894b82d8c5b113b56d1b96c10",
    }


def test_the_only_warning_is_about_the_table_that_is_there_twice(server: FileServer) -> None:
    assert server.config.read_text(encoding="utf-8") == printed.CONFIGURATION
    warnings = [line for line in server.log_text().splitlines() if re.search(" (WARNING|ERROR) ", line)]
    assert len(warnings) == 1, warnings
    told = re.escape(f"Configuration: {server.config}:25: [server] is there already in line 12; both are used as one")
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d WARNING {told}", warnings[0])
