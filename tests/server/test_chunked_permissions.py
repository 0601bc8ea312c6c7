"""Who may begin, continue, see and end an upload in chunks, how many of them, and what is given back."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from tests.faults.chunks import KIB, PATH, code, created, drafts, start, target, text
from tests.fixtures import slots
from tests.fixtures.child import wait_until
from tests.fixtures.content import content
from tests.fixtures.server import SECRET, Answer, FileServer, StartServer, running
from tests.server import signatures
from tests.server.signatures import bearer, in_future, mac, strong, ticket
from tests.server.test_lifecycle import reload

SIZE = 1000
NAME = "f.bin"
ANNOUNCED = {"X-Filename": NAME, "X-Total-Size": str(SIZE), "Content-Length": "0"}
ALIAS = "/chunked-upload"
OTHER_KEY = "another-secret-another-secret-another"


def create(
    server: FileServer, headers: Mapping[str, str], *, path: str = PATH, method: str = "POST", query: str = ""
) -> Answer:
    """Begin an upload of 1,000 bytes, if not something else is said, by this permission."""
    return server.request(method, path + query, None, {**ANNOUNCED, **headers})


def chunk(server: FileServer, session: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
    """Chunk 0."""
    named = {"X-Upload-Session-ID": session, "X-Chunk-Number": "0", **(headers or {})}
    return server.request("PUT", PATH, body, named)


def session_of(answer: Answer) -> str:
    assert answer.status == 201, answer.body
    return text(answer.json()["session_id"])


def delete(server: FileServer, session: str, headers: Mapping[str, str] | None = None) -> Answer:
    return server.request("DELETE", PATH, None, {"X-Upload-Session-ID": session, **(headers or {})})


# --- beginning -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Permission:
    """Credentials for beginning an upload, and what they are worth."""

    name: str
    expected: tuple[int, str | None]
    headers: Mapping[str, str] = field(default_factory=dict)
    query: str = ""
    method: str = "POST"
    path: str = PATH


def jwt(**claims: object) -> Mapping[str, str]:
    return bearer(ticket(**claims))


def permissions() -> Iterator[Permission]:
    yield Permission("nothing", (403, "missing_credentials"))
    yield Permission("empty", (403, "malformed_credentials"), {"X-Signature": ""})
    yield Permission("zeros", (403, "bad_signature"), {"X-Signature": "0" * 64})
    yield Permission("other key", (403, "bad_signature"), {"X-Signature": mac(PATH, OTHER_KEY)})
    for path, other in ((PATH, ALIAS), (ALIAS, PATH)):
        for method in ("POST", "PUT"):
            named = {"path": path, "method": method}
            yield Permission(f"{method} {path}", (201, None), {"X-Signature": mac(path)}, **named)
            yield Permission(
                f"{method} {path} by the alias", (403, "bad_signature"), {"X-Signature": mac(other)}, **named
            )
            yield Permission(f"{method} {path} strong", (201, None), strong(method, path, SIZE, NAME), **named)
    for wrong in (
        "/upload",
        "/upload/",
        "/upload/chunked/",
        "upload/chunked",
        "/upload/status",
        "chunked",
        "/download/x",
    ):
        yield Permission(f"path-only {wrong}", (403, "bad_signature"), {"X-Signature": mac(wrong)})
    bad = (403, "bad_signature")
    yield Permission("strong, other size", bad, strong("POST", PATH, SIZE + 1, NAME))
    yield Permission("strong, size of the body", bad, strong("POST", PATH, 0, NAME))
    yield Permission("strong, other name", bad, {**strong("POST", PATH, SIZE, "g.bin"), "X-Filename": NAME})
    yield Permission("strong, without the name", bad, strong("POST", PATH, SIZE))
    yield Permission("strong, other method", bad, strong("PUT", PATH, SIZE, NAME))
    yield Permission("strong, other path", bad, strong("POST", ALIAS, SIZE, NAME))
    yield Permission(
        "strong, other expiry", bad, {**strong("POST", PATH, SIZE, NAME), "X-Signature-Expires": "4000000000"}
    )
    past = strong("POST", PATH, SIZE, NAME, in_future(-1))
    yield Permission("strong, over", (403, "signature_expired"), past)
    no_size = {**strong("POST", PATH, SIZE, NAME), "X-Total-Size": "1" * 20}
    yield Permission("strong, size is none", (403, "malformed_credentials"), no_size)
    two = {**strong("POST", PATH, SIZE, NAME), "Upload-Length": "7"}
    yield Permission("strong, two sizes", (403, "malformed_credentials"), two)
    refused = (403, "operation_not_allowed")
    for method in ("POST", "PUT"):
        yield Permission(f"v1 {method}", refused, query="?" + slots.v1("chunked", SIZE), method=method)
        yield Permission(f"v2 {method}", refused, query="?" + slots.v2("chunked", SIZE), method=method)
        yield Permission(f"token {method}", refused, query="?" + slots.token("chunked", SIZE), method=method)
    prosody = {"slot": "a", "filename": NAME, "filesize": SIZE, "exp": in_future()}
    yield Permission("prosody", refused, {"Authorization": slots.bearer(prosody)})
    yield Permission("v3 POST", refused, query="?" + signatures.v3("POST", PATH, in_future()))
    v3 = "?" + signatures.v3("PUT", PATH, in_future())
    yield Permission("v3 PUT", refused, query=v3, method="PUT")
    slot = {"slot": "upload", "filename": "chunked", "filesize": SIZE, "exp": in_future()}
    yield Permission("prosody PUT", (403, "not_covered"), {"Authorization": slots.bearer(slot)}, method="PUT")
    both = {**jwt(prefix="many"), "X-Signature": mac(PATH)}
    yield Permission("two kinds", (403, "multiple_credentials"), both)
    yield Permission("ticket", (201, None), jwt(prefix="a"))
    yield Permission("ticket in the query", (201, None), query="?ticket=" + ticket(prefix="a"))
    yield Permission("ticket by PUT at the alias", (201, None), jwt(prefix="a"), method="PUT", path=ALIAS)
    yield Permission("ticket for this size", (201, None), jwt(prefix="a", max_size=SIZE))
    yield Permission("ticket for less", (413, "too_large"), jwt(prefix="a", max_size=SIZE - 1))
    plain = {"Content-Type": "text/plain"}
    yield Permission("ticket for a type", (201, None), {**jwt(prefix="a", type="text/plain"), **plain})
    yield Permission("ticket for a type, none said", (201, None), jwt(prefix="a", type="text/plain"))
    html = {**jwt(prefix="a", type="text/html"), **plain}
    yield Permission("ticket for another type", (415, "type_mismatch"), html)
    yield Permission("ticket to begin", (201, None), jwt(prefix="a", ops=["create"]))
    for ops in (["chunk"], ["put"], ["upload"], ["delete", "download"]):
        yield Permission(f"ticket to {ops[0]}", (403, "not_covered"), jwt(prefix="a", ops=ops))
    yield Permission("ticket, over", (401, "token_expired"), jwt(prefix="a", exp=in_future(-1)))
    yield Permission("ticket, not yet", (401, "bad_token"), jwt(prefix="a", nbf=in_future(7200)))
    yield Permission("ticket for nowhere", (401, "bad_token"), jwt())
    yield Permission("ticket for both", (401, "bad_token"), jwt(prefix="a", path="a/b"))
    yield Permission("ticket for a bad path", (400, "path_segment"), jwt(path="a/../b"))
    yield Permission("ticket for our folder", (400, "path_private"), jwt(path=".hmac-file-server/state.db"))


PERMISSIONS = tuple(permissions())


@pytest.fixture(scope="module")
def chunk_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    """One server for all that need no settings of their own."""
    yield from running(tmp_path_factory.mktemp("chunk-server"))


@pytest.mark.parametrize("permission", PERMISSIONS, ids=lambda permission: permission.name)
def test_who_may_begin(chunk_server: FileServer, permission: Permission) -> None:
    """Each of these is answered by its head; what is refused leaves nothing."""
    before = drafts(chunk_server), chunk_server.files()
    answer = create(
        chunk_server, permission.headers, path=permission.path, method=permission.method, query=permission.query
    )
    told = answer.json()
    assert (answer.status, told.get("code")) == permission.expected
    assert answer.headers["access-control-allow-origin"] == "*"
    assert ("www-authenticate" in answer.headers) is (answer.status == 401)
    if answer.status == 201:
        session = text(told["session_id"])
        assert set(drafts(chunk_server)) == {*before[0], session}
        assert delete(chunk_server, session).status == 204
        wait_until(lambda: drafts(chunk_server) == before[0], "the draft is gone")
    assert (drafts(chunk_server), chunk_server.files()) == before


def test_where_a_ticket_puts_its_file(chunk_server: FileServer) -> None:
    """Its path wins over the name; its prefix is in front of a place of its own."""
    body = content(SIZE, "where")
    answer = create(chunk_server, jwt(path="where/exactly.txt", file_expires=in_future(3600)))
    url = chunk(chunk_server, session_of(answer), body).json()["url"]
    assert answer.json()["url"] == url
    assert target(url) == "/where/exactly.txt"
    answer = create(chunk_server, jwt(prefix="where/below"))
    url = chunk(chunk_server, session_of(answer), body).json()["url"]
    assert re.fullmatch(r"/where/below/[0-9a-f]{32}/f\.bin", target(url))
    assert chunk_server.request("GET", target(url)).body == body
    # A second upload to the one path: the same bytes are the same file, others are a conflict.
    again = session_of(create(chunk_server, jwt(path="where/exactly.txt")))
    assert chunk(chunk_server, again, body).json()["url"] == "/where/exactly.txt"


def test_the_type_that_a_ticket_says_is_the_file_s(chunk_server: FileServer) -> None:
    answer = create(chunk_server, jwt(path="type/a.bin", type="text/x-note"))
    url = chunk(chunk_server, session_of(answer), bytes(SIZE)).json()["url"]
    assert chunk_server.request("HEAD", target(url)).headers["content-type"] == "text/x-note"


# --- going on --------------------------------------------------------------------------------------------


def test_the_id_is_enough(chunk_server: FileServer) -> None:
    """Without strict_signatures; credentials that come along mean nothing, right or wrong."""
    session = session_of(create(chunk_server, {"X-Signature": mac(PATH)}))
    for headers in ({"X-Signature": "0" * 64}, {"Authorization": "Bearer x"}, {"Authorization": "Basic eA=="}):
        assert chunk(chunk_server, session, bytes(SIZE), headers).status == 200
        assert chunk_server.request("GET", f"/upload/status?session_id={session}&v=0", None, headers).status == 200
    assert delete(chunk_server, session, {"X-Signature": "0" * 64}).status == 204


@pytest.fixture
def strict(start_server: StartServer) -> FileServer:
    return start_server({"security": {"secret": SECRET, "strict_signatures": True}})


def test_strict_signatures(strict: FileServer) -> None:
    """Every request about a session is signed; whatever is not changes nothing and says nothing."""
    assert code(create(strict, {"X-Signature": mac(PATH)})) == (403, "signature_too_weak")
    body = content(SIZE, "strict")
    session = session_of(create(strict, strong("POST", PATH, SIZE, NAME)))
    look = f"/upload/status?session_id={session}"
    named = {"X-Upload-Session-ID": session}

    def status(headers: Mapping[str, str], method: str = "GET") -> Answer:
        return strict.request(method, look, None, headers)

    right = strong("GET", "/upload/status", 0)
    before = status(right).json()
    assert before["uploaded_bytes"] == 0
    refused: list[tuple[Mapping[str, str], str]] = [
        ({}, "missing_credentials"),
        ({"X-Signature": "0" * 64}, "signature_too_weak"),
        ({"X-Signature": mac(PATH)}, "signature_too_weak"),
        ({"X-Signature": mac("/upload/status")}, "signature_too_weak"),
        (strong("PUT", PATH, SIZE + 1), "bad_signature"),
        (strong("POST", PATH, SIZE), "bad_signature"),
        (strong("PUT", ALIAS, SIZE), "bad_signature"),
        (strong("PUT", PATH, SIZE, NAME, in_future(-1)), "signature_expired"),
        (jwt(prefix="", ops=["create"]), "not_covered"),
        (jwt(prefix="", ops=["put", "upload", "delete", "download"]), "not_covered"),
        (
            {"Authorization": slots.bearer({"slot": "a", "filename": "b", "filesize": 3, "exp": in_future()})},
            "operation_not_allowed",
        ),
    ]
    for headers, expected in refused:
        assert code(chunk(strict, session, body, headers)) == (403, expected), headers
        assert code(status(headers)) in {(403, expected), (403, "bad_signature")}, headers
        assert code(delete(strict, session, headers)) in {(403, expected), (403, "bad_signature")}, headers
        # Nobody learns by an unsigned question whether there is a session.
        assert code(chunk(strict, "1700000000_nobody", body, headers)) == (403, expected)
    assert status(right).json() == before
    # Who may GET may HEAD.
    assert status(right, "HEAD").status == 200
    assert status(strong("HEAD", "/upload/status", 0), "HEAD").status == 200
    assert status(jwt(prefix="anywhere", ops=["chunk"])).status == 200
    assert strict.request("GET", f"{look}&ticket={ticket(prefix='')}").status == 200
    # A chunk, by a signature that binds its length, by one that binds its name too, and by a ticket.
    for headers in (strong("PUT", PATH, SIZE), strong("PUT", PATH, SIZE, NAME), jwt(prefix="", ops=["chunk"])):
        answer = chunk(strict, session, body, headers)
        assert (answer.status, answer.json()["completed"]) == (200, True)
    for headers in (strong("DELETE", PATH, 0), jwt(prefix="x")):
        other = session_of(create(strict, jwt(prefix="x")))
        assert delete(strict, other, named).status == 403
        assert delete(strict, other, headers).status == 204
    assert len(strict.files()) == 1


# --- how many --------------------------------------------------------------------------------------------


def test_a_ticket_s_uses_are_counted_and_given_back(chunk_server: FileServer) -> None:
    """Taken at the beginning, shared with other ways to upload, given back by an end without a file."""
    counted = jwt(prefix="count", files=2)
    first, second = (session_of(create(chunk_server, counted)) for _ in range(2))
    assert code(create(chunk_server, counted)) == (403, "ticket_used_up")
    put = chunk_server.request("PUT", "/upload/count/put", b"x", counted)
    assert code(put) == (403, "ticket_used_up")
    assert delete(chunk_server, first).status == 204
    wait_until(lambda: create_and_drop(chunk_server, counted), "a use is given back")
    assert chunk(chunk_server, second, bytes(SIZE)).json()["completed"] is True
    third = session_of(wait_for_use(chunk_server, counted))
    assert code(create(chunk_server, counted)) == (403, "ticket_used_up")
    # To forget an upload that is complete gives nothing back.
    assert delete(chunk_server, second).status == 204
    assert chunk(chunk_server, third, bytes(SIZE)).json()["completed"] is True
    for session in (second, third):
        delete(chunk_server, session)
    assert code(create(chunk_server, counted)) == (403, "ticket_used_up")


def create_and_drop(server: FileServer, headers: Mapping[str, str]) -> bool:
    answer = create(server, headers)
    return answer.status == 201 and delete(server, session_of(answer)).status == 204


def wait_for_use(server: FileServer, headers: Mapping[str, str]) -> Answer:
    """The answer to a beginning, once a use of its ticket is free."""
    answers: list[Answer] = []

    def begun() -> bool:
        answers.append(create(server, headers))
        return answers[-1].status == 201

    wait_until(begun, "a use is given back")
    return answers[-1]


def test_a_conflict_and_a_file_of_old_give_the_use_back(chunk_server: FileServer) -> None:
    """What was there already cost nobody anything."""
    body = content(SIZE, "conflict")
    file = chunk_server.storage / "conflict" / "a"
    file.parent.mkdir()
    file.write_bytes(body)
    os.utime(file, (1_600_000_000, 1_600_000_000))
    counted = jwt(path="conflict/a", files=1)
    session = session_of(create(chunk_server, counted))
    assert code(chunk(chunk_server, session, bytes(SIZE))) == (409, "exists")
    for _ in range(2):
        session = session_of(wait_for_use(chunk_server, counted))
        assert code(create(chunk_server, counted)) == (403, "ticket_used_up")
        assert chunk(chunk_server, session, body).json()["completed"] is True
    assert wait_for_use(chunk_server, counted).status == 201


def test_what_is_refused_costs_no_use(chunk_server: FileServer) -> None:
    counted = jwt(prefix="refused", files=1, max_size=SIZE, type="text/plain")
    assert create(chunk_server, {**counted, "X-Total-Size": "x"}).status == 400
    assert create(chunk_server, {**counted, "X-Total-Size": str(SIZE + 1)}).status == 413
    assert create(chunk_server, {**counted, "Content-Type": "text/html"}).status == 415
    assert create(chunk_server, {**counted, "Idempotency-Key": "k" * 256}).status == 400
    key = {**counted, "Idempotency-Key": "k"}
    session = session_of(create(chunk_server, key))
    # A repeat costs nothing either, and is answered though the ticket is used up.
    assert session_of(create(chunk_server, key)) == session
    assert code(create(chunk_server, {**key, "X-Total-Size": "999"})) == (422, "key_reused")
    assert code(create(chunk_server, counted)) == (403, "ticket_used_up")


def test_a_use_comes_back_when_an_upload_expires(start_server: StartServer) -> None:
    server = start_server({"uploads": {"max_resumable_age": "1s"}})
    counted = jwt(prefix="expiry", files=1)
    session = session_of(create(server, counted))
    assert code(create(server, counted)) == (403, "ticket_used_up")
    assert session_of(wait_for_use(server, counted)) != session


@pytest.mark.parametrize("processes", [1, 2])
def test_parallel_beginnings_cannot_overdraw(start_server: StartServer, processes: int) -> None:
    """Neither a ticket nor the number of an owner's sessions, whichever process they reach."""
    server = start_server({"server": {"processes": processes}, "uploads": {"max_sessions_per_owner": 4}})
    counted = jwt(prefix="many", files=3)

    def begin(headers: Mapping[str, str]) -> tuple[int, object]:
        answer = create(server, headers)
        return answer.status, answer.json().get("code")

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(begin, [counted] * 12))
    assert sorted(taken, key=str) == [(201, None)] * 3 + [(403, "ticket_used_up")] * 9
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(begin, [jwt(prefix="many", jti="one-ticket")] * 12))
    assert sorted(taken, key=str) == [(201, None)] * 4 + [(429, "too_many_sessions")] * 8


