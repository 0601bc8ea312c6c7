"""Which server and which secret a command signs for."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from hmac_file_server.cli.failure import Failure
from hmac_file_server.config import Secret, Settings, addresses, load, secrets

SECRET_VARIABLE = "HMAC_FILE_SERVER_SECRET"  # noqa: S105 - a name


def settings_of(config_file: Path | None) -> Settings:
    """The settings of a file, or the embedded defaults; raises ConfigError."""
    return load(config_file, environ=os.environ, overrides=()).settings


def secret_of(settings: Settings, config_file: Path | None, secret_file: Path | None, *, jwt: bool = False) -> Secret:
    """The secret to sign with; `jwt` asks for that of tokens.

    The first of: --secret-file, the configuration's, HMAC_FILE_SERVER_SECRET, the file that a server without
    a configured secret keeps in its storage folder. Raises Failure when there is none or it may not be used.
    """
    if secret_file is not None:
        return _checked(_read(secret_file), str(secret_file))
    if jwt and settings.security.jwt_secret:
        return settings.security.jwt_secret[0]
    if settings.security.secret:
        return settings.security.secret[0]
    if config_file is None and (text := os.environ.get(SECRET_VARIABLE)) is not None:
        return _checked(Secret(text), SECRET_VARIABLE)
    path = secrets.default_file(settings.server.storage_path)
    try:
        return _checked(secrets.read(path), str(path))
    except (FileNotFoundError, NotADirectoryError):
        raise Failure(
            f"no secret: give --config or --secret-file, set {SECRET_VARIABLE}, or run this where the server's "
            f"storage folder is (there is no {path} yet; `serve` makes it)"
        ) from None
    except (OSError, ValueError) as error:
        raise Failure(f"{path}: {_reason(error)}") from None


def base_url_of(settings: Settings, given: str | None) -> str:
    """The server's URL without a trailing slash; raises Failure when it cannot be told from the settings."""
    if given is not None:
        parts = urlsplit(given)
        if parts.scheme not in {"http", "https"} or not parts.netloc or parts.query or parts.fragment:
            raise Failure(f"{given!r} is no base URL; write https://host or https://host/path", 2)
        return given.rstrip("/")
    for text in settings.server.listen_address:
        address = addresses.parse(text)
        if address.url and address.port:
            url = address.url
            return url if settings.server.tls_certificate is None else "https" + url.removeprefix("http")
    raise Failure("the server listens on no address with a URL; give --url")


def _read(path: Path) -> Secret:
    try:
        return secrets.read(path)
    except (OSError, ValueError) as error:
        raise Failure(f"{path}: {_reason(error)}") from None


def _checked(secret: Secret, source: str) -> Secret:
    reason = secrets.refusal(secret)
    if reason is not None:
        raise Failure(f"{source}: {reason}")
    return secret


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
