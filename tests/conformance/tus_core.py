"""tus 1.0.0: the core protocol."""

from __future__ import annotations

from tests.conformance.catalogue import Level, expect, skip, tus_case
from tests.conformance.connection import NoAnswer
from tests.conformance.target import (
    OFFSET_TYPE,
    content,
    expect_ok,
    expect_refused,
    expect_status,
    number,
)
from tests.conformance.tus import RESUMABLE, Tus, metadata

MUST, SHOULD, OURS = Level.MUST, Level.SHOULD, Level.OURS


@tus_case("tus-core-01", MUST, "Requests, OPTIONS")
def options_names_versions(tus: Tus) -> None:
    """OPTIONS is answered 204 or 200 with `Tus-Version`, which lists 1.0.0."""
    answer = tus.configuration
    expect_status(answer, 200, 204)
    expect("1.0.0" in answer.words("tus-version"), f"Tus-Version: {answer.get('tus-version')!r}")


@tus_case("tus-core-02", MUST, "Requests, OPTIONS")
def options_ignores_version(tus: Tus) -> None:
    """OPTIONS ignores a `Tus-Resumable` of the client, even one that is not supported."""
    answer = tus.target.ask("OPTIONS", tus.target.url, {"Tus-Resumable": "0.0.1"})
    expect_status(answer, 200, 204)
    expect("1.0.0" in answer.words("tus-version"), "no Tus-Version")


@tus_case("tus-core-03", MUST, "Headers, Tus-Extension and Tus-Max-Size")
def options_is_well_formed(tus: Tus) -> None:
    """`Tus-Extension` names at least one extension or is left out; `Tus-Max-Size` is a non-negative integer."""
    answer = tus.configuration
    if answer.has("tus-extension"):
        names = [name.strip() for name in (answer.get("tus-extension") or "").split(",")]
        expect(all(names), f"Tus-Extension has an empty member: {names}")
        expect("creation" in names or not any(name.startswith("creation-") for name in names), "no creation")
    if answer.has("tus-max-size"):
        number(answer, "Tus-Max-Size")
    expect(answer.has("tus-version"), "no Tus-Version")


@tus_case("tus-core-04", MUST, "Requests, HEAD")
def head_of_new(tus: Tus) -> None:
    """HEAD of a new upload tells `Upload-Offset: 0`, as 200 or 204."""
    answer = tus.head(tus.create(10))
    expect_status(answer, 200, 204)
    found = number(answer, "Upload-Offset")
    expect(found == 0, f"Upload-Offset {found}")


@tus_case("tus-core-05", MUST, "Requests, HEAD")
def head_tells_length(tus: Tus) -> None:
    """HEAD tells `Upload-Length` when it is known."""
    found = number(tus.head(tus.create(12345)), "Upload-Length")
    expect(found == 12345, f"Upload-Length {found}")


@tus_case("tus-core-06", MUST, "Requests, HEAD")
def head_is_not_cached(tus: Tus) -> None:
    """HEAD is answered with `Cache-Control: no-store`."""
    answer = tus.head(tus.create(10))
    expect("no-store" in answer.words("cache-control"), f"Cache-Control: {answer.get('cache-control')!r}")


@tus_case("tus-core-07", MUST, "Headers, Tus-Resumable")
def version_on_success(tus: Tus) -> None:
    """Successful answers to POST, HEAD and PATCH carry `Tus-Resumable: 1.0.0`."""
    posted = tus.post({"Upload-Length": "3"})
    url = tus.target.created(tus.target.url, posted, RESUMABLE)
    for name, answer in (("POST", posted), ("HEAD", tus.head(url)), ("PATCH", tus.patch(url, 0, b"abc"))):
        expect_ok(answer, name)
        expect(answer.get("tus-resumable") == "1.0.0", f"{name}: Tus-Resumable {answer.get('tus-resumable')!r}")


