import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from hmac_file_server.config import Redis, Secret, Settings
from hmac_file_server.config.model import KEYS, SECTIONS, Key

INTERFACE = {
    "server": "listen_address base_path storage_path processes max_upload_size min_free_bytes file_ttl "
    "trusted_proxies networkevents enable_dynamic_workers worker_scale_up_thresh worker_scale_down_thresh mptcp "
    "tls_certificate tls_key",
    "workers": "numworkers max_workers uploadqueuesize",
    "uploads": "chunked_uploads_enabled resumable_uploads_enabled interim_responses chunk_size max_resumable_age "
    "max_sessions_per_owner allowed_extensions durability",
    "timeouts": "readtimeout writetimeout idletimeout header_timeout stall_timeout min_rate",
    "deduplication": "enabled maxsize hash",
    "security": "secret schemes strict_signatures jwt_secret delete_secret",
    "redis": "enabled url",
    "network_resilience": "stabilization_delay poll_interval max_pause",
    "logging": "level format file",
    "admin": "listen_address token",
}


@pytest.mark.parametrize("section", INTERFACE)
def test_every_key_of_the_interface_is_a_field(section: str) -> None:
    names = {field.name for field in dataclasses.fields(SECTIONS[section])}
    assert set(INTERFACE[section].split()) <= names


def test_the_embedded_defaults() -> None:
    settings = Settings()
    assert settings.server.listen_address == ("127.0.0.1:8080",)
    assert settings.server.base_path == ("/", "/upload/")
    assert settings.server.storage_path == Path("data")
    assert settings.server.processes == "auto"
    assert settings.server.max_upload_size == 10 * 1024**3
    assert settings.server.min_free_bytes == 1024**3
    assert settings.server.file_ttl is None
    assert settings.server.tls_certificate is None
    assert settings.workers.numworkers == 4
    assert settings.uploads.chunk_size == 5 * 1024**2
    assert settings.uploads.max_resumable_age == 86400.0
    assert settings.uploads.allowed_extensions == ()
    assert settings.uploads.durability == "full"
    assert settings.timeouts.readtimeout == settings.timeouts.writetimeout == settings.timeouts.idletimeout == 4800.0
    assert settings.timeouts.min_rate == 64
    assert settings.deduplication.hash == "blake3"
    assert settings.security.secret == ()
    assert settings.security.delete_secret is None
    assert settings.security.schemes == ("v1", "v2", "token", "v3", "signature", "prosody-jwt", "ticket")
    assert settings.security.strict_signatures is False
    assert settings.network_resilience.stabilization_delay == 2.0
    assert settings.logging.level == "info"
    assert settings.logging.file is None
    assert settings.admin.listen_address == ("127.0.0.1:9090",)


def test_settings_are_frozen_and_carry_nothing_else() -> None:
    settings = Settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.server.mptcp = False  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.server = settings.server  # type: ignore[misc]
    assert not hasattr(settings, "__dict__")
    assert not hasattr(settings.server, "__dict__")


def test_equal_settings_are_equal() -> None:
    assert Settings() == Settings()
    assert Settings() != dataclasses.replace(Settings(), redis=Redis(enabled=True))


def test_no_secret_in_their_text() -> None:
    changed = dataclasses.replace(
        Settings(),
        redis=Redis(url="redis://:marker-1@h/0"),
        security=dataclasses.replace(
            Settings().security, secret=(Secret("marker-2"),), delete_secret=Secret("marker-3")
        ),
        admin=dataclasses.replace(Settings().admin, token=Secret("marker-4")),
    )
    assert "marker" not in repr(changed)
    assert "marker" not in "".join(key.kind.show(key.value(changed)) for key in KEYS.values())


@pytest.mark.parametrize("key", KEYS.values(), ids=str)
def test_a_default_is_allowed_and_is_shown_as_it_is_read(key: Key) -> None:
    shown = key.kind.show(key.default)
    if key.secret or shown == '""':
        return
    import tomllib

    raw = tomllib.loads(f"x = {shown}")["x"]
    value = key.kind.read(raw)
    assert (Path(value) if isinstance(key.default, Path) else value) == key.default


@pytest.mark.parametrize("key", KEYS.values(), ids=str)
def test_a_key_says_what_it_does(key: Key) -> None:
    assert key.text[0].isupper() or key.text.startswith(("full:", "text,"))
    assert key.text.endswith(".")
    assert key.kind.allowed


def test_the_package_is_imported_without_the_heavy_modules() -> None:
    heavy = [
        "tomllib",
        "difflib",
        "asyncio",
        "msgspec",
        "click",
        "logging",
        "ssl",
        "socket",
    ]
    code = f"import sys, hmac_file_server.config; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": str(Path(__file__).parents[3] / "src")})  # fmt: skip
    assert done.stdout.strip() == "[]"
