"""Answers that every protocol gives: problems with stable codes, CORS, locations."""

from typing import Final
from urllib.parse import quote

from hmac_file_server.auth import Refusal
from hmac_file_server.files.contract import (
    DraftHeld,
    Entry,
    PathRefused,
    StorageBusy,
    StorageError,
    StorageFull,
    StorageReadOnly,
)
from hmac_file_server.http import BodyCut, BodyEnd, Exchange, Response
from hmac_file_server.http.errors import HttpError
from hmac_file_server.http.response import json_response, problem_response
from hmac_file_server.uploads import Failure, StoreError, StoreFull, TooManySessions, UploadRefused

# code -> (status, title). The page docs/errors.md explains each; a test holds the two together.
PROBLEMS: Final[dict[str, tuple[int, str]]] = {
    "not_found": (404, "Not found"),
    "method_not_allowed": (405, "Method not allowed"),
    "length_required": (411, "Length required"),
    "size_mismatch": (413, "Size differs from the permission"),
    "too_large": (413, "Too large"),
    "exists": (409, "Already exists"),
    "ticket_used_up": (403, "Ticket used up"),
    "path_not_permitted": (403, "Path not permitted"),
    "type_mismatch": (415, "Type differs from the permission"),
    "extension_refused": (415, "File extension not allowed"),
    "bad_media_type": (400, "Malformed Content-Type"),
    "incomplete": (400, "Body incomplete"),
    "body_stalled": (408, "Body stalled"),
    "body_too_slow": (408, "Body too slow"),
    "body_timed_out": (408, "Body took too long"),
    "bad_chunk": (400, "Malformed chunked coding"),
    "bad_multipart": (400, "Malformed form"),
    "not_multipart": (415, "Not a multipart form"),
    "coding_refused": (415, "Content coding not accepted"),
    "precondition_failed": (412, "Precondition failed"),
    "range_not_satisfiable": (416, "Range not satisfiable"),
    "bad_field": (400, "Malformed field"),
    "bad_url": (400, "Not an address"),
    "bad_digest": (400, "Malformed digest"),
    "bad_chunk_number": (400, "No such chunk"),
    "bad_chunk_length": (400, "Wrong length of a chunk"),
    "digest_mismatch": (400, "Digest does not match"),
    "chunk_differs": (409, "Other bytes are stored"),
    "upload_taken_over": (409, "Continued by another request"),
    "upload_not_found": (404, "No such upload"),
    "upload_expired": (410, "Upload expired"),
    "upload_lost": (410, "Upload lost"),
    "upload_overrun": (410, "Upload overrun"),
    "length_conflict": (400, "Another length"),
    "offset_mismatch": (409, "Another offset"),
    "not_partial_upload": (415, "Not a partial upload"),
    "part_missing": (404, "A part is missing"),
    "made_of_parts": (403, "Made of parts"),
    "tus_version": (412, "Other version of tus"),
    "content_type_refused": (415, "Content-Type not accepted"),
    "checksum_unsupported": (400, "Unknown checksum algorithm"),
    "checksum_mismatch": (460, "Checksum Mismatch"),
    "key_reused": (422, "Idempotency key reused"),
    "too_many_sessions": (429, "Too many uploads"),
    "network_changed": (408, "Network changed"),
    "upload_busy": (503, "Upload busy"),
    "sessions_unavailable": (503, "Sessions unavailable"),
    "server_busy": (503, "Server busy"),
    "shutting_down": (503, "Shutting down"),
    "storage_full": (507, "Storage full"),
    "storage_busy": (503, "Storage busy"),
    "storage_read_only": (503, "Storage read-only"),
    "storage_failed": (500, "Storage failed"),
    # Answered by the connection itself, before any protocol sees the request:
    "bad_request": (400, "Bad Request"),
    "bad_request_line": (400, "Bad Request"),
    "bad_target": (400, "Bad Request"),
    "bad_host": (400, "Bad Request"),
    "bad_framing": (400, "Bad Request"),
    "bad_content_length": (400, "Bad Request"),
    "repeated_field": (400, "Bad Request"),
    "head_timeout": (408, "Request Timeout"),
    "target_too_long": (414, "URI Too Long"),
    "expectation_failed": (417, "Expectation Failed"),
    "head_too_long": (431, "Request Header Fields Too Large"),
    "too_many_fields": (431, "Request Header Fields Too Large"),
    "internal_error": (500, "Internal Server Error"),
    "method_not_implemented": (501, "Not Implemented"),
    "coding_not_implemented": (501, "Not Implemented"),
    "too_many_connections": (503, "Service Unavailable"),
    "version_not_supported": (505, "HTTP Version Not Supported"),
}

