"""docs/errors.md against the code: every word that a client can get is explained, and none that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

from hmac_file_server.auth.refusals import STATUS
from hmac_file_server.http.response import REASONS
from hmac_file_server.protocols.answers import PROBLEMS

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "src" / "hmac_file_server"
ROW = re.compile(r"^\| `([a-z_]+)` \| (\d{3}) \| (.+) \|$", re.MULTILINE)


def documented() -> dict[str, int]:
    """Code to status, as the page has them."""
    rows = ROW.findall((ROOT / "docs" / "errors.md").read_text(encoding="utf-8"))
    codes = [code for code, _, _ in rows]
    assert len(codes) == len(set(codes)), "a code is explained twice"
    return {code: int(status) for code, status, _ in rows}


def used(pattern: str, room: str) -> list[tuple[str, ...]]:
    """What a pattern finds in the sources of a room."""
    found: list[tuple[str, ...]] = []
    for file in sorted((SOURCE / room).rglob("*.py")):
        found += re.findall(pattern, file.read_text(encoding="utf-8"))
    assert found, f"{pattern} finds nothing in {room}"
    return found


def path_codes() -> set[str]:
    return {code for (code,) in ((word,) for word in map(str, used(r'PathRefused\(\s*"([a-z_]+)"', "files")))}


def test_every_code_is_explained_with_its_status() -> None:
    expected = {code: status for code, (status, _) in PROBLEMS.items()}
    expected |= STATUS
    expected |= dict.fromkeys(path_codes(), 400)
    assert documented() == expected


def test_no_code_has_two_statuses() -> None:
    for code in PROBLEMS.keys() & STATUS.keys():
        assert PROBLEMS[code][0] == STATUS[code], code


def test_the_connections_codes_are_in_the_table() -> None:
    for room in ("http", "protocols"):
        for status, code in used(r'HttpError\((\d{3}), "([a-z_]+)"', room):
            assert PROBLEMS[code][0] == int(status), code


def test_the_protocols_use_no_other_codes() -> None:
    words = {str(word) for word in used(r'(?:refuse|problem)\((?:self\._)?exchange, "([a-z_]+)"', "protocols")}
    words |= {str(word) for word in used(r'FormRefused\("([a-z_]+)"', "protocols")}
    words |= {str(word) for word in used(r'UploadRefused\("([a-z_]+)"', "uploads")}
    assert words <= PROBLEMS.keys()


def test_every_status_has_a_reason_phrase() -> None:
    for code, (status, title) in PROBLEMS.items():
        assert status in REASONS, code
        assert title


def test_links_of_the_pages_lead_somewhere() -> None:
    for page in ("errors.md", "api.md", "architecture.md"):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (ROOT / "docs" / target).exists(), f"{page}: {target}"
