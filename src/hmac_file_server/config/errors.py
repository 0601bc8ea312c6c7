"""What can be wrong with a configuration."""


def printable(text: str) -> str:
    """The text with everything that is not printable as an escape: names and values may come from anywhere."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class ConfigError(Exception):
    """A configuration that cannot be used.

    `code` is one of: syntax (no TOML), value (a value that is not allowed), secret (missing, empty or
    published), file (a file that cannot be read), conflict (two settings that exclude each other),
    override (a malformed --set or environment name). `others` are further errors of the same load.
    """

    def __init__(
        self,
        message: str,
        file: str | None = None,
        line: int | None = None,
        key: str | None = None,
        code: str = "value",
        others: tuple["ConfigError", ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line
        self.key = key
        self.code = code
        self.others = others

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        parts = [part for part in (where, self.key, self.message) if part]
        return printable(": ".join(parts))

    @property
    def all(self) -> tuple["ConfigError", ...]:
        """This error and the others of the same load, in order."""
        return (self, *self.others)
