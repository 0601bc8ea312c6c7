"""X-Signature: the guide's form, the strong form, and the strict switch."""

import pytest
from tests.unit.auth.heads import NOW, SECRET, Head, gate, granted, refused

from hmac_file_server.auth import Operation, signing

EXPIRES = int(NOW) + 60


def strong(
    method: str,
    path: str,
    filename: str | None = None,
    size: int = 5,
    expires: int = EXPIRES,
    *,
    body: int | None = 5,
    fields: dict[bytes, bytes] | None = None,
) -> Head:
    mac = signing.x_signature_strong(SECRET, method, path, filename or "", size, expires)
    given = {b"x-signature": mac.encode(), b"x-signature-expires": str(expires).encode(), **(fields or {})}
    if filename is not None:
        given[b"x-filename"] = filename.encode()
    return Head(method, path, b"", body, given)


def path_only(method: str, path: str, body: int | None = 5) -> Head:
    return Head(method, path, b"", body, {b"x-signature": signing.x_signature(SECRET, path).encode()})


@pytest.mark.parametrize("path", ["/upload", "/upload/", "/upload/chunked", "/chunked-upload"])
def test_the_guides_form_is_valid_for_the_alias_that_was_asked_for(path: str) -> None:
    for operation in (Operation.UPLOAD, Operation.CREATE, Operation.CHUNK):
        grant = granted(gate().authorise(path_only("POST", path), operation))
        assert (grant.exact_size, grant.max_size, grant.filename) == (None, None, None)
    other = path_only("POST", path)
    other.path = "/upload/chunked" if path != "/upload/chunked" else "/upload"
    refused(gate().authorise(other, Operation.CREATE), "bad_signature", "path")


def test_the_guides_form_never_deletes_and_reading_never_becomes_writing() -> None:
    refused(gate().authorise(path_only("DELETE", "/u/a"), Operation.DELETE), "signature_too_weak", "operation")
    granted(gate().authorise(path_only("GET", "/download/u/a"), Operation.DOWNLOAD))
    granted(gate().authorise(path_only("HEAD", "/download/u/a"), Operation.DOWNLOAD))
    refused(gate().authorise(path_only("PUT", "/download/u/a"), Operation.PUT), "signature_too_weak")
    refused(gate().authorise(path_only("GET", "/u/a"), Operation.DOWNLOAD), "signature_too_weak")


def test_a_chunked_body_may_come_with_the_guides_form() -> None:
    granted(gate().authorise(path_only("POST", "/upload", None), Operation.UPLOAD))


@pytest.mark.parametrize("operation", [Operation.PUT, Operation.UPLOAD, Operation.CREATE, Operation.CHUNK])
def test_strict_mode_takes_the_strong_form_only(operation: Operation) -> None:
    method = "PUT" if operation is Operation.PUT else "POST"
    weak = path_only(method, "/upload/u/a")
    granted(gate().authorise(weak, operation))
    refused(gate(strict=True).authorise(weak, operation), "signature_too_weak", "strict")
    head = strong(method, "/upload/u/a", fields={b"x-total-size": b"5"})
    granted(gate(strict=True).authorise(head, operation))
    granted(gate().authorise(head, operation))


def test_a_path_only_signature_does_not_pass_for_a_strong_one_or_the_reverse() -> None:
    weak = path_only("PUT", "/u/a")
    weak.fields = {**weak.fields, b"x-signature-expires": str(EXPIRES).encode()}
    refused(gate().authorise(weak, Operation.PUT), "bad_signature", "layout")
    head = strong("PUT", "/u/a")
    head.fields = {b"x-signature": head.fields[b"x-signature"]}
    refused(gate().authorise(head, Operation.PUT), "bad_signature")


def test_the_strong_form_binds_everything() -> None:
    right = strong("PUT", "/u/a", "photo.jpg")
    grant = granted(gate().authorise(right, Operation.PUT))
    assert (grant.exact_size, grant.filename, grant.form) == (5, "photo.jpg", "whole")
    changes: list[Head] = [
        Head("PUT", "/u/b", b"", 5, right.fields),
        Head("PUT", "/u/a", b"", 6, right.fields),
        Head("PUT", "/u/a", b"", 5, {**right.fields, b"x-filename": b"photo.png"}),
        Head("PUT", "/u/a", b"", 5, {k: v for k, v in right.fields.items() if k != b"x-filename"}),
        Head("PUT", "/u/a", b"", 5, {**right.fields, b"x-signature-expires": str(EXPIRES + 1).encode()}),
    ]
    for head in changes:
        refused(gate().authorise(head, Operation.PUT), "bad_signature")
    refused(gate().authorise(Head("POST", "/u/a", b"", 5, right.fields), Operation.CREATE), "bad_signature", "method")
    refused(gate(b"z" * 32).authorise(right, Operation.PUT), "bad_signature", "unknown_key")


