"""`make mutate`: run the mutation tests. See docs/benchmarks/mutation-testing.md.

    python -m tests.mutation                                 all modules
    python -m tests.mutation 'django_phi_oidc.oidc.jose.*'   one module

Fails if less than 90 % of the mutants are killed, or one survives that the page does not explain.
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

from tests.mutation.surviving_mutants import ROOT, Change, list_explained

MIN_KILLED = 0.9
MAX_MEMORY = 2 * 1024**3
"""Bytes per process. Otherwise a mutant with an endless loop that fills a list could use all memory."""


def main(patterns: list[str]) -> int:
    # With a pattern, mutmut first runs the tests by id and stops if one is missing, instead of counting it as a kill.
    patterns = patterns or ["django_phi_oidc.*"]
    os.chdir(ROOT)
    shutil.rmtree("mutants", ignore_errors=True)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    mutmut = Path(sys.executable).with_name("mutmut")
    environment = {**os.environ, "PHI_TEST_DB": "sqlite"}
    subprocess.run([mutmut, "run", "--max-children", "2", *patterns], env=environment, check=True)
    return report(patterns)


def report(patterns: list[str]) -> int:
    """Print the table of the page and its missing and outdated explanations, and return the exit code."""
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
        surviving = [
            name for name in names if status_by_exit_code[data.exit_code_by_key[name]] not in {"killed", "timeout"}
        ]
        survivors[module] = [_change(name, module, path) for name in surviving]
        total += len(names)
        print(f"| `{module}` | {len(names)} | {len(names) - len(surviving)} | {len(surviving)} |")
    survived = [change for changes in survivors.values() for change in changes]
    killed = total - len(survived)
    print(f"| all | {total} | {killed} ({killed / total:.1%}) | {len(survived)} |")
    known = list_explained()
    unexplained = [change for change in survived if change not in known]
    for change in unexplained:
        print(f"Survives without an explanation in {change.module}:\n{change}")
    for change in known:
        if change.module in survivors and change not in survived:
            print(f"Is explained but does not survive in {change.module}:\n{change}")
    return int(killed < MIN_KILLED * total or bool(unexplained))


def _change(name: str, module: str, path: Path) -> Change:
    lines = get_diff_for_mutant(name, path=path).splitlines()[2:]
    before, after = (" ".join(line[1:].strip() for line in lines if line[0] == mark).strip() for mark in "-+")
    function = name.rpartition(".")[2].partition("__mutmut_")[0].removeprefix("x_").removeprefix("xǁ")
    return Change(module, function.replace("ǁ", "."), before, after)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
