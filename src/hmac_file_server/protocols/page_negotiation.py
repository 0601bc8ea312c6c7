"""What a client would rather have: codings and types, by their weights (RFC 9110 section 12)."""

import re
from typing import Final

_ITEM: Final = re.compile(rb"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+(?:/[!#$%&'*+.^_`|~0-9A-Za-z-]+)?)\s*(?:;(.*))?", re.DOTALL)
_WEIGHT: Final = re.compile(rb"(?:.*;)?\s*q\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*", re.IGNORECASE | re.DOTALL)
_WEIGHTED: Final = re.compile(rb"(?:^|;)\s*q\s*=", re.IGNORECASE)


def weights(field: bytes) -> dict[bytes, float]:
    """Every item of an Accept or Accept-Encoding field, in lower case, with its weight from 0 to 1.

    Items that are none, or whose weight is none, are passed over. Of a repeated one the greatest weight counts.
    """
    found: dict[bytes, float] = {}
    for text in field.split(b","):
        item = _ITEM.fullmatch(text)
        if item is None:
            continue
        name, parameters = item.group(1).lower(), item.group(2)
        weight = 1.0
        if parameters is not None and _WEIGHTED.search(parameters) is not None:
            given = _WEIGHT.fullmatch(parameters)
            if given is None:
                continue
            weight = float(given.group(1))
        found[name] = max(weight, found.get(name, 0.0))
    return found


def accepts_gzip(field: bytes | None) -> bool:
    """Whether gzip may be used for a client with this Accept-Encoding; without the field it may not."""
    if field is None:
        return False
    given = weights(field)
    return max(given.get(b"gzip", -1.0), given.get(b"x-gzip", -1.0)) > 0 or (
        b"gzip" not in given and b"x-gzip" not in given and given.get(b"*", 0.0) > 0
    )


def prefers_html(field: bytes | None) -> bool:
    """Whether a client with this Accept names HTML, and likes it better than JSON: a browser that shows a page."""
    if field is None:
        return False
    given = weights(field)
    html = given.get(b"text/html", 0.0)
    json = next((given[name] for name in (b"application/json", b"application/*", b"*/*") if name in given), 0.0)
    return html > json
