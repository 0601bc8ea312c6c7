"""Spellings of paths that have led out of other servers' roots, or to another file than was signed.

Each is what stands behind a base path in a request target, as bytes on the wire.
"""

from __future__ import annotations

from itertools import product
from urllib.parse import quote, quote_from_bytes

ESCAPE = "escaped-from-the-root"
"""Name that the climbing spellings try to create; it must turn up nowhere."""

VICTIM = "victim/photo.jpg"
PRIVATE = ".hmac-file-server"
CANARY = "canary.txt"
"""A file that lies in the private folder and beside the storage folder."""

_DOTS = (
    ".", "%2e", "%2E", "%252e", "%25252e", "%c0%ae", "%e0%80%ae", "%f0%80%80%ae", "%c0%2e", "%u002e", "%%32%65",
    "\N{ONE DOT LEADER}", "\N{FULLWIDTH FULL STOP}", "\N{SMALL FULL STOP}", ".%00", ".%20", ".%0a", ".\u200b", "%3f.",
)  # fmt: skip
_SLASHES = (
    "/", "%2f", "%2F", "%252f", "%25252f", "%5c", "%5C", "\\", "%255c", "%c0%af", "%e0%80%af", "%c1%9c", "%c1%af",
    "%u2215", "%u002f", "\N{FULLWIDTH SOLIDUS}", "\N{DIVISION SLASH}", "\N{FRACTION SLASH}", "\N{FULLWIDTH REVERSE SOLIDUS}",
    "/./", "//", "/;/", ";/", "/%20/", "%00/", "%09/", "/%2e/", "\\/", "/\\", "%0d%0a/", "/?/", "/#/",
)  # fmt: skip


def _climbing() -> list[str]:
    found = []
    for dot, slash in product(_DOTS, _SLASHES):
        step = dot + dot + slash
        found.append(step + ESCAPE)
        found.append("victim/" + step * 9 + "tmp/" + ESCAPE)
    for slash in _SLASHES:
        found.append(slash + "etc/passwd")
        found += [f"..{slash}" * depth + CANARY for depth in (1, 2, 3)]
        found += [f"victim{slash}..{slash}" * depth + f"..{slash}" + CANARY for depth in (1, 4)]
        found.append("...." + slash + slash + ESCAPE)
        found.append(f"..{slash}files-beside{slash}{ESCAPE}")
        found.append(f"victim{slash}..{slash}..{slash}files{slash}{VICTIM}")
    for dots in ("...", "....", ".. ", " ..", "..;", "..%00", "..%ff", "%2e%2e%20", ".%09.", "..%01", "..:", "..%3b"):
        found += [f"{dots}/{ESCAPE}", f"victim/{dots}/../{ESCAPE}", f"{dots}", f"victim/{dots}"]
    found += ["..", ".", "%2e%2e", "%2e", "./", "../", "victim/..", "victim/.", "victim/../", "victim/%2e%2e"]
    found += [
        "file:///etc/passwd",
        "C:\\boot.ini",
        "C:/boot.ini",
        "\\\\host\\share",
        "~/x",
        "~root/.ssh/id",
        "/etc/passwd",
    ]
    found += ["..%2f" * 30 + "etc/passwd", "%2e%2e/" * 200 + "etc/passwd", "a/../" * 300 + "../" + ESCAPE]
    return found


def _private() -> list[str]:
    names = {
        PRIVATE,
        PRIVATE.upper(),
        PRIVATE.title(),
        PRIVATE + ".",
        PRIVATE + "..",
        PRIVATE + "%20",
        PRIVATE + "%20.",
        "%20" + PRIVATE,
    }
    names |= {quote_from_bytes(PRIVATE.encode(), safe="").replace(".", "%2e")}
    names |= {
        "".join(f"%{byte:02x}" for byte in PRIVATE.encode()),
        "".join(f"%{byte:02X}" for byte in PRIVATE.encode()),
    }
    for number, letter in enumerate(PRIVATE):
        rest = PRIVATE[:number], PRIVATE[number + 1 :]
        names.add(rest[0] + letter.swapcase() + rest[1])
        names.add(f"{rest[0]}%{ord(letter):02x}{rest[1]}")
        names.add(f"{rest[0]}%25{ord(letter):02x}{rest[1]}")
        if letter.isalpha():
            names.add(rest[0] + chr(ord(letter) - 0x61 + 0xFF41) + rest[1])
            names.add(rest[0] + chr(ord(letter) - 0x61 + 0x1D41A) + rest[1])
        for invisible in ("\u200b", "\u200d", "\u00ad", "\ufeff", "\u2060", "\ufe0f", "\u034f", "\u180e"):
            names.add(PRIVATE[:number] + invisible + PRIVATE[number:])
    names |= {PRIVATE.replace("s", "\N{LATIN SMALL LETTER LONG S}"), PRIVATE.replace("-", "\N{FULLWIDTH HYPHEN-MINUS}")}
    names |= {PRIVATE.replace(".", "\N{FULLWIDTH FULL STOP}"), PRIVATE.replace(".", "\N{ONE DOT LEADER}")}
    names |= {
        f"./{PRIVATE}",
        f"victim/../{PRIVATE}",
        f"/{PRIVATE}",
        f"%2f{PRIVATE}",
        f"{PRIVATE}%00",
        f"{PRIVATE}:",
        f"{PRIVATE};x",
    }
    names |= {f"{PRIVATE}::$DATA", f"{PRIVATE}%5c", f"{PRIVATE}?x", f"{PRIVATE}#x"}
    below = (CANARY, "state.db", "")
    return [f"{name}/{leaf}" for name in sorted(names) for leaf in below[: 2 if name != PRIVATE else 3]]


