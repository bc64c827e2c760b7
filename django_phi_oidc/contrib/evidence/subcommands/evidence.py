"""Write evidence for an auditor as one signed file, or verify such a file."""

from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.core.management.base import CommandError
from django.db import DatabaseError

from ...._internal import clock
from ...._internal.command_arguments import (
    PUBLIC_KEY_HELP,
    Options,
    add_command,
    build_argument_error,
)
from ...._internal.command_output import Output, format_untrusted
from ....audit.errors import CheckpointInvalid
from ....audit.events import Action
from ....audit.log.bundle import read_public_keys
from ....audit.log.signing_keys import get_signing_key
from ....audit.merkle.checkpoint import verify_checkpoint
from ....audit.recorder import record
from ....audit.request_context import current_origin
from ...common.private_files import create_private_file
from ..collector import collect_evidence
from ..pack import MAX_PACK_BYTES, build_pack, hash_evidence, verify_pack

READING_COMMANDS = ("evidence verify",)
COMMANDS_WITHOUT_CHECKS = ("evidence verify",)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, metavar="FILE", help="The new file.")
    parser.set_defaults(handler=_write)
    commands = parser.add_subparsers(dest="evidence_command", metavar="SUBCOMMAND")
    verify = add_command(
        commands, "verify", _verify, "Verify a file without the portal, and fail if it was altered."
    )
    verify.add_argument("file", type=Path, help="The evidence.")
    verify.add_argument(
        "--public-key", action="append", required=True, metavar="KEY", help=PUBLIC_KEY_HELP
    )


def _write(options: Options, output: Output) -> None:
    """The event is committed before the file has any content. Raises: CommandError."""
    path = options["output"]
    if path is None:
        raise build_argument_error("Name the new file: --output FILE.")
    key = get_signing_key()
    now = clock.now()
    try:
        evidence = collect_evidence(key=key, now=now)
        text = build_pack(evidence, key=key)
        digest = hash_evidence(evidence)
        with create_private_file(path) as file:
            detail = {"format": "evidence", "sha256": digest}
            record(Action.AUDIT_EXPORTED, origin=current_origin(), now=now, detail=detail)
            file.write(text)
    except (DatabaseError, OSError, ValueError) as error:
        raise CommandError(f"The evidence was not written: {error}") from error
    row = {"file": str(path), "log": evidence["log"], "sha256": digest}
    output.confirm(row, f"{path}: evidence of {evidence['log']}, SHA-256 {digest}.")


def _verify(options: Options, output: Output) -> None:
    """Raises: CommandError, also if the checkpoint in the file is not valid; PhiOidcError if the
    file was altered.
    """
    if options["output"] is not None:
        raise build_argument_error("--output writes a file, and verify reads one.")
    keys = read_public_keys(options["public_key"])
    try:
        with options["file"].open("rb") as file:
            evidence = verify_pack(file.read(MAX_PACK_BYTES + 1), keys)
    except OSError as error:
        raise CommandError(str(error)) from error
    checkpoint = _verify_checkpoint(evidence, keys)
    summary = {**dict(_describe(evidence)), "checkpoint": checkpoint}
    lines = []
    for name, text in summary.items():
        lines.append(f"{name}: {format_untrusted(text)}")
    row = {name.replace(" ", "_"): text for name, text in summary.items()}
    output.write_row(row, "\n".join([*lines, "The signature is valid."]))


def _describe(evidence: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    versions = evidence["versions"]
    configuration = evidence["configuration"]
    states: Counter[str] = Counter()
    for control_set in evidence["controls"]:
        for control in control_set["controls"]:
            states[control["state"]] += 1
    warnings = []
    for check in configuration["checks"]:
        if not check["silenced"]:
            warnings.append(check["id"])
    warnings.sort()
    verified = evidence["last_verification"]
    yield "log", evidence["log"]
    yield "time", evidence["created_at"]
    yield (
        "version",
        f"{versions['django_phi_oidc']} (Python {versions['python']}, Django {versions['django']})",
    )
    yield "controls", ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    yield "configuration", configuration["digest"]
    yield "warnings", ", ".join(warnings) or "none"
    yield "silenced", ", ".join(configuration["silenced"]) or "none"
    yield "components", str(len(evidence["sbom"]["components"]))
    if verified:
        found = f"{verified['tree_size']} events, {verified['findings']} findings"
        yield "last verification", f"{verified['occurred_at']}, {found}"
    else:
        yield "last verification", "none"


def _verify_checkpoint(evidence: Mapping[str, Any], keys: list[Ed25519PublicKey]) -> str:
    if evidence["checkpoint"] is None:
        return "none"
    try:
        checkpoint = verify_checkpoint(
            evidence["checkpoint"], keys, expected_origin=evidence["log"]
        )
    except CheckpointInvalid as error:
        text = (
            "The pack is signed, but its checkpoint is not valid with "
            "these keys. If the key was changed, name both."
        )
        raise CommandError(text) from error
    return f"{checkpoint.tree_size} events, its signature is valid"
