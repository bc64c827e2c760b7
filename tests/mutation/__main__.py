"""`make mutate`: break the code in small ways, and see that its tests notice. See docs/explanation/mutation-testing.md.

    python -m tests.mutation                                 all modules
    python -m tests.mutation 'django_phi_oidc.oidc.jose.*'   one of them

Fails where fewer than nine in ten are killed, and where one survives that the page does not explain.
"""

import os
import resource
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files

from tests.mutation.surviving_mutants import ROOT, Change, explained

LEAST_KILLED = 0.9
MOST_MEMORY = 2 * 1024**3
"""Bytes of each process. A loop that has lost its end, and fills a list, would otherwise take all there is."""


def main(patterns: list[str]) -> int:
    # With a pattern, mutmut runs the tests by their ids first, and stops where one is not found. Later it would kill.
    patterns = patterns or ["django_phi_oidc.*"]
    os.chdir(ROOT)
    shutil.rmtree("mutants", ignore_errors=True)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    mutmut = Path(sys.executable).with_name("mutmut")
    environment = {**os.environ, "PHI_TEST_DB": "sqlite"}
    subprocess.run([mutmut, "run", "--max-children", "2", *patterns], env=environment, check=True)
    return judge(patterns)


def judge(patterns: list[str]) -> int:
    """Print the page's table, and what it should and should not explain. Returns the exit code."""
    total = 0
    survivors: dict[str, list[Change]] = {}
    print("| module | mutants | killed | survive |\n|---|---|---|---|")
    for path in sorted(walk_mutatable_files()):
        data = SourceFileMutationData(path=path)
        data.load()
        names = [name for name in data.exit_code_by_key if any(fnmatch(name, pattern) for pattern in patterns)]
        if not names:
            continue
        module = path.as_posix().removeprefix("django_phi_oidc/")
        alive = [
            name for name in names if status_by_exit_code[data.exit_code_by_key[name]] not in {"killed", "timeout"}
        ]
        survivors[module] = [_change(name, module, path) for name in alive]
        total += len(names)
        print(f"| `{module}` | {len(names)} | {len(names) - len(alive)} | {len(alive)} |")
    found = [change for changes in survivors.values() for change in changes]
    killed = total - len(found)
    print(f"| all | {total} | {killed} ({killed / total:.1%}) | {len(found)} |")
    known = explained()
    unexplained = [change for change in found if change not in known]
    for change in unexplained:
        print(f"Survives, and is not explained, in {change.module}:\n{change}")
    for change in known:
        if change.module in survivors and change not in found:
            print(f"Is explained, and does not survive, in {change.module}:\n{change}")
    return int(killed < LEAST_KILLED * total or bool(unexplained))


def _change(name: str, module: str, path: Path) -> Change:
    lines = get_diff_for_mutant(name, path=path).splitlines()[2:]
    before, after = (" ".join(line[1:].strip() for line in lines if line[0] == mark).strip() for mark in "-+")
    function = name.rpartition(".")[2].partition("__mutmut_")[0].removeprefix("x_").removeprefix("xǁ")
    return Change(module, function.replace("ǁ", "."), before, after)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
