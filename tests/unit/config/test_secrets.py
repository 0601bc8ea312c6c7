import concurrent.futures
import os
import stat
from pathlib import Path

import pytest

from hmac_file_server.config import secrets
from hmac_file_server.config.secrets import Secret

MARKER = "marker-6f1f6a70c3"


def test_a_secret_shows_itself_only_on_demand() -> None:
    secret = Secret(MARKER)
    shown = f"{secret} {secret!r} {secret!s} {secret:>30} {[secret]} { ({'a': secret}) }"
    assert MARKER not in shown
    assert MARKER.encode() == secret.reveal()


def test_text_is_its_utf8_bytes() -> None:
    assert Secret("tr\u00e8s").reveal() == b"tr\xc3\xa8s"
    assert Secret(b"\x00\xff").reveal() == b"\x00\xff"
    assert len(Secret("\u00e8")) == 2


def test_equality_is_by_value_and_only_among_secrets() -> None:
    assert Secret("a") == Secret(b"a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2


@pytest.mark.parametrize("text", ["", " ", "\n", "\t \n"])
def test_an_empty_secret_is_refused(text: str) -> None:
    assert "empty" in (secrets.refusal(Secret(text)) or "")


@pytest.mark.parametrize(
    "text", ["changeme", "CHANGEME", " your-secret-here ", "it-is-secret", "secret string", "password"]
)
def test_a_published_secret_is_refused(text: str) -> None:
    assert "public documentation" in (secrets.refusal(Secret(text)) or "")


def test_every_published_secret_is_listed_in_lower_case() -> None:
    assert all(text == text.lower().strip() for text in secrets.PUBLISHED)


def test_a_good_secret_is_not_refused() -> None:
    assert secrets.refusal(secrets.fresh()) is None
    assert secrets.refusal(Secret("x" * 16)) is None
    assert secrets.refusal(Secret("x" * 16 + "\0")) is not None


def test_a_secret_that_can_be_guessed_is_refused() -> None:
    assert "at least 16 bytes" in (secrets.refusal(Secret("x" * 15)) or "")
    assert "at least 16 bytes" in (secrets.refusal(Secret("x" + " " * 20)) or "")


def test_fresh_secrets_are_32_bytes_in_hex_and_differ() -> None:
    one, two = secrets.fresh(), secrets.fresh()
    assert one != two
    assert len(bytes.fromhex(one.reveal().decode())) == 32


def test_a_file_gives_its_content_without_the_line_end(tmp_path: Path) -> None:
    path = tmp_path / "s"
    for content, expected in [(b"abc", b"abc"), (b"abc\n", b"abc"), (b"abc\r\n", b"abc"), (b" abc \n\n", b" abc ")]:
        path.write_bytes(content)
        assert secrets.read(path).reveal() == expected


def test_a_huge_file_is_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_bytes(b"x" * 65537)
    with pytest.raises(ValueError, match="64 KiB"):
        secrets.read(path)


def test_ensure_makes_a_private_secret_once(tmp_path: Path) -> None:
    storage = tmp_path / "data"
    secret, made = secrets.ensure(storage)
    again, made_again = secrets.ensure(storage)
    path = secrets.default_file(storage)
    assert (made, made_again) == (True, False)
    assert secret == again
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(storage.stat().st_mode) & ~0o750 == 0
    assert os.listdir(path.parent) == ["secret"]
    assert path.parent == storage / ".hmac-file-server"


def test_ensure_called_at_once_gives_everybody_the_same(tmp_path: Path) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: secrets.ensure(tmp_path), range(16)))
    assert len({secret for secret, _ in results}) == 1
    assert sum(made for _, made in results) == 1
    assert os.listdir(tmp_path / ".hmac-file-server") == ["secret"]


def test_ensure_does_not_replace_a_kept_secret_that_is_unusable(tmp_path: Path) -> None:
    path = secrets.default_file(tmp_path)
    path.parent.mkdir()
    path.write_bytes(b"\n")
    with pytest.raises(ValueError, match="empty"):
        secrets.ensure(tmp_path)
    assert path.read_bytes() == b"\n"


def test_ensure_says_when_the_storage_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        secrets.ensure(tmp_path / "data")


def test_a_private_file_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "f"
    secrets.write_private(path, b"one")
    with pytest.raises(FileExistsError):
        secrets.write_private(path, b"two")
    assert path.read_bytes() == b"one"


def test_the_shortest_of_short_secrets() -> None:
    assert secrets.short([Secret("x" * 32)]) is None
    assert secrets.short([Secret("x" * 31), Secret("x" * 8), Secret("x" * 64)]) == 8
    assert secrets.short([]) is None
