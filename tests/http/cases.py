"""The conformance table: requests as bytes, and what a strict HTTP/1.1 server answers (RFC 9110, RFC 9112).

A case is one connection. `statuses` are the final answers in order; several numbers in one place mean that any
of them is right. `end`: "closed" - the server closes after the last answer and reads nothing more as a request;
"alive" - one more request on the connection is answered; "either" - alive when a body that nobody wanted
came along with its head, and otherwise closed after the answer to it; "half" - the client closes its side after the last
byte, is answered all the same, and then the server closes. `seen`: requests that reach the application.
`stored`: files with their bytes that exist afterwards; `absent`: files that do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tests.fixtures import slots

Status = int | tuple[int, ...]
End = Literal["closed", "alive", "either", "half"]

PRESENT = "cases/present.txt"
PRESENT_BYTES = b"0123456789abcdefghij"
"""A file that is there before the table is run."""


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    data: bytes
    statuses: tuple[Status, ...]
    end: End
    seen: int
    stored: tuple[tuple[str, bytes], ...] = ()
    absent: tuple[str, ...] = ()
    bodiless: frozenset[int] = frozenset()
    invited: bool = False
    """Whether "100 Continue" may come before the final answer; it depends on how fast the body follows."""


CASES: list[Case] = []


def _add(name: str, data: bytes, *statuses: Status, end: End, seen: int | None = None, **more: object) -> None:
    count = len(statuses) if seen is None else seen
    CASES.append(Case(name, data, statuses, end, count, **more))  # type: ignore[arg-type]


def lines(*parts: str | bytes) -> bytes:
    """A head: its lines, CRLF after each, and the empty line."""
    return b"\r\n".join(p.encode() if isinstance(p, str) else p for p in parts) + b"\r\n\r\n"


def get(*fields: str | bytes, target: str = "/health", version: str = "HTTP/1.1", host: str = "Host: t") -> bytes:
    return lines(f"GET {target} {version}", host, *fields)


def path_of(name: str) -> str:
    return f"cases/{name}.bin"


def put(name: str, body: bytes, *fields: str | bytes, size: int | None = None, version: str = "HTTP/1.1") -> bytes:
    """A signed (v1) PUT with its body; `size` is signed and announced when it is not the body's own."""
    announced = len(body) if size is None else size
    target = slots.target(path_of(name), slots.v1(path_of(name), announced))
    return lines(f"PUT {target} {version}", "Host: t", *fields, f"Content-Length: {announced}") + body


def put_framed(name: str, *fields: str | bytes, version: str = "HTTP/1.1", body: bytes = b"") -> bytes:
    """A PUT signed for its path only, with whatever framing `fields` say."""
    target = "/upload/" + path_of(name)
    return lines(f"PUT {target} {version}", "Host: t", "X-Signature: " + slots.x_signature(target), *fields) + body


def put_chunked(name: str, body: bytes, *fields: str | bytes) -> bytes:
    """A chunked PUT; `body` is the coded body."""
    return put_framed(name, "Transfer-Encoding: chunked", *fields, body=body)


# ---- the request line (RFC 9112 section 3)

_add("plain", get(), 200, end="alive")
_add("http10", get(version="HTTP/1.0"), 200, end="closed")
_add("http10_no_host", lines("GET /health HTTP/1.0"), 200, end="closed")
_add("http10_keep_alive", get("Connection: keep-alive", version="HTTP/1.0"), 200, end="alive")
_add("leading_crlf", b"\r\n" + get(), 200, end="alive")
_add("leading_crlf_between", get() + b"\r\n" + get(), 200, 200, end="alive")
_add("trailing_crlf", get() + b"\r\n", 200, end="alive")
for _name, _line in {
    "leading_crlf_twice": b"\r\n\r\nGET /health HTTP/1.1",
    "leading_lf": b"\nGET /health HTTP/1.1",
    "leading_space": b" GET /health HTTP/1.1",
    "leading_tab": b"\tGET /health HTTP/1.1",
    "leading_nul": b"\0GET /health HTTP/1.1",
    "leading_cr": b"\rGET /health HTTP/1.1",
    "two_spaces_before_target": b"GET  /health HTTP/1.1",
    "two_spaces_after_target": b"GET /health  HTTP/1.1",
    "space_after_version": b"GET /health HTTP/1.1 ",
    "tab_before_target": b"GET\t/health HTTP/1.1",
    "tab_after_target": b"GET /health\tHTTP/1.1",
    "space_in_target": b"GET /hea lth HTTP/1.1",
    "no_version": b"GET /health",
    "no_target": b"GET HTTP/1.1",
    "only_method": b"GET",
    "empty_target": b"GET  HTTP/1.1",
    "no_method": b"/health HTTP/1.1",
    "version_lower_case": b"GET /health http/1.1",
    "version_word": b"GET /health HTTP/one",
    "version_two_digits": b"GET /health HTTP/1.10",
    "version_leading_zero": b"GET /health HTTP/01.1",
    "version_no_minor": b"GET /health HTTP/1",
    "version_no_dot": b"GET /health HTTP/11",
    "version_comma": b"GET /health HTTP/1,1",
    "version_negative": b"GET /health HTTP/-1.1",
    "version_other_protocol": b"GET /health ICY/1.1",
    "version_with_suffix": b"GET /health HTTP/1.1x",
    "version_unicode_digit": "GET /health HTTP/1.\N{FULLWIDTH DIGIT ONE}".encode(),
    "method_with_colon": b"GE:T /health HTTP/1.1",
    "method_with_slash": b"GE/T /health HTTP/1.1",
    "method_with_brackets": b"[GET] /health HTTP/1.1",
    "method_with_high_byte": b"G\xc9T /health HTTP/1.1",
    "method_with_nul": b"GE\0T /health HTTP/1.1",
    "method_with_comma": b"GET, /health HTTP/1.1",
    "cr_in_target": b"GET /he\ralth HTTP/1.1",
    "nul_in_target": b"GET /he\0alth HTTP/1.1",
    "del_in_target": b"GET /he\x7falth HTTP/1.1",
    "control_in_target": b"GET /he\x1balth HTTP/1.1",
    "cr_cr_lf": b"GET /health HTTP/1.1\r",
}.items():
    _add(f"line_{_name}", lines(_line, "Host: t"), 400, end="closed", seen=0)
