import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmac_file_server.config import document
from hmac_file_server.config.errors import ConfigError


def keys(text: str) -> list[tuple[str, Any, int]]:
    return [(".".join(item.path), item.value, item.line) for item in document.parse(text, "f.toml").items]


def failure(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        document.parse(text, "f.toml")
    assert caught.value.code == "syntax"
    assert caught.value.file == "f.toml"
    return caught.value


def test_every_key_has_its_line() -> None:
    text = '# head\n\n[server]  # comment\na = 1\n\n  b = "x # no comment"\n[uploads]\nc = true\n'
    assert keys(text) == [("server.a", 1, 4), ("server.b", "x # no comment", 6), ("uploads.c", True, 8)]


def test_values_over_several_lines() -> None:
    text = '[s]\na = [\n  "x", # ]\n  "]",\n]\nb = """one\n[two]\n"""\nc = \'\'\'\n"""\n\'\'\'\nd = 1\n'
    assert keys(text) == [
        ("s.a", ["x", "]"], 2),
        ("s.b", "one\n[two]\n", 6),
        ("s.c", '"""\n', 9),
        ("s.d", 1, 12),
    ]


def test_dotted_keys_inline_tables_and_nested_headers() -> None:
    text = 'server.a = 1\n[admin.auth]\ntoken = "x"\n[redis]\n"quoted.key" = { a = 1, b = { c = 2 } }\n'
    assert keys(text) == [
        ("server.a", 1, 1),
        ("admin.auth.token", "x", 3),
        ("redis.quoted.key.a", 1, 5),
        ("redis.quoted.key.b.c", 2, 5),
    ]


def test_quotes_and_escapes_in_strings() -> None:
    assert keys("""a = "\\"[" \nb = '\\'\nc = "'"\n""") == [("a", '"[', 1), ("b", "\\", 2), ("c", "'", 3)]


def test_a_byte_order_mark_and_windows_line_ends() -> None:
    assert keys("\ufeff[s]\r\na = 1\r\nb = [\r\n1]\r\n") == [("s.a", 1, 2), ("s.b", [1], 3)]


def test_a_repeated_table_is_noted_and_its_keys_are_kept() -> None:
    parsed = document.parse("[server]\na = 1\n[x]\n[server]\nb = 2\na = 3\n", "f")
    assert parsed.repeated == (("server", 4, 1),)
    assert [(item.path[-1], item.value) for item in parsed.items] == [("a", 1), ("b", 2), ("a", 3)]


def test_a_repeated_key_within_one_table_is_an_error() -> None:
    error = failure("[server]\na = 1\n\na = 2\n")
    assert (error.line, error.key) == (4, "server.a")
    assert "line 2" in error.message


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("[server\na = 1\n", 1, "no valid TOML"),
        ("[server]\na = \n", 2, "Invalid value"),
        ("[server]\na = 10MB\nb = 1\n", 2, "no valid TOML"),
        ("[server]\na = info\n", 2, "text stands in quotes"),
        ("\n\nserver:\n", 3, "[section] or key = value"),
        ("a = [1,\n2,\nb = 3\n", 3, "no valid TOML"),
        ('a = "open\nb = 1\n', 1, "no valid TOML"),
        ("[[server]]\na = 1\n", 1, "write [server]"),
        ("[]\n", 1, "no valid TOML"),
        ("a = " + "[" * 5000 + "\n", 1, ""),
        ("a\0 = 1\n", 1, "no valid TOML"),
    ],
)
def test_what_is_no_toml_is_named_with_its_line(text: str, line: int, said: str) -> None:
    error = failure(text)
    assert said in error.message
    assert error.line == line
    assert str(error).startswith(f"f.toml:{line}: ")


def test_a_value_alone() -> None:
    assert document.value('["a", "b"]') == ["a", "b"]
    with pytest.raises(ValueError):
        document.value("[")


scalars = st.one_of(st.integers(-(2**62), 2**62), st.booleans(), st.text(alphabet=st.characters(codec="utf-8")))


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ",\n".join(toml(item) for item in value) + "]"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(c):08x}" if not c.isalnum() else c for c in value) + '"'
    return str(value)


@given(
    st.dictionaries(
        st.sampled_from(["server", "uploads", "x-y"]),
        st.dictionaries(st.sampled_from("abcdef"), st.one_of(scalars, st.lists(scalars, max_size=3)), max_size=4),
        max_size=3,
    )
)
def test_agrees_with_the_standard_librarys_parser(tree: dict[str, dict[str, Any]]) -> None:
    text = "".join(
        f"[{table}] # here\n" + "".join(f"  {key} = {toml(value)} # note [\n" for key, value in values.items())
        for table, values in tree.items()
    )
    expected = {(table, key): value for table, keys in tomllib.loads(text).items() for key, value in keys.items()}
    assert {item.path: item.value for item in document.parse(text, "f").items} == expected


@given(st.text(alphabet="ab[]{}=\"'#\\,.1\n \r\t", max_size=60))
def test_any_text_is_read_or_refused_with_a_line_that_exists(text: str) -> None:
    lines = range(1, text.count("\n") + 3)
    try:
        read = document.parse(text, "f").items
    except ConfigError as error:
        read = (document.Item((), None, error.line or 0),)
    assert all(item.line in lines for item in read)


@given(st.text(alphabet="ab[]{}=\"'#\\,.1\n ", max_size=40))
def test_what_the_standard_parser_takes_gives_the_same_values(text: str) -> None:
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    if "[[" in text:
        return  # lists of tables are refused here
    leaves: dict[tuple[str, ...], Any] = {}

    def gather(node: dict[str, Any], path: tuple[str, ...]) -> None:
        for name, below in node.items():
            if isinstance(below, dict) and below:
                gather(below, (*path, name))
            elif not isinstance(below, dict):
                leaves[(*path, name)] = below

    gather(tree, ())
    read = {item.path: item.value for item in document.parse(text, "f").items if item.value != {}}
    assert read == leaves
