"""tus 1.0.0: termination, expiration, and what browsers need."""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime

from tests.conformance.catalogue import Level, expect, skip, tus_case
from tests.conformance.connection import Answer
from tests.conformance.target import content, expect_ok, expect_refused, expect_status
from tests.conformance.tus import RESUMABLE, Tus

MUST, SHOULD, OURS = Level.MUST, Level.SHOULD, Level.OURS
TERMINATION = "termination"
EXPIRATION = "expiration"
ORIGIN = {"Origin": "https://app.example.org"}

_IMF_FIXDATE = re.compile(
    r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{2} (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} "
    r"\d{2}:\d{2}:\d{2} GMT"
)


@tus_case("tus-termination-01", MUST, "Termination, DELETE", TERMINATION)
def delete_unfinished(tus: Tus) -> None:
    """DELETE of an unfinished upload gets 204 with `Tus-Resumable`."""
    url = tus.create(10)
    tus.append(url, 0, b"abc")
    answer = tus.target.ask("DELETE", url, RESUMABLE)
    expect_status(answer, 204)
    expect(answer.get("tus-resumable") == "1.0.0", "no Tus-Resumable")


@tus_case("tus-termination-02", MUST, "Termination, DELETE", TERMINATION)
def delete_finished(tus: Tus) -> None:
    """DELETE of a complete upload gets 204."""
    url = tus.create(3)
    tus.append(url, 0, b"abc")
    expect_status(tus.target.ask("DELETE", url, RESUMABLE), 204)


@tus_case("tus-termination-03", SHOULD, "Termination, DELETE", TERMINATION)
def gone_afterwards(tus: Tus) -> None:
    """Afterwards HEAD, PATCH and DELETE get 404 or 410, and no `Upload-Offset`."""
    url = tus.create(10)
    expect_status(tus.target.ask("DELETE", url, RESUMABLE), 204)
    head, patch, delete = tus.head(url), tus.patch(url, 0, b"abc"), tus.target.ask("DELETE", url, RESUMABLE)
    for name, answer in (("HEAD", head), ("PATCH", patch), ("DELETE", delete)):
        expect_status(answer, 404, 410, what=name)
        expect(not answer.has("upload-offset"), f"{name}: Upload-Offset")


@tus_case("tus-termination-04", SHOULD, "Termination, DELETE", TERMINATION)
def delete_unknown(tus: Tus) -> None:
    """DELETE of an unknown upload gets 404 or 410."""
    expect_status(tus.target.ask("DELETE", tus.missing(), RESUMABLE), 404, 410)


@tus_case("tus-termination-05", MUST, "Headers, X-HTTP-Method-Override", TERMINATION)
def delete_by_override(tus: Tus) -> None:
    """POST with `X-HTTP-Method-Override: DELETE` is a DELETE."""
    url = tus.create(10)
    expect_status(tus.target.ask("POST", url, {**RESUMABLE, "X-HTTP-Method-Override": "DELETE"}), 204)
    expect_refused(tus.head(url), "HEAD afterwards")


@tus_case("tus-termination-06", SHOULD, "Termination, DELETE", TERMINATION)
def delete_while_sending(tus: Tus) -> None:
    """DELETE while a PATCH is under way gets 204, ends that PATCH, and the upload is gone."""
    data = content(100_000)
    url = tus.create(len(data))
    with tus.begin(url, 0, len(data), data[:50_000]) as busy:
        busy.delivered()
        expect_status(tus.target.ask("DELETE", url, RESUMABLE), 204)
        expect(busy.ended(), "the PATCH goes on")
    expect_status(tus.head(url), 404, 410, what="HEAD afterwards")


def expiry(answer: Answer, what: str) -> float:
    """Upload-Expires in epoch seconds."""
    value = answer.get("upload-expires") or ""
    expect(_IMF_FIXDATE.fullmatch(value) is not None, f"{what}: Upload-Expires {value!r} is no IMF-fixdate")
    return parsedate_to_datetime(value).timestamp()


@tus_case("tus-expiration-01", MUST, "Expiration, Upload-Expires", EXPIRATION)
def patch_tells_expiry(tus: Tus) -> None:
    """PATCH of an unfinished upload tells `Upload-Expires`, a date in the future."""
    answer = tus.patch(tus.create(10), 0, b"abc")
    expect_ok(answer, "PATCH")
    expect(expiry(answer, "PATCH") > time.time() - 60, f"in the past: {answer.get('upload-expires')}")


@tus_case("tus-expiration-02", MUST, "Expiration, Upload-Expires", EXPIRATION)
def creation_tells_expiry(tus: Tus) -> None:
    """POST tells `Upload-Expires` when it is known; where it is, it is a date in the future."""
    answer = tus.post({"Upload-Length": "10"})
    expect_ok(answer, "POST")
    if not answer.has("upload-expires"):
        tus.target.note("not told at creation")
        answer = tus.patch(tus.target.created(tus.target.url, answer, RESUMABLE), 0, b"abc")
    expect(expiry(answer, "POST") > time.time() - 60, f"in the past: {answer.get('upload-expires')}")


