"""DELETE of a stored file: Metronome's tokens, and tickets that allow it."""

from typing import TYPE_CHECKING

from hmac_file_server.auth import Operation
from hmac_file_server.auth.grant import TICKET
from hmac_file_server.files.contract import StorageError
from hmac_file_server.http import Exchange, Response
from hmac_file_server.protocols.answers import failure

if TYPE_CHECKING:
    from hmac_file_server.protocols.application import Application


def delete(app: "Application", exchange: Exchange) -> None:
    """Remove the file of the request's path; 204 also when it was gone, so that a repeat is harmless."""
    request = exchange.request
    grant = app.permit(exchange, Operation.DELETE)
    if grant is None:
        return
    path = app.path_below(exchange, request.path)
    if path is None:
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
