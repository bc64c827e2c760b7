"""Make keys: files where the settings name files, lines for the environment otherwise."""

import os
import tempfile
from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.core.management.base import OutputWrapper

from .. import conf, keyring


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the subcommands of `phi_oidc keys`."""
    subcommands = parser.add_subparsers(dest="keys_command", required=True)
    subcommands.add_parser("generate", help="write the key files that do not exist; print keys for the other rings")


def handle(options: Mapping[str, Any], *, stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    """Write the missing key files, print new keys for the rings that have no file, and tell what was done."""
    written = generate_key_files()
    for ring in conf.KEY_RINGS:
        source = conf.option(ring)
        if not isinstance(source, Path):
            stdout.write(f"PHI_{ring}={keyring.generate()}")
            stderr.write(f"{ring}: a new key was printed, and stored nowhere.")
        elif source in written:
            stderr.write(f"{ring}: a new key was written to {source}.")
        else:
            stderr.write(f"{ring}: {source} was there, and left as it is.")


def generate_key_files() -> list[Path]:
    """Write a new key into each key file that the settings name and that does not exist; return those files.

    A file appears with its whole content and mode 0600, in a directory made with mode 0700, and is never overwritten:
    of several runs at once one writes, and all see what it wrote.
    """
    named = [source for ring in conf.KEY_RINGS if isinstance(source := conf.option(ring), Path)]
    return [path for path in dict.fromkeys(named) if not os.path.lexists(path) and _write_new(path)]


def _write_new(path: Path) -> bool:
    """Return False when somebody else was faster."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(keyring.generate() + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, fails where the name is taken.
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(draft)
    return True