@tus_case("tus-core-08", MUST, "Headers, Tus-Resumable")
def version_on_errors(tus: Tus) -> None:
    """Refusals carry `Tus-Resumable` too: an unknown upload, a wrong offset, a wrong type, a bad creation, 412."""
    url, missing = tus.create(10), tus.missing()
    refusals = {
        "HEAD of an unknown upload": tus.head(missing),
        "PATCH of an unknown upload": tus.patch(missing, 0, b"abc"),
        "PATCH at a wrong offset": tus.patch(url, 5, b"abc"),
        "PATCH of a wrong type": tus.patch(url, 0, b"abc", {"Content-Type": "text/plain"}),
        "creation without a length": tus.post({}),
        "unsupported version": tus.head(url, {"Tus-Resumable": "0.0.1"}),
    }
    for name, answer in refusals.items():
        expect_refused(answer, name)
        expect(answer.get("tus-resumable") == "1.0.0", f"{name}: {answer.status} without Tus-Resumable")


@tus_case("tus-core-09", MUST, "Headers, Tus-Resumable")
def other_version(tus: Tus) -> None:
    """A request of an unsupported version gets 412 with `Tus-Version`, on POST, HEAD and PATCH."""
    url = tus.create(10)
    other = {"Tus-Resumable": "0.0.1"}
    tried = (
        ("POST", tus.post({"Upload-Length": "10", **other})),
        ("HEAD", tus.head(url, other)),
        ("PATCH", tus.patch(url, 0, b"abc", other)),
    )
    for name, answer in tried:
        expect_status(answer, 412, what=name)
        expect("1.0.0" in answer.words("tus-version"), f"{name}: 412 with Tus-Version {answer.get('tus-version')!r}")


@tus_case("tus-core-10", MUST, "Headers, Tus-Resumable")
def other_version_does_nothing(tus: Tus) -> None:
    """A PATCH of an unsupported version is not processed."""
    url = tus.create(10)
    expect_refused(tus.patch(url, 0, b"abc", {"Tus-Resumable": "0.0.1"}))
    tus.expect_offset(url, 0)


@tus_case("tus-core-11", MUST, "Requests, PATCH")
def patch_appends(tus: Tus) -> None:
    """PATCH is answered 204 with the new `Upload-Offset`, the old one and the bytes received."""
    tus.append(tus.create(10), 0, b"abcde")


@tus_case("tus-core-12", MUST, "Requests, PATCH")
def patch_in_pieces(tus: Tus) -> None:
    """An upload in several PATCHes of odd sizes is whole: HEAD tells the offset between them, the content is equal."""
    data = content(100_003)
    url = tus.create(len(data))
    offset = 0
    for size in (1, 7, 4096, 65_537, len(data)):
        piece = data[offset : offset + size]
        tus.append(url, offset, piece)
        offset += len(piece)
        tus.expect_offset(url, offset)
    expect(offset == len(data), "not all was sent")
    tus.target.expect_content(url, data)


@tus_case("tus-core-13", MUST, "Requests, PATCH")
def wrong_offset(tus: Tus) -> None:
    """PATCH at another offset than the current one, before it or behind it, gets 409 and changes nothing."""
    url = tus.create(10)
    tus.append(url, 0, b"abcde")
    for offset in (0, 4, 6, 9):
        expect_status(tus.patch(url, offset, b"x"), 409, what=f"PATCH at {offset} instead of 5")
    tus.expect_offset(url, 5)
    tus.append(url, 5, b"fghij")
    tus.target.expect_content(url, b"abcdefghij")


@tus_case("tus-core-14", MUST, "Headers, Upload-Offset")
def no_offset(tus: Tus) -> None:
    """PATCH without `Upload-Offset`, or with one that is no non-negative integer, is refused and changes nothing."""
    url = tus.create(10)
    fields = {**RESUMABLE, "Content-Type": OFFSET_TYPE}
    expect_refused(tus.target.ask("PATCH", url, fields, b"abc"), "no Upload-Offset")
    for value in ("-1", "0x0", "0.0", "zero", "0,0"):
        expect_refused(tus.patch(url, value, b"abc"), f"Upload-Offset: {value}")
    tus.expect_offset(url, 0)


