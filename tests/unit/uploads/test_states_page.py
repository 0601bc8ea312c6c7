"""The diagram in docs/architecture.md is the table."""

from __future__ import annotations

from pathlib import Path

from hmac_file_server.uploads.states import TABLE

PAGE = Path(__file__).parents[3] / "docs" / "architecture.md"


def test_the_diagram_is_drawn_from_the_table() -> None:
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> open"]
    lines += [f"    {state} --> {following}: {event}" for (state, event), following in TABLE.items()]
    lines += ["    gone --> [*]", "```"]
    assert "\n".join(lines) + "\n" in PAGE.read_text(encoding="utf-8")
