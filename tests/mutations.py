"""Would the tests notice? Deliberate errors, one at a time, each against the tests that touch its file.

The errors stand in mutations.yaml. `python tests/mutations.py` is run by hand and takes hours; it goes on
where it was broken off, and writes results/reliability/mutations.csv and mutations.md. The tests of a
file run without any error first, and its errors are left out where one of them fails then. `--check` says
whether every place still stands once in its file; `--only TEXT` takes the errors whose file or description
holds it, and writes nothing.
"""

import argparse
import csv
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import accelerate  # noqa: F401  what all tests load, once
import diffusers.utils.torch_utils  # noqa: F401
import librosa  # noqa: F401
import pandas  # noqa: F401
import pytest
import scipy.signal  # noqa: F401
import torch  # noqa: F401
import torchaudio  # noqa: F401
import yaml

from dmxlib.summary import markdown

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "reliability"
LIMIT_SECONDS = 1800  # of one mutation's tests; an error that hangs them is noticed
COLUMNS = ("file", "mutation", "noticed", "by", "seconds")


class Mutation(NamedTuple):
    """An error in `file` (below dmxlib/): `old`, which stands there once, becomes `new`."""

    file: str
    tests: list
    says: str
    old: str
    new: str
    audit: int | str = ""


def load() -> list[Mutation]:
    """The errors of tests/mutations.yaml."""
    files = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
    return [
        Mutation(**{"file": file, "tests": entry["tests"]} | error)
        for file, entry in files.items()
        for error in entry["errors"]
    ]


def stale(mutations: list[Mutation]) -> list[Mutation]:
    """Those whose place does not stand exactly once in its file."""
    return [m for m in mutations if (ROOT / "dmxlib" / m.file).read_text().count(m.old) != 1]


def copy_tree(folder: Path) -> None:
    """The files that git knows, and those it does not ignore."""
    names = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT)
    for name in filter(None, names.decode().split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)


def first_failure(tests: list, tree: Path) -> str:
    """The first of a copied tree's tests that fails, or nothing. Raises RuntimeError where none could run.

    They run in a fork of this process, which holds the libraries already.
    """
    log = tree / "pytest.log"
    process = multiprocessing.get_context("fork").Process(target=run_tests, args=(tests, tree, log))
    process.start()
    process.join(LIMIT_SECONDS)
    if process.is_alive():
        process.kill()
        return "the time limit"
    failed = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", log.read_text(), re.MULTILINE)
    if process.exitcode and not failed:
        raise RuntimeError(f"{tests}: the tests did not run\n{log.read_text()}")
    return failed[1] if failed else ""


def run_tests(tests: list, tree: Path, log: Path) -> None:
    """pytest in this process, of a copied tree; ends it."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "dmxlib"]:
        del sys.modules[name]
    sys.path[0] = str(tree)
    sys.dont_write_bytecode = True
    os.environ |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}  # of commands that tests start
    os.chdir(tree)
    with log.open("w") as out:
        for stream in (1, 2):
            os.dup2(out.fileno(), stream)
        code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", *(f"tests/{name}" for name in tests)])
        sys.stdout.flush()
        os._exit(code)


def attempt(mutation: Mutation, tree: Path) -> dict:
    """Put an error into a copied tree, run its tests, and take it out again: a row of COLUMNS."""
    path, started = tree / "dmxlib" / mutation.file, time.monotonic()
    right = path.read_text()
    path.write_text(right.replace(mutation.old, mutation.new))
    try:
        by = first_failure(mutation.tests, tree)
    finally:
        path.write_text(right)
    seconds = round(time.monotonic() - started)
    return dict(zip(COLUMNS, (mutation.file, mutation.says, "yes" if by else "no", by, seconds), strict=True))


def report(rows: list[dict], mutations: list[Mutation]) -> str:
    """The table of all rows, in the mutations' order."""
    found = {(row["file"], row["mutation"]): row for row in rows}
    kept = [(m, found[m.file, m.says]) for m in mutations if (m.file, m.says) in found]
    lived = sum(row["noticed"] == "no" for _, row in kept)
    cells = [
        [number, f"`{m.file}`", m.says, m.audit, f"`{row['by']}`" if row["by"] else "**nobody**"]
        for number, (m, row) in enumerate(kept, 1)
    ]
    return (
        f"# Deliberate errors\n\n{len(kept) - lived} of {len(kept)} are noticed, of {len(mutations)} that "
        "`python tests/mutations.py` puts into the code one at a time. Each stands against the tests of its "
        "file alone; the first that fails is named. `audit`: the number it had among the eighteen that an "
        "earlier state of the tests let live.\n\n"
        + markdown(["no.", "file", "error", "audit", "noticed by"], cells)
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="say which places have moved, and stop")
    parser.add_argument("--only", metavar="TEXT", help="of a file's name or a description; writes nothing")
    options = parser.parse_args()
    mutations = load()
    if lost := stale(mutations):
        sys.exit(
            "\n".join(f"error: {m.file}: the place of '{m.says}' does not stand there once." for m in lost)
        )
    if options.check:
        return
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / "mutations.csv"
    rows = list(csv.DictReader(file.open())) if file.exists() and not options.only else []
    done = {(row["file"], row["mutation"]) for row in rows}
    todo = [m for m in mutations if (m.file, m.says) not in done]
    todo = [m for m in todo if not options.only or options.only in f"{m.file} {m.says}"]
    with tempfile.TemporaryDirectory() as folder:
        copy_tree(Path(folder))
        without = {}  # tests: the first that fails without any of the errors
        for number, mutation in enumerate(todo, 1):
            tests = tuple(mutation.tests)
            if tests not in without:
                without[tests] = first_failure(mutation.tests, Path(folder))
                if without[tests]:
                    print(f"error: {without[tests]} fails without any of the errors; mend it first.")
            if without[tests]:
                continue
            rows.append(attempt(mutation, Path(folder)))
            row = rows[-1]
            print(
                f"{number}/{len(todo)} {row['noticed']:3} {row['file']}: {row['mutation']} ({row['by']})",
                flush=True,
            )
            if not options.only:
                with file.open("w", newline="") as out:
                    writer = csv.DictWriter(out, COLUMNS)
                    writer.writeheader()
                    writer.writerows(rows)
                (RESULTS / "mutations.md").write_text(report(rows, mutations))


if __name__ == "__main__":
    main()
