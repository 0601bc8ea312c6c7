"""The routes: which request goes to which protocol."""

import logging
import re
import threading
import unicodedata
from collections.abc import Callable
from typing import Any, Final

from hmac_file_server.auth import Gate, Grant, Operation, Refusal, SignedRequest
from hmac_file_server.clock import Clock
from hmac_file_server.config import Settings
from hmac_file_server.config.base_paths import BasePaths
from hmac_file_server.files.contract import FileStore, Metadata, PathRefused, StoragePath
from hmac_file_server.files.paths import parse as parse_path
from hmac_file_server.http import Exchange, Response
from hmac_file_server.http.response import json_response
from hmac_file_server.protocols import chunked, download, form, page_code, page_form, put, removal, resumable, tus
from hmac_file_server.protocols.answers import PREFLIGHT, deny, path_refused, quote_path, refuse
from hmac_file_server.protocols.interop import discovery
from hmac_file_server.protocols.pages import CODE, PATHS, Pages
from hmac_file_server.protocols.put import reserved
from hmac_file_server.protocols.representation import Digests
from hmac_file_server.protocols.resources import is_id
from hmac_file_server.uploads import Engine, Plan

_log = logging.getLogger(__name__)

_UNWANTED_IN_NAMES: Final = re.compile(r'[\x00-\x1f\x7f-\x9f/\\"<>|:*?\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]')
_FORMS_MAX: Final = 8192
_LATER: Final = b"Retry-After: 2\r\n"
_NAME_BYTES: Final = 200
# A count that is forgotten before its ticket expires could be spent again; a row is some sixty bytes.
_TICKET_MEMORY: Final = 10 * 366 * 86400.0

OnRefusal = Callable[[Exchange, Refusal], None]
Give = Callable[[int, int, bytes, str], bool]


