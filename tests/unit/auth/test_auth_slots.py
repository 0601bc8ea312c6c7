"""v1, v2, token and v3: path forms, sizes, types, rotation, and fields that try to move into their neighbours."""

import pytest
from tests.unit.auth.heads import NOW, SECRET, Head, StoppedClock, gate, granted, put, refused

from hmac_file_server.auth import Grant, Operation, signing
from hmac_file_server.auth.keys import key_id

EXPIRES = int(NOW) + 60
TYPE = "image/png"


def slot_query(parameter: str, path: str, size: int, media_type: str = TYPE, secret: bytes = SECRET) -> str:
    if parameter == "v":
        return f"v={signing.v1(secret, path, size)}"
    if parameter == "v3":
        return f"v3={signing.v3(secret, 'PUT', '/' + path, EXPIRES)}&expires={EXPIRES}"
    return f"{parameter}={signing.v2(secret, path, size, media_type)}"


SLOTS = ("v", "v2", "token", "v3")


@pytest.mark.parametrize("parameter", SLOTS)
def test_both_path_forms_are_accepted(parameter: str) -> None:
    judge = gate(base_paths=("/", "/upload/", "/deep/er/"))
    for url, signed, form in (
        ("/upload/d/a.png", "d/a.png", "relative"),
        ("/upload/d/a.png", "upload/d/a.png", "whole"),
        ("/deep/er/d/a.png", "d/a.png", "relative"),
        ("/deep/er/d/a.png", "deep/er/d/a.png", "whole"),
        ("/upload/a.png", "a.png", "relative"),
        ("/upload/1/2/3/4/5.png", "1/2/3/4/5.png", "relative"),
    ):
        head = put(url, slot_query(parameter, signed, 5), 5, TYPE)
        assert granted(judge.authorise(head, Operation.PUT)).form == form
    # a shorter base path that matches too is not the one that counts
    head = put("/deep/er/d/a.png", slot_query(parameter, "er/d/a.png", 5), 5, TYPE)
    refused(judge.authorise(head, Operation.PUT), "bad_signature")


@pytest.mark.parametrize("parameter", SLOTS)
def test_a_path_below_no_base_path_is_refused(parameter: str) -> None:
    judge = gate(base_paths=("/upload/",))
    for url, signed in (
        ("/d/a.png", "d/a.png"),
        ("/upload/", "upload/"),
        ("/uploads/a.png", "uploads/a.png"),
        ("/", "x"),
    ):
        head = put(url, slot_query(parameter, signed, 5), 5, TYPE)
        refused(judge.authorise(head, Operation.PUT), "bad_signature", "path")
    if parameter == "token":
        mac = signing.delete_token(SECRET, "d/a.png", b"d")
        head = Head("DELETE", "/d/a.png", f"token={mac}".encode())
        refused(gate(base_paths=("/upload/",), delete_secret=b"d").authorise(head, Operation.DELETE), None, "path")


@pytest.mark.parametrize("parameter", ["v", "v2", "token"])
def test_a_size_that_nobody_announced_is_refused(parameter: str) -> None:
    head = put("/upload/d/a.png", slot_query(parameter, "d/a.png", 5), None, TYPE)
    refusal = refused(gate().authorise(head, Operation.PUT), "length_required", "length")
    assert refusal.status == 411


def test_v3_does_not_bind_the_size_so_a_chunked_body_may_come() -> None:
    head = put("/upload/d/a.png", slot_query("v3", "d/a.png", 5), None)
    assert granted(gate().authorise(head, Operation.PUT)).exact_size is None


@pytest.mark.parametrize("parameter", ["v", "v2", "token"])
def test_every_size_but_the_signed_one_is_refused(parameter: str) -> None:
    query = slot_query(parameter, "d/a.png", 50)
    for size in (0, 1, 5, 49, 51, 500, 2**63, 10**30):
        refused(gate().authorise(put("/upload/d/a.png", query, size, TYPE), Operation.PUT), "bad_signature")
    assert granted(gate().authorise(put("/upload/d/a.png", query, 50, TYPE), Operation.PUT)).exact_size == 50