for _name, _version in {
    "2_0": "HTTP/2.0", "1_2": "HTTP/1.2", "0_9": "HTTP/0.9", "3_0": "HTTP/3.0", "9_9": "HTTP/9.9", "1_9": "HTTP/1.9"
}.items():  # fmt: skip
    _add(f"version_{_name}", get(version=_version), 505, end="closed", seen=0)
_add("http2_preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, end="closed", seen=0)
_add("http09", b"GET /health\r\n", end="half", seen=0)
_add("bare_lf_line", b"GET /health HTTP/1.1\nHost: t\n\n", 400, end="closed", seen=0)
_add("bare_lf_after_line", b"GET /health HTTP/1.1\nHost: t\r\n\r\n", 400, end="closed", seen=0)
_add("bare_lf_after_field", b"GET /health HTTP/1.1\r\nHost: t\nX: y\r\n\r\n", 400, end="closed", seen=0)
_add("bare_lf_at_the_end", b"GET /health HTTP/1.1\r\nHost: t\r\n\nX: y\r\n\r\n", 400, end="closed", seen=0)
_add("bare_lf_twice_at_the_end", b"GET /health HTTP/1.1\r\nHost: t\n\n", 400, end="closed", seen=0)
_add("cr_without_lf", b"GET /health HTTP/1.1\r\nHost: t\rX: y\r\n\r\n", 400, end="closed", seen=0)
_add("tls_client_hello", bytes.fromhex("16030100eb010000e70303") + bytes(range(200)), 400, end="half", seen=0)
_add("line_of_noise", bytes(range(128, 256)) + b"\r\n\r\n", 400, end="closed", seen=0)
_add("only_crlfs", b"\r\n" * 40, 400, end="closed", seen=0)

# ---- request targets (RFC 9112 section 3.2)

_add("target_absolute", get(target="http://t/health"), 200, end="alive")
_add("target_absolute_other_host", get(target="http://elsewhere.example:8080/health"), 200, end="alive")
_add("target_absolute_upper_case", get(target="HTTP://t/health"), 200, end="alive")
_add("target_absolute_https", get(target="https://t/health"), 200, end="alive")
_add("target_absolute_no_path", get(target="http://t"), 200, end="alive")
_add("target_absolute_query", get(target="http://t?x=y"), 200, end="alive")
_add("target_query", get(target="/health?a=b?c=/d%2f..&e"), 200, end="alive")
_add("target_empty_query", get(target="/health?"), 200, end="alive")
_add("target_escaped", get(target="/%68ealth"), 200, end="alive")
_add("target_lower_hex", get(target="/upload/cases/%70resent.txt"), 200, end="alive")
_add("target_asterisk_options", lines("OPTIONS * HTTP/1.1", "Host: t"), 204, end="alive")
for _name, _target in {
    "asterisk": b"*",
    "authority": b"t:80",
    "relative": b"health",
    "dot_relative": b"./health",
    "query_only": b"?x=y",
    "fragment": b"/health#top",
    "fragment_only": b"#",
    "double_slash": b"//health",
    "double_slash_inside": b"/upload//x",
    "triple_slash": b"///",
    "dot_segment": b"/./health",
    "dot_dot_segment": b"/x/../health",
    "dot_dot_at_the_end": b"/upload/..",
    "dot_dot_above_the_root": b"/../../../../etc/passwd",
    "escaped_dot_dot": b"/%2e%2e/etc/passwd",
    "half_escaped_dot_dot": b"/.%2E/etc/passwd",
    "escaped_dot": b"/%2e/health",
    "escaped_slash": b"/upload%2fx",
    "escaped_slash_upper": b"/upload%2Fx",
    "escaped_backslash": b"/upload%5cx",
    "escaped_backslash_upper": b"/upload%5Cx",
    "backslash": b"/upload\\x",
    "escaped_nul": b"/upload/x%00.txt",
    "escaped_lf": b"/upload/x%0a",
    "escaped_cr": b"/upload/x%0D%0AX:y",
    "escaped_del": b"/upload/x%7f",
    "escaped_c1": b"/upload/x%c2%85",
    "escape_cut": b"/upload/x%",
    "escape_cut_two": b"/upload/x%2",
    "escape_not_hex": b"/upload/x%zz",
    "escape_sign": b"/upload/x%+1",
    "escape_space": b"/upload/x%%20",
    "overlong_slash": b"/upload%c0%afx",
    "overlong_dot": b"/%c0%ae%c0%ae/x",
    "overlong_three": b"/%e0%80%ae/x",
    "not_utf8": b"/upload/%ff%fe",
    "not_utf8_raw": b"/upload/\xff\xfe",
    "lone_surrogate": b"/upload/%ed%a0%80",
    "beyond_unicode": b"/upload/%f4%90%80%80",
    "other_scheme": b"ftp://t/health",
    "scheme_only": b"http:/health",
    "no_authority": b"http:///health",
    "user_info": b"http://a:b@t/health",
    "authority_backslash": b"http://t\\x/health",
    "absolute_double_slash": b"http://t//health",
    "absolute_fragment": b"http://t/health#x",
}.items():
    _add(f"target_{_name}", lines(b"GET " + _target + b" HTTP/1.1", "Host: t"), 400, end="closed", seen=0)
_add("target_connect", lines("CONNECT t:443 HTTP/1.1", "Host: t"), (400, 405, 501), end="closed", seen=0)
_add("target_raw_utf8", lines("GET /upload/cases/für.txt HTTP/1.1", "Host: t"), 404, end="alive")
_add("target_8k", get(target="/upload/" + "x" * 8184), (400, 404), end="alive")
_add("target_above_8k", get(target="/upload/" + "x" * 8185), 414, end="closed", seen=0)
_add("target_query_above_8k", get(target="/health?" + "x" * 8185), 414, end="closed", seen=0)
_add("target_64k", get(target="/" + "x" * 65536), 414, end="closed", seen=0)
_add("target_never_ends", b"GET /" + b"x" * 40000, 414, end="closed", seen=0)
_add("method_never_ends", b"G" * 40000, 414, end="closed", seen=0)

# ---- methods (RFC 9110 section 9)

_add("head", lines("HEAD /health HTTP/1.1", "Host: t"), 200, end="alive", bodiless=frozenset({0}))
_add("head_missing", lines("HEAD /upload/no HTTP/1.1", "Host: t"), 404, end="alive", bodiless=frozenset({0}))
_add("head_file", lines(f"HEAD /upload/{PRESENT} HTTP/1.1", "Host: t"), 200, end="alive", bodiless=frozenset({0}))
_HEAD = frozenset({0})
_add("head_no_host", lines("HEAD /health HTTP/1.1"), 400, end="closed", seen=0, bodiless=_HEAD)
_add("head_bad_target", lines("HEAD /../x HTTP/1.1", "Host: t"), 400, end="closed", seen=0, bodiless=_HEAD)
_add(
    "head_bad_field", b"\r\n" + lines("HEAD / HTTP/1.1", "Host: t", "X Y: z"), 400, end="closed", seen=0, bodiless=_HEAD
)
_add("head_too_many_fields", lines("HEAD / HTTP/1.1", *["X: y"] * 200), 431, end="closed", seen=0, bodiless=_HEAD)
_add("head_second", get() + lines("HEAD / HTTP/1.1"), 200, 400, end="closed", seen=1, bodiless=frozenset({1}))
_add("options", lines("OPTIONS /upload/x HTTP/1.1", "Host: t"), 204, end="alive")
_add("options_body", lines("OPTIONS /x HTTP/1.1", "Host: t", "Content-Length: 3") + b"abc", 204, end="either")
for _method in ("TRACE", "PATCH", "PROPFIND", "MKCOL", "SEARCH", "LOCK", "PURGE", "M-SEARCH"):
    _add(f"method_{_method}", lines(f"{_method} /health HTTP/1.1", "Host: t"), 405, end="alive")
for _method in ("get", "Get", "FOO", "GETT", "GE", "X" * 300, "!#$%&'*+.^_`|~"):
    _label = "symbols" if _method[0] == "!" else "long" if len(_method) > 99 else _method
    _add(f"method_unknown_{_label}", lines(f"{_method} /health HTTP/1.1", "Host: t"), 501, end="closed", seen=0)
_add("post_nowhere", lines("POST /nowhere HTTP/1.1", "Host: t", "Content-Length: 3") + b"abc", 404, end="either")
_add("post_unsigned", lines("POST /upload HTTP/1.1", "Host: t", "Content-Length: 3") + b"abc", (401, 403), end="either")
_add("put_unsigned", lines("PUT /upload/x HTTP/1.1", "Host: t", "Content-Length: 3") + b"abc", (401, 403), end="either",
     absent=("x",))  # fmt: skip
_add("delete_unsigned", lines(f"DELETE /upload/{PRESENT} HTTP/1.1", "Host: t"), (401, 403), end="alive",
     stored=((PRESENT, PRESENT_BYTES),))  # fmt: skip
_add("get_with_body", get("Content-Length: 5") + b"GET /", 200, end="either")
_add("get_with_chunked_body", get("Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n", 200, end="closed")
_add("upgrade_ignored", get("Connection: Upgrade", "Upgrade: websocket"), 200, end="alive")
_add("upgrade_h2c_ignored", get("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA"), 200,
     end="alive")  # fmt: skip
_add("upgrade_put", put("upgrade_put", b"abc", "Connection: Upgrade", "Upgrade: x"), 201, end="alive",
     stored=((path_of("upgrade_put"), b"abc"),))  # fmt: skip
_add("override_ignored", get("X-HTTP-Method-Override: DELETE", target=f"/upload/{PRESENT}"), 200, end="alive",
     stored=((PRESENT, PRESENT_BYTES),))  # fmt: skip

# ---- Host (RFC 9112 section 3.2)

for _name, _host in {
    "missing": "X: y",
    "empty": "Host:",
    "spaces_only": "Host:   ",
    "user_info": "Host: a@t",
    "path": "Host: t/x",
    "query": "Host: t?x",
    "fragment": "Host: t#x",
    "space": "Host: a b",
    "comma_space": "Host: a, b",
    "two_ports": "Host: t:80:80",
    "port_letters": "Host: t:http",
    "port_too_long": "Host: t:123456",
    "port_negative": "Host: t:-1",
    "backslash": "Host: t\\x",
    "quote": 'Host: "t"',
    "less_than": "Host: <t>",
    "bracket_open": "Host: [::1",
    "bracket_close": "Host: ::1]",
    "bracket_text": "Host: [t]x",
    "bracket_empty": "Host: []",
    "high_bytes": "Host: t\N{LATIN SMALL LETTER E WITH ACUTE}",
    "escape_cut": "Host: t%2",
    "url": "Host: http://t/",
    "only_port": "Host: :80",
    "twice_same": "Host: t\r\nHost: t",
    "twice_other": "Host: t\r\nHost: u",
    "twice_case": "Host: t\r\nHOST: t",
    "thrice": "Host: t\r\nX: y\r\nhost: t\r\nhOST: t",
}.items():
    _add(f"host_{_name}", get(host=_host), 400, end="closed", seen=0)
for _name, _host in {
    "port": "Host: t:8080",
    "empty_port": "Host: t:",
    "ipv4": "Host: 127.0.0.1:80",
    "ipv6": "Host: [::1]:80",
    "ipv4_in_ipv6": "Host: [::ffff:127.0.0.1]",
    "upper_case": "HOST: T.EXAMPLE",
    "no_space": "Host:t",
    "spaces_around": "Host: \t t \t ",
    "last_dot": "Host: t.example.",
    "escaped": "Host: t%41",
    "underscore": "Host: my_files.example",
    "long": "Host: " + "a." * 100 + "example",
}.items():
    _add(f"host_ok_{_name}", get(host=_host), 200, end="alive")
_add("host_empty_http10", get(host="Host:", version="HTTP/1.0"), 400, end="closed", seen=0)
_add("host_twice_http10", get("Host: t", version="HTTP/1.0"), 400, end="closed", seen=0)
_add("host_missing_absolute", lines("GET http://t/health HTTP/1.1"), 400, end="closed", seen=0)

# ---- fields (RFC 9112 section 5)

for _name, _field in {
    "space_before_colon": b"X : y",
    "tab_before_colon": b"X\t: y",
    "space_in_name": b"X Y: z",
    "no_colon": b"X-Y",
    "no_name": b": y",
    "folded_space": b"X: y\r\n z",
    "folded_tab": b"X: y\r\n\tz",
    "folded_empty": b"X: y\r\n ",
    "folded_first": b" X: y",
    "nul_in_value": b"X: a\0b",
    "nul_in_name": b"X\0: y",
    "cr_in_value": b"X: a\rb",
    "cr_in_name": b"X\r: y",
    "lf_in_value": b"X: a\nb",
    "lf_injected": b"X: a\nContent-Length: 5",
    "del_in_value": b"X: a\x7fb",
    "bell_in_value": b"X: a\x07b",
    "escape_in_value": b"X: \x1b[31m",
    "vertical_tab_in_value": b"X: a\x0bb",
    "form_feed_around_value": b"X: \x0ca",
    "high_byte_in_name": b"X\xe9: y",
    "nbsp_in_name": b"X\xa0: y",
    "slash_in_name": b"X/Y: z",
    "bracket_in_name": b"X[]: z",
    "at_in_name": b"X@Y: z",
    "quote_in_name": b'"X": z',
    "comma_in_name": b"X,Y: z",
    "equals_in_name": b"X=Y: z",
    "backslash_in_name": b"X\\Y: z",
    "cr_cr_lf": b"X: y\r",
}.items():
    _add(f"field_{_name}", get(_field), 400, end="closed", seen=0)
for _name, _field in {
    "empty_value": b"X:",
    "spaces_only": b"X: \t  ",
    "spaces_around": b"X: \t y \t ",
    "high_bytes": b"X: \xe9\xff",
    "nbsp_around": b"X: \xa0y\xa0",
    "nel_around": b"X: \x85y\x85",
    "utf8": "X: \N{SNOWMAN}".encode(),
    "colons": b"X: a:b:c",
    "all_tchars": b"!#$%&'*+-.^_`|~9aZ: y",
    "repeated": b"X: a\r\nX: b\r\nx: c",
    "long_value": b"X: " + b"y" * 16000,
    "long_name": b"x" * 8000 + b": y",
    "cookie": b"Cookie: a=b; c=d",
    "tab_in_value": b"X: a\tb",
    "ninety_eight": b"\r\n".join(b"X-%d: y" % n for n in range(98)),
}.items():
    _add(f"field_ok_{_name}", get(_field), 200, end="alive")
_add("fields_100", get(*(f"X-{n}: y" for n in range(99))), 200, end="alive")
_add("fields_101", get(*(f"X-{n}: y" for n in range(100))), 431, end="closed", seen=0)
_add("fields_1000", get(*(f"X-{n}: y" for n in range(1000))), 431, end="closed", seen=0)
_add("field_32k", get(b"X: " + b"y" * 32768), 431, end="closed", seen=0)
_add("field_64k", get(b"X: " + b"y" * 65536), 431, end="closed", seen=0)
_add("field_name_64k", get(b"x" * 65536 + b": y"), 431, end="closed", seen=0)
_add("field_never_ends", b"GET /health HTTP/1.1\r\nHost: t\r\nX: " + b"y" * 70000, 431, end="closed", seen=0)
_add("range_header_100k", get(b"Range: bytes=" + b"0-0," * 25000), 431, end="closed", seen=0)
for _single in ("Content-Type", "Authorization", "X-Signature", "Range", "Expect", "User-Agent", "X-Filename"):
    _value = "100-continue" if _single == "Expect" else "a/b"
    _add(f"twice_{_single}", get(f"{_single}: {_value}", f"{_single}: {_value}"), 400, end="closed", seen=0)

# ---- Content-Length (RFC 9112 section 6.2)

for _name, _length in {
    "plus": b"+3",
    "minus": b"-3",
    "minus_zero": b"-0",
    "underscore": b"1_0",
    "hex": b"0x3",
    "hex_letter": b"a",
    "octal": b"0o3",
    "float": b"3.0",
    "exponent": b"3e0",
    "comma_same": b"3,3",
    "comma_space_same": b"3, 3",
    "comma_other": b"3, 4",
    "space_inside": b"3 3",
    "empty": b"",
    "word": b"three",
    "nan": b"NaN",
    "infinity": b"inf",
    "20_digits": b"00000000000000000003",
    "above_64_bits": b"18446744073709551616",
    "wraps_64_bits": b"18446744073709551619",
    "40_digits": b"9" * 40,
    "arabic_digit": "\N{ARABIC-INDIC DIGIT THREE}".encode(),
    "fullwidth_digit": "\N{FULLWIDTH DIGIT THREE}".encode(),
    "superscript": b"\xb3",
    "nbsp": b"\xa03",
    "nel": b"3\x85",
    "vertical_tab": b"\x0b3",
    "quoted": b'"3"',
    "semicolon": b"3;q=1",
    "escaped": b"%33",
}.items():
    _data = put_framed(f"cl_{_name}", b"Content-Length: " + _length, body=b"abc")
    _add(f"cl_{_name}", _data, 400, end="closed", seen=0, absent=(path_of(f"cl_{_name}"),))
_add("cl_twice_same", put_framed("cl_twice_same", "Content-Length: 3", "Content-Length: 3", body=b"abc"), 400,
     end="closed", seen=0, absent=(path_of("cl_twice_same"),))  # fmt: skip
_add("cl_twice_other", put_framed("cl_twice_other", "Content-Length: 3", "content-length: 4", body=b"abcd"), 400,
     end="closed", seen=0, absent=(path_of("cl_twice_other"),))  # fmt: skip
_add("cl_folded", put_framed("cl_folded", b"Content-Length:\r\n 3", body=b"abc"), 400, end="closed", seen=0,
     absent=(path_of("cl_folded"),))  # fmt: skip
for _name, _length in {
    "plain": b" 3", "zeros": b" 0000000000000000003", "no_space": b"3", "spaces": b" \t 3 \t"
}.items():  # fmt: skip
    _data = put_framed(f"cl_ok_{_name}", b"Content-Length:" + _length, body=b"abc")
    _add(f"cl_ok_{_name}", _data, 201, end="alive", stored=((path_of(f"cl_ok_{_name}"), b"abc"),))
_add("cl_zero", put("cl_zero", b""), 201, end="alive", stored=((path_of("cl_zero"), b""),))
_add("cl_missing", put_framed("cl_missing"), 411, end="alive", absent=(path_of("cl_missing"),))
_add("cl_missing_with_body", put_framed("cl_missing_body", body=b"abc\r\n\r\n"), 411, 400, end="closed", seen=1,
     absent=(path_of("cl_missing_body"),))  # fmt: skip
_add("cl_19_digits", put_framed("cl_19_digits", "Content-Length: 9999999999999999999", body=b"abc"), 413, end="closed",
     absent=(path_of("cl_19_digits"),))  # fmt: skip
_add("cl_get_19_digits", get("Content-Length: 9999999999999999999"), 200, end="closed")
_add(
    "cl_http10",
    put("cl_http10", b"abc", version="HTTP/1.0"),
    201,
    end="closed",
    stored=((path_of("cl_http10"), b"abc"),),
)
_add("cl_too_long_by_one", put("cl_next", b"abc") + b"x" + get(), 201, (400, 501), end="closed", seen=1,
     stored=((path_of("cl_next"), b"abc"),))  # fmt: skip
_add("cl_binary_body", put("cl_binary", bytes(range(256))), 201, end="alive",
     stored=((path_of("cl_binary"), bytes(range(256))),))  # fmt: skip
_add("cl_body_like_a_request", put("cl_like", get()), 201, end="alive", stored=((path_of("cl_like"), get()),))
_add("cl_cut", put("cl_cut", b"abc", size=9), 400, end="half", absent=(path_of("cl_cut"),))
_add("cl_cut_at_the_head", put("cl_cut_0", b"", size=9), 400, end="half", absent=(path_of("cl_cut_0"),))
_add("cl_cut_large", put("cl_cut_large", b"abc", size=100_000), 400, end="half", absent=(path_of("cl_cut_large"),))
_add("cl_one_byte_short_large", put("cl_short_large", b"z" * 69_999, size=70_000), 400, end="half",
     absent=(path_of("cl_short_large"),))  # fmt: skip
_add("cl_large", put("cl_large", b"z" * 70_000), 201, end="alive", stored=((path_of("cl_large"), b"z" * 70_000),))
_add("cl_large_then_get", put("cl_large_get", b"y" * 70_000) + get() + get(), 201, 200, 200, end="alive",
     stored=((path_of("cl_large_get"), b"y" * 70_000),))  # fmt: skip
_add("head_cut", get()[:-2], end="half", seen=0)
_add("head_cut_in_the_line", b"GET /hea", end="half", seen=0)
_add("half_close_after_get", get(), 200, end="half")
_add("half_close_after_put", put("half_put", b"abc"), 201, end="half", stored=((path_of("half_put"), b"abc"),))
_add("half_close_after_three", get() * 3, 200, 200, 200, end="half")
_add("half_close_large_put", put("half_large", b"h" * 80_000), 201, end="half",
     stored=((path_of("half_large"), b"h" * 80_000),))  # fmt: skip

# ---- Transfer-Encoding (RFC 9112 section 6.1)

for _name, _te in {
    "with_cl": "Transfer-Encoding: chunked\r\nContent-Length: 3",
    "cl_before": "Content-Length: 3\r\nTransfer-Encoding: chunked",
    "with_cl_zero": "Content-Length: 0\r\nTransfer-Encoding: chunked",
    "identity_with_cl": "Content-Length: 3\r\nTransfer-Encoding: identity",
    "gzip_then_chunked": "Transfer-Encoding: gzip, chunked",
    "chunked_then_gzip": "Transfer-Encoding: chunked, gzip",
    "chunked_then_identity": "Transfer-Encoding: chunked, identity",
    "chunked_chunked": "Transfer-Encoding: chunked, chunked",
    "identity": "Transfer-Encoding: identity",
    "identity_then_chunked": "Transfer-Encoding: identity, chunked",
    "gzip": "Transfer-Encoding: gzip",
    "xchunked": "Transfer-Encoding: xchunked",
    "chunkedx": "Transfer-Encoding: chunkedx",
    "quoted": 'Transfer-Encoding: "chunked"',
    "parameter": "Transfer-Encoding: chunked;a=b",
    "empty": "Transfer-Encoding:",
    "empty_element": "Transfer-Encoding: ,chunked",
    "comma_after": "Transfer-Encoding: chunked,",
    "twice": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "twice_identity": "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "twice_case": "Transfer-Encoding: chunked\r\ntransfer-encoding: cow",
    "vertical_tab": "Transfer-Encoding: \x0bchunked",
    "nel": "Transfer-Encoding: chunked\x85",
    "folded": "Transfer-Encoding:\r\n chunked",
    "space_before_colon": "Transfer-Encoding : chunked",
    "null": "Transfer-Encoding: chunked\0",
    "kelvin_sign": "Transfer-Encoding: chun\N{KELVIN SIGN}ed",
}.items():
    _data = put_framed(f"te_{_name}", _te, body=b"3\r\nabc\r\n0\r\n\r\n")
    _add(f"te_{_name}", _data, (400, 501), end="closed", seen=0, absent=(path_of(f"te_{_name}"),))
_add("te_http10", put_framed("te_http10", "Transfer-Encoding: chunked", version="HTTP/1.0",
     body=b"3\r\nabc\r\n0\r\n\r\n"), 400, end="closed", seen=0, absent=(path_of("te_http10"),))  # fmt: skip
_add("te_http10_keep_alive", put_framed("te_http10_ka", "Transfer-Encoding: chunked", "Connection: keep-alive",
     version="HTTP/1.0", body=b"0\r\n\r\n"), 400, end="closed", seen=0, absent=(path_of("te_http10_ka"),))  # fmt: skip
for _name, _te in {
    "upper_case": "Transfer-Encoding: CHUNKED", "name_case": "transfer-ENCODING: Chunked",
    "no_space": "Transfer-Encoding:chunked", "spaces": "Transfer-Encoding:  chunked  ",
}.items():  # fmt: skip
    _data = put_framed(f"te_ok_{_name}", _te, body=b"3\r\nabc\r\n0\r\n\r\n")
    _add(f"te_ok_{_name}", _data, 201, end="alive", stored=((path_of(f"te_ok_{_name}"), b"abc"),))

# ---- the chunked coding (RFC 9112 section 7.1)

for _name, _chunks, _stored in (
    ("one", b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
    ("three", b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n", b"abc"),
    ("none", b"0\r\n\r\n", b""),
    ("zeros", b"0003\r\nabc\r\n0000\r\n\r\n", b"abc"),
    ("hex_lower", b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    ("hex_upper", b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    ("extension", b"3;a=b\r\nabc\r\n0;c\r\n\r\n", b"abc"),
    ("extension_quoted", b'3;a="b;c"\r\nabc\r\n0\r\n\r\n', b"abc"),
    ("extension_spaced", b"3 ; a=b\r\nabc\r\n0\r\n\r\n", b"abc"),
    ("trailer", b"3\r\nabc\r\n0\r\nX: y\r\n\r\n", b"abc"),
    ("trailer_content_length", b"3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n", b"abc"),
    ("trailer_signature", b"3\r\nabc\r\n0\r\nX-Signature: 00\r\nHost: u\r\n\r\n", b"abc"),
    ("trailer_transfer_encoding", b"3\r\nabc\r\n0\r\nTransfer-Encoding: identity\r\n\r\n", b"abc"),
    ("data_like_chunks", b"b\r\n0\r\n\r\n0\r\n\r\nx\r\n0\r\n\r\n", b"0\r\n\r\n0\r\n\r\nx"),
    ("data_crlf", b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
    ("fifteen_digits", b"000000000000003\r\nabc\r\n0\r\n\r\n", b"abc"),
):
    _add(f"chunk_ok_{_name}", put_chunked(f"chunk_ok_{_name}", _chunks), 201, end="alive",
         stored=((path_of(f"chunk_ok_{_name}"), _stored),))  # fmt: skip
for _name, _chunks in {
    "plus": b"+3\r\nabc\r\n0\r\n\r\n",
    "minus": b"-3\r\nabc\r\n0\r\n\r\n",
    "underscore": b"0_3\r\nabc\r\n0\r\n\r\n",
    "hex_prefix": b"0x3\r\nabc\r\n0\r\n\r\n",
    "17_digits": b"00000000000000003\r\nabc\r\n0\r\n\r\n",
    "16_digits": b"ffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "wraps_64_bits": b"10000000000000003\r\nabc\r\n0\r\n\r\n",
    "no_size": b"\r\nabc\r\n0\r\n\r\n",
    "no_size_extension": b";a=b\r\nabc\r\n0\r\n\r\n",
    "word": b"three\r\nabc\r\n0\r\n\r\n",
    "space_before": b" 3\r\nabc\r\n0\r\n\r\n",
    "space_after": b"3 \r\nabc\r\n0\r\n\r\n",
    "tab_after": b"3\t\r\nabc\r\n0\r\n\r\n",
    "lf_after_size": b"3\nabc\r\n0\r\n\r\n",
    "cr_after_size": b"3\rabc\r\n0\r\n\r\n",
    "lf_after_data": b"3\r\nabc\n0\r\n\r\n",
    "cr_after_data": b"3\r\nabc\r0\r\n\r\n",
    "nothing_after_data": b"3\r\nabc0\r\n\r\n",
    "too_much_data": b"3\r\nabcd\r\n0\r\n\r\n",
    "too_little_data": b"4\r\nabc\r\n0\r\n\r\n",
    "extension_lf": b"3;a\nb\r\nabc\r\n0\r\n\r\n",
    "extension_cr": b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    "extension_nul": b"3;a\0b\r\nabc\r\n0\r\n\r\n",
    "extension_5k": b"3;" + b"a" * 5000 + b"\r\nabc\r\n0\r\n\r\n",
    "extension_1m": b"3;" + b"a" * 1_048_576 + b"\r\nabc\r\n0\r\n\r\n",
    "extensions_many": b"".join(b"1;" + b"a" * 2000 + b"\r\nx\r\n" for _ in range(60)) + b"0\r\n\r\n",
    "comma": b"3,3\r\nabc\r\n0\r\n\r\n",
    "semicolon_first": b"3\r\nabc\r\n;0\r\n\r\n",
    "fullwidth_digit": "\N{FULLWIDTH DIGIT THREE}\r\nabc\r\n0\r\n\r\n".encode(),
    "trailer_no_colon": b"3\r\nabc\r\n0\r\nX\r\n\r\n",
    "trailer_space_name": b"3\r\nabc\r\n0\r\nX : y\r\n\r\n",
    "trailer_folded": b"3\r\nabc\r\n0\r\nX: y\r\n z\r\n\r\n",
    "trailer_nul": b"3\r\nabc\r\n0\r\nX: \0\r\n\r\n",
    "trailer_lf": b"3\r\nabc\r\n0\r\nX: y\n\r\n",
    "trailer_32k": b"3\r\nabc\r\n0\r\n" + b"".join(b"X%d: yyyyyyyyyy\r\n" % n for n in range(2000)) + b"\r\n",
    "trailer_10000_fields": b"3\r\nabc\r\n0\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
    "end_lf": b"3\r\nabc\r\n0\n\n",
    "end_lf_only": b"3\r\nabc\r\n0\r\n\n",
    "utf7": b"+AC0-3\r\nabc\r\n0\r\n\r\n",
    "leading_zeros_flood": b"".join(b"00000000001\r\nx\r\n" for _ in range(30_000)) + b"0\r\n\r\n",
}.items():
    _add(
        f"chunk_{_name}", put_chunked(f"chunk_{_name}", _chunks), 400, end="closed", absent=(path_of(f"chunk_{_name}"),)
    )
for _name, _chunks in {
    "nothing": b"",
    "size": b"3",
    "size_line": b"3\r\n",
    "data": b"3\r\nab",
    "data_end": b"3\r\nabc\r\n",
    "zero": b"3\r\nabc\r\n0",
    "zero_line": b"3\r\nabc\r\n0\r\n",
    "last_cr": b"3\r\nabc\r\n0\r\n\r",
    "trailer": b"3\r\nabc\r\n0\r\nX: y\r\n",
}.items():
    _add(f"chunk_cut_{_name}", put_chunked(f"chunk_cut_{_name}", _chunks), 400, end="half",
         absent=(path_of(f"chunk_cut_{_name}"),))  # fmt: skip
_add("chunk_then_get", put_chunked("chunk_get", b"3\r\nabc\r\n0\r\n\r\n") + get(), 201, 200, end="alive",
     stored=((path_of("chunk_get"), b"abc"),))  # fmt: skip
_add("chunk_then_put", put_chunked("chunk_put1", b"1\r\na\r\n0\r\n\r\n") + put("chunk_put2", b"bb") + get(), 201, 201,
     200, end="alive", stored=((path_of("chunk_put1"), b"a"), (path_of("chunk_put2"), b"bb")))  # fmt: skip
_add("chunk_then_junk", put_chunked("chunk_junk", b"3\r\nabc\r\n0\r\n\r\n") + b"junk" + get(), 201, (400, 501),
     end="closed", seen=1, stored=((path_of("chunk_junk"), b"abc"),))  # fmt: skip
_add("chunk_refused_then_get", lines("PUT /upload/cases/refused HTTP/1.1", "Host: t", "Transfer-Encoding: chunked")
     + b"3\r\nabc\r\n0\r\n\r\n" + get(), (401, 403), end="closed", absent=("cases/refused",))  # fmt: skip
_add("chunk_v1_unbound_length", lines(
    "PUT " + slots.target("cases/chunk_v1.bin", slots.v1("cases/chunk_v1.bin", 3)) + " HTTP/1.1", "Host: t",
    "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n", (403, 411, 413), end="closed",
    absent=("cases/chunk_v1.bin",))  # fmt: skip

# ---- Expect (RFC 9110 section 10.1.1)

_E = "Expect: 100-continue"
_add("expect", put("expect", b"abc", _E), 201, end="alive", invited=True, stored=((path_of("expect"), b"abc"),))
_add("expect_upper", put("expect_upper", b"abc", "Expect: 100-Continue"), 201, end="alive", invited=True,
     stored=((path_of("expect_upper"), b"abc"),))  # fmt: skip
_add("expect_large", put("expect_large", b"l" * 70_000, _E), 201, end="alive", invited=True,
     stored=((path_of("expect_large"), b"l" * 70_000),))  # fmt: skip
_add("expect_chunked", put_chunked("expect_chunked", b"3\r\nabc\r\n0\r\n\r\n", _E), 201, end="alive", invited=True,
     stored=((path_of("expect_chunked"), b"abc"),))  # fmt: skip
_add("expect_empty_body", put("expect_empty", b"", _E), 201, end="alive", stored=((path_of("expect_empty"), b""),))
_add("expect_get", get(_E), 200, end="alive")
_add("expect_http10", put("expect_http10", b"abc", _E, version="HTTP/1.0"), 201, end="closed",
     stored=((path_of("expect_http10"), b"abc"),))  # fmt: skip
_add("expect_unknown_http10", get("Expect: tea", version="HTTP/1.0"), 200, end="closed")
for _name, _value in {
    "unknown": "tea", "list": "100-continue, tea", "number": "100", "empty": "", "parameter": "100-continue;a=b",
    "twice_in_list": "100-continue, 100-continue",
}.items():  # fmt: skip
    _add(f"expect_{_name}_put", put(f"expect_417_{_name}", b"abc", f"Expect: {_value}"), 417, end="closed", seen=0,
         absent=(path_of(f"expect_417_{_name}"),))  # fmt: skip
_add("expect_refused", lines("PUT /upload/cases/er HTTP/1.1", "Host: t", _E, "Content-Length: 9"), (401, 403),
     end="closed", absent=("cases/er",))  # fmt: skip
_add("expect_too_large", put_framed("expect_413", _E, "Content-Length: 99999999999999"), 413, end="closed",
     absent=(path_of("expect_413"),))  # fmt: skip
_add("expect_conflict", lines(
    "PUT " + slots.target(PRESENT, slots.v1(PRESENT, 70_000)) + " HTTP/1.1", "Host: t", _E, "Content-Length: 70000"),
    409, end="closed", stored=((PRESENT, PRESENT_BYTES),))  # fmt: skip
_add("expect_bad_size", lines(
    "PUT " + slots.target("cases/es", slots.v1("cases/es", 3)) + " HTTP/1.1", "Host: t", _E, "Content-Length: 4"),
    403, end="closed", absent=("cases/es",))  # fmt: skip

# ---- Connection (RFC 9112 section 9)

for _name, _value in {
    "close": "close", "upper": "CLOSE", "list": "keep-alive, close", "list_spaced": "x ,\tclose , y",
    "empty_elements": ",,close,", "close_and_keep_alive": "close, keep-alive",
}.items():  # fmt: skip
    _add(f"connection_{_name}", get(f"Connection: {_value}") + get(), 200, end="closed")
for _name, _value in {
    "keep_alive": "keep-alive", "unknown": "x-other", "empty": "", "closed_word": "closed", "quoted": '"close"',
    "te": "TE",
}.items():  # fmt: skip
    _add(f"connection_ok_{_name}", get(f"Connection: {_value}") + get(), 200, 200, end="alive")
_add("connection_twice", get("Connection: x", "Connection: close") + get(), 200, end="closed")
_add("proxy_connection", get("Proxy-Connection: close") + get(), 200, 200, end="alive")
_add("connection_close_put", put("cc_put", b"abc", "Connection: close") + get(), 201, end="closed",
     stored=((path_of("cc_put"), b"abc"),))  # fmt: skip
_add("connection_http10_twice", get("Connection: keep-alive", version="HTTP/1.0") * 2, 200, 200, end="alive")
_add("connection_http10_then_11", get("Connection: Keep-Alive", version="HTTP/1.0") + get(), 200, 200, end="alive")
_add("connection_names_host", get("Connection: Host"), 200, end="alive")
_add("keep_alive_field", get("Keep-Alive: timeout=5, max=1") + get(), 200, 200, end="alive")

# ---- pipelining: in order, nothing after an error (RFC 9112 section 9.3)

_FILE = get(target=f"/upload/{PRESENT}")
_add("pipeline_gets", get() + _FILE + get(), 200, 200, 200, end="alive")
_add("pipeline_20", get() * 20, *([200] * 20), end="alive")
_add("pipeline_70", get() * 70, *([200] * 70), end="alive")
_add("pipeline_mixed", lines("HEAD /health HTTP/1.1", "Host: t") + get(target="/upload/none") + _FILE
     + lines("OPTIONS / HTTP/1.1", "Host: t") + get(), 200, 404, 200, 204, 200, end="alive",
     bodiless=frozenset({0}))  # fmt: skip
_add("pipeline_puts", put("pp1", b"one") + put("pp2", b"two") + put("pp3", b"three"), 201, 201, 201, end="alive",
     stored=((path_of("pp1"), b"one"), (path_of("pp2"), b"two"), (path_of("pp3"), b"three")))  # fmt: skip
_add("pipeline_put_get", put("ppg", b"seen") + get(target="/upload/" + path_of("ppg")), 201, 200, end="alive",
     stored=((path_of("ppg"), b"seen"),))  # fmt: skip
_add("pipeline_after_refusal", lines("PUT /upload/cases/pr HTTP/1.1", "Host: t", "Content-Length: 3") + b"abc" + get(),
     (401, 403), 200, end="either", absent=("cases/pr",))  # fmt: skip
_add("pipeline_after_bad_head", b"GET /he\0alth HTTP/1.1\r\nHost: t\r\n\r\n" + put("pabh", b"abc"), 400, end="closed",
     seen=0, absent=(path_of("pabh"),))  # fmt: skip
_add("pipeline_bad_second", get() + b"BAD\r\n\r\n" + put("pbs", b"abc"), 200, 400, end="closed", seen=1,
     absent=(path_of("pbs"),))  # fmt: skip
_add("pipeline_bad_host_second", get() + get(host="Host: a b") + put("pbh", b"abc"), 200, 400, end="closed", seen=1,
     absent=(path_of("pbh"),))  # fmt: skip
_add("pipeline_smuggled_in_te_cl", put_framed("smuggle", "Content-Length: 6", "Transfer-Encoding: chunked",
     body=b"0\r\n\r\nX" + put("smuggled", b"abc")), 400, end="closed", seen=0,
     absent=(path_of("smuggle"), path_of("smuggled")))  # fmt: skip
_add("pipeline_smuggled_in_refused_body", lines("PUT /upload/cases/sr HTTP/1.1", "Host: t", "Content-Length: 99999")
     + put("smuggled2", b"abc"), (401, 403), end="closed", absent=(path_of("smuggled2"), "cases/sr"))  # fmt: skip
_add("pipeline_smuggled_in_chunk_error", put_chunked("smc", b"zz\r\n\r\n0\r\n\r\n" + put("smuggled3", b"abc")), 400,
     end="closed", absent=(path_of("smc"), path_of("smuggled3")))  # fmt: skip
_add("pipeline_aborted_body", put("pab", put("smuggled4", b"abc"), size=5000), 400, end="half",
     absent=(path_of("pab"), path_of("smuggled4")))  # fmt: skip

# ---- conditional and range requests (RFC 9110 sections 13 and 14)

_SIZE = len(PRESENT_BYTES)
for _name, _fields, _status in (
    ("first", ("Range: bytes=0-0",), 206),
    ("suffix", ("Range: bytes=-5",), 206),
    ("open", ("Range: bytes=5-",), 206),
    ("beyond", ("Range: bytes=5-999999999999",), 206),
    ("19_digits", ("Range: bytes=0-9999999999999999999",), 206),
    ("upper_unit", ("Range: BYTES=0-0",), 206),
    ("unsatisfiable", (f"Range: bytes={_SIZE}-",), 416),
    ("suffix_zero", ("Range: bytes=-0",), 416),
    ("several", ("Range: bytes=0-0,2-3",), 200),
    ("many", ("Range: bytes=" + ",".join("0-" for _ in range(1300)),), 200),
    ("backwards", ("Range: bytes=5-4",), 200),
    ("no_numbers", ("Range: bytes=-",), 200),
    ("other_unit", ("Range: lines=0-1",), 200),
    ("plus", ("Range: bytes=+1-2",), 200),
    ("underscore", ("Range: bytes=1_0-12",), 200),
    ("20_digits", ("Range: bytes=00000000000000000001-2",), 200),
    ("empty", ("Range:",), 200),
    ("fullwidth", ("Range: bytes=\N{FULLWIDTH DIGIT ONE}-2",), 200),
    ("if_range_other", ("Range: bytes=0-0", 'If-Range: "other"'), 200),
    ("if_range_bad_date", ("Range: bytes=0-0", "If-Range: yesterday"), 200),
    ("none_match_any", ("If-None-Match: *",), 304),
    ("none_match_other", ('If-None-Match: "a", W/"b"',), 200),
    ("none_match_broken", ('If-None-Match: """""""',), 200),
    ("match_other", ('If-Match: "a"',), 412),
    ("match_any", ("If-Match: *",), 200),
    ("modified_since_future", ("If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT",), 304),
    ("modified_since_past", ("If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT",), 200),
    ("modified_since_broken", ("If-Modified-Since: Xxx, 99 Foo 99999 99:99:99 GMT",), 200),
    ("modified_since_year_1", ("If-Modified-Since: Mon, 01 Jan 0001 00:00:00 -0000",), 200),
    ("modified_since_zone", ("If-Modified-Since: Mon, 01 Jan 2001 00:00:00 +9999999999",), 200),
    ("unmodified_since_past", ("If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT",), 412),
):
    _add(f"range_{_name}", get(*_fields, target=f"/upload/{PRESENT}"), _status, end="alive")