class Application:
    """Everything a protocol needs besides the request. Used on the event loop of one process."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: FileStore,
        engine: Engine,
        gate: Gate,
        clock: Clock,
        random: Callable[[int], bytes],
        submit: Callable[[Callable[[], None]], object],
        call_soon: Callable[..., None],
        call_later: Callable[[float, Callable[[], None]], object],
        give: Give,
        ready: Callable[[], str | None],
        busy: Callable[[], bool],
        on_refusal: OnRefusal,
    ) -> None:
        """Make it on the thread of the event loop.

        `submit` runs what blocks on a worker; `call_soon` and `call_later` run on the event loop, from any
        thread; `give(process, fd, data, peer)` hands a connection to another process of this server; `ready`
        says why not, or None when all is well; `busy`: no upload can be begun at present.
        """
        self.store = store
        self.engine = engine
        self.call_soon = call_soon
        self.call_later = call_later
        self.give = give
        self.busy = busy
        self._thread = threading.get_ident()
        self.clock = clock
        self.random = random
        self.submit = submit
        self.heads = download.Heads()
        self.digests = Digests(submit)
        self._ready = ready
        self.log_refusal = on_refusal
        self.pages = Pages()
        self.codes = page_code.Codes(submit, call_soon)
        self.configure(settings, gate)

    def configure(self, settings: Settings, gate: Gate) -> None:
        """Take new settings; requests under way keep what they were admitted with."""
        self.settings = settings
        self.gate = gate
        self.base_paths = BasePaths(settings.server.base_path)
        self._forms: dict[str, tuple[StoragePath, ...]] = {}
        # Switched off, they are paths like any other that nothing is stored at.
        self._chunked = chunked.UPLOADS if settings.uploads.chunked_uploads_enabled else frozenset()
        self._resumable = settings.uploads.resumable_uploads_enabled
        self.discovery = (
            discovery(settings.server.max_upload_size, settings.uploads.max_resumable_age) if self._resumable else b""
        )
        # Without syncs a short file is stored faster than it is handed to another thread.
        self.inline = settings.uploads.durability == "relaxed"

    def handle(self, exchange: Exchange) -> None:
        """The handler of the listener."""
        request = exchange.request
        method = request.method
        path = request.path
        if self._resumable and path.startswith("/tus") and self._resources(exchange):
            return
        if method in {"GET", "HEAD"}:
            fixed = self._FIXED.get(path)
            if fixed is not None:
                fixed(self, exchange)
            else:
                download.get(self, exchange)
        elif method == "PUT":
            if path in self._chunked:
                chunked.chunked(self, exchange)
            else:
                put.put(self, exchange)
        elif method == "POST":
            if path == "/upload":
                form.post_form(self, exchange)
            elif path in self._chunked:
                chunked.chunked(self, exchange)
            else:
                refuse(exchange, "not_found", "Nothing takes a POST here.")
        elif method == "DELETE":
            if path in self._chunked:
                chunked.chunked(self, exchange)
            else:
                removal.delete(self, exchange)
        elif method == "OPTIONS":
            exchange.respond(Response(204, PREFLIGHT + self.discovery))
        else:
            refuse(
                exchange,
                "method_not_allowed",
                "This method is not allowed here.",
                b"Allow: GET, HEAD, PUT, POST, DELETE, OPTIONS\r\n",
            )

    def _resources(self, exchange: Exchange) -> bool:
        """Requests on `/tus`, `/tus/` and below; False: it is a path like any other."""
        request = exchange.request
        collection, _, upload_id = request.path[1:].partition("/")
        if collection != "tus":
            return False
        speaks_tus = b"tus-resumable" in request.fields or (
            request.method == "POST" and b"x-http-method-override" in request.fields
        )
        if request.method == "OPTIONS":
            tus.options(self, exchange)
        elif upload_id and speaks_tus:
            tus.resource(self, exchange, upload_id)
        elif upload_id and (resumable.wants(request) or is_id(upload_id)):
            resumable.resource(self, exchange, upload_id)
        elif upload_id:
            return False
        elif request.method == "POST" and not speaks_tus and resumable.wants(request):
            resumable.create(self, exchange)
        elif request.method == "POST" or speaks_tus:
            tus.collection(self, exchange)
        else:
            return False
        return True

    def _health(self, exchange: Exchange) -> None:
        exchange.respond(Response(200, b"Content-Type: text/plain\r\nCache-Control: no-store\r\n", b"OK\n"))

    def _readiness(self, exchange: Exchange) -> None:
        reason = self._ready()
        head = b"Cache-Control: no-store\r\n"
        if reason is None:
            exchange.respond(json_response(200, {"ready": True}, head))
        else:
            exchange.respond(json_response(503, {"ready": False, "reason": reason}, head))

    def _page(self, exchange: Exchange) -> None:
        self.pages.respond(exchange)

    def _front_page(self, exchange: Exchange) -> None:
        if page_form.is_link(exchange.request):
            page_form.get(self, exchange)
        else:
            self.pages.respond(exchange)

    def _uploaded(self, exchange: Exchange) -> None:
        """The address that a browser shows with the answer to a form, opened once more."""
        if page_form.is_link(exchange.request):
            page_form.get(self, exchange)
        else:
            download.get(self, exchange)

    def _code(self, exchange: Exchange) -> None:
        page_code.get(self, exchange)

    def _upload_status(self, exchange: Exchange) -> None:
        if self._chunked:
            chunked.status(self, exchange)
        else:
            download.get(self, exchange)

    _FIXED: Final = {
        **dict.fromkeys(PATHS, _page),
        CODE: _code,
        "/": _front_page,
        "/upload": _uploaded,
        "/health": _health,
        "/ready": _readiness,
        "/upload/status": _upload_status,
        "/upload-status": _upload_status,
    }

    # ---- what several protocols ask

    def permit(self, exchange: Exchange, operation: Operation, signed: SignedRequest | None = None) -> Grant | None:
        """The gate's grant; None after a refusal was logged and answered. `signed`: what it is to judge instead."""
        grant = self.gate.authorise(exchange.request if signed is None else signed, operation)
        if isinstance(grant, Refusal):
            self.log_refusal(exchange, grant)
            deny(exchange, grant)
            return None
        return grant

    def admits(self, exchange: Exchange) -> bool:
        """Whether an upload may begin now; False after having told the client to come back later."""
        if self.busy():
            refuse(exchange, "server_busy", "The server has more uploads to store than it can.", _LATER)
            return False
        return True

    def on_loop(self, exchange: Exchange, callback: Callable[..., None]) -> Callable[..., None]:
        """`callback` as it may be called from any thread: at once on the event loop's own, else soon.

        Should it fail, the exchange is answered all the same.
        """

        def run(*arguments: Any) -> None:
            try:
                callback(*arguments)
            except Exception:
                _log.exception("request %s failed", exchange.request_id)
                if not exchange.answered:
                    refuse(exchange, "internal_error", "The server failed; the log says why.")

        def call(*arguments: Any) -> None:
            if threading.get_ident() == self._thread:
                run(*arguments)
            else:
                self.call_soon(run, *arguments)

        return call

    def path_below(self, exchange: Exchange, path: str) -> StoragePath | None:
        """The storage path below the base path of a URL; None after having refused it."""
        relative = self.base_paths.relative(path)
        if relative is None:
            refuse(exchange, "not_found", "No base path leads here.")
            return None
        try:
            return parse_path(relative)
        except PathRefused as error:
            exchange.respond(path_refused(exchange, error))
            return None

    def stored_path(self, text: str) -> StoragePath:
        """A storage path of ours, as a session has it."""
        return StoragePath(text)

    def forms(self, path: str) -> tuple[StoragePath, ...]:
        """Storage paths that a URL path may mean, in the order in which they are tried. Raises PathRefused."""
        known = self._forms.get(path)
        if known is not None:
            return known
        forms: tuple[StoragePath, ...] = ()
        for text in self.base_paths.forms(path):
            if text and not text.endswith("/"):
                try:
                    forms += (parse_path(text),)
                except PathRefused:
                    # The whole path may be too long where the path below its base is not.
                    if not forms:
                        raise
        if len(self._forms) >= _FORMS_MAX:
            self._forms.clear()
        self._forms[path] = forms
        return forms

    def file_limit(self, grant: Grant) -> int:
        """Bytes that a file may have under this grant."""
        limit = self.settings.server.max_upload_size
        if grant.max_size is not None:
            limit = min(limit, grant.max_size)
        if grant.exact_size is not None:
            limit = min(limit, grant.exact_size)
        return limit

    def plan(
        self, exchange: Exchange, grant: Grant, path: StoragePath, length: int | None, declared: str | None
    ) -> Plan | None:
        """The plan of a PUT; None after having refused it."""
        request = exchange.request
        if length is None and not request.chunked:
            if request.fields.get(b"content-length") is None:
                refuse(exchange, "length_required", "Content-Length is needed.")
                return None
            length = 0
        return self.plan_of(exchange, grant, path, length, declared, None)

    def plan_of(
        self,
        exchange: Exchange,
        grant: Grant,
        path: StoragePath,
        length: int | None,
        declared: str | None,
        filename: str | None,
    ) -> Plan | None:
        """The plan of a file of so many bytes, None when that is not known; None after having refused it."""
        if exchange.request.header(b"content-range") is not None:
            refuse(exchange, "coding_refused", "A part of a file cannot be put here (Content-Range).")
            return None
        if grant.exact_size is not None and length != grant.exact_size:
            refuse(exchange, "size_mismatch", "The file has another size than the permission says.")
            return None
        limit = self.settings.server.max_upload_size
        if grant.max_size is not None and grant.max_size < limit:
            limit = grant.max_size
        if length is not None and length > limit:
            refuse(exchange, "too_large", f"The file may have at most {limit} bytes.")
            return None
        if self.settings.uploads.allowed_extensions and not self.extension_allowed(path):
            refuse(exchange, "extension_refused", "Files with this extension are not taken.")
            return None
        if not grant.covers(path):
            refuse(exchange, "path_not_permitted", "The permission does not cover this path.")
            return None
        return self.plan_for(grant, path, length, declared, filename)

    def plan_for(
        self, grant: Grant, path: StoragePath, size: int | None, declared: str | None, filename: str | None
    ) -> Plan:
        """A plan for a grant. `filename` None: the last segment of the path, or what the grant names."""
        ticket = None
        if grant.ticket_id is not None and grant.max_files is not None:
            ticket = (grant.ticket_id, grant.max_files, self.clock.time() + _TICKET_MEMORY)
        metadata = Metadata(
            declared or grant.media_type, filename or grant.filename, grant.owner, grant.file_expires, grant.ticket_id
        )
        return Plan(path, size, self.file_limit(grant), metadata, ticket)

    def extension_allowed(self, name: str) -> bool:
        """Whether the settings take files of this name's extension."""
        allowed = self.settings.uploads.allowed_extensions
        if not allowed:
            return True
        last = name.rpartition("/")[2]
        _, dot, extension = last.rpartition(".")
        return bool(dot) and f".{extension.lower()}" in allowed

    def clean_name(self, filename: str) -> str:
        """A file name for people: what no file system or header should carry is removed. May be "file"."""
        name = unicodedata.normalize("NFC", filename.encode("utf-8", "replace").decode("utf-8"))
        name = _UNWANTED_IN_NAMES.sub("_", name).strip(" .")
        # A letter has a byte at least: of a very long name the rest is not looked at, letter by letter.
        stem, dot, extension = name.rpartition(".")
        name = f"{stem[:_NAME_BYTES]}.{extension}" if dot and len(extension) < 20 else name[:_NAME_BYTES]
        while len(name.encode("utf-8")) > _NAME_BYTES:
            stem, dot, extension = name.rpartition(".")
            name = f"{stem[:-1]}.{extension}" if dot and len(stem) > 1 and len(extension) < 20 else name[:-1]
        # Where a long name was cut there may be a space or a dot.
        return name.strip(" .") or "file"

    def new_path(self, filename: str, grant: Grant) -> StoragePath:
        """Where a file goes whose request names no path: where the grant says, else 128 random bits and the name.

        Raises PathRefused for a grant that names no storage path.
        """
        if grant.path is not None:
            return parse_path(grant.path)
        return parse_path(f"{grant.prefix or ''}{self.random(16).hex()}/{self.clean_name(filename)}")

    def url_of(self, path: StoragePath) -> str:
        """The URL path under which a stored file is served."""
        shortest = self.base_paths.prefixes[-1] + path
        for prefix in reversed(self.base_paths.prefixes):
            url = prefix + path
            if self.base_paths.relative(url) == path and not reserved(url):
                return quote_path(url)
        return quote_path("/download" + shortest if reserved(shortest) else shortest)
