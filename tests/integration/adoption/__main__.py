"""Adopt this package, mozilla-django-oidc and django-allauth in new projects, and print what each adoption takes.

`python -m tests.integration.adoption` builds the wheel, and installs everything by pip into new environments.
"""

import json
import os
import platform
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.integration.adoption.adoption_runs import WORKERS, Adoption, measure_adoptions

HEADER = ("project", "library", "commands", "settings", "other lines", "deleted lines", "variables", "seconds", "pip")
NOTES = """\
commands: programs run at a shell, from pip install on. settings, other lines: lines added to the settings, to the URLs
and to other files. variables: environment variables filled in by hand. seconds: until the third person is signed in,
without the time to type and to read; pip: the part of pip install. Not counted, because no library can do without or
because they are not needed for a sign-in: the line that loads the environment variables into a shell, and the option
that permits http, as the provider of this run has no TLS; `migrate-from` as a preview, `check`, `doctor` and
`sessions end --foreign`, which the pages recommend.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit status."""
    parser = ArgumentParser(prog="python -m tests.integration.adoption", description=__doc__)
    parser.add_argument("--workers", type=int, default=WORKERS, help="projects that are measured at the same time")
    parser.add_argument("--steps", action="store_true", help="print the commands and lines of each adoption, too")
    parser.add_argument("--json", action="store_true", help="print one object")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="phi-oidc-adoption-") as folder:
        adoptions = measure_adoptions(Path(folder), log, workers=options.workers)
    seconds = time.monotonic() - started
    if options.json:
        print(json.dumps({"seconds": round(seconds, 1), "adoptions": [asdict(item) for item in adoptions]}, indent=2))
        return 0
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {options.workers} projects at a time.\n")
    print(format_table(adoptions))
    print(f"\n{NOTES}\nThe whole run took {seconds:.0f} s.")
    if options.steps:
        print("".join(format_steps(item) for item in adoptions if not item.not_run))
    return 0


def format_table(adoptions: Sequence[Adoption]) -> str:
    """Return a table of Markdown."""
    lines = [f"| {' | '.join(HEADER)} |", f"|{'---|' * len(HEADER)}"]
    for item in adoptions:
        if item.not_run:
            lines.append(f"| {item.project} | {item.library} | {item.not_run} |" + " |" * (len(HEADER) - 3))
            continue
        effort = item.effort
        counts = [effort.commands, effort.settings, effort.code, effort.deleted, effort.variables]
        seconds = [f"{effort.seconds:.1f}", f"{effort.pip_seconds:.1f}"]
        lines.append(f"| {' | '.join([item.project, item.library, *(str(len(rows)) for rows in counts), *seconds])} |")
    return "\n".join(lines)


def format_steps(adoption: Adoption) -> str:
    """Return what was typed and what was written."""
    effort = adoption.effort
    parts = {
        "$": effort.commands,
        "variable": effort.variables,
        "-": effort.deleted,
        "+ settings:": effort.settings,
        "+ other:": effort.code,
    }
    lines = [f"{sign} {line}" for sign, rows in parts.items() for line in rows]
    return "\n".join(["", f"{adoption.project}: {adoption.library}", *lines, ""])


def log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
