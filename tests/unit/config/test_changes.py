from dataclasses import replace
from typing import Any

import pytest

from hmac_file_server.config import Secret, Settings, apply_live, reload_diff
from hmac_file_server.config.model import KEYS

OLD = Settings()

NEEDS_RESTART = {
    "server.listen_address",
    "server.base_path",
    "server.storage_path",
    "server.processes",
    "server.networkevents",
    "server.enable_dynamic_workers",
    "server.worker_scale_up_thresh",
    "server.worker_scale_down_thresh",
    "server.mptcp",
    "workers.numworkers",
    "workers.max_workers",
    "workers.uploadqueuesize",
    "uploads.durability",
    "deduplication.hash",
    "redis.enabled",
    "redis.url",
    "admin.listen_address",
}


def changed(**sections: dict[str, Any]) -> Settings:
    settings = OLD
    for section, values in sections.items():
        settings = replace(settings, **{section: replace(getattr(settings, section), **values)})
    return settings


def test_nothing_changed() -> None:
    assert reload_diff(OLD, Settings()) == ((), ())
    assert apply_live(OLD, Settings()) == OLD


def test_what_can_be_applied_and_what_cannot() -> None:
    new = changed(server={"max_upload_size": 1, "mptcp": False}, uploads={"durability": "relaxed", "chunk_size": 1024})
    assert reload_diff(OLD, new) == (
        ("server.max_upload_size", "uploads.chunk_size"),
        ("server.mptcp", "uploads.durability"),
    )
    applied = apply_live(OLD, new)
    assert applied.server.max_upload_size == 1
    assert applied.uploads.chunk_size == 1024
    assert applied.server.mptcp is True
    assert applied.uploads.durability == "full"
    assert reload_diff(applied, new) == ((), ("server.mptcp", "uploads.durability"))


def test_a_rotated_secret_is_applied() -> None:
    new = changed(security={"secret": (Secret("new"), Secret("old"))})
    assert reload_diff(OLD, new) == (("security.secret",), ())
    assert apply_live(OLD, new).security.secret[0] == Secret("new")


@pytest.mark.parametrize("name", KEYS)
def test_the_table_of_live_keys(name: str) -> None:
    assert KEYS[name].live is (name not in NEEDS_RESTART)