def test_no_byte_moves_between_the_strong_forms_fields() -> None:
    mac = signing.x_signature_strong(SECRET, "PUT", "/u/a", "b1", 23, 4000000000).encode()
    for path, name, size, expires in (
        ("/u/ab", b"1", 23, b"4000000000"),
        ("/u", b"/ab1", 23, b"4000000000"),
        ("/u/a", b"b", 123, b"4000000000"),
        ("/u/a", b"b12", 3, b"4000000000"),
        ("/u/a", b"b1", 2, b"34000000000"),
        ("/u/a", b"b1", 234, b"1000000000"),
    ):
        fields = {b"x-signature": mac, b"x-signature-expires": expires, b"x-filename": name}
        refused(gate(now=1).authorise(Head("PUT", path, b"", size, fields), Operation.PUT), "bad_signature")


def test_where_the_strong_forms_size_comes_from() -> None:
    # PUT: Content-Length, whatever X-Total-Size says
    head = strong("PUT", "/u/a", size=5, fields={b"x-total-size": b"9"})
    assert granted(gate().authorise(head, Operation.PUT)).exact_size == 5
    # multipart and creation: X-Total-Size is the file's own size
    for operation in (Operation.UPLOAD, Operation.CREATE):
        head = strong("POST", "/upload", "a", size=900, body=1100, fields={b"x-total-size": b"900"})
        grant = granted(gate().authorise(head, operation))
        assert (grant.exact_size, grant.filename) == (900, "a")
    head = strong("POST", "/upload", size=1100, body=1100)
    refused(gate().authorise(head, Operation.UPLOAD), "length_required")
    # a chunk: this body's length, which bounds no file
    head = strong("PUT", "/upload/chunked", size=5)
    assert granted(gate().authorise(head, Operation.CHUNK)).exact_size is None
    refused(gate().authorise(strong("PUT", "/u/a", body=None), Operation.PUT), "length_required")
    # requests without a body count as 0
    for method, operation, path in (
        ("GET", Operation.DOWNLOAD, "/download/a"),
        ("HEAD", Operation.DOWNLOAD, "/download/a"),
        ("DELETE", Operation.DELETE, "/a"),
        ("DELETE", Operation.CHUNK, "/upload/chunked"),
        ("GET", Operation.CHUNK, "/upload/status"),
    ):
        granted(gate().authorise(strong(method, path, size=0, body=None), operation))
        granted(gate().authorise(strong(method, path, size=0, body=0), operation))
        refused(gate().authorise(strong(method, path, size=0, body=7), operation), "bad_signature")


def test_the_strong_form_expires_to_the_second() -> None:
    head = strong("PUT", "/u/a")
    granted(gate(now=EXPIRES - 0.001).authorise(head, Operation.PUT))
    refusal = refused(gate(now=EXPIRES).authorise(head, Operation.PUT), "signature_expired", "expired")
    assert refusal.status == 403


@pytest.mark.parametrize(
    "value", [b"", b"+5", b"05", b" 5", b"5 ", b"5.0", b"1_0", "\u0665".encode(), b"9" * 20, b"-1", b"1e9"]
)
def test_numbers_are_ascii_digits(value: bytes) -> None:
    head = strong("POST", "/upload", fields={b"x-total-size": b"5"})
    for name in (b"x-signature-expires", b"x-total-size", b"upload-length"):
        fields = {**head.fields, name: value}
        refused(gate().authorise(Head("POST", "/upload", b"", 5, fields), Operation.CREATE), "malformed_credentials")


@pytest.mark.parametrize("value", [b"", b"abc", b"0" * 63, b"0" * 65, b"g" * 64, b"\xff" * 64, b" " + b"0" * 63])
def test_a_signature_is_64_hex_digits(value: bytes) -> None:
    head = Head("POST", "/upload", b"", 5, {b"x-signature": value})
    refused(gate().authorise(head, Operation.UPLOAD), "malformed_credentials", "malformed")


def test_file_names_that_are_no_text_are_malformed_even_if_signed() -> None:
    import hmac

    from hmac_file_server.auth import messages

    for name in (b"\xff\xfe", b"a\0b"):
        mac = hmac.digest(SECRET, messages.x_signature_strong(b"PUT", b"/u/a", name, 5, EXPIRES), "sha256").hex()
        fields = {b"x-signature": mac.encode(), b"x-signature-expires": str(EXPIRES).encode(), b"x-filename": name}
        refused(gate().authorise(Head("PUT", "/u/a", b"", 5, fields), Operation.PUT), "malformed_credentials")


def test_rotation() -> None:
    for head in (path_only("PUT", "/u/a"), strong("PUT", "/u/a")):
        granted(gate(b"n" * 32, SECRET).authorise(head, Operation.PUT))
        refused(gate(b"n" * 32).authorise(head, Operation.PUT), "bad_signature", "unknown_key")