def _aliases() -> list[str]:
    found = [
        "victim//photo.jpg",
        "victim/./photo.jpg",
        "victim/x/../photo.jpg",
        "victim\\photo.jpg",
        "victim%2fphoto.jpg",
    ]
    found += [
        "victim%5cphoto.jpg",
        "/victim/photo.jpg",
        "victim/photo.jpg/",
        "victim/photo.jpg/.",
        "victim/photo.jpg/..",
    ]
    ends: tuple[str, ...] = (
        "%00",
        "%00.txt",
        ".",
        "..",
        "%20",
        "%20%20",
        "%0a",
        ";x",
        ";",
        "#x",
        "%23x",
        "%3fx",
        "%3f",
        "?",
        "?x=y",
        "~",
        "::$DATA",
    )
    ends += (
        ":stream",
        "%3a",
        "%2e",
        "%c2%a0",
        "%e2%80%8b",
        "/x",
        "%2f",
        "%5c",
        "\\",
        "%",
        "%2",
        "%zz",
        ".bak",
        "+",
        "%2b",
        "&",
    )
    found += [VICTIM + end for end in ends]
    for number, letter in enumerate(VICTIM):
        if letter != "/":
            found.append(f"{VICTIM[:number]}%{ord(letter):02x}{VICTIM[number + 1 :]}")
            found.append(f"{VICTIM[:number]}%{ord(letter):02X}{VICTIM[number + 1 :]}")
            found.append(f"{VICTIM[:number]}%25{ord(letter):02x}{VICTIM[number + 1 :]}")
            found.append(VICTIM[:number] + letter.swapcase() + VICTIM[number + 1 :])
    return found


def _odd() -> list[str]:
    found = [f"odd/%{code:02x}" for code in (*range(0x20), 0x7F)]
    found += [f"odd/%c2%{code:02x}" for code in range(0x80, 0xA0)]
    found += [f"odd/%{code:02x}" for code in range(0x80, 0x100)]
    found += [f"odd/a%{code:02x}b" for code in range(0x20, 0x7F)]
    found += [f"odd/c{chr(code)}d" for code in range(0x21, 0x7F)]
    lengths = (200, 254, 255, 256, 257, 1000, 1014, 1015, 1016, 1017, 1023, 1024, 1025, 4000, 8000)
    found += ["n" * length for length in lengths]
    found += ["long/" + "%F0%9F%98%80" * count for count in (62, 63, 64, 65, 255, 256, 300)]
    found += ["d/" * depth + "x" for depth in (10, 100, 500, 511, 512, 513, 1000, 3000)]
    found += ["%e9" * 20, "%ed%a0%80", "%ed%b0%80", "%f4%90%80%80", "%f8%88%80%80%80", "%fe", "%c3%28", "%e2%28%a1"]
    found += [
        f"reserved/{name}"
        for name in ("CON", "NUL.txt", "aux ", "COM1", "LPT1.jpg", "-rf", "--help", "*", "|id", "$(id)")
    ]
    found += [
        quote(name)
        for name in (
            "`id`",
            "a'b",
            'a"b',
            "<script>",
            "na\u202emg.exe",
            "e\u0301",
            "\u00e9",
            "\U0001f600",
            "a b",
            " a",
            "a ",
        )
    ]
    found += [
        "%252e%252e%252f" * 3 + ESCAPE,
        "%25%32%65%25%32%65/" + ESCAPE,
        "..%25%35%63" + ESCAPE,
        "%uff0e%uff0e%u2215" + ESCAPE,
    ]
    found += [
        "",
        "/",
        "//",
        "%",
        "%%",
        "?",
        "#",
        "*",
        "%20",
        "+",
        ".well-known/x",
        "..a/x",
        "a../x",
        "...",
        "a/.../b",
        ".a",
        "a/.b",
    ]
    return found


def spellings() -> list[bytes]:
    """All of them, each once."""
    texts = dict.fromkeys([*_climbing(), *_private(), *_aliases(), *_odd()])
    return [text.encode("utf-8", "surrogatepass") for text in texts]