@tus_case("tus-core-15", SHOULD, "Requests, PATCH")
def wrong_type(tus: Tus) -> None:
    """PATCH with another `Content-Type`, or none, gets 415 and changes nothing."""
    url = tus.create(10)
    expect_status(tus.patch(url, 0, b"abc", {"Content-Type": "application/octet-stream"}), 415)
    expect_status(tus.target.ask("PATCH", url, {**RESUMABLE, "Upload-Offset": "0"}, b"abc"), 415, what="no type")
    tus.expect_offset(url, 0)


@tus_case("tus-core-16", SHOULD, "Requests, PATCH")
def patch_of_unknown(tus: Tus) -> None:
    """PATCH of an unknown upload gets 404."""
    expect_status(tus.patch(tus.missing(), 0, b"abc"), 404)


@tus_case("tus-core-17", SHOULD, "Requests, HEAD")
def head_of_unknown(tus: Tus) -> None:
    """HEAD of an unknown upload gets 404, 410 or 403, without `Upload-Offset`."""
    answer = tus.head(tus.missing())
    expect_status(answer, 403, 404, 410)
    expect(not answer.has("upload-offset"), "Upload-Offset of an upload that is not there")


@tus_case("tus-core-18", MUST, "Requests, HEAD")
def head_of_complete(tus: Tus) -> None:
    """HEAD of a complete upload still tells `Upload-Offset`, equal to `Upload-Length`."""
    url = tus.create(5)
    tus.append(url, 0, b"abcde")
    answer = tus.head(url)
    expect_status(answer, 200, 204)
    expect(number(answer, "Upload-Offset") == 5, f"Upload-Offset {answer.get('upload-offset')}")
    expect(number(answer, "Upload-Length") == 5, f"Upload-Length {answer.get('upload-length')}")


@tus_case("tus-core-19", MUST, "Requests, PATCH")
def empty_patch(tus: Tus) -> None:
    """PATCH without a byte at the current offset is a success and changes nothing."""
    url = tus.create(10)
    tus.append(url, 0, b"")
    tus.append(url, 0, b"abcde")
    tus.append(url, 5, b"")
    tus.expect_offset(url, 5)


@tus_case("tus-core-20", SHOULD, "Requests, PATCH: what a client repeats whose last answer was lost")
def repeat_after_the_end(tus: Tus) -> None:
    """PATCH without a byte at the end of a complete upload gets 204, however often."""
    url = tus.create(5)
    tus.append(url, 0, b"abcde")
    tus.append(url, 5, b"")
    tus.append(url, 5, b"")


@tus_case("tus-core-21", MUST, "Headers, Upload-Length")
def bytes_after_the_end(tus: Tus) -> None:
    """PATCH with bytes at the end of a complete upload is refused and changes nothing."""
    url = tus.create(5)
    tus.append(url, 0, b"abcde")
    expect_refused(tus.patch(url, 5, b"f"))
    tus.expect_offset(url, 5)
    tus.target.expect_content(url, b"abcde")


@tus_case("tus-core-22", MUST, "Headers, Upload-Length")
def longer_than_length(tus: Tus) -> None:
    """A body that goes past `Upload-Length` is refused, and nothing is stored past it."""
    url = tus.create(10)
    tus.append(url, 0, b"abcde")
    expect_refused(tus.patch(url, 5, b"fghijklmno"))
    found = tus.offset(url)
    expect(found <= 10, f"offset {found} of a length of 10")


@tus_case("tus-core-23", MUST, "Headers, Upload-Length")
def longer_than_length_in_chunks(tus: Tus) -> None:
    """The same when only the chunked framing shows that it is too long."""
    url = tus.create(10)
    tus.append(url, 0, b"abcde")
    expect_refused(tus.patch(url, 5, b"f" * 40_000, pieces=True))
    found = tus.offset(url)
    expect(found <= 10, f"offset {found} of a length of 10")


@tus_case("tus-core-24", MUST, "Requests, PATCH; RFC 9112, 7.1")
def patch_in_chunks(tus: Tus) -> None:
    """A PATCH with chunked framing and so without `Content-Length` is taken."""
    data = content(50_000)
    url = tus.create(len(data))
    answer = tus.patch(url, 0, data, pieces=True)
    expect_status(answer, 204)
    expect(number(answer, "Upload-Offset") == len(data), f"Upload-Offset {answer.get('upload-offset')}")
    tus.target.expect_content(url, data)


