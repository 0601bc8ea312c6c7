"""`sign` and `link`: what they print is what the gate accepts."""

import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from tests.fixtures.command_line import Result, Run

from hmac_file_server.auth import Gate, Grant, KeyRing, Operation, Refusal
from hmac_file_server.clock import SystemClock
from hmac_file_server.config.base_paths import BasePaths

SECRET = "test-secret-0123456789-0123456789"
DELETE_SECRET = "delete-secret-0123456789-0123456789"


@dataclass(frozen=True)
class Request:
    """A request in the shape that the gate looks at."""

    method: str
    path: str
    query: bytes
    content_length: int | None = None
    chunked: bool = False
    headers: Mapping[bytes, bytes] = field(default_factory=dict)

    def header(self, name: bytes) -> bytes | None:
        return self.headers.get(name)


def gate(*, strict: bool = False) -> Gate:
    return Gate(
        KeyRing([SECRET.encode()]),
        base_paths=BasePaths(["/", "/upload/"]),
        clock=SystemClock(),
        strict_signatures=strict,
        delete_secret=DELETE_SECRET.encode(),
    )


def asked(result: Result, method: str, size: int | None = None) -> Request:
    """The request that the printed URL and headers make."""
    assert result.code == 0, result.err
    url = urlsplit(result.lines[0])
    pairs = [line.partition(": ") for line in result.lines[1:-1]]
    headers = {name.lower().encode(): value.encode() for name, _, value in pairs}
    return Request(method, unquote(url.path), url.query.encode(), size, headers=headers)


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config.toml"
    path.write_text(f'[security]\nsecret = "{SECRET}"\ndelete_secret = "{DELETE_SECRET}"\n')
    path.chmod(0o600)
    return str(path)


@pytest.mark.parametrize("path", ["/upload/u1/a.txt", "u1/a.txt", "/upload/tr\u00e8s cool+a&b?c#d%41.jpg"])
@pytest.mark.parametrize("scheme", ["v1", "v2", "v3", "token", "signature", "jwt"])
def test_a_put_is_granted(run: Run, config: str, scheme: str, path: str) -> None:
    result = run("sign", "PUT", path, "--scheme", scheme, "--size", "5", "--type", "image/png", "--config", config)
    request = asked(result, "PUT", 5)
    assert request.path == (path if path.startswith("/") else "/" + path)
    grant = gate().authorise(request, Operation.PUT)
    assert isinstance(grant, Grant), grant
    assert grant.scheme == {"jwt": "ticket"}.get(scheme, scheme)


@pytest.mark.parametrize("scheme", ["v1", "v2", "token", "signature"])
def test_another_size_is_refused(run: Run, config: str, scheme: str) -> None:
    result = run("sign", "PUT", "/a/b", "--scheme", scheme, "--size", "5", "--config", config)
    assert isinstance(gate().authorise(asked(result, "PUT", 6), Operation.PUT), Refusal)


@pytest.mark.parametrize(
    ("arguments", "scheme"),
    [
        (["PUT", "/a/b", "--size", "5"], "v2"),
        (["PUT", "/a/b"], "v3"),
        (["put", "/a/b"], "v3"),
        (["POST", "/upload"], "signature"),
        (["DELETE", "/a/b"], "token"),
        (["GET", "/download/a/b"], "signature"),
    ],
)
def test_the_scheme_that_fits(run: Run, config: str, arguments: list[str], scheme: str) -> None:
    operation = {
        "PUT": Operation.PUT,
        "POST": Operation.UPLOAD,
        "DELETE": Operation.DELETE,
        "GET": Operation.DOWNLOAD,
    }[arguments[0].upper()]
    result = run("sign", *arguments, "--config", config)
    request = asked(result, arguments[0].upper(), 5 if operation is Operation.PUT else 0)
    grant = gate().authorise(request, operation)
    assert isinstance(grant, Grant), grant
    assert grant.scheme == scheme


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [
        ("POST", "/upload", Operation.UPLOAD),
        ("POST", "/upload/chunked", Operation.CREATE),
        ("DELETE", "/upload/a/b", Operation.DELETE),
        ("GET", "/download/a/b", Operation.DOWNLOAD),
    ],
)
def test_a_ticket_for_other_methods(run: Run, config: str, method: str, path: str, operation: Operation) -> None:
    result = run("sign", method, path, "--scheme", "jwt", "--size", "9", "--config", config)
    request = asked(result, method, 9)
    assert isinstance(gate().authorise(request, operation), Grant)
    others = {Operation.PUT, Operation.DELETE, Operation.DOWNLOAD} - {operation}
    for other in others:
        wrong = Request({"put": "PUT", "delete": "DELETE", "download": "GET"}[other.value], path, b"", 9,
                        headers=request.headers)  # fmt: skip
        assert isinstance(gate().authorise(wrong, other), Refusal)


