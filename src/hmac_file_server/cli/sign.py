"""`sign`: a signed URL or header, and a curl line that uses it."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import click

from hmac_file_server.cli.access import base_url_of, secret_of, settings_of
from hmac_file_server.cli.failure import Failure
from hmac_file_server.cli.options import DURATION, SIZE, config_option, secret_file_option, url_option
from hmac_file_server.config import Settings

SCHEMES = ("v1", "v2", "v3", "token", "signature", "jwt")
METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE")

_UNRESERVED = "/~!$&'()*+,;=:@"
"""What a path may hold unescaped (RFC 3986, section 3.3), and the slash."""

_OPERATIONS = {
    "PUT": ["put"],
    "POST": ["upload", "create", "chunk"],
    "DELETE": ["delete"],
    "GET": ["download"],
    "HEAD": ["download"],
}


@dataclass(frozen=True, slots=True)
class Signed:
    """What was signed: the URL to use, and headers to send with it."""

    url: str
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be signed. `path` is the decoded URL path, `size` bytes, `expires` epoch seconds."""

    method: str
    path: str
    scheme: str
    size: int | None
    media_type: str | None
    expires: int


@click.command()
@click.argument("method", metavar="METHOD", type=click.Choice(METHODS, case_sensitive=False))
@click.argument("path")
@click.option(
    "--scheme",
    type=click.Choice(SCHEMES),
    help="How to sign; by default v2 for a PUT of known size, v3 for another PUT, else signature (DELETE: token).",
)
@click.option("--size", type=SIZE, help="Bytes of the upload; v1, v2 and token bind it.")
@click.option("--type", "media_type", metavar="TYPE", help="Media type; v2 and token bind it.")
@click.option("--file", "file", type=click.Path(path_type=Path, dir_okay=False), help="Take size and type from it.")
@click.option("--expires", type=DURATION, default="1h", show_default=True, help="How long the signature counts.")
@config_option
@secret_file_option
@url_option
def sign(
    method: str,
    path: str,
    scheme: str | None,
    size: int | None,
    media_type: str | None,
    file: Path | None,
    expires: float,
    config_file: Path | None,
    secret_file: Path | None,
    base_url: str | None,
) -> int:
    """Print a signed URL (and headers, where the scheme has some), then a curl line that uses it.

    PATH is the URL path as people read it ("/upload/u1/my photo.jpg"), or a whole URL.
    """
    from hmac_file_server.clock import SystemClock

    method = method.upper()
    if "://" in path:
        if base_url is not None:
            raise click.UsageError("PATH is a whole URL already; leave --url out")
        base_url, path = _split(path)
    if not path.startswith("/"):
        path = "/" + path
    if file is not None:
        size, media_type = _described(file, size, media_type)
    settings = settings_of(config_file)
    scheme = scheme or _default_scheme(method, size)
    secret = secret_of(settings, config_file, secret_file, jwt=scheme == "jwt")
    base = base_url_of(settings, base_url)
    wish = Wish(method, path, scheme, size, media_type, int(SystemClock.time() + expires))
    try:
        signed = make(wish, base, secret.reveal(), settings)
    except ValueError as error:
        raise Failure(str(error)) from None
    click.echo(signed.url)
    for name, value in signed.headers:
        click.echo(f"{name}: {value}")
    click.echo(curl(wish, signed, str(file) if file is not None else "FILE"))
    return 0


def make(wish: Wish, base_url: str, secret: bytes, settings: Settings) -> Signed:
    """Sign what is wished; raises Failure for what the scheme cannot sign, ValueError for an unsignable field."""
    from hmac_file_server.auth import signing

    url = base_url + quote(wish.path, safe=_UNRESERVED)
    match wish.scheme:
        case "v1":
            _only(wish, "PUT")
            return Signed(f"{url}?v={signing.v1(secret, _storage_path(wish, settings), _size(wish))}")
        case "v2":
            _only(wish, "PUT")
            mac = signing.v2(secret, _storage_path(wish, settings), _size(wish), _type(wish))
            return Signed(f"{url}?v2={mac}", (("Content-Type", _type(wish)),))
        case "token" if wish.method == "DELETE":
            delete_secret = settings.security.delete_secret
            if delete_secret is None:
                raise Failure("a DELETE with a token needs security.delete_secret; give --config, or --scheme jwt")
            path = _storage_path(wish, settings)
            return Signed(f"{url}?token={signing.delete_token(secret, path, delete_secret.reveal())}")
        case "token":
            _only(wish, "PUT")
            mac = signing.token(secret, _storage_path(wish, settings), _size(wish), _type(wish))
            return Signed(f"{url}?token={mac}", (("Content-Type", _type(wish)),))
        case "v3":
            return Signed(f"{url}?v3={signing.v3(secret, wish.method, wish.path, wish.expires)}&expires={wish.expires}")
        case "signature":
            return Signed(url, _signature(wish, secret))
        case _:
            token = signing.ticket(secret, _claims(wish, settings))
            return Signed(url, (("Authorization", f"Bearer {token}"), *_content_type(wish)))