def test_sessions_of_one_owner(start_server: StartServer) -> None:
    """Counted by ticket, else by owner; the places come back with every kind of end."""
    server = start_server({"uploads": {"max_sessions_per_owner": 2, "max_resumable_age": "1h"}})
    one, other = jwt(prefix="a", jti="one", sub="alice"), jwt(prefix="a", jti="other", sub="alice")
    sessions = [session_of(create(server, one)) for _ in range(2)]
    answer = create(server, one)
    assert code(answer) == (429, "too_many_sessions")
    assert int(answer.headers["retry-after"]) > 0
    assert create(server, other).status == 201
    # A repeat is no new session.
    assert delete(server, sessions[0]).status == 204
    key = {**one, "Idempotency-Key": "k"}
    session = session_of(create(server, key))
    assert session_of(create(server, key)) == session
    assert create(server, one).status == 429
    # One that is complete counts no more, nor does an empty one at any time.
    assert chunk(server, sessions[1], bytes(SIZE)).json()["completed"] is True
    assert create(server, {**one, "X-Total-Size": "0"}).json()["completed"] is True
    assert create(server, one).status == 201
    assert create(server, one).status == 429
    # Those that nobody is named for share a hundred times as many.
    for _ in range(5):
        assert create(server, {"X-Signature": mac(PATH)}).status == 201


