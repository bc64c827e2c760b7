"""`make mutate`: break the code in small ways, and see that its tests notice. See docs/explanation/mutation-testing.md.

    python -m tests.mutation                        all modules
    python -m tests.mutation 'django_phi_oidc.oidc.jose.*'   some mutants

Fails where fewer than nine in ten are killed, and where one survives that the page does not explain.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files

from tests.mutation.explained import ROOT, Change, explained

KILLED = {"killed", "timeout"}
LEAST = 0.9


def main(patterns: list[str]) -> int:
    # With patterns, mutmut first runs the tests by their ids, and so fails where it can't find one: that would kill all.
    patterns = patterns or ["django_phi_oidc.*"]
    os.chdir(ROOT)
    shutil.rmtree("mutants", ignore_errors=True)
    environment = {**os.environ, "PHI_TEST_DB": "sqlite"}
    subprocess.run(["mutmut", "run", "--max-children", "2", *patterns], env=environment, check=True)
    return judge(patterns)


def judge(patterns: list[str]) -> int:
    """Print the page's table and what it does not explain. Returns the exit code."""
    killed = total = 0
    survivors: list[Change] = []
    print("| module | mutants | killed | survive |\n|---|---|---|---|")
    for path in sorted(walk_mutatable_files()):
        statuses = dict(_statuses(path, patterns))
        if not statuses:
            continue
        alive = [name for name, status in statuses.items() if status not in KILLED]
        survivors += [_change(name, path) for name in alive]
        total += len(statuses)
        killed += len(statuses) - len(alive)
        print(f"| `{_module(path)}` | {len(statuses)} | {len(statuses) - len(alive)} | {len(alive)} |")
    print(f"| all | {total} | {killed} | {total - killed} |\n\n{killed / total:.1%} are killed.")
    unexplained = [change for change in survivors if change not in explained()]
    for change in unexplained:
        print(f"Survives, and is not explained: {change.module}\n{change}")
    return int(killed < LEAST * total or bool(unexplained))


def _statuses(path: Path, patterns: list[str]) -> Iterator[tuple[str, str]]:
    data = SourceFileMutationData(path=path)
    data.load()
    for name, exit_code in data.exit_code_by_key.items():
        if any(fnmatch(name, pattern) for pattern in patterns):
            yield name, status_by_exit_code[exit_code]


def _change(name: str, path: Path) -> Change:
    lines = get_diff_for_mutant(name, path=path).splitlines()[2:]
    before, after = (
        " ".join(line[1:].strip() for line in lines if line.startswith(mark) and line[1:].strip()) for mark in "-+"
    )
    function = name.rpartition(".")[2].partition("__mutmut_")[0].removeprefix("x_").removeprefix("xǁ")
    return Change(_module(path), function.replace("ǁ", "."), before, after)


def _module(path: Path) -> str:
    return path.as_posix().removeprefix("django_phi_oidc/")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