def test_a_signature_of_known_size_is_the_strong_one(run: Run, config: str) -> None:
    result = run("sign", "POST", "/upload", "--size", "5", "--config", config)
    names = [line.partition(":")[0] for line in result.lines[1:-1]]
    assert names == ["X-Signature", "X-Signature-Expires", "X-Total-Size"]
    assert isinstance(gate(strict=True).authorise(asked(result, "POST", 200), Operation.UPLOAD), Grant)
    weak = run("sign", "POST", "/upload", "--config", config)
    assert isinstance(gate(strict=True).authorise(asked(weak, "POST", 200), Operation.UPLOAD), Refusal)


def test_how_long_it_counts(run: Run, config: str) -> None:
    now = SystemClock.time()
    result = run("sign", "PUT", "/a/b", "--scheme", "v3", "--expires", "1h30m", "--config", config)
    expires = int(dict(parse_qsl(urlsplit(result.lines[0]).query))["expires"])
    assert 5390 <= expires - now <= 5410


def test_size_and_type_from_a_file(run: Run, config: str, tmp_path: Path) -> None:
    file = tmp_path / "my photo.jpg"
    file.write_bytes(b"12345")
    result = run("sign", "PUT", "/u1/p.jpg", "--file", str(file), "--config", config)
    assert "Content-Type: image/jpeg" in result.lines
    assert isinstance(gate().authorise(asked(result, "PUT", 5), Operation.PUT), Grant)
    words = shlex.split(result.lines[-1])
    assert words[:2] == ["curl", "--fail-with-body"]
    assert words[words.index("-T") + 1] == str(file)
    assert words[-1] == result.lines[0]
    assert run("sign", "PUT", "/a", "--file", str(file), "--size", "6", "--config", config).code == 1
    assert run("sign", "PUT", "/a", "--file", "none", "--config", config).err.endswith("none: no such file\n")


@pytest.mark.parametrize(
    ("method", "has"),
    [("PUT", "-T FILE"), ("POST", "-F file=@FILE"), ("GET", "-O"), ("HEAD", "-I"), ("DELETE", "-X DELETE")],
)
def test_the_curl_line_is_fit_for_a_shell(run: Run, config: str, method: str, has: str) -> None:
    result = run("sign", method, "/upload/it's a $HOME `x`.txt", "--config", config)
    assert has in result.lines[-1]
    printed = subprocess.run(
        ["sh", "-c", f'curl() {{ for word; do printf "%s\\n" "$word"; done; }}; {result.lines[-1]}'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout.splitlines()[-1] == result.lines[0]


def test_a_whole_url(run: Run, config: str) -> None:
    result = run("sign", "PUT", "https://up.example.org/upload/a%20b/c.txt", "--config", config)
    assert result.lines[0].startswith("https://up.example.org/upload/a%20b/c.txt?v3=")
    assert isinstance(gate().authorise(asked(result, "PUT"), Operation.PUT), Grant)
    for bad in ("https://h/a?b=c", "ftp://h/a", "https:///a", "https://h/%ff"):
        assert run("sign", "PUT", bad, "--config", config).code == 2
    assert run("sign", "PUT", "https://h/a", "--url", "https://h", "--config", config).code == 2


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ('"0.0.0.0:9"', "http://127.0.0.1:9"),
        ('["unix:/run/x", "[::1]:9"]', "http://[::1]:9"),
        ('"10.0.0.1:9"', "http://10.0.0.1:9"),
    ],
)
def test_the_base_url_is_the_first_address(run: Run, config: str, listen: str, url: str) -> None:
    path = Path(config)
    path.write_text(path.read_text() + f"[server]\nlisten_address = {listen}\n")
    assert run("sign", "PUT", "/a", "--config", config).lines[0].startswith(f"{url}/a?")
    given = run("sign", "PUT", "/a", "--config", config, "--url", "https://h/base/")
    assert given.lines[0].startswith("https://h/base/a?")
    assert run("sign", "PUT", "/a", "--config", config, "--url", "h").code == 2