@tus_case("tus-expiration-03", SHOULD, "Expiration, Upload-Expires", EXPIRATION)
def expires(tus: Tus) -> None:
    """After `Upload-Expires` the upload is gone: 404 or 410. Tried if that is within twice the patience."""
    url = tus.create(10)
    answer = tus.patch(url, 0, b"abc")
    expect_ok(answer, "PATCH")
    until = expiry(answer, "PATCH")
    left = until - time.time()
    if left > 2 * tus.target.patience:
        skip(f"that would be {left:.0f} s from now")
    deadline = until + tus.target.patience
    while time.time() < deadline:
        time.sleep(0.2)
        # HEAD may count as use of the upload, so that it is asked only once the date has passed.
        if time.time() > until + 1:
            found = tus.head(url)
            if found.status in {404, 410}:
                expect_status(tus.patch(url, 3, b"def"), 404, 410, what="PATCH")
                return
    expect_status(tus.head(url), 404, 410, what="HEAD")


def allowed(answer: Answer, field: str, wanted: set[str]) -> set[str]:
    """Those of `wanted` that `field` does not allow."""
    listed = answer.words(field)
    return set() if "*" in listed else wanted - listed


def need_cors(tus: Tus) -> Answer:
    """The answer to a preflight; skips when the server allows no other origins."""
    asked = {
        **ORIGIN,
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "tus-resumable, upload-offset, content-type",
    }
    answer = tus.target.ask("OPTIONS", tus.target.url, asked)
    if not answer.has("access-control-allow-origin"):
        skip("the server allows no other origins")
    return answer


@tus_case("tus-cors-01", SHOULD, "not said; Fetch, CORS-preflight request")
def preflight_methods(tus: Tus) -> None:
    """A preflight is answered 2xx and allows POST, HEAD, PATCH, and DELETE where there is termination."""
    answer = need_cors(tus)
    expect_ok(answer, "preflight")
    wanted = {"post", "head", "patch"} | ({"delete"} if TERMINATION in tus.extensions else set())
    missing = allowed(answer, "access-control-allow-methods", wanted)
    expect(not missing, f"Access-Control-Allow-Methods lacks {sorted(missing)}")


@tus_case("tus-cors-02", SHOULD, "not said; Fetch, CORS-preflight request")
def preflight_fields(tus: Tus) -> None:
    """A preflight allows every field that a client of this server may have to send."""
    answer = need_cors(tus)
    wanted = {"tus-resumable", "upload-length", "upload-offset", "upload-metadata", "content-type"}
    wanted |= {"x-http-method-override"}
    for extension, field in (
        ("creation-defer-length", "upload-defer-length"),
        ("concatenation", "upload-concat"),
        ("checksum", "upload-checksum"),
    ):
        if extension in tus.extensions:
            wanted.add(field)
    missing = allowed(answer, "access-control-allow-headers", wanted)
    expect(not missing, f"Access-Control-Allow-Headers lacks {sorted(missing)}")


@tus_case("tus-cors-03", SHOULD, "not said; Fetch, Access-Control-Expose-Headers")
def exposed_fields(tus: Tus) -> None:
    """Answers to a page of another origin expose every field that its client has to read."""
    need_cors(tus)
    wanted = {"location", "upload-offset", "upload-length", "upload-metadata", "tus-resumable", "tus-version"}
    wanted |= {"tus-max-size", "tus-extension"}
    for extension, field in (
        ("creation-defer-length", "upload-defer-length"),
        ("concatenation", "upload-concat"),
        ("expiration", "upload-expires"),
        ("checksum", "tus-checksum-algorithm"),
    ):
        if extension in tus.extensions:
            wanted.add(field)
    posted = tus.post({"Upload-Length": "10", **ORIGIN})
    expect_status(posted, 201)
    url = tus.target.created(tus.target.url, posted, RESUMABLE)
    for name, answer in (("POST", posted), ("HEAD", tus.head(url, ORIGIN)), ("PATCH", tus.patch(url, 0, b"a", ORIGIN))):
        expect(answer.has("access-control-allow-origin"), f"{name}: no Access-Control-Allow-Origin")
        missing = allowed(answer, "access-control-expose-headers", wanted)
        expect(not missing, f"{name}: Access-Control-Expose-Headers lacks {sorted(missing)}")


@tus_case("tus-cors-04", SHOULD, "not said; Fetch, CORS check")
def errors_reach_the_page(tus: Tus) -> None:
    """Refusals can be read by a page of another origin too, so that its client sees more than a failed network."""
    need_cors(tus)
    url = tus.create(10)
    refusals = {
        "wrong offset": tus.patch(url, 5, b"abc", ORIGIN),
        "unknown upload": tus.head(tus.missing(), ORIGIN),
        "unsupported version": tus.head(url, {**ORIGIN, "Tus-Resumable": "0.0.1"}),
        "creation without a length": tus.post(ORIGIN),
    }
    for name, answer in refusals.items():
        expect_refused(answer, name)
        expect(answer.has("access-control-allow-origin"), f"{name}: no Access-Control-Allow-Origin")


@tus_case("tus-cors-05", SHOULD, "not said; Fetch, CORS-preflight request")
def preflight_of_an_upload(tus: Tus) -> None:
    """A preflight for an upload's own URL, and for one that is gone, is answered like that for the creation."""
    need_cors(tus)
    asked = {**ORIGIN, "Access-Control-Request-Method": "PATCH"}
    for url in (tus.create(10), tus.missing()):
        answer = tus.target.ask("OPTIONS", url, asked)
        expect_ok(answer, "preflight")
        missing = allowed(answer, "access-control-allow-methods", {"patch", "head"})
        expect(not missing, f"Access-Control-Allow-Methods lacks {sorted(missing)}")
