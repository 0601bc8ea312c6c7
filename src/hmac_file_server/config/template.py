"""A commented configuration file: every key with what it does and its default, some of them set."""

import textwrap
from collections.abc import Mapping

from hmac_file_server.config.model import KEYS, SECTIONS, Key

_HEAD = """\
# Configuration of hmac-file-server.
# A line that begins with # shows a default.
# Sizes: "10MB", "1.5GiB" (1 KB = 1024 bytes); durations: "30s", "1h30m", "7d".
# Check with: hmac-file-server config check FILE
"""


def described(key: Key) -> str:
    """What a key does, and whether this release uses it."""
    return key.text + (" Not used by this release." if key.planned else "")


def render(given: Mapping[str, str]) -> str:
    """The file as text; `given` sets keys ("server.storage_path") to TOML values, the rest are comments."""
    unknown = set(given) - set(KEYS)
    if unknown:
        raise KeyError(f"no such settings: {', '.join(sorted(unknown))}")
    lines = [_HEAD]
    for section in SECTIONS:
        lines.append(f"[{section}]")
        for name, key in KEYS.items():
            if key.section != section:
                continue
            lines += textwrap.wrap(described(key), 106, initial_indent="# ", subsequent_indent="# ")
            if name in given:
                lines.append(f"{key.name} = {given[name]}")
            elif key.secret:
                lines.append(f'#{key.name}_file = "/path/to/{key.name}"')
            else:
                lines.append(f"#{key.name} = {key.kind.show(key.default)}")
        lines.append("")
    return "\n".join(lines)