def test_owners_without_a_ticket_s_name(start_server: StartServer) -> None:
    """A ticket without jti is the owner's, whichever of them it is."""
    server = start_server({"uploads": {"max_sessions_per_owner": 1}})

    def of(owner: str, lifetime: int) -> Mapping[str, str]:
        claims = {"aud": "hmac-file-server", "prefix": "a", "sub": owner, "exp": in_future(lifetime)}
        return bearer(signatures.token(claims, {"alg": "HS256", "typ": "ticket+jwt"}))

    session = session_of(create(server, of("alice", 300)))
    assert code(create(server, of("alice", 301))) == (429, "too_many_sessions")
    assert create(server, of("bob", 300)).status == 201
    assert delete(server, session).status == 204
    assert create(server, of("alice", 302)).status == 201


def test_places_come_back_when_uploads_expire(start_server: StartServer) -> None:
    server = start_server({"uploads": {"max_sessions_per_owner": 1, "max_resumable_age": "1s"}})
    owner = jwt(prefix="a", jti="one")
    assert create(server, owner).status == 201
    assert code(create(server, owner)) == (429, "too_many_sessions")
    wait_until(lambda: create(server, owner).status == 201, "the place is free")


# --- keys ------------------------------------------------------------------------------------------------


def test_keys_are_their_owner_s(chunk_server: FileServer) -> None:
    """Who guesses another's key gets a session of his own, and learns nothing of the other."""
    key = {"Idempotency-Key": "the-same-key"}
    alice, bob = jwt(prefix="keys", jti="alice-1"), jwt(prefix="keys", jti="bob-1")
    ids = [session_of(create(chunk_server, {**who, **key})) for who in (alice, bob, {"X-Signature": mac(PATH)})]
    assert len(set(ids)) == 3
    for who, session in zip((alice, bob), ids, strict=False):
        assert session_of(create(chunk_server, {**who, **key})) == session
    # By either of its names, and either method, it is the same secret's upload.
    again = create(chunk_server, {"X-Signature": mac(ALIAS), **key}, path=ALIAS, method="PUT")
    assert session_of(again) == ids[2]


