"""Every parser of ours, by name."""

from __future__ import annotations

from tests.fuzz import (
    application_targets,
    auth_targets,
    client_targets,
    config_targets,
    field_targets,
    form_targets,
    http_targets,
)
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for room in (
        http_targets, auth_targets, field_targets, form_targets, config_targets, client_targets, application_targets
    )
    for target in room.TARGETS
}  # fmt: skip
