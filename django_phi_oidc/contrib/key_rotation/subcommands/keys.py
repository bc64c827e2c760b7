"""Generate keys, show what each key is needed for, rotate encryption keys and retire subject
keys.
"""

import os
import re
import tempfile
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from django.db import connections

from .... import conf
from ...._internal.command_arguments import (
    Options,
    add_command,
    add_dry_run,
    build_argument_error,
    create_choice_parser,
)
from ...._internal.command_output import Output, ProgressLine
from ....audit.log.signing_keys import generate_signing_key
from ....config.client_keys import ClientKey
from ....config.providers import ProviderDeclaration
from ....crypto import keyring
from ....crypto.conf import PAIRWISE_KEY_RING, get_key_source
from ....project_settings import KEY_RINGS, KEY_VARIABLES
from ...common.retention_key_folder import MARKER_NAME, find_key_folder, prepare_folder
from ..encryption_keys import (
    EncryptedColumn,
    KeyUsage,
    ReencryptionResult,
    count_key_usage,
    list_encrypted_columns,
    reencrypt,
)
from ..subject_keys import (
    SubjectKeyUsage,
    find_deletable_digests,
    get_subject_key_usage,
    retire_subject_key,
)

READING_COMMANDS = ("keys generate", "keys retire", "keys rotate", "keys status")
COMMANDS_WITHOUT_CHECKS = ("keys generate",)

ColumnUsage = Sequence[tuple[EncryptedColumn, KeyUsage]]


def add_arguments(parser: ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="keys_command", required=True, metavar="SUBCOMMAND")
    add_command(
        commands,
        "generate",
        _generate,
        "Write the missing key files; print keys for the other key rings.",
    )
    status = add_command(
        commands, "status", _show_status, "Show what each key is needed for, and the client keys."
    )
    rotate = add_command(
        commands, "rotate", _rotate, "Encrypt all texts again with the newest encryption key."
    )
    parse_alias = create_choice_parser("database", list(connections))
    for command in (status, rotate):
        text = "Use this database, not that of the router."
        command.add_argument("--database", type=parse_alias, metavar="ALIAS", help=text)
    retire = add_command(
        commands, "retire", _retire, "Delete the digests of a subject key that was removed."
    )
    retire.add_argument("key_id", metavar="KEYID", help="The id that `keys status` shows.")
    add_dry_run(retire)


def generate_key_files() -> list[Path]:
    """Write a new key to each key file that the settings name and that does not exist; return the
    written files.

    A file appears with its whole content and mode 0600, in a directory created with mode 0700, and
    is never overwritten: of several concurrent runs one writes, and all read what it wrote. In the
    folder of the retention keys, this file is its marker.
    """
    generators = dict.fromkeys((*KEY_RINGS, PAIRWISE_KEY_RING), keyring.generate_key)
    generators["audit_signing"] = generate_signing_key
    written = []
    for ring, generate in generators.items():
        path = get_key_source(ring)
        if not isinstance(path, Path) or os.path.lexists(path):
            continue
        if _create(path, generate()):
            written.append(path)
    folder = find_key_folder()
    if folder is not None and prepare_folder(folder):
        written.append(folder / MARKER_NAME)
    return written


