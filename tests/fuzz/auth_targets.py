"""Credentials: whatever is sent, the gate answers, and permits nothing that was not signed."""

from __future__ import annotations

import hashlib
import hmac
import json

from tests.fixtures.slots import bearer
from tests.fuzz.target import Target, joined, split
from tests.unit.auth.heads import NOW, SECRET, Head, gate

from hmac_file_server.auth import Gate, Grant, Operation, Refusal, fields, query
from hmac_file_server.auth.refusals import Malformed
from hmac_file_server.http.errors import HttpError
from hmac_file_server.http.target import split_target
from hmac_file_server.network.proxies import TrustedProxies

_GATE = gate()
_STRICT = gate(strict=True)
_OPERATIONS = tuple(Operation)
_METHODS = ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE")
_PROXIES = TrustedProxies(("127.0.0.0/8", "::1/128", "10.0.0.0/8", "unix:"))


def parameters(data: bytes) -> bool:
    try:
        found = query.parse(data)
    except Malformed:
        return False
    pairs = data.split(b"&")
    for name, value in found.items():
        # Each is in the query once, as it stands.
        assert pairs.count(name + b"=" + value) == 1
        assert sum(pair.partition(b"=")[0].lower() == name for pair in pairs) == 1
        assert value
    return bool(found)


def numbers(data: bytes) -> bool:
    try:
        found = fields.number(data, "n")
    except Malformed:
        taken = False
    else:
        taken = True
        assert b"%d" % found == data
        assert 0 <= found < 10**19
    try:
        mac = fields.mac(data)
    except Malformed:
        pass
    else:
        assert mac.hex().encode() == data.lower()
        taken = True
    text = fields.safe_media_type(data.decode("latin-1"))
    assert text.isascii()
    assert not set(text) & set("\r\n\0")
    return taken


def _judge(
    head: Head, gates: tuple[Gate, ...] = (_GATE,), operations: tuple[Operation, ...] = _OPERATIONS
) -> list[Grant]:
    """What is permitted, whatever is asked for."""
    granted = []
    for judge in gates:
        for operation in operations:
            found = judge.authorise(head, operation)
            if isinstance(found, Grant):
                granted.append(found)
            else:
                assert isinstance(found, Refusal)
                assert SECRET.decode() not in f"{found.detail_log}{found.code}"
                assert "\n" not in found.detail_log
    return granted


def unsigned(data: bytes) -> bool:
    """Method, target and three fields of somebody who has no key."""
    method, target, authorization, signature, expires = split(data, 5)
    try:
        path, raw = split_target(target, "GET")
    except (HttpError, UnicodeDecodeError):
        return False
    given = {b"authorization": authorization, b"x-signature": signature, b"x-signature-expires": expires}
    head = Head(
        _METHODS[len(method) % len(_METHODS)], path, raw, 3, {name: value for name, value in given.items() if value}
    )
    granted = _judge(head, (_GATE, _STRICT))
    for grant in granted:
        # Only what the seeds have brought along from the owner of the key.
        assert _is_signed(data), grant
    return bool(granted)


def _mac(message: bytes) -> bytes:
    return hmac.new(SECRET, message, hashlib.sha256).hexdigest().encode()


_SIGNED = {
    _mac(b"a/b.txt 3"), _mac(b"a/b.txt\x003\x00application/octet-stream"), _mac(b"PUT\n4000000000\n/upload/a/b.txt"), _mac(b"/upload"),
}  # fmt: skip
_CLAIMS: dict[str, object] = {"slot": "a", "filename": "b.txt", "filesize": 3, "exp": int(NOW) + 1000}
_TOKEN = bearer(_CLAIMS, SECRET.decode()).encode()


def _is_signed(data: bytes) -> bool:
    return any(mac in data.lower() for mac in _SIGNED) or _TOKEN.split(b".")[-1] in data


def tokens(data: bytes) -> bool:
    """A token whose header and payload are anybody's, signed with the right key: its claims are judged, never believed."""
    kind, payload, target = split(data, 3)
    try:
        path, _ = split_target(target, "GET")
    except (HttpError, UnicodeDecodeError):
        path = "/upload/a/b.txt"
    token = _token(kind, payload)
    granted = False
    for method, operations in (
        ("PUT", (Operation.PUT, Operation.CREATE)),
        ("POST", (Operation.UPLOAD,)),
        ("DELETE", (Operation.DELETE,)),
    ):
        heads = [Head(method, path, b"", 3, {b"authorization": b"Bearer " + token})]
        if method == "PUT":
            heads.append(Head(method, path, b"ticket=" + token, 3))
        for head in heads:
            for grant in _judge(head, operations=operations):
                granted = True
                told = json.loads(payload.decode("utf-8", "replace"))
                assert told["exp"] >= NOW, told
                assert grant.exact_size is None or grant.exact_size >= 0
                assert grant.path is None or not set(grant.path) & set("\0\r\n")
                assert grant.owner is None or grant.owner.isprintable() or not any(ord(c) < 32 for c in grant.owner)
    return granted


def _token(kind: bytes, payload: bytes) -> bytes:
    from base64 import urlsafe_b64encode

    parts = [urlsafe_b64encode(part).rstrip(b"=") for part in (kind, payload)]
    mac = hmac.new(SECRET, b".".join(parts), hashlib.sha256).digest()
    return b".".join([*parts, urlsafe_b64encode(mac).rstrip(b"=")])


