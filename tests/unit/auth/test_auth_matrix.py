"""Deny by default: scheme x operation x method, unsigned and signed, enabled and disabled."""

import itertools

import pytest
from tests.unit.auth.heads import NOW, SECRET, Head, gate, granted, refused

from hmac_file_server.auth import SCHEMES, Operation, signing
from hmac_file_server.auth.refusals import CHALLENGE, STATUS

METHODS = ("PUT", "POST", "PATCH", "DELETE", "GET", "HEAD", "OPTIONS", "TRACE", "put", "PROPFIND", "")
SIZE = 5
EXPIRES = int(NOW) + 60
DELETE_SECRET = b"delete-secret"

# The whole truth about who may ask for what; everything outside is refused.
PERMITTED: dict[str, set[tuple[Operation, str]]] = {
    "v1": {(Operation.PUT, "PUT"), (Operation.CREATE, "PUT")},
    "v2": {(Operation.PUT, "PUT"), (Operation.CREATE, "PUT")},
    "token": {(Operation.PUT, "PUT"), (Operation.CREATE, "PUT"), (Operation.DELETE, "DELETE")},
    "v3": {
        (Operation.PUT, "PUT"),
        (Operation.CREATE, "PUT"),
        (Operation.DELETE, "DELETE"),
        (Operation.DOWNLOAD, "GET"),
        (Operation.DOWNLOAD, "HEAD"),
    },
    "prosody-jwt": {(Operation.PUT, "PUT"), (Operation.CREATE, "PUT")},
}
EVERYTHING = {
    (Operation.PUT, "PUT"),
    (Operation.UPLOAD, "POST"),
    (Operation.CREATE, "POST"),
    (Operation.CREATE, "PUT"),
    (Operation.DELETE, "DELETE"),
    (Operation.DOWNLOAD, "GET"),
    (Operation.DOWNLOAD, "HEAD"),
} | {(Operation.CHUNK, method) for method in ("PUT", "POST", "PATCH", "GET", "HEAD", "DELETE")}
PERMITTED["strong"] = EVERYTHING
PERMITTED["ticket"] = EVERYTHING
PERMITTED["ticket in query"] = EVERYTHING
PERMITTED["path-only"] = {pair for pair in EVERYTHING if pair[0] is not Operation.DELETE}


def signed(way: str, operation: Operation, method: str) -> Head:
    """A request that is rightly signed in this way, whether or not the way can permit the operation."""
    path = "/download/u1/a.txt" if operation is Operation.DOWNLOAD else "/upload/u1/a.txt"
    relative = path[1:] if operation is Operation.DOWNLOAD else "u1/a.txt"
    stored = "u1/a.txt"
    query, fields = "", {b"x-total-size": str(SIZE).encode()}
    size = 0 if method in {"GET", "HEAD", "DELETE"} else SIZE
    verb = method if method.isalpha() and method.isupper() else "PUT"
    if way == "v1":
        query = f"v={signing.v1(SECRET, relative, SIZE)}"
    elif way == "v2":
        query = f"v2={signing.v2(SECRET, relative, SIZE, 'application/octet-stream')}"
    elif way == "token":
        mac = signing.token(SECRET, relative, SIZE, "application/octet-stream")
        if operation is Operation.DELETE:
            mac = signing.delete_token(SECRET, relative, DELETE_SECRET)
        query = f"token={mac}"
    elif way == "v3":
        query = f"v3={signing.v3(SECRET, verb, path, EXPIRES)}&expires={EXPIRES}"
    elif way == "path-only":
        fields[b"x-signature"] = signing.x_signature(SECRET, path).encode()
    elif way == "strong":
        mac = signing.x_signature_strong(SECRET, verb, path, "", size, EXPIRES)
        fields |= {b"x-signature": mac.encode(), b"x-signature-expires": str(EXPIRES).encode()}
    elif way == "prosody-jwt":
        token = signing.prosody_jwt(SECRET, {"slot": "u1", "filename": "a.txt", "filesize": SIZE, "exp": EXPIRES})
        fields[b"authorization"] = f"Bearer {token}".encode()
    else:
        ops = [operation.value for operation in Operation]
        token = signing.ticket(SECRET, {"path": stored, "exp": EXPIRES, "ops": ops})
        if way == "ticket":
            fields[b"authorization"] = f"bearer {token}".encode()
        else:
            query = f"ticket={token}"
    return Head(method, path, query.encode(), size, fields)


@pytest.mark.parametrize("way", sorted(PERMITTED))
@pytest.mark.parametrize("operation", list(Operation))
def test_signed_requests(way: str, operation: Operation) -> None:
    judge = gate(delete_secret=DELETE_SECRET)
    for method in METHODS:
        answer = judge.authorise(signed(way, operation, method), operation)
        if (operation, method) in PERMITTED[way]:
            assert granted(answer).scheme in SCHEMES
        else:
            refusal = refused(answer)
            assert refusal.code in {"operation_not_allowed", "signature_too_weak"}
            assert refusal.status == 403
            assert refusal.reason in {"operation", "method"}


@pytest.mark.parametrize("operation", list(Operation))
@pytest.mark.parametrize("path", ["/", "/a", "/upload", "/upload/a/b", "/download/a", "/upload/chunked", "/tus/"])
def test_unsigned_requests(operation: Operation, path: str) -> None:
    for method, query in itertools.product(METHODS, (b"", b"expires=1893456000", b"session_id=1", b"user=a&expiry=2")):
        refusal = refused(gate().authorise(Head(method, path, query, 5), operation), "missing_credentials", "missing")
        assert (refusal.status, refusal.challenge) == (403, None)


