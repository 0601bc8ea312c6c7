"""Uploading with a plain form, for browsers without JavaScript: the page with the form, and pages as its answers.

A link with `?ticket=` leads to the form, and the form posts the file to `upload?ticket=`. The ticket is the whole
authority: there are no cookies, so there is nothing that another site could ride on. All addresses are relative.
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from html import escape
from importlib import resources
from string import Template
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from hmac_file_server.auth import Grant, Operation, Refusal
from hmac_file_server.auth import query as query_parameters
from hmac_file_server.auth.refusals import Malformed
from hmac_file_server.http import Exchange, Request, Response
from hmac_file_server.http.target import AUTHORITY
from hmac_file_server.protocols import page_code
from hmac_file_server.protocols.page_negotiation import prefers_html
from hmac_file_server.protocols.pages import POLICY

if TYPE_CHECKING:
    from hmac_file_server.protocols.application import Application

_HEAD: Final = b"Content-Type: text/html; charset=utf-8\r\n" + POLICY + b"Cache-Control: no-store\r\n"
# Of the JSON that a page takes the place of.
_REPLACED: Final = (b"content-type:", b"etag:", b"cache-control:")
_LINK: Final = re.compile(rb"(?:\A|&)ticket(?:=|&|\Z)", re.IGNORECASE)
_TICKET: Final = re.compile(rb"[A-Za-z0-9._-]{1,8192}")
_PREFIX: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+)*/?")
_SCRIPT: Final = '  <script type="module" src="upload-form.js"></script>\n'
# The end of the year 9999, the last whose dates have four digits.
_LAST_DATE: Final = 253_402_300_799

_PAGE: Final = Template(
    resources.files("hmac_file_server.web").joinpath("upload-form.html").read_text(encoding="utf-8"),
)

# ---- texts

_TITLE: Final = "Send a file"
_DONE: Final = "Your file has arrived"
_ANOTHER_LINK: Final = "Ask whoever gave it to you for a new one."
# What happened, and what to do, by code; what is not here is told in the words of the problem itself.
_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "token_expired": ("This link has expired", _ANOTHER_LINK),
    "bad_token": (
        "This link does not work",
        "It is not complete, or was not made for this server. Open it exactly as you got it, or ask for a new one.",
    ),
    "malformed_credentials": (
        "This link does not work",
        "It is not complete. Open it exactly as you got it, or ask for a new one.",
    ),
    "multiple_credentials": ("This link does not work", "It holds more than one permission. Ask for a new one."),
    "scheme_disabled": ("This link does not work", "This server takes no uploads by links at present."),
    "not_covered": ("This link is for something else", "It does not permit uploads with a form."),
    "ticket_used_up": ("This link is used up", f"All files that it was for have been uploaded. {_ANOTHER_LINK}"),
    "path_not_permitted": ("This link is for something else", "It does not permit this upload."),
    "too_large": ("The file is too large", ""),
    "extension_refused": ("Files of this kind are not taken", "Choose a file of another kind."),
    "type_mismatch": ("Files of this kind are not taken", "This link is for files of another kind."),
    "exists": ("There is another file already", "This link is for one file, and another one has been uploaded by it."),
    "bad_multipart": ("No file arrived", "Choose a file, then press Upload."),
    "not_multipart": ("No file arrived", "Choose a file, then press Upload."),
    "incomplete": ("The upload broke off", "Nothing was kept. Try again."),
    "body_stalled": ("The upload broke off", "Nothing came for too long, and nothing was kept. Try again."),
    "body_too_slow": ("The upload broke off", "The connection is too slow for a form, and nothing was kept."),
    "body_timed_out": ("The upload broke off", "It took too long, and nothing was kept."),
    "network_changed": ("The upload broke off", "The network has changed, and nothing was kept. Try again."),
    "shutting_down": ("The server is restarting", "Nothing was kept. Try again in a moment."),
    "server_busy": ("The server is busy", "Nothing was kept. Try again in a moment."),
    "storage_busy": ("The server is busy", "Nothing was kept. Try again in a moment."),
    "storage_full": ("There is no room for this file", "Try again later, or tell whoever gave you the link."),
    "storage_read_only": ("The server takes no files at present", "Try again later."),
}


def is_link(request: Request) -> bool:
    """Whether the query has a ticket, well-formed or not."""
    return bool(request.query) and _LINK.search(request.query) is not None


# ---- the form


def get(app: "Application", exchange: Exchange) -> None:
    """Show the form that a ticket permits, or why it permits none."""
    request = exchange.request
    grant = app.gate.authorise(_posting("/upload", request.query), Operation.UPLOAD)
    if isinstance(grant, Refusal):
        app.log_refusal(exchange, grant)
        head = b"" if grant.challenge is None else b"WWW-Authenticate: " + grant.challenge.encode("ascii") + b"\r\n"
        problem = {"code": grant.code, "title": "", "detail": "", "request_id": exchange.request_id}
        exchange.respond(_page(grant.status, _refusal(problem, None), head))
        return
    # With JavaScript the upload page is better, where it is there and the ticket is good for it.
    script = (
        app.settings.uploads.chunked_uploads_enabled
        and app.pages.has("/upload-page.js")
        and isinstance(app.gate.authorise(_posting("/upload/chunked", request.query), Operation.CREATE), Grant)
    )
    exchange.respond(_page(200, (_TITLE, _form(app, grant, ticket_of(request) or "")), script=script))


def _posting(path: str, query: bytes) -> Request:
    """The request that the form will make, as far as the gate looks at it."""
    return Request("POST", path, query, {}, http10=False)


def ticket_of(request: Request) -> str | None:
    """The ticket of a query as it may stand in an address; None when there is none, or none that could be right."""
    try:
        ticket = query_parameters.parse(request.query).get(query_parameters.TICKET)
    except Malformed:
        return None
    return None if ticket is None or _TICKET.fullmatch(ticket) is None else ticket.decode("ascii")


def _form(app: "Application", grant: Grant, ticket: str) -> str:
    bounds = [f"Up to {size(app.file_limit(grant))}"]
    if grant.max_files is not None:
        bounds.append("One file in all" if grant.max_files == 1 else f"{grant.max_files} files in all, one at a time")
    kinds = grant.media_type or ", ".join(app.settings.uploads.allowed_extensions)
    if kinds:
        bounds.append(f"Only {kinds}")
    if grant.until is not None:
        bounds.append(f"The link works until {moment(grant.until)}")
    if grant.file_expires is not None:
        bounds.append(f"Files are kept until {moment(grant.file_expires)}")
    items = "".join(f"<li>{escape(bound)}</li>" for bound in bounds)
    accept = f' accept="{escape(kinds.replace(", ", ","))}"' if kinds else ""
    return (
        f'<ul class="limits">{items}</ul>\n'
        f'<form method="post" enctype="multipart/form-data" action="{_target("upload", ticket)}">\n'
        '<p><label for="file">File</label></p>\n'
        f'<p><input type="file" id="file" name="file" required{accept}></p>\n'
        '<p class="buttons"><button type="submit" class="button primary">Upload</button></p>\n'
        "</form>\n"
        '<p class="status">Leave this page open until the next one appears. Should the connection break meanwhile, '
        "the upload has to begin anew.</p>"
    )


# ---- what is answered to it


def wants_page(request: Request) -> bool:
    """Whether the answer to a form is to be a page: it came by a link, from something that would rather show one."""
    return is_link(request) and prefers_html(request.header(b"accept"))


def presentation(app: "Application", exchange: Exchange) -> Callable[[Response], Response]:
    """What makes a page of the answer to a form, whether it is a receipt or a problem; see `Exchange.render`."""
    request = exchange.request
    https = app.settings.server.tls_certificate is not None

    def render(response: Response) -> Response:
        document: dict[str, Any] = json.loads(response.body)
        ticket = ticket_of(request)
        if response.status == 200:
            content = _receipt(document, ticket, public_url(request, str(document["url"]), https=https))
        else:
            content = _refusal(document, ticket)
        head = b"".join(
            line + b"\r\n" for line in response.head.split(b"\r\n") if line and not line.lower().startswith(_REPLACED)
        )
        page = _page(response.status, content, head)
        page.close = response.close
        return page

    return render


def public_url(request: Request, path: str, *, https: bool) -> str | None:
    """The absolute address of a path of ours as this client would reach it; None when it did not say by what name.

    What a proxy says (X-Forwarded-Proto, -Host, -Prefix) is believed whoever says it: this is shown to the one who
    asked, and to nobody else. A browser cannot be made to send these fields by another site.
    """
    scheme = _forwarded(request, b"x-forwarded-proto").lower()
    if scheme not in {"http", "https"}:
        scheme = "https" if https else "http"
    host = _forwarded(request, b"x-forwarded-host")
    if AUTHORITY.fullmatch(host.encode("latin-1")) is None:
        host = (request.header(b"host") or b"").decode("latin-1")
    prefix = _forwarded(request, b"x-forwarded-prefix")
    prefix = prefix.rstrip("/") if _PREFIX.fullmatch(prefix) is not None else ""
    return f"{scheme}://{host}{prefix}{path}" if host else None


def _forwarded(request: Request, name: bytes) -> str:
    return (request.header(name) or b"").partition(b",")[0].strip().decode("latin-1")


def _receipt(document: Mapping[str, Any], ticket: str | None, address: str | None) -> tuple[str, str]:
    link, name = escape("." + str(document["url"])), escape(str(document["filename"]))
    lines = [f'<p><a href="{link}">{name}</a>, {size(int(document["size"]))}</p>']
    if address is not None:
        lines += [
            '<p><label for="address">Its address. Whoever has it can read the file:</label></p>',
            f'<textarea id="address" class="links" rows="3" readonly>{escape(address)}</textarea>',
        ]
        if page_code.fits(address.encode("utf-8", "replace")):
            source = escape(f"upload-qr.svg?url={quote(address, safe='')}")
            lines.append(
                f'<p><img class="qr" src="{source}" width="220" height="220" alt="QR code of the address"></p>'
            )
    if ticket is not None:
        lines.append(f'<p><a href="{_target("./", ticket)}">Send another file</a></p>')
    return _DONE, "\n".join(lines)


def _refusal(problem: Mapping[str, Any], ticket: str | None) -> tuple[str, str]:
    code = str(problem["code"])
    title, words = _WORDS.get(code, (str(problem["title"]), ""))
    lines = [f"<p>{escape(words or str(problem['detail']))}</p>"]
    if ticket is not None:
        lines.append(f'<p><a href="{_target("./", ticket)}">Back to the form</a></p>')
    lines.append(f'<p class="status">Error {escape(code)}, request {escape(str(problem["request_id"]))}</p>')
    return title or "This did not work", "\n".join(lines)


# ---- parts


def _page(status: int, content: tuple[str, str], head: bytes = b"", *, script: bool = False) -> Response:
    title, body = content
    text = _PAGE.substitute(title=escape(title), content=body, script=_SCRIPT if script else "")
    return Response(status, _HEAD + head, text.encode("utf-8", "replace"))


def _target(path: str, ticket: str) -> str:
    return escape(f"{path}?ticket={quote(ticket, safe='')}")


def size(count: int) -> str:
    """Bytes for people, never more than they are: "5 GB", "1.4 MB", "12 bytes". A KB is 1024 bytes."""
    for unit, scale in (("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)):
        if count >= scale:
            tenths = count * 10 // scale
            return f"{tenths // 10} {unit}" if tenths % 10 == 0 or tenths >= 1000 else f"{tenths / 10} {unit}"
    return "1 byte" if count == 1 else f"{count} bytes"


def moment(seconds: float) -> str:
    """Epoch seconds for people, in UTC: "30 November 2026, 10:05 UTC"."""
    when = time.gmtime(min(max(seconds, 0.0), _LAST_DATE))
    return f"{when.tm_mday} {_MONTHS[when.tm_mon - 1]} {when.tm_year}, {when.tm_hour:02}:{when.tm_min:02} UTC"


_MONTHS: Final = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
