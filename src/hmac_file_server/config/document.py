"""A TOML file as a list of keys with their line numbers.

The standard library's parser gives values but no positions, and refuses a table that is opened twice, as the
guide's own sample does. So a file is cut into its statements here and each is given to that parser alone:
every key keeps its line, and a repeated table is noted instead of refused.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hmac_file_server.config.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Item:
    """One key with its value: `path` is table and key as spelled, `line` counts from 1."""

    path: tuple[str, ...]
    value: Any
    line: int


@dataclass(frozen=True, slots=True)
class Document:
    """A file's keys in order, and the tables that are opened more than once: (name, line, first line)."""

    items: tuple[Item, ...]
    repeated: tuple[tuple[str, int, int], ...]


def parse(text: str, file: str) -> Document:
    """The keys of a TOML text; ConfigError (code "syntax") naming the line that is none."""
    items: list[Item] = []
    repeated: list[tuple[str, int, int]] = []
    opened: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    seen: dict[tuple[str, ...], int] = {}
    for line, statement in _statements(text.removeprefix("\ufeff").replace("\r\n", "\n")):
        try:
            tree = tomllib.loads(statement)
        except tomllib.TOMLDecodeError as error:
            raise _syntax(error, statement, file, line) from None
        except RecursionError:
            raise ConfigError("nested too deep", file, line, code="syntax") from None
        if statement.startswith("["):
            table = _only_path(tree)
            if statement.startswith("[["):
                raise ConfigError(f"[[{'.'.join(table)}]] is a list of tables; write [{'.'.join(table)}]",
                                  file, line, code="syntax")  # fmt: skip
            if table in opened:
                repeated.append((".".join(table), line, opened[table]))
                seen = {}
            opened.setdefault(table, line)
            continue
        for path, value in _leaves(tree, table):
            if path in seen:
                message = f"the key is already set in line {seen[path]}"
                raise ConfigError(message, file, line, ".".join(path), code="syntax")
            seen[path] = line
            items.append(Item(path, value, line))
    return Document(tuple(items), tuple(repeated))


def value(text: str) -> Any:
    """One TOML value such as '["a", "b"]'; ValueError when it is none."""
    return tomllib.loads(f"value = {text}")["value"]


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Number of the first line and text of every statement: a table header, or a key with all its value."""
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        first = lines[at].strip()
        if not first or first.startswith("#"):
            at += 1
            continue
        start, state = at, _Nesting()
        state.feed(lines[at])
        # A header ends with its line whatever is in it, so that an error stays where it is.
        while not first.startswith("[") and state.open and at + 1 < len(lines):
            at += 1
            state.feed(lines[at])
        yield start + 1, "\n".join(lines[start : at + 1]).lstrip(" \t")
        at += 1


class _Nesting:
    """Whether a value goes on in the next line: inside brackets or a string in triple quotes."""

    __slots__ = ("_depth", "_quote")

    def __init__(self) -> None:
        self._depth = 0
        self._quote = ""

    @property
    def open(self) -> bool:
        return self._depth > 0 or len(self._quote) == 3

    def feed(self, line: str) -> None:
        if len(self._quote) == 1:
            self._quote = ""  # a single-line string that never ended: the parser will say so
        at = 0
        while at < len(line):
            char = line[at]
            if self._quote:
                if char == "\\" and self._quote[0] == '"':
                    at += 1
                elif line.startswith(self._quote, at):
                    at += len(self._quote) - 1
                    self._quote = ""
            elif char == "#":
                return
            elif char in "\"'":
                self._quote = char * 3 if line.startswith(char * 3, at) else char
                at += len(self._quote) - 1
            elif char in "[{":
                self._depth += 1
            elif char in "]}":
                self._depth -= 1
            at += 1


def _syntax(error: tomllib.TOMLDecodeError, statement: str, file: str, line: int) -> ConfigError:
    # The parser counts lines within the statement; "(at line 1, column 9)" becomes the file's line.
    message, mark, position = str(error).rpartition(" (at ")
    offset = 0
    if mark and position.startswith("line "):
        number = position.removeprefix("line ").partition(",")[0]
        offset = int(number) - 1 if number.isdigit() else 0
    text = message if mark else str(error)
    hint = ""
    if "=" not in statement and not statement.startswith("["):
        hint = "; a line is [section] or key = value"
    elif "Invalid value" in text or "after a statement" in text:
        hint = '; text stands in quotes, such as "10MB"'
    return ConfigError(f"no valid TOML: {text}{hint}", file, line + offset, code="syntax")


def _only_path(tree: dict[str, Any]) -> tuple[str, ...]:
    path: list[str] = []
    node: Any = tree
    while node:
        node = node[0] if isinstance(node, list) else node
        if not node:
            break
        ((name, node),) = node.items()
        path.append(name)
    return tuple(path)


def _leaves(node: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, below in node.items():
        if isinstance(below, dict) and below:
            yield from _leaves(below, (*path, name))
        else:
            yield (*path, name), below
