"""DELETE of a stored file: Metronome's tokens, and tickets that allow it."""

from typing import TYPE_CHECKING

from hmac_file_server.auth import Operation, Refusal
from hmac_file_server.auth.grant import TICKET
from hmac_file_server.files.contract import PathRefused, StorageError
from hmac_file_server.files.paths import parse as parse_path
from hmac_file_server.http import Exchange, Response
from hmac_file_server.protocols.answers import deny, failure, path_refused, refuse

if TYPE_CHECKING:
    from hmac_file_server.protocols.application import Application


def delete(app: "Application", exchange: Exchange) -> None:
    """Remove the file of the request's path; 204 also when it was gone, so that a repeat is harmless."""
    request = exchange.request
    grant = app.gate.authorise(request, Operation.DELETE)
    if isinstance(grant, Refusal):
        app.log_refusal(exchange, grant)
        deny(exchange, grant)
        return
    relative = app.base_paths.relative(request.path)
    if relative is None:
        refuse(exchange, "not_found", "No base path leads here.")
        return
    try:
        path = parse_path(relative)
    except PathRefused as error:
        exchange.respond(path_refused(exchange, error))
        return
    # What the URL serves, so that it is gone afterwards. Tickets are for storage paths alone.
    paths = (path,) if grant.scheme == TICKET else app.forms(request.path)
    reason = f"request by {grant.scheme}"

    def remove() -> None:
        try:
            for each in paths:
                app.store.delete(each, reason)
        except StorageError as error:
            exchange.respond_soon(failure(exchange, error))
        except Exception:
            exchange.respond_soon(failure(exchange, StorageError()))
            raise
        else:
            exchange.respond_soon(Response(204))

    app.submit(remove)
