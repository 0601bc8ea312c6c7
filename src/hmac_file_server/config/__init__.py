"""Configuration: a frozen `Settings`, loaded from a TOML file, the environment and --set."""

from hmac_file_server.config.changes import apply_live, reload_diff
from hmac_file_server.config.errors import ConfigError
from hmac_file_server.config.loader import Loaded, load, with_secret
from hmac_file_server.config.model import (
    Admin,
    Deduplication,
    Logging,
    NetworkResilience,
    Redis,
    Security,
    Server,
    Settings,
    Timeouts,
    Uploads,
    Workers,
)
from hmac_file_server.config.secrets import Secret

__all__ = [
    "Admin",
    "ConfigError",
    "Deduplication",
    "Loaded",
    "Logging",
    "NetworkResilience",
    "Redis",
    "Secret",
    "Security",
    "Server",
    "Settings",
    "Timeouts",
    "Uploads",
    "Workers",
    "apply_live",
    "load",
    "reload_diff",
    "with_secret",
]