def slot_paths(data: bytes) -> bool:
    """A target signed for what it means: what is permitted is that path and no other."""
    try:
        path, raw = split_target(data.partition(b"?")[0], "GET")
    except (HttpError, UnicodeDecodeError):
        return False
    assert raw == b""
    whole = path.encode()
    relative = whole.removeprefix(b"/upload/").removeprefix(b"/")
    granted = False
    for message, name in (
        (b"%b %d" % (relative, 3), b"v"),
        (b"%b\0%d\0application/octet-stream" % (relative, 3), b"v2"),
        (b"PUT\n4000000000\n" + whole, b"v3"),
    ):
        expires = b"&expires=4000000000" if name == b"v3" else b""
        head = Head("PUT", path, name + b"=" + _mac(message) + expires, 3)
        for grant in _judge(head):
            granted = True
            assert grant.path is None or grant.path.encode() in {relative, whole[1:]}, grant
        for change in (b"x", b"/"):
            other = Head("PUT", path + change.decode(), head.query, 3)
            assert _judge(other) == []
        assert _judge(Head("PUT", path, head.query, 4)) == [] or name == b"v3"
    return granted


def forwarded(data: bytes) -> bool:
    peer, field = split(data, 2)
    for who in ("127.0.0.1:1", "[::1]:2", "unix", "192.0.2.1:3", peer.decode("latin-1")):
        client = _PROXIES.client(who, field)
        assert client == who or all(c in "0123456789abcdef:." for c in client), client
    assert _PROXIES.client("192.0.2.1:3", field) == "192.0.2.1:3"
    return _PROXIES.client("127.0.0.1:1", field) != "127.0.0.1:1"


TARGETS = (
    Target(
        "query",
        parameters,
        (b"v=" + b"0" * 64, b"v2=a&v=b", b"token=x&y", b"v3=x&expires=1", b"ticket=a.b.c", b"%76=1", b"V=1", b"a;b", b"v=&v=", b"&" * 40),
        (b"v=", b"v2=", b"v3=", b"token=", b"ticket=", b"expires=", b"&", b";", b"%", b"="),
    ),
    Target("numbers", numbers, (b"0", b"1", b"9223372036854775807", b"+1", b"01", b"a" * 64, b"text/html"), (b"_", b"-", b" ", "\u0663".encode())),
    Target(
        "credentials",
        unsigned,
        (
            joined(b"PUT", b"/upload/a/b.txt?v=" + _mac(b"a/b.txt 3")),
            joined(b"", b"/upload/a?v2=" + b"0" * 64),
            joined(b"", b"/upload/a?v3=" + b"0" * 64 + b"&expires=4000000000"),
            joined(b"a", b"/upload", b"", _mac(b"/upload"), b""),
            joined(b"ab", b"/upload", b"", b"0" * 64, b"4000000000"),
            joined(b"ab", b"/upload/a/b.txt", _TOKEN),
            joined(b"abc", b"/upload?ticket=a.b.c", b"Basic eDp5"),
        ),
        (b"Bearer ", b"v=", b"?", b"&", b"ticket=", b"\x1f", b".", b"eyJ"),
    ),
    Target(
        "jwt-claims",
        tokens,
        (
            joined(b'{"alg":"HS256","typ":"JWT"}', json.dumps(_CLAIMS).encode()),
            joined(b'{"alg":"none","typ":"JWT"}', b"{}"),
            joined(b'{"alg":"HS256","typ":"ticket+jwt","kid":"x"}', b'{"exp":4000000000,"aud":"hmac-file-server","prefix":""}'),
            joined(b'{"alg":"HS256","typ":"ticket+jwt"}',
                   b'{"exp":4000000000,"aud":"hmac-file-server","prefix":"","ops":["upload","create"],"max_size":5,"sub":"a@b","files":2,"jti":"x"}'),
            joined(b'{"alg":"HS256","typ":"ticket+jwt","crit":["b64"],"b64":false}', b"[[[["),
            joined(b'{"alg":"HS256","typ":"JWT"}', b'{"slot":"a","filename":"b","filesize":1e400,"exp":5.5}'),
        ),
        (b'"exp":', b'"aud":"hmac-file-server"', b'"typ":', b'"kid":', b"1e999", b"null", b"true", b"[", b"{", b"}", b"\\u0000", b'"path":', b'"prefix":',
         b'"ops":', b"-1", b"4000000000", b'"sub":', b"\x1f"),
    ),
    Target(
        "slot-paths",
        slot_paths,
        (b"/upload/a/b.txt", b"/upload/%c3%a9", b"/upload/upload/x", b"/a b".replace(b" ", b"%20"), b"/upload/", b"/upload/a%2bb", b"/upload/.hmac-file-server/x"),
        (b"/", b"%20", b"%2e", b"upload", b"%c3%a9", b"%0a"),
    ),
    Target(
        "forwarded-for",
        forwarded,
        (joined(b"1.2.3.4:5", b"203.0.113.7, 10.0.0.1"), joined(b"unix", b"[2001:db8::1]"), joined(b"x", b"fe80::1%eth0,,127.0.0.1"), joined(b"", b"\xff\n")),
        (b",", b"::ffff:", b"127.0.0.1", b"%", b"[", b"]"),
    ),
)  # fmt: skip
