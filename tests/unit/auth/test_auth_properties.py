"""For any request: what is rightly signed passes, and any one change fails."""

from dataclasses import dataclass, replace
from typing import Final

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.unit.auth.heads import Head, gate, granted, refused

from hmac_file_server.auth import Grant, Operation, Refusal, signing

NOW: Final = 1_700_000_000

SEGMENT = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/\\"), min_size=1, max_size=12
).filter(lambda text: text not in {".", ".."})
PATH = st.lists(SEGMENT, min_size=1, max_size=4).map("/".join)
TYPE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=30).filter(
    lambda t: t == t.strip()
)
KEY = st.binary(min_size=16, max_size=100)
SCHEME = st.sampled_from(["v1", "v2", "token", "v3", "path-only", "strong", "prosody", "ticket"])


@dataclass(frozen=True)
class Facts:
    """What is signed, or what is sent."""

    scheme: str
    key: bytes
    path: str
    size: int
    media_type: str
    expires: int


def head_of(facts: Facts, signature: tuple[bytes, dict[bytes, bytes]]) -> Head:
    query, fields = signature
    given = {b"content-type": facts.media_type.encode(), **fields}
    return Head("PUT", "/files/" + facts.path, query, facts.size, given)


def sign(facts: Facts) -> tuple[bytes, dict[bytes, bytes]]:
    """The query and the header fields that permit these facts."""
    key, path, url = facts.key, facts.path, "/files/" + facts.path
    expires = str(facts.expires).encode()
    match facts.scheme:
        case "v1":
            return b"v=" + signing.v1(key, path, facts.size).encode(), {}
        case "v2":
            return b"v2=" + signing.v2(key, path, facts.size, facts.media_type).encode(), {}
        case "token":
            return b"token=" + signing.token(key, path, facts.size, facts.media_type).encode(), {}
        case "v3":
            return b"v3=%b&expires=%b" % (signing.v3(key, "PUT", url, facts.expires).encode(), expires), {}
        case "path-only":
            return b"", {b"x-signature": signing.x_signature(key, url).encode()}
        case "strong":
            name = "n" + str(facts.size)
            mac = signing.x_signature_strong(key, "PUT", url, name, facts.size, facts.expires)
            return b"", {b"x-signature": mac.encode(), b"x-signature-expires": expires, b"x-filename": name.encode()}
        case "prosody":
            slot, _, filename = path.partition("/")
            claims = {"slot": slot, "filename": filename, "filesize": facts.size, "exp": facts.expires}
            return b"", {b"authorization": b"Bearer " + signing.prosody_jwt(key, claims).encode()}
        case _:
            token = signing.ticket(key, {"path": path, "exp": facts.expires, "type": facts.media_type})
            return b"ticket=" + token.encode(), {}


BINDS: Final = {
    "v1": {"path", "size"},
    "v2": {"path", "size", "media_type"},
    "token": {"path", "size", "media_type"},
    "v3": {"path", "expires"},
    "path-only": {"path"},
    "strong": {"path", "size", "expires"},
    "prosody": {"path"},
    "ticket": {"path", "media_type"},
}


@st.composite
def signed_facts(draw: st.DrawFn) -> Facts:
    scheme = draw(SCHEME)
    path = draw(PATH)
    media_type = draw(TYPE)
    if scheme == "prosody":
        assume("/" in path)
    if scheme == "ticket":
        assume(len(media_type) >= 3)
    expires = draw(st.integers(min_value=NOW + 1, max_value=10**18))
    return Facts(scheme, draw(KEY), path, draw(st.integers(min_value=0, max_value=2**62)), media_type, expires)


def judge(facts: Facts, head: Head, now: float = NOW) -> Grant | Refusal:
    return gate(facts.key, base_paths=("/files/",), now=now).authorise(head, Operation.PUT)


@settings(max_examples=300)
@given(facts=signed_facts())
def test_what_is_rightly_signed_passes(facts: Facts) -> None:
    grant = granted(judge(facts, head_of(facts, sign(facts))))
    if "size" in BINDS[facts.scheme] or facts.scheme == "prosody":
        assert grant.exact_size == facts.size
    assert grant.covers(facts.path)


@settings(max_examples=600)
@given(facts=signed_facts(), data=st.data())
def test_any_one_change_fails(facts: Facts, data: st.DataObject) -> None:
    signature = sign(facts)
    head = head_of(facts, signature)
    part = data.draw(st.sampled_from(sorted(BINDS[facts.scheme] | {"key", "signature"})))
    match part:
        case "path":
            other = data.draw(PATH)
            assume(other != facts.path)
            head = head_of(replace(facts, path=other), signature)
        case "size":
            other_size = data.draw(st.integers(min_value=0, max_value=2**63))
            assume(other_size != facts.size)
            head = head_of(replace(facts, size=other_size), signature)
        case "media_type":
            other_type = data.draw(TYPE)
            assume(other_type != facts.media_type)
            head = head_of(replace(facts, media_type=other_type), signature)
        case "expires":
            later = str(facts.expires + data.draw(st.integers(min_value=1, max_value=10**17))).encode()
            query, fields = signature
            if facts.scheme == "v3":
                query = query.partition(b"&")[0] + b"&expires=" + later
            else:
                fields = {**fields, b"x-signature-expires": later}
            head = head_of(facts, (query, fields))
        case "key":
            other_key = data.draw(KEY)
            # RFC 2104 pads short keys with zeros: such a pair is one key
            assume(other_key.rstrip(b"\0") != facts.key.rstrip(b"\0"))
            refused(judge(replace(facts, key=other_key), head))
            return
        case _:
            query, fields = signature
            name = next((n for n in (b"x-signature", b"authorization") if n in fields), None)
            old = query if name is None else fields[name]
            # only the value: names, words and the expiry have their own tests
            start = {"v1": 2, "v2": 3, "token": 6, "v3": 3, "prosody": 7, "ticket": 7}.get(facts.scheme, 0)
            end = start + 64 if facts.scheme == "v3" else len(old)
            position = data.draw(st.integers(min_value=start, max_value=end - 1))
            changed = bytearray(old)
            changed[position] = data.draw(st.integers(min_value=0, max_value=255))
            assume(bytes(changed).lower() != old.lower() or facts.scheme in {"prosody", "ticket"})
            assume(bytes(changed) != old)
            head = head_of(facts, (bytes(changed), {}) if name is None else (b"", {**fields, name: bytes(changed)}))
    refused(judge(facts, head))


@given(facts=signed_facts(), late=st.floats(min_value=0, max_value=1e9))
def test_nothing_passes_at_or_after_its_expiry(facts: Facts, late: float) -> None:
    answer = judge(facts, head_of(facts, sign(facts)), facts.expires + late)
    if facts.scheme in {"v3", "strong", "prosody", "ticket"}:
        refused(answer, None, "expired")
    else:
        granted(answer)


@given(
    facts=signed_facts(),
    operation=st.sampled_from(list(Operation)),
    method=st.sampled_from(["GET", "DELETE", "POST", "PATCH"]),
)
def test_an_upload_permission_is_for_uploads(facts: Facts, operation: Operation, method: str) -> None:
    assume(
        not (
            facts.scheme in {"ticket", "path-only"}
            and operation in {Operation.UPLOAD, Operation.CREATE, Operation.CHUNK}
        )
    )
    head = head_of(facts, sign(facts))
    head.method = method
    answer = gate(facts.key, base_paths=("/files/",), now=NOW, delete_secret=b"d").authorise(head, operation)
    assert isinstance(answer, Refusal)
