"""One run's results as JSON: written, read and put together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.goals import Verdict, judge
from bench.rounds import Sample, Summary, summarise
from bench.rows import ROWS
from bench.table import RowResult

FORMAT = 1


@dataclass(slots=True)
class Run:
    """Everything one invocation measured. `mode` is "pinned" or "unpinned"."""

    mode: str
    when: str
    machine: dict[str, str]
    versions: dict[str, str]
    options: dict[str, str]
    settings: dict[str, dict[str, str]] = field(default_factory=dict)
    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    failures: dict[str, dict[str, str]] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)

    def add(self, result: RowResult) -> None:
        """Take the samples of one row; a server that failed in it keeps only its reason."""
        key = result.row.key
        self.samples[key] = {n: s for n, s in result.samples.items() if n not in result.failures and s}
        if result.failures:
            self.failures[key] = dict(result.failures)

    def summaries(self) -> dict[str, dict[str, Summary]]:
        """Return the medians of every row and server that has at least one kept round."""
        return {
            key: {
                name: summarise(samples, large=ROWS[key].large)
                for name, samples in servers.items()
                if any(sample.round > 0 for sample in samples)
            }
            for key, servers in self.samples.items()
            if key in ROWS
        }

    def verdicts(self) -> list[Verdict]:
        """Return every goal with its value."""
        return judge(self.summaries(), self.facts)

    def to_json(self) -> str:
        """Return the run with its medians and verdicts, indented."""
        tree: dict[str, Any] = {"format": FORMAT, **asdict(self)}
        tree["medians"] = {k: {n: asdict(s) for n, s in servers.items()} for k, servers in self.summaries().items()}
        tree["goals"] = [{**asdict(verdict), "met": verdict.met} for verdict in self.verdicts()]
        return json.dumps(tree, indent=1)


def parse(text: str, name: str) -> Run:
    """Parse what `Run.to_json` wrote; raises BenchError for anything else."""
    try:
        tree: dict[str, Any] = json.loads(text)
        if tree["format"] != FORMAT:
            raise BenchError(f"{name}: format {tree['format']} is not {FORMAT}")
        samples = {
            key: {server: [Sample(**sample) for sample in rounds] for server, rounds in servers.items()}
            for key, servers in tree["samples"].items()
        }
        names = ("mode", "when", "machine", "versions", "options", "settings", "failures", "facts")
        return Run(samples=samples, **{field_name: tree[field_name] for field_name in names})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchError(f"{name}: not the results of a benchmark: {error!r}") from error


def merge(runs: Sequence[Run]) -> Run:
    """Put runs of one mode together: a row of a later run replaces the row of an earlier one as a whole."""
    first, *others = runs
    merged = Run(
        first.mode, first.when, dict(first.machine), dict(first.versions), dict(first.options), dict(first.settings),
        dict(first.samples), dict(first.failures), dict(first.facts),
    )  # fmt: skip
    for run in others:
        if run.machine != first.machine:
            raise BenchError("runs of different machines cannot be put together")
        merged.when, merged.versions, merged.options = run.when, run.versions, run.options
        for key in run.samples:
            merged.samples[key] = run.samples[key]
            merged.failures.pop(key, None)
        merged.failures.update(run.failures)
        merged.settings.update(run.settings)
        merged.facts.update(run.facts)
    return merged


def newest(folder: Path) -> list[Path]:
    """Return the newest results of each mode in `folder`, by the time in the file's name."""
    found: Mapping[str, Path] = {p.stem.rpartition("-")[2]: p for p in sorted(folder.glob("*-*pinned.json"))}
    if not found:
        raise BenchError("there are no results yet: run `python -m bench` first")
    return [found[mode] for mode in sorted(found)]
