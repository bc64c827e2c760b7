"""`make evidence`: show that the tests which the pages name fail when the claim is broken. See claims.py.

    python -m tests.mutation.evidence                    all recorded mutations
    python -m tests.mutation.evidence threat-model       those whose page, row, file or test contains one of these texts
    python -m tests.mutation.evidence --sample 12        twelve of them, other ones each day

Fails if a named test passes although its mutation was applied, or fails without it, or if a row has no mutation. Tests
that run on PostgreSQL only need a server: `python -m tests.support.postgresql python -m tests.mutation.evidence`.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from tests.mutation.claims import (
    PAGES,
    ROOT,
    Mutation,
    list_faults,
    list_mutations,
    list_rows,
    list_rows_without_mutation,
)

MAX_SECONDS = 120.0
"""For one test."""
WORKERS = os.cpu_count() or 1
NODE_MODULES = Path("tests/integration/interop/node_modules")
SKIPPED = "was skipped"
PASSES = "passes"
NO_TESTS = 5
"""The exit code of pytest if it ran no tests."""


class Result(NamedTuple):
    """What happened to a mutation."""

    mutation: Mutation
    problem: str
    """Why the test is no evidence; empty if it noticed the mutation."""


class Copy:
    """A copy of this repository, and a process that runs tests in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "copy"
        temporary = folder / "tmp"
        temporary.mkdir(parents=True)
        for path in list_files():
            target = self._folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, target)
        if (ROOT / NODE_MODULES).is_dir():
            (self._folder / NODE_MODULES).symlink_to(ROOT / NODE_MODULES)
        environment = {**os.environ, "PYTHONPATH": str(self._folder), "TMPDIR": str(temporary)}
        command = [sys.executable, "-m", "tests.mutation.fork_server"]
        self._server = subprocess.Popen(
            command, cwd=self._folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._changes = 0

    def close(self) -> None:
        self._server.communicate()

    def run(self, test: str, *, database: str, module: str = "django_phi_oidc") -> dict[str, Any]:
        """Return the outcome of the test; empty if there is none after MAX_SECONDS."""
        request = {"test": test, "module": module, "database": database, "seconds": MAX_SECONDS}
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        outcome: dict[str, Any] = json.loads(self._server.stdout.readline())
        return outcome

    def run_changed(self, mutation: Mutation, *, database: str) -> dict[str, Any]:
        """Return the outcome of the test after the mutation, which is undone."""
        path = self._folder / "django_phi_oidc" / mutation.file
        original, times = path.read_bytes(), path.stat()
        self._changes += 1
        path.write_text(mutation.apply(original.decode()))
        # Python compares whole seconds and the size to decide whether its compiled code is outdated.
        os.utime(path, (times.st_atime, times.st_mtime + self._changes))
        parts = Path(mutation.file).with_suffix("").parts if path.suffix == ".py" else ()
        module = ".".join(["django_phi_oidc", *parts]).removesuffix(".__init__")
        try:
            return self.run(mutation.node, database=database, module=module)
        finally:
            path.write_bytes(original)
            os.utime(path, (times.st_atime, times.st_mtime))


def list_files() -> list[Path]:
    """Return the files of this repository, with those that are not committed yet."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [Path(name) for name in names if name and (ROOT / name).is_file() and not (ROOT / name).is_symlink()]


def find_problem(outcome: dict[str, Any]) -> str:
    """Return why a test is no evidence, by its outcome after a mutation; empty if it noticed the mutation."""
    match outcome:
        case {"exit_code": 1, "failed_phases": [*phases]} if "call" in phases:
            return ""
        case {"exit_code": 1}:
            return f"fails before it begins, which shows nothing: {outcome['message']}"
        case {"exit_code": 0}:
            return PASSES if outcome["passed"] else SKIPPED
        case {"exit_code": code}:
            return f"did not run (pytest exited with {code}): the mutation may break an import"
    return f"has no outcome within {MAX_SECONDS:.0f} s"


def run_mutations(copy: Copy, test: str, mutations: Iterable[Mutation]) -> Iterator[Result]:
    """Run a test without a mutation, and then with each one."""
    databases, problem = find_databases(copy, test)
    for mutation in mutations:
        found = problem
        for database in databases:
            # Some tests run with some of their parameters on one database, and with others on the other one.
            found = find_problem(copy.run_changed(mutation, database=database))
            if not found:
                break
        yield Result(mutation, found)


def find_databases(copy: Copy, test: str) -> tuple[list[str], str]:
    """Return the databases on which the test runs and passes; or none, and the problem."""
    databases = []
    problem = "does not run on any database"
    for database in ("sqlite", "postgresql"):
        outcome = copy.run(test, database=database)
        if outcome.get("exit_code") == NO_TESTS:
            continue
        problem = find_problem(outcome) or f"fails without the mutation: {outcome['message']}"
        if problem == PASSES:
            databases.append(database)
        if problem != PASSES or not outcome["deselected"]:
            break
    return (databases, "") if problem == PASSES else ([], problem)


def run_all(mutations: Iterable[Mutation], *, workers: int) -> list[Result]:
    """Run the tests of all mutations in copies of this repository, and return the results in their order."""
    mutations = list(mutations)
    by_test = sorted(mutations, key=lambda mutation: mutation.node)
    jobs = [(test, list(group)) for test, group in groupby(by_test, key=lambda mutation: mutation.node)]
    queue: SimpleQueue[tuple[str, list[Mutation]]] = SimpleQueue()
    for job in sorted(jobs, key=lambda job: -len(job[1])):
        queue.put(job)

    def work(copy: Copy) -> list[Result]:
        results: list[Result] = []
        while True:
            try:
                test, group = queue.get_nowait()
            except Empty:
                return results
            for result in run_mutations(copy, test, group):
                if result.problem:
                    print(f"{result.mutation.node} {result.problem}\n    {result.mutation}", flush=True)
                results.append(result)

    with tempfile.TemporaryDirectory(prefix="evidence-", ignore_cleanup_errors=True) as folder, ExitStack() as stack:
        # Programs that some tests start as another user must reach their files.
        Path(folder).chmod(0o755)
        copies = [Copy(Path(folder) / str(number)) for number in range(min(workers, len(jobs)))]
        for copy in copies:
            stack.callback(copy.close)
        with ThreadPoolExecutor(len(copies)) as pool:
            results = [result for found in pool.map(work, copies) for result in found]
    return sorted(results, key=lambda result: mutations.index(result.mutation))


def report(results: Sequence[Result]) -> None:
    """Print the table of the page docs/benchmarks/mutation-testing.md."""
    rows = list_rows()
    print("| page | rows | mutations | noticed | not noticed | not run |\n|---|---|---|---|---|---|")
    for page in PAGES:
        of_page = [result for result in results if result.mutation.page == page]
        if not of_page:
            continue
        noticed = sum(not result.problem for result in of_page)
        skipped = sum(result.problem == SKIPPED for result in of_page)
        counts = (
            sum(row.page == page for row in rows),
            len(of_page),
            noticed,
            len(of_page) - noticed - skipped,
            skipped,
        )
        print(f"| `{page}` | {' | '.join(map(str, counts))} |")


def parse_arguments(arguments: Sequence[str]) -> Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="*", help="only mutations whose page, row, file or test contains one of these")
    parser.add_argument(
        "--sample", type=int, metavar="NUMBER", help="only this number of mutations, chosen by the date"
    )
    today = datetime.now(UTC).date().isoformat()
    parser.add_argument("--date", default=today, help="of a sample to repeat, such as 2026-01-31 (default: today, UTC)")
    parser.add_argument("--workers", type=int, default=WORKERS, help="tests at once (default: one for each processor)")
    return parser.parse_args(arguments)


def select_mutations(mutations: Iterable[Mutation], options: Namespace) -> list[Mutation]:
    selected = [
        mutation
        for mutation in mutations
        if not options.texts or any(text in f"{mutation} {mutation.test}" for text in options.texts)
    ]
    if options.sample is None:
        return selected
    print(f"A sample of {options.sample} mutations; to repeat it: --sample {options.sample} --date {options.date}")
    return random.Random(options.date).sample(selected, min(options.sample, len(selected)))


def main(arguments: Sequence[str]) -> int:
    started = time.monotonic()
    options = parse_arguments(arguments)
    rows = list_rows()
    recorded = list_mutations(rows)
    mutations = select_mutations(recorded, options)
    faults = list(list_faults(mutations, rows))
    if not options.texts:
        missing = list_rows_without_mutation(rows, recorded)
        faults += [f"The row has no mutation: {row.page}: {row.text}" for row in missing]
    if not mutations:
        faults.append("No mutation contains one of these texts.")
    if faults:
        print("\n".join(faults))
        return 1
    results = run_all(mutations, workers=options.workers)
    report(results)
    print(f"{time.monotonic() - started:.0f} seconds")
    return int(any(result.problem not in ("", SKIPPED) for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