@pytest.mark.parametrize("parameter", ["v2", "token"])
def test_the_type_counts_as_sent(parameter: str) -> None:
    sent = "text/plain; charset=utf-8"
    query = slot_query(parameter, "d/a.txt", 5, sent)
    assert granted(gate().authorise(put("/upload/d/a.txt", query, 5, sent), Operation.PUT)).media_type == sent
    for other in (
        None,
        "",
        "text/plain",
        "text/plain;charset=utf-8",
        "Text/plain; charset=utf-8",
        sent + " ",
        "text/html",
    ):
        refused(gate().authorise(put("/upload/d/a.txt", query, 5, other), Operation.PUT), "bad_signature")


@pytest.mark.parametrize("parameter", ["v2", "token"])
def test_a_missing_type_is_octet_stream(parameter: str) -> None:
    query = slot_query(parameter, "d/a", 5, "application/octet-stream")
    for sent in (None, "", "application/octet-stream"):
        grant = granted(gate().authorise(put("/upload/d/a", query, 5, sent), Operation.PUT))
        assert grant.media_type == "application/octet-stream"


def test_a_type_that_cannot_stand_in_a_header_is_not_handed_on() -> None:
    for sent in ("text/plain\u00e9", "a" * 300, "日本/語"):
        query = slot_query("v2", "d/a", 5, sent)
        grant = granted(gate().authorise(put("/upload/d/a", query, 5, sent), Operation.PUT))
        assert grant.media_type == "application/octet-stream"


def test_upper_case_hex_is_accepted() -> None:
    for parameter in SLOTS:
        query = slot_query(parameter, "d/a.png", 5)
        name, _, rest = query.partition("=")
        mac, sep, expires = rest.partition("&")
        for spelled in (mac.upper(), mac.lower(), mac[:32].upper() + mac[32:]):
            granted(gate().authorise(put("/upload/d/a.png", f"{name}={spelled}{sep}{expires}", 5, TYPE), Operation.PUT))


@pytest.mark.parametrize("parameter", SLOTS)
def test_rotation(parameter: str) -> None:
    old, new = b"o" * 32, b"n" * 32
    by_old = put("/upload/d/a.png", slot_query(parameter, "upload/d/a.png", 5, secret=old), 5, TYPE)
    by_new = put("/upload/d/a.png", slot_query(parameter, "d/a.png", 5, secret=new), 5, TYPE)
    before, during, after = gate(old), gate(new, old), gate(new)
    assert granted(before.authorise(by_old, Operation.PUT)).key_id == key_id(old)
    refused(before.authorise(by_new, Operation.PUT), "bad_signature", "unknown_key")
    assert granted(during.authorise(by_old, Operation.PUT)).key_id == key_id(old)
    assert granted(during.authorise(by_new, Operation.PUT)).key_id == key_id(new)
    refused(after.authorise(by_old, Operation.PUT), "bad_signature", "unknown_key")
    assert granted(after.authorise(by_new, Operation.PUT)).key_id == key_id(new)


def test_token_keys_are_not_slot_keys() -> None:
    judge = gate(SECRET, jwt_secrets=(b"j" * 32,))
    wrong = put("/upload/d/a.png", slot_query("v", "d/a.png", 5, secret=b"j" * 32), 5, TYPE)
    refused(judge.authorise(wrong, Operation.PUT), "bad_signature")
    granted(judge.authorise(put("/upload/d/a.png", slot_query("v", "d/a.png", 5), 5, TYPE), Operation.PUT))


