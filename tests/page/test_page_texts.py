"""The texts of the upload page: complete, in one place, and spelled by the rules of each language."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures import node

WEB = Path(__file__).parents[2] / "src" / "hmac_file_server" / "web"
DOCS = Path(__file__).parents[2] / "docs"
SCRIPT = (WEB / "upload-page.js").read_text(encoding="utf-8")
PAGE = (WEB / "index.html").read_text(encoding="utf-8")


def run(code: str) -> Any:
    """The JSON that `code` gives to `tell`, with the module imported."""
    module = (WEB / "upload-texts.js").as_uri()
    program = f"import {{ LANGUAGES, Texts }} from {json.dumps(module)};\nconst tell = (v) => console.log(JSON.stringify(v));\n{code}"
    done = subprocess.run(
        [node.node(), "--input-type=module", "--no-warnings"],
        input=program,
        env=node.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    # Numbers are held together with their units.
    return json.loads(done.stdout.replace("\u00a0", " "))


@pytest.fixture(scope="module")
def tables() -> dict[str, dict[str, str | dict[str, str]]]:
    found = run("tell(LANGUAGES)")
    assert isinstance(found, dict)
    return found


def names(text: str | dict[str, str]) -> set[str]:
    """What is filled into a text."""
    patterns = [text] if isinstance(text, str) else list(text.values())
    return {name for pattern in patterns for name in re.findall(r"\{(\w+)\}", pattern)}


def used() -> set[str]:
    """Keys that the page asks for."""
    said = set(re.findall(r"""(?:(?<!\.)say|withCode)\(\s*'(\w+)'""", SCRIPT))
    either = {
        key for pair in re.findall(r"""say\([^()]*(?:\([^()]*\))?[^()]*\? '(\w+)' : '(\w+)'""", SCRIPT) for key in pair
    }
    listed = {
        key
        for keys in re.findall(r"const told = .*?\{([^}]*Heading[^}]*)\}", SCRIPT)
        for key in re.findall(r"'(\w+Heading)'", keys)
    }
    return said | either | listed | set(re.findall(r'data-text="(\w+)"', PAGE))


def test_every_text_is_there_and_none_is_left_over(tables: dict[str, dict[str, str | dict[str, str]]]) -> None:
    fixed = {key for key in tables["en"] if not key.startswith("failure_")}
    assert used() == fixed


def test_every_language_has_the_same_texts(tables: dict[str, dict[str, str | dict[str, str]]]) -> None:
    english = tables["en"]
    for language, table in tables.items():
        assert table.keys() == english.keys(), language
        for key, text in table.items():
            assert names(text) == names(english[key]), (language, key)
            if isinstance(text, dict):
                assert "other" in text, (language, key)


def test_reasons_are_told_for_codes_that_exist(tables: dict[str, dict[str, str | dict[str, str]]]) -> None:
    codes = set(re.findall(r"^\| `(\w+)` \| \d{3} \|", (DOCS / "errors.md").read_text(encoding="utf-8"), re.MULTILINE))
    client = set(
        re.findall(r"`(\w+)`", (WEB / "uploader.js").read_text(encoding="utf-8").split("class UploadError")[0])
    )
    told = {key.removeprefix("failure_") for key in tables["en"] if key.startswith("failure_")}
    assert told <= codes | client
    # What a person with a link can meet.
    assert told >= {
        *("token_expired", "ticket_used_up", "bad_token", "not_covered", "too_large", "type_mismatch"),
        *("extension_refused", "storage_full", "exists", "upload_expired", "upload_lost", "too_many_sessions"),
    }


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.inside: list[str] = []
        self.found: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "link", "img", "input", "br"}:
            self.inside.append(tag)
        self.inline += [name for name, _ in attrs if name == "style" or name.startswith("on")]
        if tag == "script":
            assert dict(attrs).get("src"), "a script without src"
        assert tag != "style"

    def handle_endtag(self, tag: str) -> None:
        assert self.inside.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and not {"noscript", "title"} & set(self.inside):
            self.found.append(data.strip())


def test_the_page_itself_has_words_for_browsers_without_javascript_only() -> None:
    words = _Words()
    words.feed(PAGE)
    assert words.found == []
    assert words.inline == []
    assert words.inside == []


def test_motion_can_be_switched_off() -> None:
    style = (WEB / "upload-page.css").read_text(encoding="utf-8")
    assert re.search(r"prefers-reduced-motion: reduce\)\s*\{\s*\*[^}]*transition: none !important", style)
    assert "url(" not in style
    assert "@import" not in style


def test_plurals_and_numbers() -> None:
    told = run("""
      const texts = new Texts(['en-GB']);
      tell([
        texts.say('totalCount', { done: 0, count: 1 }), texts.say('totalCount', { done: 1234, count: 5678 }),
        texts.say('sayAllDone', { count: 1 }), texts.say('refusedSize', { name: '{limit}', size: 'S', limit: 'L' }),
        texts.say('retry'), texts.say('forFile', {}),
      ]);
    """)
    assert told == [
        "0 of 1 file done",
        "1,234 of 5,678 files done",
        "The file is uploaded.",
        "{limit} has S. This link takes files up to L.",
        "Try again",
        "{action}: {name}",
    ]


def test_sizes() -> None:
    sizes = [0, 1, 2, 1023, 1024, 1536, 99 * 1024, 102_400, 1 << 20, 5 << 30, (1 << 30) - 1, 3 << 40, 1 << 60]
    told = run(f"const texts = new Texts(['en']); tell({sizes}.map((size) => texts.size(size)))")
    assert told == [
        *("0 bytes", "1 byte", "2 bytes", "1,023 bytes", "1 kB", "1.5 kB", "99 kB", "100 kB", "1 MB", "5 GB", "1 GB"),
        *("3 TB", "1,048,576 TB"),
    ]
    assert run("tell(new Texts(['en']).speed(2.5 * 2 ** 20))") == "2.5 MB/s"
    assert run("tell(new Texts(['en']).speed(300))") == "300 byte/s"


def test_numbers_stay_with_their_units() -> None:
    assert run("const t = new Texts(['en']); tell([t.size(2 ** 20), t.duration(9)].map((s) => s.indexOf(' ')))") == [
        -1,
        -1,
    ]


def test_shares_are_not_rounded_up() -> None:
    assert run("const t = new Texts(['en']); tell([0, 0.005, 0.29, 0.999, 1].map((share) => t.percent(share)))") == [
        *("0%", "0%", "29%", "99%", "100%"),
    ]


def test_durations() -> None:
    seconds = [0, 0.2, 9.1, 11, 58, 60, 61, 119.5, 3599, 7139, 7200, 90_000]
    assert run(f"const t = new Texts(['en']); tell({seconds}.map((s) => t.duration(s)))") == [
        *("1 second", "1 second", "10 seconds", "15 seconds", "1 minute", "1 minute", "2 minutes", "2 minutes"),
        *("60 minutes", "119 minutes", "2 hours", "25 hours"),
    ]


def test_a_second_language_is_one_table() -> None:
    told = run("""
      LANGUAGES.pl = { ...LANGUAGES.en, totalCount: { one: 'plik', few: 'pliki', many: 'plików', other: 'pliku' } };
      const texts = new Texts(['xx', 'pl-PL', 'en']);
      tell([
        texts.language, texts.locale, ...[1, 3, 5, 22, 1.5].map((count) => texts.say('totalCount', { count })),
        texts.size(1.5 * 2 ** 20), texts.say('keep'),
      ]);
    """)
    assert told == ["pl", "pl-PL", "plik", "pliki", "plików", "pliki", "pliku", "1,5 MB", "Keep"]


@pytest.mark.parametrize(
    ("wanted", "language"), [([], "en"), (["fr"], "en"), (["EN-us"], "en"), (["de", "en-AU"], "en")]
)
def test_the_best_language_that_there_is(wanted: list[str], language: str) -> None:
    assert run(f"tell(new Texts({json.dumps(wanted)}).language)") == language
