"""Our own rules for every kind of answer: fields once each and well-formed, and what each status wants beside it.

`python -m tests.http.answers` has httplint read the same answers.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import pytest
from tests.fixtures.server import SECRET, FileServer
from tests.http.answers import Sample, Told, collect
from tests.http.conftest import judge

from hmac_file_server.protocols.structured import boolean, dictionary

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_ETAG = re.compile(r'"[!#-~]+"')
_TYPE = re.compile(r'[a-z0-9.+-]+/[a-z0-9.+-]+(; ?[a-z]+=("[^"\\]*"|[^\s;"]+))*', re.IGNORECASE)
_DATE = re.compile(
    r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-3][0-9] [A-Z][a-z]{2} [0-9]{4} [0-2][0-9]:[0-5][0-9]:[0-6][0-9] GMT"
)
_DIRECTIVES = {"no-store", "no-cache", "private", "immutable"}
_LISTED = {"allow", "vary", "access-control-allow-methods", "access-control-allow-headers", "access-control-expose-headers",
           "tus-extension", "tus-version", "tus-checksum-algorithm", "accept-patch"}  # fmt: skip
_NUMBERS = {"content-length", "upload-offset", "upload-length", "tus-max-size", "retry-after", "access-control-max-age",
            "upload-draft-interop-version"}  # fmt: skip


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Sample]]:
    settings = {"server": {"max_upload_size": "1MB"}, "uploads": {"durability": "relaxed"}}
    server = FileServer(tmp_path_factory.mktemp("answers") / "server", settings)
    server.start()
    try:
        found = collect(server)
        judge(server)
        yield found
    finally:
        server.stop()


def every(samples: list[Sample]) -> Iterator[tuple[Sample, Told]]:
    for sample in samples:
        for told in sample.answers:
            yield sample, told


def test_there_are_answers_of_every_kind(samples: list[Sample]) -> None:
    statuses = {told.status for _, told in every(samples)}
    assert statuses >= {104, 200, 201, 204, 206, 304, 308, 400, 401, 403, 404, 405, 409, 411, 412, 413, 414, 415, 416, 417, 431,
                        460, 501}, statuses  # fmt: skip
    assert len(samples) > 150


def test_fields_are_well_formed_and_stand_once(samples: list[Sample]) -> None:
    for sample, told in every(samples):
        names = [name.lower() for name, _ in told.fields]
        assert len(names) == len(set(names)), (sample.name, names)
        for name, value in told.fields:
            assert _TOKEN.fullmatch(name), (sample.name, name)
            assert _VALUE.fullmatch(value), (sample.name, name, value)
            key = name.lower()
            if key in {"date", "last-modified", "upload-expires", "expires"}:
                assert _DATE.fullmatch(value), (sample.name, name, value)
                assert parsedate_to_datetime(value).tzinfo is not None
            if key in _NUMBERS:
                assert re.fullmatch("0|[1-9][0-9]*", value), (sample.name, name, value)
            if key in _LISTED:
                words = value.replace(" ", "").split(",")
                assert len(words) == len(set(words)), (sample.name, name, value)
                assert all(re.fullmatch("[^ ,]+", word) for word in words)
            if key == "etag":
                assert _ETAG.fullmatch(value), (sample.name, value)
            if key == "content-type":
                assert _TYPE.fullmatch(value), (sample.name, value)
            if key == "cache-control":
                for directive in value.split(", "):
                    assert directive in _DIRECTIVES or re.fullmatch("max-age=[0-9]+", directive), (sample.name, value)
            if key in {"upload-complete", "upload-incomplete"}:
                assert boolean(value.encode()) is not None, (sample.name, value)
            if key in {"upload-limit", "repr-digest"}:
                assert dictionary(value.encode()), (sample.name, value)
        assert "server" not in names
        assert "set-cookie" not in names
        if told.status >= 200:
            assert "date" in names, sample.name
            assert told.field("x-content-type-options") == "nosniff", sample.name


def test_lengths_and_bodies(samples: list[Sample]) -> None:
    for sample, told in every(samples):
        length = told.field("content-length")
        if told.status < 200 or told.status in {204, 304}:
            assert (length, told.body) == (None, b""), sample.name
        elif sample.method == "HEAD":
            assert told.body == b"", sample.name
            assert length is not None
        else:
            assert length == str(len(told.body)), sample.name
        assert told.field("transfer-encoding") is None
        if told.body:
            assert told.field("content-type") is not None, sample.name
        if told.field("content-encoding") is not None:
            assert told.field("vary") is not None, sample.name
            assert sample.method == "HEAD" or gzip.decompress(told.body), sample.name


def test_problems(samples: list[Sample]) -> None:
    for sample, told in every(samples):
        kind = told.field("content-type")
        if told.body and kind == "application/problem+json":
            document = json.loads(told.body)
            assert document["status"] == told.status >= 400, sample.name
            assert {"type", "title", "detail", "code", "request_id"} <= set(document)
            assert document["type"].startswith(("urn:hmac-file-server:error:", "https://")), sample.name
            assert told.field("cache-control") == "no-store", sample.name
        elif told.status >= 400 and sample.method != "HEAD" and told.body:
            assert kind == "text/html; charset=utf-8", sample.name
        assert SECRET.encode() not in told.body
        assert b"Traceback" not in told.body


def test_what_a_status_wants(samples: list[Sample]) -> None:
    for sample, told in every(samples):
        if told.status == 401:
            challenge = told.field("www-authenticate")
            assert challenge is not None, sample.name
            assert challenge.startswith("Bearer"), challenge
        if told.status == 405:
            assert told.field("allow"), sample.name
        if told.status in {429, 503}:
            assert told.field("retry-after"), sample.name
        if told.status == 206:
            whole = re.fullmatch("bytes ([0-9]+)-([0-9]+)/([0-9]+)", told.field("content-range") or "")
            assert whole is not None, sample.name
            first, last, size = map(int, whole.groups())
            assert first <= last < size
            assert last - first + 1 == len(told.body)
        elif told.status == 416:
            assert re.fullmatch(r"bytes \*/[0-9]+", told.field("content-range") or ""), sample.name
        else:
            assert told.field("content-range") is None, sample.name
        if told.status == 304:
            assert told.field("etag"), sample.name
        location = told.field("location")
        if location is not None:
            assert told.status in {104, 200, 201}, sample.name
            parts = urlsplit(location)
            assert re.fullmatch("[!-~]+", parts.path), location
            assert parts.scheme in {"", "http"}
        if told.status == 204 and sample.name.startswith("options"):
            assert told.field("access-control-allow-methods"), sample.name


def test_head_is_get_without_the_body(samples: list[Sample]) -> None:
    by_name = {sample.name: sample.final for sample in samples}
    pairs = [("get", "head"), ("get-missing", "head-missing")]
    pairs += [(f"page{path}-gzip", f"page{path}-head") for path in ("/", "/upload-page.js", "/upload-icon.svg")]
    for get, head in pairs:
        one, other = by_name[get], by_name[head]
        assert one.status == other.status
        for name, value in one.fields:
            if name.lower() not in {"date", "content-length"} or one.status == 200:
                assert other.field(name) == value or name.lower() == "date", (head, name)


def test_files_of_users_carry_their_policy(samples: list[Sample]) -> None:
    found = 0
    for sample, told in every(samples):
        if told.field("content-disposition") is None:
            continue
        found += 1
        assert "sandbox" in (told.field("content-security-policy") or ""), sample.name
        assert told.field("referrer-policy") == "no-referrer"
        assert told.field("cross-origin-resource-policy")
        assert told.field("accept-ranges") == "bytes"
        if "attachment" not in (told.field("content-disposition") or ""):
            assert (told.field("content-type") or "").startswith("text/plain"), sample.name
    assert found > 10