def curl(wish: Wish, signed: Signed, file: str) -> str:
    """A shell command that makes the request; `file` is what it uploads."""
    words = ["curl", "--fail-with-body"]
    for name, value in signed.headers:
        words += ["-H", f"{name}: {value}"]
    match wish.method:
        case "PUT":
            words += ["-T", file]
        case "POST":
            words += ["-F", f"file=@{file}"]
        case "GET":
            words += ["-O"]
        case "HEAD":
            words += ["-I"]
        case _:
            words += ["-X", wish.method]
    return shlex.join([*words, signed.url])


def _signature(wish: Wish, secret: bytes) -> tuple[tuple[str, str], ...]:
    from hmac_file_server.auth import signing

    if wish.size is None and wish.method in {"PUT", "POST"}:
        return (("X-Signature", signing.x_signature(secret, wish.path)), *_content_type(wish))
    size = wish.size if wish.method in {"PUT", "POST"} and wish.size is not None else 0
    mac = signing.x_signature_strong(secret, wish.method, wish.path, "", size, wish.expires)
    headers = [("X-Signature", mac), ("X-Signature-Expires", str(wish.expires))]
    if wish.method == "POST":
        headers.append(("X-Total-Size", str(size)))
    return (*headers, *_content_type(wish))


def _claims(wish: Wish, settings: Settings) -> dict[str, object]:
    claims: dict[str, object] = {"exp": wish.expires, "ops": _OPERATIONS[wish.method]}
    if wish.method == "POST":
        claims["prefix"] = ""
    elif wish.method in {"GET", "HEAD"} and wish.path.startswith("/download/"):
        claims["path"] = wish.path.removeprefix("/download/")
    else:
        claims["path"] = _storage_path(wish, settings)
    if wish.size is not None and wish.method in {"PUT", "POST"}:
        claims["max_size"] = wish.size
    if wish.media_type is not None and wish.method in {"PUT", "POST"}:
        claims["type"] = wish.media_type
    return claims


def _content_type(wish: Wish) -> tuple[tuple[str, str], ...]:
    # A form brings its own Content-Type.
    return (("Content-Type", wish.media_type),) if wish.media_type is not None and wish.method == "PUT" else ()


def _storage_path(wish: Wish, settings: Settings) -> str:
    from hmac_file_server.config.base_paths import BasePaths

    path = BasePaths(settings.server.base_path).relative(wish.path)
    if not path:
        bases = ", ".join(settings.server.base_path)
        raise Failure(f"{wish.path} names no file below a base path of the server ({bases})")
    return path


def _default_scheme(method: str, size: int | None) -> str:
    if method == "PUT":
        return "v3" if size is None else "v2"
    return "token" if method == "DELETE" else "signature"


def _only(wish: Wish, method: str) -> None:
    if wish.method != method:
        raise click.UsageError(f"{wish.scheme} signs only {method}")


def _size(wish: Wish) -> int:
    if wish.size is None:
        raise click.UsageError(f"{wish.scheme} binds the size: give --size or --file")
    return wish.size


def _type(wish: Wish) -> str:
    return wish.media_type if wish.media_type is not None else "application/octet-stream"


def _split(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc or parts.query or parts.fragment:
        raise click.UsageError(f"{url!r} is no http URL without a query")
    try:
        return f"{parts.scheme}://{parts.netloc}", unquote(parts.path, errors="strict") or "/"
    except UnicodeDecodeError:
        raise click.UsageError("the URL's path is not UTF-8") from None


def _described(file: Path, size: int | None, media_type: str | None) -> tuple[int, str | None]:
    import mimetypes

    if not file.is_file():
        raise Failure(f"{file}: no such file")
    real = file.stat().st_size
    if size is not None and size != real:
        raise Failure(f"{file} has {real} bytes, --size says {size}")
    return real, media_type or mimetypes.guess_type(file.name)[0]