def _create(path: Path, text: str) -> bool:
    """Return False if another process created the file first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        # Unlike a rename, a link fails if the name exists.
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(draft)
    return True


def _generate(options: Options, output: Output) -> None:
    written = generate_key_files()
    for ring in (*KEY_RINGS, PAIRWISE_KEY_RING, "audit_signing"):
        source = get_key_source(ring)
        if isinstance(source, Path):
            if source in written:
                text = f"a new key was written to {source}"
            else:
                text = f"{source} exists and was not changed"
            _report_file(output, ring, source, text, is_new=source in written)
        elif ring in KEY_VARIABLES:
            name = KEY_VARIABLES[ring]
            key = keyring.generate_key()
            output.write_row({"ring": ring, "variable": name, "key": key}, f"{name}={key}")
            output.note(f"KEYS['{ring}']: a new key was printed, but not stored.")
    folder = find_key_folder()
    if folder is not None:
        is_new = folder / MARKER_NAME in written
        if is_new:
            text = f"the folder {folder} was prepared"
        else:
            text = f"{folder} was prepared before and was not changed"

        _report_file(output, "retention", folder, text, is_new=is_new)


def _report_file(output: Output, ring: str, path: Path, text: str, *, is_new: bool) -> None:
    if output.as_json:
        output.write_row({"ring": ring, "file": str(path), "is_new": is_new}, "")
    else:
        output.note(f"KEYS['{ring}']: {text}.")


def _show_status(options: Options, output: Output) -> None:
    subject_keys = get_subject_key_usage([key.id for key in keyring.get_keys("subject")])
    ring = PAIRWISE_KEY_RING
    status: dict[str, Any] = {
        "encryption_keys": (keys := _get_encryption_key_usage(options["database"] or "")),
        "subject_keys": asdict(subject_keys),
        "client_keys": _describe_client_keys(),
        "pairwise_key": [key.id for key in keyring.get_keys(ring)] if get_key_source(ring) else [],
    }
    lines = [
        *_format_encryption_keys(keys),
        f"KEYS['subject']: {subject_keys.persons} persons, "
        f"{subject_keys.unknown_persons} of them known by no key",
        *map(_format_subject_key, subject_keys.keys),
        *map(_format_client_key, status["client_keys"]),
        f"KEYS['pairwise']: {', '.join(status['pairwise_key']) or 'not configured'}",
    ]
    output.write_row(status, lambda _: "\n".join(lines))
    unknown = []
    for key in keys["keys"]:
        if key["position"] is None:
            unknown.append(key["id"])
    if unknown:
        faults = [f"Texts are encrypted with keys that are not configured: {', '.join(unknown)}."]
    else:
        faults = []

    if count := keys["nameless"]["texts"]:
        faults.append(f"{count} texts name no key.")
    if faults:
        raise CommandError(" ".join(faults))


def _get_encryption_key_usage(using: str) -> dict[str, Any]:
    """Return the texts of each key: first the configured KEYS['encryption'] in order, then the
    unknown keys.
    """
    column_usage = _count_columns(using)
    configured = [key.id for key in keyring.get_keys("encryption")]
    used: set[str] = set()
    for _, usage in column_usage:
        used.update(usage.counts_by_key_id)
    unknown = sorted(used.difference(configured))
    keys = []
    for key_id in [*configured, *unknown]:
        keys.append(
            {
                "id": key_id,
                "position": configured.index(key_id) + 1 if key_id in configured else None,
                **_summarize_texts(
                    column_usage,
                    [usage.counts_by_key_id.get(key_id, 0) for _, usage in column_usage],
                ),
            }
        )
    return {
        "keys": keys,
        "retention": _summarize_texts(
            column_usage, [usage.retention_count for _, usage in column_usage]
        ),
        "nameless": _summarize_texts(
            column_usage, [usage.unrecognized_count for _, usage in column_usage]
        ),
    }


def _count_columns(using: str) -> ColumnUsage:
    columns = []
    for column in list_encrypted_columns(using):
        columns.append((column, count_key_usage(column)))
    return columns


def _summarize_texts(column_usage: ColumnUsage, counts: Sequence[int]) -> dict[str, Any]:
    pairs = zip((column for column, _ in column_usage), counts, strict=True)
    columns = []
    for column, count in pairs:
        if count:
            columns.append({**_describe_column(column), "texts": count})
    return {"texts": sum(counts), "columns": columns}


def _describe_column(column: EncryptedColumn) -> dict[str, str]:
    return {"database": column.using, "table": column.table, "column": column.field.column}


def _format_encryption_keys(usage: Mapping[str, Any]) -> list[str]:
    """Return a line for each key, followed by one for each column that needs it."""
    groups = []
    for key in usage["keys"]:
        groups.append((key["position"] or "-", key["id"], key, _describe_encryption_key(key)))
    groups.append(
        ("-", "retention keys", usage["retention"], "destroyed with the claims that use them")
    )
    groups.append(("-", "no key", usage["nameless"], "not encrypted by this package"))
    lines = [
        f"KEYS['encryption']: {sum(group['texts'] for _, _, group, _ in groups)} encrypted texts"
    ]
    for position, name, group, description in groups:
        if group["texts"] or position != "-":
            lines.append(f"{position}  {name}  {group['texts']} texts: {description}")
        for column in group["columns"]:
            lines.append(f"     {column['table']}.{column['column']}  {column['texts']}")
    return lines


def _describe_encryption_key(key: Mapping[str, Any]) -> str:
    if key["position"] is None:
        return "not configured: add it again"
    if key["position"] == 1:
        return "encrypts new texts"

    if key["texts"]:
        return "needed until `keys rotate` has run"
    return "may be removed"


def _format_subject_key(key: SubjectKeyUsage) -> str:
    if key.removable:
        if key.position:
            use = "may be removed"
        else:
            use = "not configured, may be retired"
    elif not key.position:
        use = f"not configured, but needed for {key.dependent_persons} persons: add it again"
    elif key.dependent_persons:
        use = f"needed for {key.dependent_persons} persons"
    else:
        use = "needed, the only key"
    counts = f"{key.digests} digests, missing for {key.persons_without_digest} persons"
    return f"{key.position or '-'}  {key.id}  {counts}: {use}"


def _describe_client_keys() -> list[dict[str, Any]]:
    client_keys = []
    for provider in conf.providers().values():
        for key in provider.client_keys:
            client_keys.append(_describe_client_key(key, provider))
    return client_keys


def _describe_client_key(key: ClientKey, provider: ProviderDeclaration) -> dict[str, Any]:
    """Of the keys to sign the first one signs; the others are only published for a rotation."""
    alg = None
    if key.use == "sig":
        alg = provider.get_assertion_alg(key)

    signs = key.use == "sig" and key == provider.list_keys("sig")[0]
    return {"provider": provider.name, "kid": key.kid, "use": key.use, "alg": alg, "signs": signs}


def _format_client_key(key: Mapping[str, Any]) -> str:
    if key["signs"]:
        use = "signs"
    elif key["use"] == "enc":
        use = "decrypts"
    else:
        use = "published, does not sign"

    if key["alg"]:
        alg = f" ({key['alg']})"
    else:
        alg = ""

    return f"client key of {key['provider']}: {key['kid']}{alg}: {use}"


def _rotate(options: Options, output: Output) -> None:
    """Encrypt again each text that is not under the newest key; report each row that cannot be
    decrypted.
    """
    ring = keyring.get_keys("encryption")
    column_usage = _count_columns(options["database"] or "")
    total = sum(usage.count_remaining(ring[0].id) for _, usage in column_usage)
    before = 0
    results: list[ReencryptionResult] = []
    progress = ProgressLine(output, "texts", total)

    def report_undecryptable(column: EncryptedColumn, pk: str) -> None:
        progress.end()
        text = f"{column} of {pk}: cannot be decrypted and was not changed"
        row = {**_describe_column(column), "pk": pk}
        output.write_row({"unopenable": row}, lambda _: text)

    for column, usage in column_usage:
        report = partial(report_undecryptable, column)
        report_progress = lambda done, before=before: progress(before + done)  # noqa: E731 -- binds `before`
        results.append(
            reencrypt(
                column, keys=ring, report_progress=report_progress, report_undecryptable=report
            )
        )
        before += usage.count_remaining(ring[0].id)
    progress.end()
    done = sum(result.reencrypted for result in results)
    columns = []
    for (column, _), result in zip(column_usage, results, strict=True):
        columns.append(
            {
                **_describe_column(column),
                "done": result.reencrypted,
                "unopenable": result.undecryptable,
                "busy": result.skipped,
            }
        )
    summary = {"key": ring[0].id, "done": done, "columns": columns}
    output.write_row(summary, "{done} texts were encrypted again with key {key}.".format_map)
    faults = []
    if count := sum(result.undecryptable for result in results):
        faults.append(f"{count} texts cannot be decrypted.")
    if count := sum(result.skipped for result in results):
        faults.append(f"{count} texts were locked all the time: run it again.")
    if faults:
        raise CommandError(" ".join(faults))


def _retire(options: Options, output: Output) -> None:
    if not re.fullmatch(r"[0-9a-f]{8}", options["key_id"]):
        raise build_argument_error(
            "A KEYID is eight hexadecimal digits, as shown by `keys status`."
        )
    key_id = options["key_id"]
    configured = [key.id for key in keyring.get_keys("subject")]
    if options["dry_run"]:
        count = find_deletable_digests(key_id, configured_key_ids=configured).count()
        output.preview(
            {"key": key_id, "digests": count}, f"{count} digests of key {key_id} would be deleted."
        )
        return
    with ProgressLine(output, "digests deleted") as progress:
        if progress.is_shown:
            total = find_deletable_digests(key_id, configured_key_ids=configured).count()
        else:
            total = 0
        deleted = retire_subject_key(
            key_id, configured_key_ids=configured, progress=lambda done: progress(done, total)
        )
    output.confirm(
        {"key": key_id, "digests": deleted}, f"{deleted} digests of key {key_id} were deleted."
    )