def test_https_where_the_server_has_a_certificate(run: Run, config: str) -> None:
    path = Path(config)
    path.write_text(path.read_text() + "[server]\ntls_certificate = 'c'\ntls_key = 'k'\n")
    assert run("sign", "PUT", "/a", "--config", config).lines[0].startswith("https://127.0.0.1:8080/a?")


def test_a_server_without_a_url(run: Run, config: str) -> None:
    path = Path(config)
    path.write_text(path.read_text() + "[server]\nlisten_address = 'unix:/run/x'\n")
    assert "give --url" in run("sign", "PUT", "/a", "--config", config).err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["PUT", "/a", "--scheme", "v1"], 2, "v1 binds the size: give --size or --file"),
        (["GET", "/a", "--scheme", "v1", "--size", "1"], 2, "v1 signs only PUT"),
        (["POST", "/a", "--scheme", "v2", "--size", "1"], 2, "v2 signs only PUT"),
        (["PUT", "/upload/", "--scheme", "v1", "--size", "1"], 1, "names no file below a base path"),
        (["PUT", "/a\nb"], 1, "control characters cannot be signed"),
    ],
)
def test_what_cannot_be_signed(run: Run, config: str, arguments: list[str], code: int, said: str) -> None:
    result = run("sign", *arguments, "--config", config)
    assert (result.code, result.out) == (code, "")
    assert said in result.err
    assert result.err.count("\n") == 1


def test_a_delete_needs_its_secret(run: Run, tmp_path: Path) -> None:
    (tmp_path / "s").write_text(SECRET)
    assert "security.delete_secret" in run("sign", "DELETE", "/a", "--secret-file", "s").err


# Where the secret comes from


def grants(result: Result, secret: str) -> bool:
    one = Gate(KeyRing([secret.encode()]), base_paths=BasePaths(["/"]), clock=SystemClock())
    return isinstance(one.authorise(asked(result, "PUT"), Operation.PUT), Grant)