def test_credentials_of_a_proxy_are_not_ours() -> None:
    for value in (b"Basic dXNlcjpwYXNz", b"Negotiate abc", b"Bearerish abc", b""):
        head = Head("PUT", "/u1/a.txt", b"", 5, {b"authorization": value})
        refused(gate().authorise(head, Operation.PUT), "missing_credentials")
        signed_head = signed("v1", Operation.PUT, "PUT")
        signed_head.fields = {b"authorization": value}
        granted(gate().authorise(signed_head, Operation.PUT))


@pytest.mark.parametrize("way", sorted(PERMITTED))
def test_a_scheme_that_is_not_enabled_refuses(way: str) -> None:
    name = {"path-only": "signature", "strong": "signature", "ticket in query": "ticket"}.get(way, way)
    others = tuple(scheme for scheme in SCHEMES if scheme != name)
    for schemes in ((), others):
        refusal = refused(gate(schemes=schemes).authorise(signed(way, Operation.PUT, "PUT"), Operation.PUT))
        assert (refusal.status, refusal.code, refusal.reason) == (403, "scheme_disabled", "scheme_disabled")
    granted(gate(schemes=(name,)).authorise(signed(way, Operation.PUT, "PUT"), Operation.PUT))


def test_an_unknown_scheme_name_is_a_mistake_of_the_operator() -> None:
    with pytest.raises(ValueError, match="v9"):
        gate(schemes=("v1", "v9"))


def test_every_pair_of_sources_is_refused() -> None:
    ways = ("v1", "path-only", "prosody-jwt", "ticket in query")
    for one, other in itertools.combinations(ways, 2):
        first, second = (signed(way, Operation.PUT, "PUT") for way in (one, other))
        query = b"&".join(part for part in (first.query, second.query) if part)
        head = Head("PUT", "/upload/u1/a.txt", query, SIZE, {**first.fields, **second.fields})
        refusal = refused(gate().authorise(head, Operation.PUT), "multiple_credentials", "multiple")
        assert refusal.status == 403
    # also where one of the two is empty, disabled or nonsense
    head = signed("v1", Operation.PUT, "PUT")
    for extra in ({b"x-signature": b""}, {b"authorization": b"Bearer"}, {b"authorization": b"BEARER x"}):
        head.fields = extra
        for schemes in (SCHEMES, ("v1",)):
            refused(gate(schemes=schemes).authorise(head, Operation.PUT), "multiple_credentials")


@pytest.mark.parametrize("way", sorted(PERMITTED))
def test_a_signature_with_the_empty_key_fails(way: str) -> None:
    # ownCloud CVE-2023-49105: what an empty key signs must not count, least of all by default.
    import hmac

    head = signed(way, Operation.PUT, "PUT")
    empty = hmac.digest(b"", b"u1/a.txt 5", "sha256").hex()
    refused(gate().authorise(Head("PUT", head.path, f"v={empty}".encode(), SIZE), Operation.PUT), "bad_signature")
    refused(gate(b"k" * 32, delete_secret=b"").authorise(head, Operation.PUT))


def test_statuses_and_challenges_are_as_documented() -> None:
    assert set(STATUS.values()) == {401, 403, 410, 411}
    head = Head("PUT", "/upload/u1/a.txt", b"", 5, {b"authorization": b"Bearer x.y.z"})
    refusal = refused(gate().authorise(head, Operation.PUT), "bad_token", "malformed")
    assert (refusal.status, refusal.challenge) == (401, CHALLENGE)


def test_a_get_signature_never_writes() -> None:
    path = "/download/u1/a.txt"
    mac = signing.x_signature(SECRET, path).encode()
    refused(gate().authorise(Head("PUT", path, b"", 5, {b"x-signature": mac}), Operation.PUT), "signature_too_weak")
    for way in ("v3", "strong"):
        read = signed(way, Operation.DOWNLOAD, "GET")
        granted(gate().authorise(read, Operation.DOWNLOAD))
        head = Head("HEAD", read.path, read.query, 0, read.fields)
        granted(gate().authorise(head, Operation.DOWNLOAD))
        for method, operation in (("PUT", Operation.PUT), ("DELETE", Operation.DELETE)):
            write = Head(method, read.path, read.query, 0, read.fields)
            refused(gate().authorise(write, operation), "bad_signature", "method")
        head_only = signed(way, Operation.DOWNLOAD, "HEAD")
        get = Head("GET", head_only.path, head_only.query, 0, head_only.fields)
        refused(gate().authorise(get, Operation.DOWNLOAD), "bad_signature")


def test_a_put_url_never_deletes() -> None:
    judge = gate(delete_secret=DELETE_SECRET)
    for way in ("v1", "v2", "token", "v3", "path-only", "strong", "prosody-jwt"):
        head = signed(way, Operation.PUT, "PUT")
        head.method = "DELETE"
        refused(judge.authorise(head, Operation.DELETE))
    deletion = signed("token", Operation.DELETE, "DELETE")
    granted(judge.authorise(deletion, Operation.DELETE))
    deletion.method = "PUT"
    refused(judge.authorise(deletion, Operation.PUT), "bad_signature")
