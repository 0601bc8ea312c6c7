"""Secrets that are looked for afterwards, and the requests and mistakes that might have let them out."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from tests.fixtures import slots
from tests.fixtures.server import Answer, FileServer, toml
from tests.server import signatures
from tests.server.signatures import in_future

HMAC = "canary-hmac-Zm4tq0Wx-7c1d5b90e2f84a63"
OLD_HMAC = "canary-former-Jd82nQ-51e0c7aa94d3b62f"
JWT = "canary-jwt-Rk7LpV3s-c08d2e61f4b95a7e"
DELETE = "canary-delete-Yt5Bh-90b7f3d1e86a24cc"
ADMIN = "canary-admin-Qw2NxE-3f6a81d0c5e97b24"
REDIS = "canary-redis-Uo9Gc/e4?b17#d083@fa65:"
SECRETS = (HMAC, OLD_HMAC, JWT, DELETE, ADMIN, REDIS)
COOKIE = "canary-cookie-8c1f0e"
BASIC = base64.b64encode(b"proxy:canary-basic-71d2").decode()
BODY = b"0123456789"


def spellings(secret: str) -> set[str]:
    """A secret in the codings in which it could come out."""
    raw = secret.encode()
    found = {secret, quote(secret), quote(secret, safe=""), raw.hex(), base64.b64encode(raw).decode().rstrip("=")}
    return found | {base64.urlsafe_b64encode(raw).decode().rstrip("="), repr(secret)[1:-1]}


def settings(redis_port: int, **logging: str) -> dict[str, dict[str, object]]:
    """A server that knows every secret there is; the Redis of that port is not there."""
    return {
        "security": {"secret": [HMAC, OLD_HMAC], "jwt_secret": JWT, "delete_secret": DELETE},
        "redis": {"enabled": True, "url": f"redis://user:{quote(REDIS, safe='')}@127.0.0.1:{redis_port}/0"},
        "admin": {"token": ADMIN},
        "logging": dict(logging),
    }


def mac(text: str) -> str:
    return hmac.new(HMAC.encode(), text.encode(), hashlib.sha256).hexdigest()


def ticket(**claims: object) -> str:
    """A ticket by the canary secret."""
    complete = {"aud": "hmac-file-server", "exp": in_future(), "jti": f"canary-{secrets.token_hex(8)}", **claims}
    return signatures.token(complete, {"alg": "HS256", "typ": "ticket+jwt"}, JWT)


@dataclass
class Told:
    """What was asked, what came of it, and what of it must be found nowhere.

    `credentials`: what a client sent, or was told to keep for itself: never in a log. `answers` may hold those, for
    they go to whoever sent them; but never a secret, nor the signature that would have been right.
    """

    server: FileServer
    credentials: set[str] = field(default_factory=lambda: {COOKIE, BASIC})
    expected: set[str] = field(default_factory=set)
    answers: list[tuple[str, Answer]] = field(default_factory=list)

    def ask(self, method: str, target: str, body: bytes | None = None, /, **headers: str) -> Answer:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.server.request(method, target, body, {"Cookie": f"session={COOKIE}", **fields})
        self.answers.append((f"{method} {target} {fields}", answer))
        return answer

    def session(self, upload_id: str) -> str:
        """Note the id of an upload; its beginning may be logged."""
        self.credentials.add(upload_id.partition("_")[2][7:])
        return upload_id


def signed(told: Told, path: str, size: int) -> Iterator[tuple[str, dict[str, str]]]:
    """Query and header fields of every scheme, right for a PUT of this path and size."""
    until = in_future()
    target = f"/upload/{path}"
    for query in (
        slots.v1(path, size, HMAC),
        slots.v2(path, size, secret=HMAC),
        slots.token(path, size, secret=OLD_HMAC),
    ):
        yield "?" + query, {}
    yield f"?v3={mac(f'PUT{chr(10)}{until}{chr(10)}{target}')}&expires={until}", {}
    yield "", {"X_Signature": mac(target)}
    text = "\0".join(("hmac-file-server X-Signature 2", "PUT", target, "", str(size), str(until)))
    yield "", {"X_Signature": mac(text), "X_Signature_Expires": str(until)}
    folder, _, name = path.partition("/")
    claims = {"slot": folder, "filename": name, "filesize": size, "exp": until}
    yield "", {"Authorization": slots.bearer(claims, JWT)}
    token = ticket(prefix=folder)
    yield "", {"Authorization": f"Bearer {token}"}
    yield f"?ticket={token}", {}


def credentials_of(query: str, headers: dict[str, str]) -> Iterable[str]:
    for pair in query.removeprefix("?").split("&"):
        value = pair.partition("=")[2]
        if len(value) > 20:
            yield value
    for value in headers.values():
        word = value.removeprefix("Bearer ")
        if len(word) > 20:
            yield word
            # The header of a token is that of every other.
            yield from word.split(".")[1:]


def puts(told: Told, faults: Iterable[str]) -> None:
    """Every scheme: right, wrong in every part, with a mistake of ours, and in company of another."""
    for number, (query, headers) in enumerate(signed(told, "canary/put.bin", len(BODY))):
        told.credentials.update(credentials_of(query, headers))
        told.ask("PUT", f"/upload/canary/put.bin{query}", BODY, **headers)
        told.ask("PUT", f"/upload/canary/put.bin{query}", BODY, **headers, X_Fault="gate")
        told.ask("PUT", f"/upload/canary/other.bin{query}", BODY, **headers)
        told.ask("PUT", f"/upload/canary/put.bin{query}", BODY + b"x", **headers)
        told.ask("PUT", f"/upload/canary/put.bin{query}", BODY[::-1], **headers)
        told.ask("PUT", f"/upload/canary/put.bin{query}", BODY, **{**headers, "Content_Type": "text/html"})
        told.ask("DELETE", f"/upload/canary/put.bin{query}", **headers)
        told.ask("POST", f"/upload{query}", BODY, **headers)
        told.ask("GET", f"/download/canary/put.bin{query}", **headers)
        told.ask(
            "PUT",
            f"/upload/canary/put.bin{query or '?'}&v={'0' * 64}",
            BODY,
            **{**headers, "Authorization": "Bearer a.b.c"},
        )
        for fault in faults:
            path = f"canary/{number}fault-{fault}.bin"
            for right_query, right in signed(told, path, len(BODY)):
                told.credentials.update(credentials_of(right_query, right))
                told.ask("PUT", f"/upload/{path}{right_query}", BODY, **right)
                break
            told.ask("GET", f"/upload/{path}")
    # Refused, and what would have been right is known here.
    for path in ("canary/refused.bin", "canary/fault-gate.bin"):
        for right_query, right_headers in signed(told, path, len(BODY)):
            told.expected.update(credentials_of(right_query, right_headers))
        for name in ("v", "v2", "token"):
            told.ask("PUT", f"/upload/{path}?{name}={'1' * 64}", BODY)
        told.ask("PUT", f"/upload/{path}?v3={'1' * 64}&expires={in_future()}", BODY)
        told.ask("PUT", f"/upload/{path}", BODY, X_Signature="1" * 64)
        told.ask("PUT", f"/upload/{path}", BODY, Authorization="Basic " + BASIC)


def sessions(told: Told) -> None:
    """Uploads in pieces in every protocol, their ids, and what goes wrong with them."""
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nabc\r\n--b--\r\n'
    kind = {"Content_Type": "multipart/form-data; boundary=b"}
    token = ticket(prefix="canary-form")
    told.credentials.update(credentials_of("", {"a": token}))
    for accept in ("text/html", "application/json"):
        told.ask("POST", f"/upload?ticket={token}", form, **kind, Accept=accept)
        told.ask("POST", f"/upload?ticket={token}x", form, **kind, Accept=accept)
        told.ask("GET", f"/?ticket={token}", Accept=accept)
        told.ask("GET", f"/?ticket={token[:-3]}", Accept=accept)
    strong = {"Authorization": f"Bearer {token}"}
    for fault in ("", "fault-create", "fault-store", "fault-publish"):
        name = {"X_Filename": f"{fault}.bin", "X_Total_Size": "30", "Idempotency_Key": f"canary-key-{fault}"}
        begun = told.ask("POST", "/upload/chunked", b"", **strong, **name)
        if begun.status != 201:
            continue
        upload = told.session(str(begun.json()["session_id"]))
        whole = {"X_Upload_Session_ID": upload, "X_Chunk_Number": "0"}
        told.ask("PUT", "/upload/chunked", b"fault-write" + b"." * 19, **strong, **whole)
        told.ask("PUT", "/upload/chunked", b"." * 29, **strong, **whole)
        told.ask("PUT", "/upload/chunked", b"." * 30, **whole, X_Signature="2" * 64)
        told.ask("PUT", "/upload/chunked", b"." * 30, **strong, **whole, X_Fault="gate")
        told.ask("GET", f"/upload/status?session_id={upload}", **strong)
        told.ask("GET", f"/upload/status?session_id={upload}x", **strong)
        for target in (f"/tus/{upload}", f"/tus/{upload}/", f"/tus/{upload}/x", f"/prefix/tus/{upload}"):
            told.ask("GET", target)
            told.ask("HEAD", target, **strong, Tus_Resumable="1.0.0")
            told.ask("PATCH", target, b"ab", Tus_Resumable="1.0.0", Upload_Offset="7", X_Signature="2" * 64)
            told.ask("PATCH", target, b"ab", Upload_Offset="7", Upload_Complete="?0", Authorization="Bearer 1.2.3")
            told.ask("PUT", target, b"ab", Content_Range="bytes 3-4/9")
            told.ask("DELETE", target, Tus_Resumable="2.0.0", X_Fault="gate")
        told.ask("PUT", "/upload/chunked", b"." * 30, **strong, **whole)
        told.ask("DELETE", "/upload/chunked", **strong, X_Upload_Session_ID=upload)
    told.ask("POST", "/tus/", Tus_Resumable="1.0.0", Upload_Length="3", Upload_Metadata="filename ////", **strong)
    told.ask("POST", "/tus/", Tus_Resumable="1.0.0", Upload_Length="3", X_Signature="3" * 64)


def downloads(told: Told) -> None:
    """What needs no permission, and what is no request."""
    for target in ("/", "/health", "/ready", "/metrics", "/admin", "/upload", "/uploader.js", "/upload/canary/put.bin"):
        for method in ("GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND"):
            told.ask(method, f"{target}?ticket=x&token=y&q=z", Authorization="Basic " + BASIC)
    told.ask("GET", "/upload/fault-load.bin")
    told.ask("GET", "/upload/fault-disk.bin")
    told.ask("GET", "/upload/%2e%2e/config.toml")
    query = slots.delete_token("canary/fault-delete.bin", DELETE, HMAC)
    told.credentials.update(credentials_of(query, {}))
    told.ask("DELETE", f"/upload/canary/fault-delete.bin?{query}")


def broken_configurations(folder: Path) -> Iterator[str]:
    """Configurations with a secret in them and a mistake beside it, or in it."""
    good = f'[security]\nsecret = "{HMAC}"\n'
    yield good + "[workers]\nnumworkers = 0\n"
    yield good + f'secret = "{OLD_HMAC}"\n'
    yield good + "not toml\n"
    yield f'[security]\nsecret = "{HMAC}\n'
    yield f"[security]\nsecret = {HMAC}\n"
    yield f'[security]\nsecret = "{HMAC}" "{OLD_HMAC}"\n'
    yield f'[security]\nsecret = """{HMAC}\n'
    yield f'[security]\nsecret = ["{HMAC}", 1]\n'
    yield f'[security]\nsecret = {{ value = "{HMAC}" }}\n'
    yield f'[security]\nsecret = "{HMAC}\\q"\n'
    yield f'[security]\nsecrets = "{HMAC}"\n'
    yield f'secret = "{HMAC}"\n'
    yield f'[server]\nsecret = "{HMAC}"\nlisten_address = "x:y:z"\n'
    yield f'[auth]\nsharedsecret = ["{HMAC}", [1]]\n'
    yield f'[security]\nsecret = "{HMAC}"\njwt_secret = ["{JWT}", 5]\ndelete_secret = ["{DELETE}"]\n'
    yield f'[security]\nsecret = "{HMAC[:12]}"\ndelete_secret = "{DELETE[:15]}"\n'
    yield good + f'[admin]\ntoken = ["{ADMIN}"]\nlisten_address = "0.0.0.0:9090"\n'
    yield good + f'[admin]\ntoken = "{ADMIN}"\ntoken_file = "{folder}"\n'
    yield good + f'[security.secret]\nvalue = "{OLD_HMAC}"\n'
    for url in (f"http://:{REDIS}@h", f"redis:{REDIS}", f":{REDIS}@h:1", f"redis://:{REDIS}\\u0007@h"):
        yield good + f'[redis]\nurl = "{url}"\n'
    yield good + f'[redis]\nurl = ["redis://:{REDIS}@h"]\n'
    yield good + f'[redis]\naddr = ["redis://:{REDIS}@h"]\n'
    yield good + f'[redis]\npassword = ["{REDIS}"]\n'
    yield good + f'[redis]\npassword = "{REDIS}"\nurl = 5\n'
    secret_file = folder / "secret"
    secret_file.write_text(HMAC + "\0" + OLD_HMAC, encoding="utf-8")
    yield f'[security]\nsecret_file = "{secret_file}"\n'
    secret_file.with_name("none").write_text(HMAC[:9], encoding="utf-8")
    yield f'[security]\nsecret_file = "{secret_file.with_name("none")}"\n'


def usable_configurations() -> Iterator[str]:
    """Configurations that are taken, with every secret in its place."""
    yield toml(settings(1, level="debug"))
    for url in (f"redis://:{REDIS}@h:1/0", f"redis://h/0?password={REDIS}", f"unix:///run/redis?password={REDIS}"):
        yield toml({"security": {"secret": HMAC}, "redis": {"url": url}})
    yield toml({"security": {"secret": HMAC}, "redis": {"addr": "127.0.0.1:1", "password": REDIS}})
    yield toml({"redis": {"url": f"redis://:{REDIS}"}})
