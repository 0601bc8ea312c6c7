"""What a reload changes, and what of it needs a restart."""

from dataclasses import replace

from hmac_file_server.config.model import KEYS, Settings


def reload_diff(old: Settings, new: Settings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Dotted names of the keys that differ: (those that can be applied now, those that need a restart)."""
    changed = [name for name, key in KEYS.items() if key.value(old) != key.value(new)]
    live = tuple(name for name in changed if KEYS[name].live)
    return live, tuple(name for name in changed if not KEYS[name].live)


def apply_live(old: Settings, new: Settings) -> Settings:
    """`old` with those values of `new` that can be applied without a restart."""
    settings = old
    for name in reload_diff(old, new)[0]:
        key = KEYS[name]
        section = replace(getattr(settings, key.section), **{key.name: key.value(new)})
        settings = replace(settings, **{key.section: section})
    return settings
