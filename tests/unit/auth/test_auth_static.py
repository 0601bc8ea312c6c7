"""Rules about the source and the documentation that no behaviour would show."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hmac_file_server import auth
from hmac_file_server.auth import SCHEMES, Operation
from hmac_file_server.auth.claims import ProsodyClaims, TicketClaims
from hmac_file_server.auth.refusals import STATUS

ROOM = Path(auth.__file__).parent
MODULES = sorted(ROOM.rglob("*.py"))
DOCUMENT = Path(__file__).parents[3] / "docs" / "authentication.md"
SECRET_WORDS = re.compile(r"\b(mac|given|signature|digest|secret|hexdigest|hmac|expected|signed)\b|\.mac\(|_mac\b")


def compares(tree: ast.AST) -> Iterator[ast.Compare]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(
            isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for op in node.ops
        ):
            yield node


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOM)))
def test_signatures_are_compared_in_constant_time_only(module: Path) -> None:
    # Prosody CVE-2021-32921: a secret compared with ==
    for node in compares(ast.parse(module.read_text())):
        text = ast.unparse(node)
        if text.startswith("len("):
            continue  # how long a text is may be known
        assert SECRET_WORDS.search(text) is None, f"{module.name}:{node.lineno}: {text}"


def test_every_mac_that_is_computed_is_compared_in_constant_time() -> None:
    computed = compared = 0
    for module in MODULES:
        source = module.read_text()
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.Call):
                continue
            text = ast.unparse(node)
            if isinstance(node.func, ast.Attribute) and node.func.attr == "mac" and "key" in text.lower():
                computed += 1
            if text.startswith(("compare_digest(", "hmac.compare_digest(")):
                compared += 1
                assert ".mac(" in text
    # the one that is not compared is the signer's
    assert computed == compared + 1
    assert compared >= 8


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOM)))
def test_only_the_strict_reader_turns_text_into_numbers(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "int":
            text = ast.unparse(node)
            assert module.name == "fields.py" or text in {"int(claims.exp)", "int(claims.filesize)"}, text


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOM)))
def test_time_is_passed_in_and_nothing_here_logs(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        source = node.module if isinstance(node, ast.ImportFrom) else None
        for name in [*names, source or ""]:
            assert name.partition(".")[0] not in {"time", "datetime", "logging", "random"}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print"


def test_no_module_imports_the_http_room() -> None:
    for module in MODULES:
        assert "hmac_file_server.http" not in module.read_text()


def test_every_code_is_documented_with_its_status() -> None:
    text = DOCUMENT.read_text()
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| (\d{3}) \|", text, re.MULTILINE))
    assert {code: int(status) for code, status in rows.items()} == dict(STATUS)


def test_every_reason_is_documented() -> None:
    text = DOCUMENT.read_text()
    reasons = set()
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"refuse", "Variant"}:
                argument = node.args[1 if node.func.id == "refuse" else 0]
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    reasons.add(argument.value)
    assert len(reasons) >= 12
    for reason in reasons:
        assert f"`{reason}`" in text, reason


def test_every_scheme_operation_and_claim_is_documented() -> None:
    text = DOCUMENT.read_text()
    for name in (*SCHEMES, *(operation.name for operation in Operation), *(operation.value for operation in Operation)):
        assert f"`{name}`" in text, name
    for claim in (*TicketClaims.__struct_fields__, *ProsodyClaims.__struct_fields__):
        assert f"`{claim}`" in text, claim


def test_the_examples_in_the_document_are_right() -> None:
    from hmac_file_server.auth import signing

    text = DOCUMENT.read_text()
    secret = b"0123456789abcdef0123456789abcdef"
    examples = (
        signing.v1(secret, "d4e5/photo.jpg", 1048576),
        signing.v2(secret, "d4e5/photo.jpg", 1048576, "image/jpeg"),
        signing.delete_token(secret, "d4e5/photo.jpg", b"delete-secret"),
        signing.v3(secret, "PUT", "/upload/d4e5/photo.jpg", 1893456000),
        signing.x_signature(secret, "/upload"),
        signing.x_signature_strong(secret, "POST", "/upload", "photo.jpg", 1048576, 1893456000),
    )
    for example in examples:
        assert f"`{example}`" in text, example
