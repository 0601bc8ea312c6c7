"""What a case is, how it is registered, and how it says that something is wrong."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

Run = TypeVar("Run", bound=Callable[[Any], None])


class Level(enum.Enum):
    """How much a case weighs. Only a failed MUST makes the suite fail."""

    MUST = "MUST"
    SHOULD = "SHOULD"
    OURS = "ours"


class Family(enum.Enum):
    """Which protocol a case is about; the word of `--only`."""

    TUS = "tus"
    DRAFT = "draft"
    CONTENT_RANGE = "content-range"


class Failed(Exception):  # noqa: N818 - a verdict, no error of this program
    """The server did something else than the case demands. The text says what was wanted and what came."""


class Skipped(Exception):  # noqa: N818 - a verdict, no error of this program
    """The case cannot be judged against this server. The text says why."""


Version = int | None
"""An interop version of the draft; None is the form without a version."""

VERSIONS: tuple[Version, ...] = (3, 4, 5, 6, 7, 8, 9, None)


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that a server has to do.

    `title`: what it proves, one sentence. `source`: where that is said. `needs`: names of tus extensions
    without which it is skipped. `versions`: of the draft, else empty. `run` gets a client of its family.
    """

    id: str
    family: Family
    level: Level
    title: str
    source: str
    run: Callable[[Any], None]
    needs: tuple[str, ...] = ()
    versions: tuple[Version, ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """A case, and for the draft the version in which it is tried."""

    case: Case
    version: Version = None

    @property
    def id(self) -> str:
        if self.case.family is not Family.DRAFT:
            return self.case.id
        return f"{self.case.id}@{'unversioned' if self.version is None else self.version}"


@dataclass(slots=True)
class Catalogue:
    """Every case, in the order of registration."""

    cases: dict[str, Case] = field(default_factory=dict)

    def add(self, case: Case) -> None:
        """ValueError for an id that is taken."""
        if case.id in self.cases:
            raise ValueError(f"two cases are called {case.id}")
        self.cases[case.id] = case

    def trials(self) -> list[Trial]:
        """Every case in every version it is for."""
        found: list[Trial] = []
        for case in self.cases.values():
            if case.family is Family.DRAFT:
                found += [Trial(case, version) for version in case.versions]
            else:
                found.append(Trial(case))
        return found


CATALOGUE = Catalogue()


def _register(
    case_id: str, family: Family, level: Level, source: str, needs: tuple[str, ...], versions: tuple[Version, ...]
) -> Callable[[Run], Run]:
    def register(run: Run) -> Run:
        title = " ".join((run.__doc__ or "").split())
        if not title:
            raise ValueError(f"{case_id} does not say what it proves")
        CATALOGUE.add(Case(case_id, family, level, title, source, run, needs, versions))
        return run

    return register


def tus_case(case_id: str, level: Level, source: str, *needs: str) -> Callable[[Run], Run]:
    """Register a case of tus 1.0.0; its docstring is its title. `needs`: extensions."""
    return _register(case_id, Family.TUS, level, "tus 1.0.0, " + source, needs, ())


def draft_case(
    case_id: str, level: Level, source: str, *, versions: tuple[Version, ...] = VERSIONS
) -> Callable[[Run], Run]:
    """Register a case of the IETF draft, for the versions in which its rule stands."""
    return _register(case_id, Family.DRAFT, level, "draft, " + source, (), versions)


def range_case(case_id: str, level: Level, source: str) -> Callable[[Run], Run]:
    """Register a case of uploads by PUT with Content-Range."""
    return _register(case_id, Family.CONTENT_RANGE, level, source, (), ())


def since(version: int) -> tuple[Version, ...]:
    """The versions from this one on, and the form without one, which is the newest."""
    return tuple(known for known in VERSIONS if known is None or known >= version)


def until(version: int) -> tuple[Version, ...]:
    """The versions up to this one."""
    return tuple(known for known in VERSIONS if known is not None and known <= version)


def expect(truth: bool, message: str) -> None:
    """Failed with `message` unless it is so."""
    if not truth:
        raise Failed(message)


def skip(reason: str) -> NoReturn:
    """Give the case up as not to be judged."""
    raise Skipped(reason)