_METHODS: Final = b"GET, HEAD, PUT, POST, PATCH, DELETE, OPTIONS"
_REQUEST_FIELDS: Final = (
    b"Authorization, Content-Type, Content-Length, Content-Range, Content-Disposition, Range, If-Range, "
    b"If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since, "
    b"X-Signature, X-Signature-Expires, X-Filename, X-Total-Size, X-Upload-Session-ID, X-Chunk-Number, "
    b"X-Chunk-Offset, Content-Digest, Repr-Digest, Want-Repr-Digest, Digest, X-Requested-With, "
    b"X-HTTP-Method-Override, Tus-Resumable, Upload-Length, Upload-Offset, Upload-Defer-Length, "
    b"Upload-Metadata, Upload-Checksum, Upload-Concat, Upload-Complete, Upload-Incomplete, "
    b"Upload-Draft-Interop-Version, Idempotency-Key"
)
_EXPOSED: Final = (
    b"Content-Length, Content-Range, Content-Disposition, ETag, Accept-Ranges, Location, Retry-After, "
    b"X-Request-ID, Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size, Tus-Checksum-Algorithm, "
    b"Upload-Offset, Upload-Length, Upload-Defer-Length, Upload-Metadata, Upload-Concat, Upload-Expires, "
    b"Upload-Complete, Upload-Incomplete, Upload-Limit, Upload-Draft-Interop-Version, Repr-Digest"
)

COMMON_HEAD: Final = (
    b"Access-Control-Allow-Origin: *\r\n"
    b"Access-Control-Expose-Headers: " + _EXPOSED + b"\r\n"
    b"X-Content-Type-Options: nosniff\r\n"
)
"""On every answer, errors included: without CORS a browser shows its user only "network error"."""

PREFLIGHT: Final = (
    b"Allow: " + _METHODS + b"\r\n"
    b"Access-Control-Allow-Methods: " + _METHODS + b"\r\n"
    b"Access-Control-Allow-Headers: " + _REQUEST_FIELDS + b"\r\n"
    b"Access-Control-Max-Age: 86400\r\n"
)

_RETRY_AFTER: Final = b"Retry-After: 5\r\n"
_RETRY_SOON: Final = b"Retry-After: 1\r\n"


def problem(exchange: Exchange, code: str, detail: str, head: bytes = b"", **members: object) -> Response:
    """An error answer by its code; `members` stand beside those that every problem has (RFC 9457 section 3.2)."""
    status, title = PROBLEMS[code]
    return problem_response(status, code, title, detail, exchange.request_id, head, **members)


def refuse(exchange: Exchange, code: str, detail: str, head: bytes = b"") -> None:
    """Answer with `problem`."""
    exchange.respond(problem(exchange, code, detail, head))


def deny(exchange: Exchange, refusal: Refusal) -> None:
    """Answer a refusal of the gate: the status and its code, and not a word about what differed."""
    head = b""
    if refusal.challenge is not None:
        head = b"WWW-Authenticate: " + refusal.challenge.encode("ascii") + b"\r\n"
    titles = {401: "Unauthorized", 403: "Forbidden", 410: "Gone", 411: "Length Required"}
    detail = {
        401: "A valid token is needed.",
        410: "The permission has expired.",
        411: "The signature binds the size, so Content-Length is needed.",
    }.get(refusal.status, "The request is not permitted.")
    title = titles.get(refusal.status, "Refused")
    exchange.respond(problem_response(refusal.status, refusal.code, title, detail, exchange.request_id, head))


