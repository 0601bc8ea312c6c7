"""Every case, and how one is tried."""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass, field
from typing import Any

from tests.conformance.catalogue import CATALOGUE, Failed, Family, Level, Skipped, Trial, Version
from tests.conformance.connection import Malformed, NoAnswer
from tests.conformance.content_range import Ranges
from tests.conformance.draft import Draft
from tests.conformance.target import Target
from tests.conformance.tus import Tus

PASS, FAIL, SKIP = "pass", "fail", "skip"

# Importing a module registers its cases, in the order of the report.
_MODULES = (
    *("tus_core", "tus_creation", "tus_checksums", "tus_concatenation", "tus_lifetime", "tus_probes"),
    *("draft_creation", "draft_uploads", "draft_rules"),
    *("content_range", "crossings"),
)
for _name in _MODULES:
    importlib.import_module(f"tests.conformance.{_name}")


@dataclass(frozen=True, slots=True)
class Result:
    """How a trial ended: `pass`, `fail` or `skip`, why, how long it took, and what it remarked."""

    trial: Trial
    verdict: str
    reason: str
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def fatal(self) -> bool:
        return self.verdict == FAIL and self.trial.case.level is Level.MUST

    def as_json(self) -> dict[str, Any]:
        case = self.trial.case
        return {
            "id": self.trial.id,
            "level": case.level.value,
            "title": case.title,
            "source": case.source,
            "result": self.verdict,
            "reason": self.reason,
            "notes": list(self.notes),
            "milliseconds": round(self.seconds * 1000),
        }


@dataclass(slots=True)
class Suite:
    """The cases against one server. What the server speaks is found out once, by the first case that asks."""

    target: Target
    _tus: Tus | None = None
    _ranges: Ranges | None = None
    _doubtful: bool = False
    _gone: bool = False
    _drafts: dict[Version, Draft] = field(default_factory=dict)

    def client(self, trial: Trial) -> Tus | Draft | Ranges:
        """The client that a trial gets."""
        family = trial.case.family
        if family is Family.TUS:
            self._tus = self._tus or Tus(self.target)
            return self._tus
        if family is Family.CONTENT_RANGE:
            self._ranges = self._ranges or Ranges(self.target)
            return self._ranges
        return self._drafts.setdefault(trial.version, Draft(self.target, trial.version))

    def obstacle(self, trial: Trial, client: Tus | Draft | Ranges) -> str | None:
        """Why a trial says nothing about this server; None when it does."""
        if client.spoken is not None:
            return client.spoken
        missing = [name for name in trial.case.needs if isinstance(client, Tus) and name not in client.extensions]
        return f"not offered: {', '.join(missing)}" if missing else None

    def attempt(self, trial: Trial) -> Result:
        """Try one case. Whatever goes wrong in it is its result; nothing is raised."""
        if self._gone or (self._doubtful and not self.target.wait_reachable()):
            # It is waited for once: after that, every case fails at once.
            self._gone = True
            return Result(trial, FAIL, "the server takes no connections", 0.0)
        self._doubtful = False
        started = time.monotonic()
        self.target.notes = []
        client = self.client(trial)
        try:
            reason = self.obstacle(trial, client)
            verdict = SKIP if reason else PASS
            if verdict == PASS:
                trial.case.run(client)
        except Skipped as skipped:
            verdict, reason = SKIP, str(skipped)
        except Failed as failed:
            verdict, reason = FAIL, str(failed)
        except (NoAnswer, Malformed) as broken:
            verdict, reason, self._doubtful = FAIL, str(broken), True
        except OSError as error:
            verdict, reason, self._doubtful = FAIL, f"connection: {error}", True
        seconds = time.monotonic() - started
        notes = tuple(self.target.notes)
        try:
            self.target.sweep()
        except (Failed, Malformed):
            notes += ("what the case created could not be deleted",)
        return Result(trial, verdict, reason or "", seconds, notes)


def chosen(only: Family | None = None, case_ids: tuple[str, ...] = ()) -> list[Trial]:
    """The trials of a family, or of these cases (`draft-append-01`, or in one version: `draft-append-01@7`).

    ValueError for an id that there is not.
    """
    trials = [trial for trial in CATALOGUE.trials() if only in {None, trial.case.family}]
    if not case_ids:
        return trials
    unknown = [name for name in case_ids if all(name not in {t.id, t.case.id} for t in trials)]
    if unknown:
        raise ValueError(f"no such case: {', '.join(unknown)}")
    return [trial for trial in trials if trial.id in case_ids or trial.case.id in case_ids]
