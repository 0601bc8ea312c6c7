"""`python -m tests.fuzz`: fuzz the parsers, each for a while.

With atheris (pip install atheris) guided by coverage, otherwise by seeded mutation. What fails is printed and kept in a
file; add it to tests/fuzz/corpus.py. Corpora that grow over runs are kept where --corpus says.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

_DONE = re.compile(rb"Done (\d+) (?:runs )?in|stat::number_of_executed_units: (\d+)|DONE +cov: \d+ .*|#(\d+)\s+DONE")
_COVERED = re.compile(rb"cov: (\d+) ft: (\d+) corp: (\d+)")


def guided(name: str, seconds: int, corpus: Path) -> int:
    """Run atheris on one target in this process; never returns."""
    import atheris  # type: ignore[import-untyped,unused-ignore]

    with atheris.instrument_imports(include=["hmac_file_server"], enable_loader_override=False):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    folder = corpus / name
    folder.mkdir(parents=True, exist_ok=True)
    seeds(folder, name)
    words = folder.parent / f"{name}.dict"
    words.write_text(
        "".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in target.tokens), encoding="ascii"
    )

    def run(data: bytes) -> None:
        target.run(data)

    atheris.Setup(
        [
            sys.argv[0], f"-max_total_time={seconds}", "-max_len=4096", "-timeout=25", "-print_final_stats=1", "-rss_limit_mb=3000",
            f"-artifact_prefix={corpus}/found-{name}-", f"-dict={words}", str(folder),
        ],
        run,
    )  # fmt: skip
    atheris.Fuzz()
    return 0


def seeds(folder: Path, name: str) -> None:
    from tests.fuzz.corpus import FOUND
    from tests.fuzz.targets import TARGETS

    for number, data in enumerate((*TARGETS[name].seeds, *FOUND.get(name, ()))):
        (folder / f"seed-{number}").write_bytes(data)


def blind(name: str, seconds: float, seed: int) -> tuple[int, int]:
    """Mutate without coverage; (executions, how many were taken). Raises what the target raises."""
    from tests.fuzz.corpus import FOUND
    from tests.fuzz.mutation import Mutator
    from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    mutator = Mutator(target, seed, FOUND.get(name, ()))
    until = time.monotonic() + seconds
    count = taken = 0
    while time.monotonic() < until:
        data = mutator.next()
        try:
            ok = target.run(data)
        except BaseException:
            print(f"{name}, seed {seed}, execution {count}: {data!r}", file=sys.stderr)
            raise
        count += 1
        taken += ok
        if ok and count % 7 == 0:
            mutator.keep(data)
    return count, taken


def one(name: str, seconds: int, corpus: Path) -> tuple[int, str]:
    """Atheris in a process of its own: (executions, what is to be told); SystemExit with what it printed when it fails."""
    command = [
        sys.executable,
        "-m",
        "tests.fuzz",
        "--target",
        name,
        "--seconds",
        str(seconds),
        "--corpus",
        str(corpus),
        "--here",
    ]
    ended = subprocess.run(command, check=False, capture_output=True)
    output = ended.stdout + ended.stderr
    runs = [int(number) for match in _DONE.findall(output) for number in match if number]
    if ended.returncode != 0:
        sys.stderr.buffer.write(output[-6000:])
        raise SystemExit(f"{name}: failed, see {corpus}")
    covered = _COVERED.findall(output)
    text = "coverage {}, features {}, corpus {}".format(*(n.decode() for n in covered[-1])) if covered else ""
    return max(runs, default=0), text


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--target", action="append", metavar="NAME", help="only this one (may be repeated)")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default 60)")
    parser.add_argument("--seed", type=int, default=1, help="of mutation without atheris (default 1)")
    parser.add_argument(
        "--corpus", type=Path, help="where corpora and findings are kept (default: a new folder in /tmp)"
    )
    parser.add_argument("--blind", action="store_true", help="mutation even where atheris is")
    parser.add_argument("--list", action="store_true", help="names of targets")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.here:
        return guided(options.target[0], options.seconds, options.corpus)
    from tests.fuzz.targets import TARGETS

    if options.list:
        print("\n".join(TARGETS))
        return 0
    names = options.target or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        parser.error(f"unknown targets: {', '.join(sorted(unknown))}; --list shows all")
    with_coverage = not options.blind and importlib.util.find_spec("atheris") is not None
    corpus = options.corpus or Path(tempfile.mkdtemp(prefix="fuzz-"))
    total = 0
    began = time.monotonic()
    for name in names:
        if with_coverage:
            count, text = one(name, options.seconds, corpus.absolute())
        else:
            count, taken = blind(name, options.seconds, options.seed)
            text = f"{taken} taken"
        total += count
        print(f"{name}: {count} executions, {text}", flush=True)
    how = "atheris" if with_coverage else f"mutation from seed {options.seed}"
    print(f"{total} executions on {len(names)} targets in {time.monotonic() - began:.0f} s by {how}; nothing was found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
