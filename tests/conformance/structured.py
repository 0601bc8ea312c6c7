"""Structured fields (RFC 9651), as far as the draft's fields need them: items and dictionaries, read strictly."""

from __future__ import annotations

import base64
import binascii
import re

Bare = bool | int | float | str | bytes

_KEY = re.compile(r"[a-z*][a-z0-9_\-.*]*")
_NUMBER = re.compile(r"-?(?:[0-9]{1,12}\.[0-9]{1,3}|[0-9]{1,15})(?![0-9.])")
_STRING = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_TOKEN = re.compile(r"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*")
_BYTES = re.compile(r":([A-Za-z0-9+/]*={0,2}):")
_BOOLEAN = re.compile(r"\?([01])")
_COMMA = re.compile(r"[ \t]*,[ \t]*(?=[^ \t])")


class _Reader:
    """A place in a field's value."""

    def __init__(self, text: str) -> None:
        self.text = text.strip(" ")
        self.at = 0

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.at)
        if found is not None:
            self.at = found.end()
        return found

    def sign(self, sign: str) -> bool:
        if not self.text.startswith(sign, self.at):
            return False
        self.at += 1
        return True

    def end(self) -> bool:
        return self.at == len(self.text)

    def bare(self) -> Bare:
        if found := self.take(_BOOLEAN):
            return found.group(1) == "1"
        if found := self.take(_NUMBER):
            return float(found.group()) if "." in found.group() else int(found.group())
        if found := self.take(_STRING):
            return re.sub(r"\\(.)", r"\1", found.group(1))
        if found := self.take(_BYTES):
            try:
                return base64.b64decode(found.group(1), validate=True)
            except binascii.Error as error:
                raise ValueError(str(error)) from None
        if found := self.take(_TOKEN):
            return found.group()
        raise ValueError(f"no item at {self.at} of {self.text!r}")

    def parameters(self) -> None:
        while self.sign(";"):
            while self.sign(" "):
                pass
            if self.take(_KEY) is None:
                raise ValueError(f"no parameter at {self.at} of {self.text!r}")
            if self.sign("="):
                self.bare()


def item(text: str) -> Bare:
    """The value of an Item; its parameters are read and dropped. ValueError for anything else."""
    reader = _Reader(text)
    value = reader.bare()
    reader.parameters()
    if not reader.end():
        raise ValueError(f"more than an item: {text!r}")
    return value


def dictionary(text: str) -> dict[str, Bare]:
    """The members of a Dictionary of Items. ValueError for anything else, inner lists too."""
    reader = _Reader(text)
    members: dict[str, Bare] = {}
    while not reader.end():
        key = reader.take(_KEY)
        if key is None:
            raise ValueError(f"no key at {reader.at} of {text!r}")
        members[key.group()] = reader.bare() if reader.sign("=") else True
        reader.parameters()
        if not reader.end() and reader.take(_COMMA) is None:
            raise ValueError(f"no comma at {reader.at} of {text!r}")
    return members