@tus_case("tus-core-25", MUST, "Requests, PATCH")
def offset_of_a_cut(tus: Tus) -> None:
    """After a PATCH that was cut, the offset counts the bytes that came, not those that were announced."""
    data = content(200_000)
    url = tus.create(len(data))
    with tus.begin(url, 0, len(data), data[:50_000]) as cut:
        cut.delivered()
    tus.finish(url, data, 50_000)


@tus_case("tus-core-26", SHOULD, "Requests, PATCH")
def cut_keeps_bytes(tus: Tus) -> None:
    """What a PATCH brought before its connection was closed is kept, all of it."""
    data = content(200_000)
    url = tus.create(len(data))
    with tus.begin(url, 0, len(data), data[:150_000]) as cut:
        cut.finish()
        cut.ended()
    tus.expect_offset(url, 150_000)


@tus_case("tus-core-27", MUST, "Headers, X-HTTP-Method-Override")
def override_patch(tus: Tus) -> None:
    """POST with `X-HTTP-Method-Override: PATCH` is a PATCH."""
    url = tus.create(5)
    answer = tus.target.ask("POST", url, {**tus.patch_fields(0), "X-HTTP-Method-Override": "PATCH"}, b"abcde")
    expect_status(answer, 204)
    expect(number(answer, "Upload-Offset") == 5, f"Upload-Offset {answer.get('upload-offset')}")
    tus.expect_offset(url, 5)


@tus_case("tus-core-28", MUST, "Headers, X-HTTP-Method-Override")
def override_head(tus: Tus) -> None:
    """POST with `X-HTTP-Method-Override: HEAD` tells the offset."""
    url = tus.create(5)
    tus.append(url, 0, b"abc")
    answer = tus.target.ask("POST", url, {**RESUMABLE, "X-HTTP-Method-Override": "HEAD"})
    expect_status(answer, 200, 204)
    expect(number(answer, "Upload-Offset") == 3, f"Upload-Offset {answer.get('upload-offset')}")


@tus_case("tus-core-29", SHOULD, "RFC 9110, 10.1.1")
def patch_with_expectation(tus: Tus) -> None:
    """A PATCH that expects 100 (Continue) is told so before its body, and then stored."""
    url = tus.create(5)
    answer = tus.target.ask_continue("PATCH", url, tus.patch_fields(0), b"abcde")
    expect_status(answer, 204)
    expect(any(found.status == 100 for found in answer.interim), "no 100 (Continue)")


@tus_case("tus-core-30", SHOULD, "RFC 9110, 10.1.1")
def refused_before_the_body(tus: Tus) -> None:
    """A PATCH that expects 100 (Continue) and cannot succeed is refused without asking for its body."""
    url = tus.create(10)
    answer = tus.target.ask_continue("PATCH", url, tus.patch_fields(7), b"abc")
    expect_status(answer, 409)
    expect(not any(found.status == 100 for found in answer.interim), "the body was asked for in vain")


@tus_case("tus-core-31", MUST, "Requests; RFC 9112, 9.3")
def one_connection(tus: Tus) -> None:
    """Several requests follow one another on one connection, each answered as on its own."""
    url = tus.create(6)
    with tus.target.connect(url) as connection:
        for offset, piece in ((0, b"abc"), (3, b"def")):
            connection.request("PATCH", {**tus.patch_fields(offset), "Content-Length": "3"}, piece)
            expect_status(connection.answer(), 204, what=f"PATCH at {offset}")
            connection.request("HEAD", RESUMABLE)
            found = number(connection.answer(head=True), "Upload-Offset")
            expect(found == offset + 3, f"HEAD says {found} after PATCH at {offset}")


