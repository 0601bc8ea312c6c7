from pathlib import Path

import pytest

from hmac_file_server.config import Settings, load, template
from hmac_file_server.config.model import KEYS


def uncommented(text: str) -> str:
    return "\n".join(
        line[1:] if line.startswith("#") and not line.startswith("# ") else line
        for line in text.splitlines()
        if "_file = " not in line
    )


def test_every_key_is_in_it_once_with_its_default() -> None:
    text = template.render({})
    for key in KEYS.values():
        shown = f'#{key.name}_file = "' if key.secret else f"#{key.name} = {key.kind.show(key.default)}\n"
        section = text.partition(f"[{key.section}]")[2].partition("\n[")[0]
        assert section.count(shown) == 1


def test_as_it_is_it_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(template.render({}))
    loaded = load(path, environ={}, overrides=())
    assert not loaded.warnings
    assert set(loaded.origins.values()) == {"default"}


def test_with_every_comment_taken_off_it_says_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.toml"
    path.write_text(uncommented(template.render({})))
    loaded = load(path, environ={}, overrides=())
    defaults = load(None, environ={}, overrides=()).settings
    assert loaded.settings == defaults
    assert not loaded.warnings
    assert Settings().server.storage_path.name == loaded.settings.server.storage_path.name


def test_given_values_are_set(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(template.render({"server.max_upload_size": '"1MB"', "security.secret": '"' + "x" * 32 + '"'}))
    path.chmod(0o600)
    loaded = load(path, environ={}, overrides=())
    assert loaded.settings.server.max_upload_size == 1024**2
    assert loaded.settings.security.secret[0].reveal() == b"x" * 32
    assert not loaded.warnings


def test_a_key_that_does_not_exist_is_refused() -> None:
    with pytest.raises(KeyError, match="no such settings"):
        template.render({"uploads.chunk_siz": "1"})
