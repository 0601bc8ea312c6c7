"""Kinds of values: how each is read from TOML or text, what is allowed, how it is shown.

`read` takes what TOML gives (str, int, float, bool, list) and returns the typed value, or raises ValueError
with the reason. Text alone must do for every kind, because environment variables and --set know nothing else.
"""

# ruff: noqa: TRY004 - the loader catches one kind of error for every wrong value, its type included

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hmac_file_server.config import addresses, durations, sizes
from hmac_file_server.config.secrets import Secret


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value; `allowed` completes the sentence "allowed: ..."."""

    name: str
    allowed: str
    read: Callable[[Any], Any]
    show: Callable[[Any], str]
    is_list: bool = False


# A host, a port and the number of a database.
_PLACE = re.compile(r"(?:[A-Za-z0-9._-]*|\[[0-9A-Fa-f:.%a-z]*\])(?::[0-9]{0,5})?(?:/[0-9]{0,4})?")
_OFF = frozenset({"", "off", "none", "never", "0", "false", "no"})


def _switch(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    text = str(raw).strip().lower() if isinstance(raw, str) else ""
    if text in {"true", "yes", "on", "1"}:
        return True
    if text in {"false", "no", "off", "0"}:
        return False
    raise ValueError("neither true nor false")


SWITCH = Kind("switch", "true or false", _switch, lambda value: "true" if value else "false")


def whole_number(low: int, high: int) -> Kind:
    """A whole number from `low` to `high`."""

    def read(raw: Any) -> int:
        number = _integer(raw)
        if not low <= number <= high:
            raise ValueError("out of range")
        return number

    return Kind("number", f"a whole number from {low} to {high}", read, str)


def size(low: int, high: int = sizes.LARGEST) -> Kind:
    """Bytes, from `low` to `high`; a bare number is bytes."""

    def read(raw: Any) -> int:
        if isinstance(raw, bool) or not isinstance(raw, str | int):
            raise ValueError("not a size")
        number = sizes.parse(raw) if isinstance(raw, str) else raw
        if not low <= number <= high:
            raise ValueError("out of range")
        return number

    bounds = f", from {sizes.show(low)}" + ("" if high == sizes.LARGEST else f" to {sizes.show(high)}")
    allowed = 'bytes as a number, or a size such as "64KB", "10MB", "1.5GiB" (1 KB = 1024 bytes)' + bounds
    return Kind("size", allowed, read, lambda value: _quoted(sizes.show(value)))


def rate() -> Kind:
    """Bytes a second: a size, with or without "/s"; 0 is no bound."""
    plain = size(0)

    def read(raw: Any) -> Any:
        return plain.read(raw.strip().lower().removesuffix("/s") if isinstance(raw, str) else raw)

    allowed = 'bytes a second, such as "64B" or "1KB/s"; 0 = no bound'
    return Kind("rate", allowed, read, plain.show)


def duration(low: float, high: float = durations.LONGEST) -> Kind:
    """Seconds, from `low` to `high`."""

    def read(raw: Any) -> float:
        if isinstance(raw, bool) or not isinstance(raw, str | int | float):
            raise ValueError("not a duration")
        seconds = durations.parse(str(raw))
        if not low <= seconds <= high:
            raise ValueError("out of range")
        return seconds

    bounds = f", from {durations.show(low)}"
    bounds += "" if high == durations.LONGEST else f" to {durations.show(high)}"
    allowed = 'a duration with a unit, such as "500ms", "30s", "1h30m", "7d"' + bounds
    return Kind("duration", allowed, read, lambda value: _quoted(durations.show(value)))


def optional_duration(low: float) -> Kind:
    """Seconds, or None for "off"."""
    plain = duration(low)

    def read(raw: Any) -> Any:
        if raw is False or raw == 0 or (isinstance(raw, str) and raw.strip().lower() in _OFF):
            return None
        return plain.read(raw)

    return Kind(
        "duration or off",
        plain.allowed + ', or "off"',
        read,
        lambda value: '"off"' if value is None else plain.show(value),
    )


def choice(*words: str, **others: str) -> Kind:
    """One of some words; `others` are further spellings of them."""

    def read(raw: Any) -> str:
        word = raw.strip().lower() if isinstance(raw, str) else ""
        word = others.get(word, word)
        if word not in words:
            raise ValueError("not one of the words")
        return word

    return Kind("word", " or ".join(_quoted(word) for word in words), read, _quoted)


def _text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise ValueError("not text")
    if any(ord(c) < 32 or ord(c) == 127 for c in raw):
        raise ValueError("a control character in it")
    return raw


TEXT = Kind("text", "text", _text, json.dumps)


def _redis_url(raw: Any) -> str:
    text = _text(raw)
    if not text.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("not a Redis URL")
    return text


def has_password(url: str) -> bool:
    """Whether a Redis URL names a user or a password, or might."""
    return "***" in _shown_url(url) or "password=" in url


def _masked_url(url: str) -> str:
    return _quoted(_shown_url(url))


def _shown_url(url: str) -> str:
    """The URL without whatever may be a password: people write them unescaped, with "/", "?" and "#" in them."""
    scheme, mark, rest = url.partition("://")
    login, at, place = rest.rpartition("@")
    if at and ("?" in login or "#" in login):
        # Either of them may be of the password, or begin a query whose password has the "@".
        return f"{scheme}{mark}***"
    place = re.split("[?#]", place, maxsplit=1)[0]
    if not at and scheme != "unix" and _PLACE.fullmatch(place) is None:
        # "redis://:password", where the host was forgotten.
        place = "***"
    return scheme + mark + ("***" if login else "") + at + place


REDIS_URL = Kind(
    "URL",
    'a URL: "redis://:password@127.0.0.1:6379/0", "rediss://..." or "unix:///path"',
    _redis_url,
    _masked_url,
)


def _number_or_auto(raw: Any) -> Any:
    if isinstance(raw, str) and raw.strip().lower() == "auto":
        return "auto"
    number = _integer(raw)
    if not 1 <= number <= 64:
        raise ValueError("out of range")
    return number


PROCESSES = Kind(
    "number or auto",
    '"auto" or a whole number from 1 to 64',
    _number_or_auto,
    lambda value: '"auto"' if value == "auto" else str(value),
)


def texts(read_one: Callable[[str], str], allowed: str, *, empty: bool = True) -> Kind:
    """A list of texts without doubles, in order; one text alone, or several with commas between, count too."""

    def read(raw: Any) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(read_one(_text(item)) for item in _items(raw)))
        if not found and not empty:
            raise ValueError("an empty list")
        return found

    return Kind("list", allowed, read, _shown_list, is_list=True)


def _shown_list(values: tuple[str, ...]) -> str:
    return "[" + ", ".join(_quoted(value) for value in values) + "]"


def _address(text: str) -> str:
    return str(addresses.parse(text))


ADDRESSES = texts(
    _address,
    'one address or a list of them: "127.0.0.1:8080", "[::1]:8080", "unix:/run/hmac-file-server/http.sock"',
    empty=False,
)


def _optional_addresses(raw: Any) -> Any:
    if raw is False or (isinstance(raw, str) and raw.strip().lower() in _OFF):
        return ()
    return ADDRESSES.read(raw) if raw != [] else ()


OPTIONAL_ADDRESSES = Kind("list", ADDRESSES.allowed + ', or "off"', _optional_addresses, _shown_list, is_list=True)


def _prefix(text: str) -> str:
    bad = "?" in text or "#" in text or "%" in text or "\\" in text
    if bad or any(part in {".", ".."} for part in text.split("/")) or "//" in text.strip():
        raise ValueError("not a plain URL path")
    inner = text.strip().strip("/")
    return f"/{inner}/" if inner else "/"


PREFIXES = texts(_prefix, 'one URL path prefix or a list of them, such as "/" or "/upload/"', empty=False)


def _network(text: str) -> str:
    import ipaddress

    if text.strip().lower() == "unix:":
        return "unix:"
    try:
        return str(ipaddress.ip_network(text.strip(), strict=False))
    except ValueError:
        raise ValueError("not an IP address or network") from None


NETWORKS = texts(_network, 'a list of IP addresses or networks, such as "10.0.0.0/8", or "unix:"')


def _extension(text: str) -> str:
    name = text.strip().lower().removeprefix("*").removeprefix(".")
    if not name or "/" in name or name != name.strip("."):
        raise ValueError("not a file name extension")
    return "." + name


EXTENSIONS = texts(_extension, 'a list of file name extensions, such as [".jpg", "png"]; [] = all')

SCHEME_NAMES = ("v1", "v2", "token", "v3", "signature", "prosody-jwt", "ticket")
"""Every signature scheme, in the order in which the documentation explains them."""


def _schemes(raw: Any) -> tuple[str, ...]:
    words = [item.strip().lower() if isinstance(item, str) else "" for item in _items(raw)]
    if words == ["all"]:
        return SCHEME_NAMES
    for word in words:
        if word not in SCHEME_NAMES:
            raise ValueError("not one of the words")
    if not words:
        raise ValueError("an empty list")
    return tuple(name for name in SCHEME_NAMES if name in words)


SCHEMES = Kind(
    "list",
    'a list of the words "' + '", "'.join(SCHEME_NAMES) + '", or "all"',
    _schemes,
    _shown_list,
    is_list=True,
)


def _path(raw: Any) -> str:
    text = _text(raw)
    if not text:
        raise ValueError("an empty path")
    return text


PATH = Kind("path", "a path", _path, lambda value: _quoted(str(value)))
"""A file or folder; the loader makes a relative one absolute to the folder of the file that names it."""

OPTIONAL_PATH = Kind("path", 'a path, or ""', _text, lambda value: '""' if value is None else _quoted(str(value)))


def _secret_list(raw: Any) -> tuple[Secret, ...]:
    # A secret may hold a comma: text is one secret, whatever is in it.
    items = raw if isinstance(raw, list) else [raw]
    if not all(isinstance(item, str) for item in items):
        raise ValueError("not text")
    return tuple(dict.fromkeys(Secret(item) for item in items))


def _shown_secrets(values: tuple[Secret, ...]) -> str:
    return "[" + ", ".join('"***"' for _ in values) + "]"


SECRETS = Kind("secrets", "a secret, or a list whose first one signs", _secret_list, _shown_secrets)


def _one_secret(raw: Any) -> Secret:
    if not isinstance(raw, str):
        raise ValueError("not text")
    return Secret(raw)


SECRET = Kind("secret", "a secret", _one_secret, lambda value: '""' if value is None else '"***"')


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _integer(raw: Any) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if isinstance(raw, str):
        text = raw.strip()
        digits = text.removeprefix("-")
        if digits.isascii() and digits.isdigit() and len(digits) <= 18:
            return int(text)
    raise ValueError("not a whole number")


def _items(raw: Any) -> list[Any]:
    if isinstance(raw, list):
        return raw
    if not isinstance(raw, str):
        raise ValueError("not a list")
    return [part.strip() for part in raw.split(",") if part.strip()]
