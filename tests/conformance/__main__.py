"""The conformance suite on the command line: `python -m tests.conformance --url URL`."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence

from tests.conformance.catalogue import CATALOGUE, Family, Level
from tests.conformance.connection import Address
from tests.conformance.suite import FAIL, PASS, SKIP, Result, Suite, chosen
from tests.conformance.target import Target

USAGE_ERROR = 2


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"no 'Name: value': {text!r}")
    return name.strip(), value.strip()


def _url(text: str) -> str:
    try:
        Address.of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """The parsed command line; exits 2 when it cannot be."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance",
        description="Tries a server of resumable uploads: tus 1.0.0, the IETF draft, PUT with Content-Range.",
        epilog="Exit code: 0, or 1 when a MUST failed, or 2 when nothing could be tried.",
    )
    parser.add_argument("--url", type=_url, help="where uploads are created, such as http://127.0.0.1:8080/files/")
    parser.add_argument("--header", type=_header, action="append", default=[], help="'Name: value' for every creation")
    parser.add_argument("--only", choices=[family.value for family in Family], help="one protocol")
    parser.add_argument("--case", action="append", default=[], help="one case; for the draft also ID@VERSION")
    parser.add_argument("--patience", type=float, default=10.0, help="seconds that an answer may take (10)")
    parser.add_argument("--list", action="store_true", help="list the cases and try none")
    parser.add_argument("--markdown", action="store_true", help="with --list: as the tables of docs/conformance.md")
    parser.add_argument("--json", action="store_true", help="the results, or the list, as JSON")
    found = parser.parse_args(words)
    if not found.list and found.url is None:
        parser.error("--url is needed")
    return found


def versions(case_versions: Sequence[int | None]) -> str:
    """Versions for people: `3 4 5 unversioned`."""
    return " ".join("unversioned" if version is None else str(version) for version in case_versions)


def listing(as_json: bool, only: Family | None) -> str:
    """The cases themselves."""
    cases = [case for case in CATALOGUE.cases.values() if only in {None, case.family}]
    if as_json:
        rows = [
            {
                "id": case.id,
                "level": case.level.value,
                "title": case.title,
                "source": case.source,
                "needs": list(case.needs),
                "versions": ["unversioned" if version is None else version for version in case.versions],
            }
            for case in cases
        ]
        return json.dumps(rows, indent=2, ensure_ascii=False)
    lines = []
    for case in cases:
        lines.append(f"{case.id:<20} {case.level.value:<6} {case.title}")
        extra = [f"versions {versions(case.versions)}"] if case.versions else []
        extra += [f"needs {', '.join(case.needs)}"] if case.needs else []
        lines.append(f"{'':<27} [{'; '.join([case.source, *extra])}]")
    return "\n".join(lines)


def tables() -> str:
    """The cases as they stand in docs/conformance.md: a table for each group of ids."""
    found: dict[str, list[str]] = {}
    for case in CATALOGUE.cases.values():
        group = case.id.rpartition("-")[0]
        where = versions(case.versions) or ", ".join(case.needs) or "-"
        line = f"| `{case.id}` | {case.level.value} | {where} | {case.source} | {case.title} |"
        found.setdefault(group, []).append(line)
    heads = ("| case | level | versions, or what it needs | said in | what it proves |", "|---|---|---|---|---|")
    return "\n\n".join("\n".join((f"### {group}", "", *heads, *lines)) for group, lines in found.items())


def row(result: Result) -> str:
    """One line of the table, with what went wrong and what was remarked below it."""
    trial = result.trial
    line = f"{result.verdict:<4} {trial.case.level.value:<6} {trial.id:<30} {result.seconds * 1000:>6.0f} ms  {trial.case.title}"
    if result.reason:
        line += f"\n{'':<12}{'because' if result.verdict == FAIL else 'skipped'}: {result.reason}"
    return line + "".join(f"\n{'':<12}note: {note}" for note in result.notes)


def summary(results: Sequence[Result]) -> str:
    """How many of each level passed, failed and were skipped."""
    counts = Counter((result.trial.case.level, result.verdict) for result in results)
    lines = [f"{'':<8}{PASS:>6}{FAIL:>6}{SKIP:>6}"]
    lines += [
        f"{level.value:<8}" + "".join(f"{counts[level, verdict]:>6}" for verdict in (PASS, FAIL, SKIP))
        for level in Level
    ]
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    """Run the suite. Returns the exit code."""
    options = arguments(words)
    only = Family(options.only) if options.only else None
    if options.list:
        print(tables() if options.markdown else listing(options.json, only))
        return 0
    try:
        trials = chosen(only, tuple(options.case))
    except ValueError as error:
        print(error, file=sys.stderr)
        return USAGE_ERROR
    target = Target(options.url, dict(options.header), options.patience)
    if not target.wait_reachable():
        print(f"nothing takes connections at {options.url}", file=sys.stderr)
        return USAGE_ERROR
    suite = Suite(target)
    results: list[Result] = []
    for trial in trials:
        result = suite.attempt(trial)
        results.append(result)
        if not options.json:
            print(row(result), flush=True)
    if options.json:
        print(json.dumps([result.as_json() for result in results], indent=2, ensure_ascii=False))
    else:
        print(f"\n{summary(results)}")
    if all(result.verdict == SKIP for result in results):
        print("nothing could be tried", file=sys.stderr)
        return USAGE_ERROR
    return 1 if any(result.fatal for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