# --- the switch ------------------------------------------------------------------------------------------


QUERIES = ("", "?session_id=1700000000_abc123", "?session_id=1700000000_abc123&wait=1")
ENDPOINTS = (PATH, ALIAS, "/upload/status", "/upload-status")


def asked(server: FileServer, path: str) -> dict[str, object]:
    """Status, code and Allow of what is answered to every method at a path, with every kind of credentials."""
    found: dict[str, object] = {}
    relative = path.removeprefix("/upload/").removeprefix("/")
    for method in ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "MKCOL"):
        credentials: dict[str, tuple[str, Mapping[str, str]]] = {
            "nothing": ("", {}),
            "path-only": ("", {"X-Signature": mac(path)}),
            "strong": ("", strong(method, path, 3)),
            "v1": ("?" + slots.v1(relative, 3), {}),
            "delete token": ("?" + slots.delete_token(relative), {}),
            "ticket": ("", bearer(ticket(prefix="", ops=["put", "upload", "create", "chunk", "delete", "download"]))),
            "session": ("", {"X-Upload-Session-ID": "1700000000_abc123", "X-Chunk-Number": "0"}),
        }
        for name, (query, headers) in credentials.items():
            for more in QUERIES:
                asked_for = query + (more.replace("?", "&") if query else more)
                body = b"abc" if method in {"PUT", "POST", "PATCH", "DELETE"} else None
                announced = {} if name in {"strong", "v1"} else {"X-Filename": "a", "X-Total-Size": "3"}
                answer = server.request(method, path + asked_for, body, {**announced, **headers})
                told = answer.json() if answer.body.startswith(b"{") else {}
                found[f"{method} {name} {more}"] = (answer.status, told.get("code"), answer.headers.get("allow"))
    return found


