"""docs/configuration.md tells of every setting, and of nothing else."""

import re
from pathlib import Path

import pytest

from hmac_file_server.config import aliases, load, template
from hmac_file_server.config.model import KEYS, SECTIONS, Key

PAGE = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text(encoding="utf-8")


def rows(section: str) -> dict[str, list[str]]:
    text = PAGE.partition(f"\n### [{section}]\n")[2]
    text = re.split(r"\n(?:#|Notes:)", text)[0]
    found = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return {cells[0].strip(" `"): [cell.strip() for cell in cells[1:]] for cells in found}


def test_every_section_is_there_in_order() -> None:
    assert re.findall(r"^### \[(.*)\]$", PAGE, re.MULTILINE) == list(SECTIONS)


@pytest.mark.parametrize("section", SECTIONS)
def test_no_key_is_documented_that_does_not_exist(section: str) -> None:
    assert list(rows(section)) == [key.name for key in KEYS.values() if key.section == section]


@pytest.mark.parametrize("key", KEYS.values(), ids=str)
def test_every_setting_is_documented_as_it_is(key: Key) -> None:
    default, live, meaning = rows(key.section)[key.name]
    assert default == ("" if key.secret else f"`{key.kind.show(key.default)}`")
    assert (live == "yes") is key.live
    assert meaning == f"{template.described(key)} Allowed: {key.kind.allowed}."


@pytest.mark.parametrize("key", [key for key in KEYS.values() if key.secret], ids=str)
def test_secret_files_are_documented(key: Key) -> None:
    assert f"`{key.name}_file`" in PAGE


def table(below: str) -> list[tuple[str, str]]:
    text = PAGE.partition(below)[2].partition("\n\n")[0]
    return re.findall(r"^\| `(.*?)` \| (.*) \|$", text, re.MULTILINE)


def test_every_key_of_the_go_server_with_a_meaning_is_documented() -> None:
    documented = dict(table("| Go key | here |\n"))
    assert set(documented) == set(aliases.RENAMED) | set(aliases.COMBINED)
    for spelled, name in aliases.RENAMED.items():
        assert documented[spelled] == f"`{name}`"


def test_every_key_of_the_go_server_without_one_is_documented() -> None:
    expected = {**aliases.IGNORED, **{f"[{name}]": why for name, why in aliases.IGNORED_SECTIONS.items()}}
    assert dict(table("| Go key or section | why |\n")) == expected


def test_the_tables_of_aliases_do_not_contradict_each_other() -> None:
    own = {f"{aliases.folded(key.section)}.{aliases.folded(key.name)}" for key in KEYS.values()}
    tables = [set(aliases.RENAMED), set(aliases.COMBINED), set(aliases.IGNORED), own]
    for index, one in enumerate(tables):
        for other in tables[index + 1 :]:
            assert one & other == set()
    assert set(aliases.RENAMED.values()) <= set(KEYS)
    folded = {name for one in tables for name in one}
    assert all(name == aliases.folded(name) for name in folded)
    assert not {aliases.folded(section) for section in SECTIONS} & set(aliases.IGNORED_SECTIONS)


def test_the_example_of_a_rotation_loads(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    path.write_text(block)
    path.chmod(0o600)
    loaded = load(path, environ={}, overrides=())
    assert len(loaded.settings.security.secret) == 2
    assert loaded.warnings == ()