def test_no_byte_moves_between_neighbouring_fields() -> None:
    # v1: path SP size
    head = put("/upload/d/a 1", f"v={signing.v1(SECRET, 'd/a', 15)}", 5)
    refused(gate().authorise(head, Operation.PUT), "bad_signature")
    head = put("/upload/d/a", f"v={signing.v1(SECRET, 'd/a 1', 5)}", 15)
    refused(gate().authorise(head, Operation.PUT), "bad_signature")
    granted(gate().authorise(put("/upload/d/a 1", f"v={signing.v1(SECRET, 'd/a 1', 5)}", 5), Operation.PUT))
    # v2: path NUL size NUL type, in both directions over both borders
    mac = signing.v2(SECRET, "d/a1", 23, "4x/y")
    for path, size, media_type in (
        ("d/a", 123, "4x/y"),
        ("d/a12", 3, "4x/y"),
        ("d/a1", 2, "34x/y"),
        ("d/a1", 234, "x/y"),
    ):
        refused(gate().authorise(put("/upload/" + path, f"v2={mac}", size, media_type), Operation.PUT), "bad_signature")
        refused(
            gate().authorise(put("/upload/" + path, f"token={mac}", size, media_type), Operation.PUT), "bad_signature"
        )
    granted(gate().authorise(put("/upload/d/a1", f"v2={mac}", 23, "4x/y"), Operation.PUT))
    # v3: METHOD LF expires LF /path
    mac = signing.v3(SECRET, "PUT", "/1/a", EXPIRES)
    for path, expires in ((f"/{EXPIRES % 10}/1/a", EXPIRES // 10), ("/a", EXPIRES * 10 + 1), ("/1/a", EXPIRES + 1)):
        refused(gate(now=0).authorise(put(path, f"v3={mac}&expires={expires}"), Operation.PUT), "bad_signature")
    # the delete form: path NUL secret
    mac = signing.delete_token(SECRET, "d/ab", b"cd")
    for path, delete_secret in (("d/a", b"bcd"), ("d/abc", b"d")):
        head = Head("DELETE", "/" + path, f"token={mac}".encode())
        refused(gate(delete_secret=delete_secret).authorise(head, Operation.DELETE), "bad_signature")


def test_no_layout_passes_for_another() -> None:
    texts = {
        "v": signing.v1(SECRET, "d/a.png", 5),
        "v2": signing.v2(SECRET, "d/a.png", 5, TYPE),
        "v3": signing.v3(SECRET, "PUT", "/d/a.png", EXPIRES),
        "x": signing.x_signature(SECRET, "/d/a.png"),
        "strong": signing.x_signature_strong(SECRET, "PUT", "/d/a.png", "", 5, EXPIRES),
        "delete": signing.delete_token(SECRET, "d/a.png", b"delete"),
    }
    judge = gate(delete_secret=b"delete")
    expected = {"v": "v1", "v2": "v2", "v3": "v3"}
    for made_for, mac in texts.items():
        for parameter, scheme in expected.items():
            head = put("/d/a.png", f"{parameter}={mac}&expires={EXPIRES}", 5, TYPE)
            answer = judge.authorise(head, Operation.PUT)
            assert isinstance(answer, Grant) is (made_for == parameter), (made_for, parameter)
            if isinstance(answer, Grant):
                assert answer.scheme == scheme
        answer = judge.authorise(put("/d/a.png", b"", 5, TYPE, x_signature=mac), Operation.PUT)
        assert isinstance(answer, Grant) is (made_for == "x")
        head = put("/d/a.png", b"", 5, TYPE, x_signature=mac, x_signature_expires=str(EXPIRES))
        assert isinstance(judge.authorise(head, Operation.PUT), Grant) is (made_for == "strong")
        answer = judge.authorise(Head("DELETE", "/d/a.png", f"token={mac}".encode()), Operation.DELETE)
        assert isinstance(answer, Grant) is (made_for == "delete")


AGENTS = ("Gajim 1.8", "Dino", "Conversations/2", "android", "mobile", "xmpp", "client", "bot")


@pytest.mark.parametrize("late", [0.0, 0.001, 1, 3600, 8 * 3600, 72 * 3600])
def test_nothing_that_a_client_sends_widens_the_expiry(late: float) -> None:
    # The Go server adds 8 to 72 hours for these.
    mac = signing.v3(SECRET, "PUT", "/upload/d/a", EXPIRES)
    judge = gate(now=EXPIRES + late)
    for agent in AGENTS:
        for size in (5, 10 * 2**30):
            head = put(
                "/upload/d/a",
                f"v3={mac}&expires={EXPIRES}&session_id=1&network_resilience=true&resume_allowed=true",
                size,
                user_agent=agent,
                x_forwarded_for="10.0.0.1",
                x_real_ip="10.0.0.1",
            )
            refused(judge.authorise(head, Operation.PUT), "signature_expired", "expired")


def test_the_expiry_is_exact() -> None:
    clock = StoppedClock(EXPIRES - 1e-3)
    judge = gate(clock=clock)
    head = put("/upload/d/a", slot_query("v3", "upload/d/a", 5))
    granted(judge.authorise(head, Operation.PUT))
    clock.now = EXPIRES
    assert refused(judge.authorise(head, Operation.PUT), "signature_expired").status == 403
    refused(
        gate(now=NOW).authorise(put("/a", f"v3={signing.v3(SECRET, 'PUT', '/a', 0)}&expires=0"), Operation.PUT),
        None,
        "expired",
    )


def test_only_a_right_signature_learns_that_it_is_expired() -> None:
    head = put("/upload/d/a", f"v3={'0' * 64}&expires=5")
    refused(gate().authorise(head, Operation.PUT), "bad_signature")


@pytest.mark.parametrize("parameter", ["v", "v2", "token"])
def test_a_resumable_creation_at_a_slot_binds_the_whole_uploads_length(parameter: str) -> None:
    query = slot_query(parameter, "d/a.png", 1000)
    for fields in (
        {"upload_length": "1000"},
        {"x_total_size": "1000"},
        {"upload_length": "1000", "x_total_size": "1000"},
    ):
        head = put("/upload/d/a.png", query, 10, TYPE, **fields)
        assert granted(gate().authorise(head, Operation.CREATE)).exact_size == 1000
        refused(gate().authorise(head, Operation.PUT), "bad_signature")
        chunked = put("/upload/d/a.png", query, None, TYPE, **fields)
        assert granted(gate().authorise(chunked, Operation.CREATE)).exact_size == 1000
    complete = put("/upload/d/a.png", query, 1000, TYPE)
    assert granted(gate().authorise(complete, Operation.CREATE)).exact_size == 1000
    unknown = put("/upload/d/a.png", query, None, TYPE)
    refused(gate().authorise(unknown, Operation.CREATE), "length_required")
    for fields in (
        {"upload_length": "+1000"},
        {"upload_length": "1000", "x_total_size": "1001"},
        {"x_total_size": "1e3"},
    ):
        head = put("/upload/d/a.png", query, 1000, TYPE, **fields)
        refused(gate().authorise(head, Operation.CREATE), "malformed_credentials")


@pytest.mark.parametrize("parameter", SLOTS)
def test_names_as_people_give_them(parameter: str) -> None:
    for name in (
        "très cool.jpg",
        "a+b&c%20 (1).txt",
        "50% off#?;=@~!$'*.tar.gz",
        "日本.png",
        "  ",
        "a\u0301.png",
        "-",
        "a 5",
        "😀",
    ):
        head = put("/upload/d/" + name, slot_query(parameter, "d/" + name, 5), 5, TYPE)
        if parameter == "v3":
            head = put("/upload/d/" + name, slot_query(parameter, "upload/d/" + name, 5), 5, TYPE)
        granted(gate().authorise(head, Operation.PUT))
        other = put("/upload/d/x" + name, head.query, 5, TYPE)
        refused(gate().authorise(other, Operation.PUT), "bad_signature")


def test_signing_refuses_what_could_not_be_verified() -> None:
    for path in ("", "/a", "a\0b", "a\nb", "a\x7f", "a\x85"):
        with pytest.raises(ValueError):
            signing.v1(SECRET, path, 5)
        with pytest.raises(ValueError):
            signing.v2(SECRET, path, 5, TYPE)
        with pytest.raises(ValueError):
            signing.delete_token(SECRET, path, b"d")
    for path in ("", "a", "/a\n"):
        with pytest.raises(ValueError):
            signing.v3(SECRET, "PUT", path, 5)
        with pytest.raises(ValueError):
            signing.x_signature(SECRET, path)
    for size in (-1, 10**19):
        with pytest.raises(ValueError):
            signing.v1(SECRET, "a", size)
        with pytest.raises(ValueError):
            signing.v3(SECRET, "PUT", "/a", size)
        with pytest.raises(ValueError):
            signing.x_signature_strong(SECRET, "PUT", "/a", "", size, 5)
    for method in ("", "put", "PUT\n", "P T"):
        with pytest.raises(ValueError):
            signing.v3(SECRET, method, "/a", 5)
    with pytest.raises(ValueError):
        signing.v2(SECRET, "a", 5, "a\0b")
    with pytest.raises(ValueError):
        signing.v1(b"", "a", 5)