def test_switched_off_it_is_the_traditional_server(start_server: StartServer) -> None:
    """The four paths are answered as any other path that nothing is stored at; nothing is begun."""
    server = start_server(
        {
            "uploads": {"chunked_uploads_enabled": False, "resumable_uploads_enabled": False},
            "logging": {"level": "warning"},
        }
    )
    plain = asked(server, "/uploader.js")
    # That page is there to be read; what is compared is everything else.
    plain = {question: answer for question, answer in plain.items() if not question.startswith(("GET", "HEAD"))}
    missing = asked(server, "/upload/is-not-there")
    reads = {question: answer for question, answer in missing.items() if question.startswith(("GET", "HEAD"))}
    for path in ENDPOINTS:
        assert asked(server, path) == reads | plain, path
    assert drafts(server) == []
    assert server.files() == set()
    log = server.log_text()
    assert "Traceback" not in log


def test_the_switch_is_turned_by_a_signal(start_server: StartServer) -> None:
    """What was begun goes on once it is on again."""
    server = start_server({})
    upload = start(server, content(3 * KIB, "switch"))
    reload(server, {"uploads": {"chunked_uploads_enabled": False}})
    assert created(server, 3).status == 404
    assert code(server.request("PUT", PATH, b"abc", upload.head(0))) == (403, "missing_credentials")
    assert upload.look().status == 404
    reload(server, {})
    assert upload.put(0).json()["completed"] is True
    assert upload.stored() == upload.body
