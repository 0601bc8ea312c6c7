"""Secrets: a type that never shows itself, the rules a secret must meet, and the embedded default's one."""

import hmac
import os
from collections.abc import Iterable
from pathlib import Path

PRIVATE_FOLDER = ".hmac-file-server"
"""The folder below the storage path that holds our own state; never served."""

SHORTEST_LENGTH = 16
"""Bytes below which a secret is refused."""

ADVISED_LENGTH = 32
"""Bytes below which a secret is warned about (RFC 2104, section 3: no less than the hash's output)."""

PUBLISHED = frozenset(
    {
        # samples and templates of the Go hmac-file-server
        "changeme",
        "change-me",
        "change_me",
        "change-this",
        "changethis",
        "change_this_secret",
        "change-this-secret",
        "default",
        "default-secret",
        "hmac-file-server-is-the-win",
        "hmac_secret",
        "your-secret",
        "your-secret-here",
        "your-secret-key",
        "your-secret-key-here",
        "your_secret_here",
        "your-hmac-secret",
        "your-hmac-secret-here",
        "your_hmac_secret",
        "your-jwt-secret",
        "your-jwt-secret-here",
        "your-shared-secret",
        "your-super-secret-hmac-key",
        "your-super-secret-key",
        "your-very-secret-hmac-key",
        "your-very-secret-key",
        "your-secure-hmac-secret",
        "your_hmac_signature",
        "supersecret",
        "super-secret",
        "stronghmacsecret",
        "stronghmackey",
        # documentation of Prosody, its modules' share.php, and the receivers around it
        "it-is-secret",
        "secret string",
        "your secret",
        "this is your secret string",
        "this is secret",
        "shared-secret",
        # what people type
        "secret",
        "password",
        "passw0rd",
        "admin",
        "test",
        "123456",
        "12345678",
    }
)
"""Secrets printed in public documents, lower case: refused."""


class Secret:
    """Secret bytes that neither print nor log; `reveal` is the only way to them."""

    __slots__ = ("_value",)

    def __init__(self, value: str | bytes) -> None:
        self._value = value.encode() if isinstance(value, str) else bytes(value)

    def reveal(self) -> bytes:
        """The bytes themselves (UTF-8 where the secret was text)."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "***"

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        return hash(self._value)


def refusal(secret: Secret) -> str | None:
    """Why a secret may not be used, or None."""
    text = secret.reveal().strip()
    if not text:
        return "an empty secret would let everybody sign"
    if text.decode("utf-8", "replace").lower() in PUBLISHED:
        return "this secret is printed in public documentation; make a new one, as by: openssl rand -hex 32"
    if len(text) < SHORTEST_LENGTH:
        return f"a secret must have at least {SHORTEST_LENGTH} bytes; make one, as by: openssl rand -hex 32"
    if b"\0" in text:
        return "a secret with a NUL byte"
    return None


def read(path: Path) -> Secret:
    """The secret in a file, less its line end. OSError when it cannot be read, ValueError beyond 64 KiB."""
    with path.open("rb") as file:
        content = file.read(65537)
    if len(content) > 65536:
        raise ValueError("a secret file of more than 64 KiB")
    return Secret(content.rstrip(b"\r\n"))


def fresh() -> Secret:
    """A new secret: 32 random bytes as 64 hexadecimal digits."""
    return Secret(os.urandom(32).hex())


def default_file(storage_path: Path) -> Path:
    """Where the secret of the embedded defaults is kept."""
    return storage_path / PRIVATE_FOLDER / "secret"


def ensure(storage_path: Path) -> tuple[Secret, bool]:
    """The secret of the embedded defaults, made (0600, in a 0700 folder) when there is none.

    Returns the secret and whether it is new. Several processes may call it at once: one of them makes the
    secret, all get the same. Raises OSError when the storage cannot be written, ValueError for a kept secret
    that may not be used.
    """
    path = default_file(storage_path)
    try:
        return _usable(path), False
    except FileNotFoundError:
        pass
    storage_path.mkdir(mode=0o750, parents=True, exist_ok=True)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    # Written whole under another name and linked, so that nobody ever reads half a secret.
    draft = path.with_name(f"secret.{os.getpid()}.{os.urandom(4).hex()}")
    write_private(draft, fresh().reveal() + b"\n")
    try:
        os.link(draft, path)
        made = True
    except FileExistsError:
        made = False
    finally:
        draft.unlink()
    _sync_folder(path.parent)
    return _usable(path), made


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that only its owner may read; FileExistsError when there is one."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def short(secrets: Iterable[Secret]) -> int | None:
    """Length in bytes of the shortest secret below the advised length, or None."""
    lengths = [len(secret) for secret in secrets if len(secret) < ADVISED_LENGTH]
    return min(lengths) if lengths else None


def _usable(path: Path) -> Secret:
    secret = read(path)
    reason = refusal(secret)
    if reason is not None:
        raise ValueError(reason)
    return secret


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