def test_secret_file_is_before_config_and_environment(
    run: Run, config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s").write_text("from-a-file-0123456789\n")
    monkeypatch.setenv("HMAC_FILE_SERVER_SECRET", "from-the-environment-0123456789")
    sign = ("sign", "PUT", "/a")
    assert grants(run(*sign, "--secret-file", "s", "--config", config), "from-a-file-0123456789")
    assert grants(run(*sign, "--config", config), SECRET)
    assert grants(run(*sign), "from-the-environment-0123456789")


def test_the_first_secret_of_a_rotation_signs(run: Run, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(f'security.secret = ["new-secret-0123456789-0123456789", "{SECRET}"]\n')
    assert grants(run("sign", "PUT", "/a", "--config", "c.toml"), "new-secret-0123456789-0123456789")


def test_tokens_are_signed_with_their_own_secret(run: Run, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(f'[security]\nsecret = "{SECRET}"\njwt_secret = "jwt-{SECRET}"\n')
    assert grants(run("sign", "PUT", "/a", "--scheme", "jwt", "--config", "c.toml"), "jwt-" + SECRET)


def test_the_embedded_defaults_secret(run: Run, tmp_path: Path) -> None:
    from hmac_file_server.config import secrets

    missing = run("sign", "PUT", "/a")
    assert missing.code == 1
    assert "no secret: give --config or --secret-file, set HMAC_FILE_SERVER_SECRET" in missing.err
    assert not (tmp_path / "data").exists()
    secret, _ = secrets.ensure(tmp_path / "data")
    assert grants(run("sign", "PUT", "/a"), secret.reveal().decode())


def test_a_secret_that_may_not_be_used(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s").write_text("\n")
    assert run("sign", "PUT", "/a", "--secret-file", "s").err == (
        "hmac-file-server: s: an empty secret would let everybody sign\n"
    )
    assert run("sign", "PUT", "/a", "--secret-file", "none").err == (
        "hmac-file-server: none: No such file or directory\n"
    )
    monkeypatch.setenv("HMAC_FILE_SERVER_SECRET", "changeme")
    assert "public documentation" in run("sign", "PUT", "/a").err


# link


def ticket_of(result: Result) -> str:
    assert result.code == 0, result.err
    url = urlsplit(result.lines[0])
    assert (url.query, url.path) == ("", "/")
    name, _, ticket = url.fragment.partition("=")
    assert name == "ticket"
    return ticket


def granted(ticket: str, method: str, path: str, operation: Operation) -> Grant | Refusal:
    headers = {b"authorization": b"Bearer " + ticket.encode()}
    return gate().authorise(Request(method, path, b"", 5, headers=headers), operation)


def test_a_link_permits_to_upload_and_nothing_else(run: Run, config: str) -> None:
    now = SystemClock.time()
    result = run("link", "--max-size", "1MB", "--expires", "2h", "--files", "3", "--config", config)
    assert len(result.lines) == 1
    assert result.lines[0].startswith("http://127.0.0.1:8080/#ticket=")
    ticket = ticket_of(result)
    for method, path, operation in (
        ("POST", "/upload", Operation.UPLOAD),
        ("POST", "/upload/chunked", Operation.CREATE),
        ("PUT", "/upload/chunked", Operation.CHUNK),
    ):
        grant = granted(ticket, method, path, operation)
        assert isinstance(grant, Grant), grant
        assert (grant.max_size, grant.max_files) == (1024**2, 3)
        assert grant.ticket_id
    # The server chooses where the files go.
    assert isinstance(granted(ticket, "PUT", "/upload/a/b", Operation.PUT), Refusal)
    assert isinstance(granted(ticket, "DELETE", "/upload/a", Operation.DELETE), Refusal)
    assert isinstance(granted(ticket, "GET", "/download/a", Operation.DOWNLOAD), Refusal)
    import jwt

    claims = jwt.decode(ticket, SECRET, algorithms=["HS256"], audience="hmac-file-server")
    assert 7190 <= claims["exp"] - now <= 7210


def test_two_links_are_two_tickets(run: Run, config: str) -> None:
    one, two = (ticket_of(run("link", "--config", config)) for _ in range(2))
    grants_ = [granted(ticket, "POST", "/upload", Operation.UPLOAD) for ticket in (one, two)]
    assert all(isinstance(grant, Grant) and grant.max_files is None for grant in grants_)
    assert len({grant.ticket_id for grant in grants_ if isinstance(grant, Grant)}) == 2


def test_a_link_for_more_than_the_server_takes_says_so(run: Run, config: str) -> None:
    result = run("link", "--max-size", "20GB", "--config", config, "--url", "https://h/x/")
    assert "server.max_upload_size = 10GB" in result.err
    assert result.lines[0].startswith("https://h/x/#ticket=")