def failure(exchange: Exchange, error: Failure | PathRefused) -> Response:
    """The answer to what an upload or a store refused."""
    if isinstance(error, UploadRefused):
        if error.code not in PROBLEMS:
            # A path rule, found when the file was published.
            return problem_response(400, error.code, "Path refused", error.detail, exchange.request_id)
        return problem(exchange, error.code, error.detail)
    if isinstance(error, TooManySessions):
        return problem(exchange, "too_many_sessions", "There are too many unfinished uploads.", _RETRY_AFTER)
    if isinstance(error, StoreFull):
        return problem(exchange, "storage_full", "There is no space left to keep the state of this upload.")
    if isinstance(error, StoreError):
        return problem(exchange, "sessions_unavailable", "Upload sessions cannot be kept at present.", _RETRY_AFTER)
    if isinstance(error, DraftHeld):
        return problem(exchange, "upload_busy", "Another server is about to let go of this upload.", _RETRY_SOON)
    if isinstance(error, PathRefused):
        return path_refused(exchange, error)
    if isinstance(error, StorageFull):
        return problem(exchange, "storage_full", "There is no space left for this file.")
    if isinstance(error, StorageBusy):
        return problem(exchange, "storage_busy", "The server is out of resources for the moment.", _RETRY_AFTER)
    if isinstance(error, StorageReadOnly):
        return problem(exchange, "storage_read_only", "The store takes no files at present.", _RETRY_AFTER)
    return problem(exchange, "storage_failed", "The file could not be stored safely; nothing was kept.")


def path_refused(exchange: Exchange, error: PathRefused) -> Response:
    """400, with the word of the path rule that was broken."""
    detail = f"{error.reason[:1].upper()}{error.reason[1:]}."
    return problem_response(400, error.code, "Path refused", detail, exchange.request_id)


_CUTS: Final[dict[BodyCut, tuple[str, str]]] = {
    BodyCut.DISCONNECTED: ("incomplete", "The body ended early."),
    BodyCut.STALLED: ("body_stalled", "No byte of the body arrived for too long."),
    BodyCut.TOO_SLOW: ("body_too_slow", "The body arrived too slowly."),
    BodyCut.TIMED_OUT: ("body_timed_out", "The request took too long."),
    BodyCut.TOO_LARGE: ("too_large", "The body is larger than allowed."),
    BodyCut.ABORTED: ("shutting_down", "The server is shutting down."),
    BodyCut.TAKEN_OVER: ("upload_taken_over", "Another request continues this upload."),
    BodyCut.NETWORK_GONE: ("network_changed", "The address of this connection is gone; connect anew."),
}


def body_failure(exchange: Exchange, end: BodyEnd) -> Response:
    """The answer to a body that did not come whole."""
    if isinstance(end.error, UploadRefused | StorageError | PathRefused):
        return failure(exchange, end.error)
    if isinstance(end.error, HttpError):
        return problem(exchange, end.error.code, end.error.detail)
    if end.error is not None:
        raise end.error
    code, detail = _CUTS[end.cut or BodyCut.DISCONNECTED]
    return problem(exchange, code, detail)


def receipt(entry: Entry, url: str, status: int) -> Response:
    """The JSON of a stored file."""
    document: dict[str, object] = {
        "success": True,
        "filename": entry.filename,
        "size": entry.size,
        "url": url,
    }
    if entry.digest is not None:
        algorithm, _, value = entry.digest.partition(":")
        document[algorithm] = value
    return json_response(status, document, b"ETag: " + entry.etag.encode("ascii") + b"\r\n")


def quote_path(path: str) -> str:
    """A decoded path as it stands in a URL (RFC 3986)."""
    return quote(path, safe="/!$&'()*+,;=:@~")
