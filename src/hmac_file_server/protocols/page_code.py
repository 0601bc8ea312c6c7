"""QR codes of addresses, as SVG (ISO/IEC 18004, made by segno): for a result that goes on to another device."""

import io
import logging
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import unquote_to_bytes

from hmac_file_server.http import Exchange, Response
from hmac_file_server.protocols.answers import refuse

if TYPE_CHECKING:
    from hmac_file_server.protocols.application import Application

_log = logging.getLogger(__name__)

LONGEST: Final = 512
"""Bytes of an address. A code of that many is drawn in a few tens of milliseconds, and phones can still read it."""

# Characters of RFC 3986, with a host and without a user: "https://bank@elsewhere" fools those who read it.
_ADDRESS: Final = re.compile(
    rb"https?://(?:[A-Za-z0-9._~%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:[/?#][A-Za-z0-9._~:/?#@!$&'()*+,;=%\[\]-]*)?",
    re.IGNORECASE,
)
_REMEMBERED: Final = 64
_WAITING: Final = 32
_LATER: Final = b"Retry-After: 2\r\n"
_HEAD: Final = (
    b"Content-Type: image/svg+xml\r\n"
    b"Content-Security-Policy: default-src 'none'\r\n"
    b"Referrer-Policy: no-referrer\r\n"
    b"Cache-Control: private, max-age=86400\r\n"
)

Drawn: TypeAlias = Callable[[bytes | None], None]


def fits(address: bytes) -> bool:
    """Whether there is a code for this address: http or https, absolute, of at most `LONGEST` bytes."""
    return len(address) <= LONGEST and _ADDRESS.fullmatch(address) is not None


def address_of(query: bytes) -> bytes | None:
    """The `url` of a query, decoded once; None when there is not exactly one, or it is no address for a code."""
    values = [value for name, _, value in (pair.partition(b"=") for pair in query.split(b"&")) if name == b"url"]
    if len(values) != 1 or len(values[0]) > 3 * LONGEST:
        return None
    address = unquote_to_bytes(values[0])
    return address if fits(address) else None


def draw(address: bytes) -> bytes:
    """The code as SVG without styles and scripts: error correction M, a border of two modules, on white."""
    import segno

    out = io.BytesIO()
    segno.make_qr(address.decode("ascii"), error="m", boost_error=False).save(
        out,
        kind="svg",
        border=2,
        dark="#000",
        light="#fff",
        xmldecl=False,
        omitsize=True,
        nl=False,
        svgclass=None,
        lineclass=None,
    )
    return out.getvalue()


class Codes:
    """Draws codes on a worker, one at a time, and remembers the latest. Used on the event loop.

    However many are asked for, they take no more than one worker, and no more than a few of them wait.
    """

    __slots__ = ("_busy", "_call_soon", "_known", "_submit", "_waiting")

    def __init__(self, submit: Callable[[Callable[[], None]], object], call_soon: Callable[..., None]) -> None:
        """See `Application`."""
        self._submit = submit
        self._call_soon = call_soon
        self._known: OrderedDict[bytes, bytes] = OrderedDict()
        self._waiting: OrderedDict[bytes, list[Drawn]] = OrderedDict()
        self._busy = False

    def ask(self, address: bytes, done: Drawn) -> bool:
        """Have `done` called with the SVG, or with None should it fail; False when too many wait already."""
        known = self._known.get(address)
        if known is not None:
            self._known.move_to_end(address)
            done(known)
            return True
        asking = self._waiting.get(address)
        if asking is None:
            if len(self._waiting) >= _WAITING:
                return False
            asking = self._waiting[address] = []
        asking.append(done)
        if not self._busy:
            self._next()
        return True

    def _next(self) -> None:
        address = next(iter(self._waiting), None)
        self._busy = address is not None
        if address is None:
            return

        def work() -> None:
            try:
                svg: bytes | None = draw(address)
            except Exception:
                _log.exception("a code could not be drawn")
                svg = None
            self._call_soon(self._drawn, address, svg)

        self._submit(work)

    def _drawn(self, address: bytes, svg: bytes | None) -> None:
        asking = self._waiting.pop(address)
        if svg is not None:
            self._known[address] = svg
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        self._next()
        for done in asking:
            done(svg)


def get(app: "Application", exchange: Exchange) -> None:
    """`GET /upload-qr.svg?url=`."""
    address = address_of(exchange.request.query)
    if address is None:
        refuse(exchange, "bad_url", f"url must be one absolute http or https URL of at most {LONGEST} bytes.")
        return

    def drawn(svg: bytes | None) -> None:
        if exchange.answered:
            return
        if svg is None:
            refuse(exchange, "internal_error", "The server failed; the log says why.")
        else:
            exchange.respond(Response(200, _HEAD, svg))

    if not app.codes.ask(address, app.on_loop(exchange, drawn)):
        refuse(exchange, "server_busy", "Too many codes are asked for at present.", _LATER)
