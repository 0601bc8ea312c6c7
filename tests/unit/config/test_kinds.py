"""Kinds of values: what each takes, what it refuses, how it is shown."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_file_server.config import Secret, kinds
from hmac_file_server.config.kinds import Kind
from hmac_file_server.config.model import KEYS

ANY = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        (kinds.SWITCH, True, True),
        (kinds.SWITCH, " Off ", False),
        (kinds.whole_number(1, 9), 9, 9),
        (kinds.whole_number(-9, 9), "-9", -9),
        (kinds.size(0), 0, 0),
        (kinds.size(0), "1KB", 1024),
        (kinds.rate(), "1KB/s", 1024),
        (kinds.rate(), "64B", 64),
        (kinds.rate(), 0, 0),
        (kinds.duration(0), 0, 0.0),
        (kinds.duration(0), "1h", 3600.0),
        (kinds.optional_duration(1), "off", None),
        (kinds.optional_duration(1), "", None),
        (kinds.optional_duration(1), "Never", None),
        (kinds.optional_duration(1), 0, None),
        (kinds.optional_duration(1), False, None),
        (kinds.optional_duration(1), "1d", 86400.0),
        (kinds.choice("full", "relaxed"), " FULL ", "full"),
        (kinds.choice("warning", warn="warning"), "warn", "warning"),
        (kinds.PROCESSES, "Auto", "auto"),
        (kinds.PROCESSES, "4", 4),
        (kinds.ADDRESSES, "*:80", ("0.0.0.0:80",)),
        (kinds.ADDRESSES, ["80", "127.0.0.1:80"], ("127.0.0.1:80",)),
        (kinds.OPTIONAL_ADDRESSES, "off", ()),
        (kinds.OPTIONAL_ADDRESSES, False, ()),
        (kinds.PREFIXES, "upload", ("/upload/",)),
        (kinds.PREFIXES, ["/", "/a/b", "a/b/"], ("/", "/a/b/")),
        (kinds.NETWORKS, ["10.1.2.3/8", "::1", "unix:"], ("10.0.0.0/8", "::1/128", "unix:")),
        (kinds.EXTENSIONS, "*.JPG, png, .tar.gz", (".jpg", ".png", ".tar.gz")),
        (kinds.SCHEMES, ["ticket", "v1"], ("v1", "ticket")),
        (kinds.SCHEMES, "ALL", kinds.SCHEME_NAMES),
        (kinds.SECRETS, "a,b", (Secret("a,b"),)),
        (kinds.SECRETS, ["a", "b", "a"], (Secret("a"), Secret("b"))),
        (kinds.SECRET, "a", Secret("a")),
        (kinds.REDIS_URL, "unix:///run/redis.sock", "unix:///run/redis.sock"),
    ],
)
def test_what_is_taken(kind: Kind, raw: object, value: object) -> None:
    assert kind.read(raw) == value


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (kinds.SWITCH, 1),
        (kinds.SWITCH, ""),
        (kinds.whole_number(1, 9), 10),
        (kinds.whole_number(1, 9), True),
        (kinds.whole_number(1, 9), "１"),
        (kinds.whole_number(1, 9), "1_0"),
        (kinds.whole_number(1, 10**20), "9" * 19),
        (kinds.size(1), 0),
        (kinds.size(1), False),
        (kinds.size(0, 9), 10),
        (kinds.rate(), "/s"),
        (kinds.rate(), "-1"),
        (kinds.duration(1), "500ms"),
        (kinds.duration(1), True),
        (kinds.duration(1), 30),
        (kinds.optional_duration(1), "500ms"),
        (kinds.choice("a"), None),
        (kinds.PROCESSES, 65),
        (kinds.ADDRESSES, ""),
        (kinds.ADDRESSES, [80]),
        (kinds.ADDRESSES, {"a": 1}),
        (kinds.OPTIONAL_ADDRESSES, ["off"]),
        (kinds.PREFIXES, "/a//b"),
        (kinds.PREFIXES, "/a/./b"),
        (kinds.PREFIXES, "/a?b"),
        (kinds.PREFIXES, "/a\nb"),
        (kinds.NETWORKS, "localhost"),
        (kinds.EXTENSIONS, "."),
        (kinds.EXTENSIONS, "a..b."),
        (kinds.SCHEMES, ["all", "v1"]),
        (kinds.SECRETS, [["a"]]),
        (kinds.SECRET, ["a"]),
        (kinds.REDIS_URL, "redis:/x"),
        (kinds.PATH, ""),
        (kinds.PATH, "a\0b"),
        (kinds.OPTIONAL_PATH, 1),
    ],
)
def test_what_is_refused(kind: Kind, raw: object) -> None:
    with pytest.raises(ValueError):
        kind.read(raw)


@pytest.mark.parametrize("key", KEYS.values(), ids=str)
@given(raw=ANY)
def test_whatever_is_given_is_taken_or_a_value_error(key: Any, raw: object) -> None:
    try:
        value = key.kind.read(raw)
    except ValueError:
        return
    assert isinstance(key.kind.show(value), str)
    hash(value)


@given(st.integers(0, 2**63 - 1))
def test_sizes_are_shown_as_they_are_read(size: int) -> None:
    kind = kinds.size(0)
    assert kind.read(kind.show(size).strip('"')) == size


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:1/0", '"redis://h:1/0"'),
        ("redis://:pw@h:1/0", '"redis://***@h:1/0"'),
        ("redis://user:p@w@h:1/0", '"redis://***@h:1/0"'),
        ("redis://h/0?password=pw", '"redis://h/0"'),
        ("redis://h/0#pw", '"redis://h/0"'),
        ("redis://@h:1/0", '"redis://@h:1/0"'),
        ("redis://[::1]:1/0", '"redis://[::1]:1/0"'),
        ("redis://:12/pw@h:1/0", '"redis://***@h:1/0"'),
        ("redis://:p?w@h:1/0", '"redis://***"'),
        ("redis://:p#w@h:1/0", '"redis://***"'),
        ("redis://:pw", '"redis://***"'),
        ("redis://user:pw/0", '"redis://***"'),
        ("unix:///run/redis?password=pw", '"unix:///run/redis"'),
        ("unix:///run/redis?password=p@w", '"unix://***"'),
    ],
)
def test_a_password_in_a_url_is_not_shown(url: str, shown: str) -> None:
    assert kinds.REDIS_URL.show(url) == shown


@given(st.text(st.sampled_from("pw:/?#@[]%.=&0"), min_size=3), st.sampled_from(["@h:1/0", "@/run/redis", "@[::1]"]))
def test_no_character_of_a_password_that_was_not_escaped_is_shown(password: str, place: str) -> None:
    shown = kinds.REDIS_URL.show(f"redis://:{password}{place}").strip('"')
    assert shown.removeprefix("redis://").removeprefix("***") in {"", place}
    assert kinds.has_password(f"redis://:{password}{place}")


@pytest.mark.parametrize("url", ["redis://h:1/0", "rediss://h/1?ssl_cert_reqs=none", "unix:///run/redis?db=1"])
def test_urls_without_a_password(url: str) -> None:
    assert not kinds.has_password(url)


def test_secrets_are_shown_as_stars() -> None:
    assert kinds.SECRETS.show((Secret("a"), Secret("b"))) == '["***", "***"]'
    assert kinds.SECRET.show(Secret("a")) == '"***"'
    assert kinds.SECRET.show(None) == '""'


def test_shown_text_is_toml() -> None:
    import tomllib

    text = 'a "quoted" \\ \u00e8 text'
    assert tomllib.loads(f"x = {kinds.TEXT.show(text)}") == {"x": text}