@tus_case("tus-core-32", MUST, "Requests; draft, Draft Version Identification")
def no_interim_104(tus: Tus) -> None:
    """A tus request is never answered with 104, which clients of tus take for the final answer."""
    data = content(300_000)
    posted = tus.post({"Upload-Length": str(len(data))})
    url = tus.target.created(tus.target.url, posted, RESUMABLE)
    for answer in (posted, tus.patch(url, 0, data), tus.head(url)):
        expect_ok(answer)
        strange = [found.status for found in answer.interim if found.status != 100]
        expect(not strange, f"interim answers {strange}")


@tus_case("tus-core-33", SHOULD, "not said; a client whose request is not understood forgets its upload")
def head_of_a_busy_upload(tus: Tus) -> None:
    """HEAD of an upload that another request is sending is answered 2xx, 423 or 5xx, never with another 4xx."""
    data = content(100_000)
    url = tus.create(len(data))
    with tus.begin(url, 0, len(data), data[:10_000]) as busy:
        busy.delivered()
        answer = tus.head(url)
    expect(answer.ok or answer.status == 423 or answer.status >= 500, f"{answer.status}")


@tus_case("tus-core-34", SHOULD, "not said; names of uploads are paths of files in many servers")
def strange_ids(tus: Tus) -> None:
    """An id with separators, dots or NUL, plain or escaped, is 4xx and never an upload or a server error."""
    base = tus.target.url.rstrip("/")
    for last in ("..%2f..%2fetc%2fpasswd", "..%5c..%5cx", "%00", "a%00b", "..", "%2e%2e", "a%2Fb", "\\..\\x"):
        for method in ("HEAD", "PATCH"):
            fields = tus.patch_fields(0) if method == "PATCH" else RESUMABLE
            try:
                answer = tus.target.ask(method, f"{base}/{last}", fields)
            except NoAnswer:
                continue
            expect(300 <= answer.status < 500, f"{method} {last}: {answer.status}")
            expect(not answer.has("upload-offset"), f"{method} {last}: an upload")


@tus_case("tus-core-35", MUST, "Requests, PATCH; Upload-Metadata is optional")
def nothing_but_the_protocol(tus: Tus) -> None:
    """An upload without any metadata can be created, asked for, sent and finished."""
    url = tus.create(5)
    answer = tus.head(url)
    expect_ok(answer, "HEAD")
    expect(not answer.get("upload-metadata"), f"Upload-Metadata {answer.get('upload-metadata')!r} out of nothing")
    tus.append(url, 0, b"abcde")
    tus.expect_offset(url, 5)


@tus_case("tus-core-36", MUST, "RFC 9110, 5.1")
def names_in_any_case(tus: Tus) -> None:
    """The names of fields count in any case."""
    url = tus.create(6)
    lower = {"tus-resumable": "1.0.0", "content-type": OFFSET_TYPE, "upload-offset": "0"}
    expect_status(tus.target.ask("PATCH", url, lower, b"abc"), 204, what="lower-case names")
    upper = {"TUS-RESUMABLE": "1.0.0", "CONTENT-TYPE": OFFSET_TYPE, "UPLOAD-OFFSET": "3"}
    expect_status(tus.target.ask("PATCH", url, upper, b"def"), 204, what="upper-case names")
    tus.expect_offset(url, 6)


@tus_case("tus-core-37", OURS, "an upload that was named once is not found by a shortened name")
def other_urls(tus: Tus) -> None:
    """Neither a part of an upload's URL nor more than it leads to the upload."""
    url = tus.create(5, {"Upload-Metadata": metadata(filename=b"x")})
    last = url.rstrip("/").rsplit("/", 1)[1]
    if len(last) < 8:
        skip("the server's names of uploads are short")
    for other in (url[:-1], url + "0", url + "/x", url.replace(last, last.swapcase())):
        if other == url:
            continue
        answer = tus.head(other)
        expect_refused(answer, other)
        expect(not answer.has("upload-offset"), f"{other} is the upload too")


@tus_case("tus-core-38", SHOULD, "RFC 9110, 8.3.1")
def type_in_any_case(tus: Tus) -> None:
    """The type of a PATCH is the same type in capitals."""
    url = tus.create(6)
    expect_status(tus.patch(url, 0, b"abcdef", {"Content-Type": OFFSET_TYPE.title()}), 204)
    tus.expect_offset(url, 6)
