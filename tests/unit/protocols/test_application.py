"""The routes, with no socket: which request goes where, and what each protocol does with a store that misbehaves."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any, cast
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.protocols.conftest import NOW, SECRET, Site
from tests.unit.protocols.exchanges import FakeExchange, request

from hmac_file_server.auth import Grant, signing
from hmac_file_server.config import Settings
from hmac_file_server.files.contract import (
    PathRefused,
    StorageBusy,
    StorageError,
    StorageFailed,
    StorageFull,
    StoragePath,
    StorageReadOnly,
)
from hmac_file_server.files.paths import parse
from hmac_file_server.http import BodyCut, Exchange
from hmac_file_server.protocols.answers import PROBLEMS, quote_path
from hmac_file_server.protocols.put import RESERVED

EXPIRES = int(NOW) + 300


def handle(site: Site, exchange: FakeExchange) -> tuple[int, dict[str, Any]]:
    """Status, and the JSON of the answer or {}."""
    site.application.handle(cast("Exchange", exchange))
    site.store.run_later()
    answer = exchange.answer
    return answer.status, json.loads(answer.body) if b"json" in answer.head else {}


def v1(path: str, size: int) -> bytes:
    return b"v=" + signing.v1(SECRET, path, size).encode()


def put(site: Site, path: str, body: bytes, **options: Any) -> tuple[int, dict[str, Any]]:
    exchange = FakeExchange(request("PUT", f"/upload/{path}", v1(path, len(body)), len(body)), [body])
    for name, value in options.items():
        setattr(exchange, name, value)
    return handle(site, exchange)


def with_durability(durability: Any) -> Settings:
    settings = Settings()
    return replace(settings, uploads=replace(settings.uploads, durability=durability))


# --- PUT -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["full", "relaxed"])
@pytest.mark.parametrize("here", [False, True])
def test_put_and_again(durability: str, here: bool) -> None:
    site = Site(with_durability(durability))
    assert put(site, "a/b.png", b"abc", here=here) == (201, {})
    assert put(site, "a/b.png", b"abc", here=here) == (201, {})
    status, problem = put(site, "a/b.png", b"xyz", here=here)
    assert (status, problem["code"]) == (409, "exists")
    assert site.store.files["a/b.png"][1] == b"abc"
    assert site.store.idle


FAILURES: list[tuple[StorageError, int, str]] = [
    (StorageFull("x"), 507, "storage_full"),
    (StorageBusy("x"), 503, "storage_busy"),
    (StorageReadOnly("x"), 503, "storage_read_only"),
    (StorageFailed("x"), 500, "storage_failed"),
]


@pytest.mark.parametrize("durability", ["full", "relaxed"])
@pytest.mark.parametrize("here", [False, True])
@pytest.mark.parametrize("step", ["admit", "spool", "write", "publish"])
@pytest.mark.parametrize(("error", "status", "code"), FAILURES, ids=[code for _, _, code in FAILURES])
def test_a_store_that_fails(
    durability: str, here: bool, step: str, error: StorageError, status: int, code: str
) -> None:
    site = Site(with_durability(durability))
    site.store.errors[step] = error
    got, problem = put(site, "a/b.png", b"abc", here=here)
    assert (got, problem["code"]) == (status, code)
    assert problem["detail"] != "x"
    assert site.store.files == {}


@pytest.mark.parametrize("durability", ["full", "relaxed"])
@pytest.mark.parametrize(("body", "status"), [(b"abc", 201), (b"xyz", 409), (b"wxyz", 409)])
def test_a_repeat_needs_no_room(durability: str, body: bytes, status: int) -> None:
    site = Site(with_durability(durability))
    site.store.add("a/b.png", b"abc")
    site.store.errors["admit"] = StorageFull("x")
    assert put(site, "a/b.png", body, here=True)[0] == status
    assert site.store.idle


CUTS = {
    BodyCut.DISCONNECTED: (400, "incomplete"),
    BodyCut.STALLED: (408, "body_stalled"),
    BodyCut.TOO_SLOW: (408, "body_too_slow"),
    BodyCut.TIMED_OUT: (408, "body_timed_out"),
    BodyCut.TOO_LARGE: (413, "too_large"),
    BodyCut.ABORTED: (503, "shutting_down"),
}


@pytest.mark.parametrize("cut", list(CUTS), ids=lambda cut: cut.name)
def test_a_body_that_is_cut(site: Site, cut: BodyCut) -> None:
    status, problem = put(site, "a/b.png", b"abc", cut=cut)
    assert (status, problem["code"]) == CUTS[cut]
    assert site.store.idle
    assert site.store.files == {}


def test_a_refused_put_does_not_ask_for_its_body(site: Site) -> None:
    exchange = FakeExchange(request("PUT", "/upload/a", b"v=" + b"0" * 64, 3), [b"abc"])
    assert handle(site, exchange)[0] == 403
    assert not exchange.asked
    assert [refusal.code for refusal in site.refusals] == ["bad_signature"]


@pytest.mark.parametrize("path", sorted(RESERVED))
def test_endpoints_take_no_file(path: str) -> None:
    settings = Settings()
    site = Site(replace(settings, uploads=replace(settings.uploads, chunked_uploads_enabled=False)))
    signature = signing.x_signature(SECRET, path).encode()
    exchange = FakeExchange(request("PUT", path, length=1, x_signature=signature), [b"x"])
    status, problem = handle(site, exchange)
    assert (status, problem["code"]) == (405, "method_not_allowed")
    assert not exchange.asked


def test_a_path_outside_every_base() -> None:
    settings = Settings()
    site = Site(replace(settings, server=replace(settings.server, base_path=("/files/",))))
    signature = signing.x_signature(SECRET, "/elsewhere/a").encode()
    for method in ("PUT", "DELETE"):
        exchange = FakeExchange(request(method, "/elsewhere/a", length=0, x_signature=signature))
        assert handle(site, exchange)[0] in {403, 404}
    assert handle(site, FakeExchange(request("GET", "/elsewhere/a")))[0] == 404


# --- GET -------------------------------------------------------------------------------------------------


def test_get_finds_both_forms_of_the_path(site: Site) -> None:
    site.store.add("a/b.png", b"relative")
    site.store.add("upload/c/d.png", b"whole")
    for path, body in (
        ("/upload/a/b.png", b"relative"),
        ("/a/b.png", b"relative"),
        ("/upload/c/d.png", b"whole"),
        ("/download/a/b.png", b"relative"),
    ):
        exchange = FakeExchange(request("GET", path))
        assert handle(site, exchange)[0] == 200
        assert exchange.answer.body == body
    assert handle(site, FakeExchange(request("GET", "/c/d.png")))[0] == 404
    assert site.store.idle


def test_a_long_file_is_sent_from_its_reader(site: Site) -> None:
    size = 100_000
    site.store.add("long", bytes(size))
    exchange = FakeExchange(request("GET", "/long", range=b"bytes=10-89999"))
    assert handle(site, exchange)[0] == 206
    answer = exchange.answer
    assert answer.source is not None
    assert (answer.offset, answer.length) == (10, 89_990)
    assert site.store.readers == 1
    answer.source.close()
    # HEAD and conditions need no body, so the file is not kept open.
    others: list[tuple[str, dict[str, Any]]] = [
        ("HEAD", {}),
        ("GET", {"if_none_match": b"*"}),
        ("GET", {"range": b"bytes=999999-"}),
    ]
    for method, fields in others:
        exchange = FakeExchange(request(method, "/long", **fields))
        handle(site, exchange)
        assert exchange.answer.source is None
        assert site.store.idle


@pytest.mark.parametrize("step", ["open", "read"])
@pytest.mark.parametrize(("error", "status", "code"), FAILURES[1:], ids=[code for _, _, code in FAILURES[1:]])
def test_a_file_that_cannot_be_read(site: Site, step: str, error: StorageError, status: int, code: str) -> None:
    site.store.add("a", b"abc")
    site.store.errors[step] = error
    got, problem = handle(site, FakeExchange(request("GET", "/a")))
    assert (got, problem["code"]) == (status, code)
    assert site.store.idle


def test_a_head_is_made_anew_when_the_file_is_another(site: Site) -> None:
    site.store.add("a", b"abc", media_type="image/png")
    first = FakeExchange(request("GET", "/a"))
    handle(site, first)
    del site.store.files["a"]
    site.store.add("a", b"abcd", media_type="text/html")
    second = FakeExchange(request("GET", "/a"))
    handle(site, second)
    assert b"image/png" in first.answer.head
    assert b"text/html" in second.answer.head
    assert b"attachment" in second.answer.head


# --- DELETE ----------------------------------------------------------------------------------------------


def delete(site: Site, path: str = "/upload/a") -> FakeExchange:
    query = b"token=" + signing.delete_token(SECRET, "a", b"delete-secret-delete-secret").encode()
    return FakeExchange(request("DELETE", path, query))


def test_delete_says_who_and_runs_on_a_worker(site: Site) -> None:
    site.store.add("a", b"abc")
    exchange = delete(site)
    site.application.handle(cast("Exchange", exchange))
    assert exchange.answers == []
    site.store.run_later()
    assert exchange.answer.status == 204
    # Where its storage path is, and where the Go server would have put it.
    assert site.store.deleted == [("a", "request by token"), ("upload/a", "request by token")]
    assert handle(site, delete(site))[0] == 204


@pytest.mark.parametrize(("error", "status", "code"), FAILURES[1:], ids=[code for _, _, code in FAILURES[1:]])
def test_a_deletion_that_fails(site: Site, error: StorageError, status: int, code: str) -> None:
    site.store.errors["delete"] = error
    got, problem = handle(site, delete(site))
    assert (got, problem["code"]) == (status, code)


def test_a_deletion_that_breaks_is_answered(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: StoragePath, reason: str) -> bool:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(site.store, "delete", broken)
    exchange = delete(site)
    site.application.handle(cast("Exchange", exchange))
    with pytest.raises(RuntimeError):
        site.store.run_later()
    assert exchange.answer.status == 500


# --- fixed routes ----------------------------------------------------------------------------------------


def test_readiness(site: Site) -> None:
    assert handle(site, FakeExchange(request("GET", "/ready"))) == (200, {"ready": True})
    site.not_ready = "storage_full"
    assert handle(site, FakeExchange(request("GET", "/ready"))) == (503, {"ready": False, "reason": "storage_full"})
    assert handle(site, FakeExchange(request("GET", "/health")))[0] == 200


@pytest.mark.parametrize("path", ["/", "/elsewhere", "/upload/", "/upload/status", "/download/a"])
def test_post_elsewhere(site: Site, path: str) -> None:
    assert handle(site, FakeExchange(request("POST", path, length=1), [b"x"]))[0] == 404


@pytest.mark.parametrize("path", ["/", "*", "/upload/a", "/health"])
def test_options(site: Site, path: str) -> None:
    exchange = FakeExchange(request("OPTIONS", path))
    assert handle(site, exchange) == (204, {})
    assert b"Access-Control-Allow-Methods: " in exchange.answer.head


def test_reconfigured(site: Site) -> None:
    settings = replace(site.application.settings, server=replace(site.application.settings.server, max_upload_size=2))
    site.application.configure(settings, site.gate(settings))
    assert put(site, "a", b"abc")[1]["code"] == "too_large"
    assert put(site, "a", b"ab")[0] == 201


# --- names, paths and tickets ----------------------------------------------------------------------------


@given(st.text(max_size=300))
def test_any_name_becomes_one_that_may_be_stored(name: str) -> None:
    application = Site(Settings()).application
    clean = application.clean_name(name)
    assert clean
    assert "/" not in clean
    assert len(clean.encode()) <= 200
    assert clean == clean.strip(" .")
    assert application.clean_name(clean) == clean
    path = application.new_path(name, Grant(scheme="signature", key_id="0"))
    assert path == parse(path)
    assert path.partition("/")[2] == clean


def test_long_names_keep_their_extension(site: Site) -> None:
    clean = site.application.clean_name
    assert clean("x" * 500 + ".tar.gz").endswith(".gz")
    assert clean("x" * 500 + "." + "y" * 100).startswith("x" * 150)
    assert clean("." + "x" * 500) == "x" * 200
    assert clean("ü" * 500 + ".jpg") == "ü" * 98 + ".jpg"
    # However long it is: a head has room for 30,000 letters.
    assert clean("ü" * 15_000 + ".jpg") == "ü" * 98 + ".jpg"
    # Cut just behind a space, where no name may end.
    assert clean("x" * 199 + " " + "y" * 50) == "x" * 199


def test_a_very_long_name_costs_little(site: Site) -> None:
    """Letter by letter it would be encoded 15,000 times, on the event loop: seconds for fifty of them."""
    started = time.process_time()
    for _ in range(50):
        site.application.clean_name("ü" * 15_000)
    assert time.process_time() - started < 1.0


def test_where_a_file_without_a_path_goes(site: Site) -> None:
    random = bytes(range(16)).hex()

    def new(**bounds: Any) -> str:
        return site.application.new_path("a.txt", Grant(scheme="ticket", key_id="0", **bounds))

    assert new() == f"{random}/a.txt"
    assert new(prefix="") == f"{random}/a.txt"
    assert new(prefix="alice/") == f"alice/{random}/a.txt"
    assert new(path="bob/photo.png") == "bob/photo.png"
    with pytest.raises(PathRefused):
        new(path="../etc")


@given(st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="/\\"), min_size=1, max_size=40))
def test_the_url_of_a_path_leads_back_to_it(segment: str) -> None:
    try:
        path = parse(f"upload/{segment}")
    except PathRefused:
        return
    application = Site(Settings()).application
    url = application.url_of(path)
    assert url.isascii()
    assert application.base_paths.relative(unquote(url)) == path


def test_quoting_keeps_what_urls_may_hold() -> None:
    assert quote_path("/a b/ü+&=@~!$'()*,;:%#?.png") == "/a%20b/%C3%BC+&=@~!$'()*,;:%25%23%3F.png"


def test_a_tickets_count_outlives_the_file(site: Site) -> None:
    """However soon the file goes: a count that was forgotten first could be spent again."""
    grant = Grant(scheme="ticket", key_id="0", ticket_id="t", max_files=1, file_expires=NOW + 1)
    plan = site.application.plan_for(grant, StoragePath("a"), 1, None, None)
    assert plan.ticket is not None
    assert plan.ticket[:2] == ("t", 1)
    assert plan.ticket[2] > NOW + 9 * 365 * 86400
    assert plan.metadata.expires == NOW + 1


def test_the_smallest_limit_counts(site: Site) -> None:
    limit = site.application.settings.server.max_upload_size
    table: list[tuple[dict[str, Any], int]] = [
        ({}, limit),
        ({"max_size": 5}, 5),
        ({"exact_size": 4, "max_size": 5}, 4),
        ({"max_size": limit + 1}, limit),
    ]
    for bounds, expected in table:
        assert site.application.file_limit(Grant(scheme="ticket", key_id="0", **bounds)) == expected


def test_titles_and_statuses_are_those_of_errors() -> None:
    for code, (status, title) in PROBLEMS.items():
        assert 400 <= status < 600, code
        assert title[0].isupper()
