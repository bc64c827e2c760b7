"""Tell how many sealed texts name which encryption key, and seal them again under the newest one."""

import json
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from typing import Any

from django.core.management.base import CommandError, OutputWrapper

from ...crypto import keyring
from ...key_rotation.encryption_keys import (
    EncryptedColumn,
    KeyUsage,
    ReencryptionResult,
    count_key_usage,
    list_encrypted_columns,
    reencrypt,
)
from .audit import ProgressLine as Progress

ColumnUsage = Sequence[tuple[EncryptedColumn, KeyUsage]]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `phi_oidc keys rotate`."""
    add_database_argument(parser)
    parser.add_argument("--json", action="store_true", help="objects a line, the last one the result")


def add_database_argument(parser: ArgumentParser) -> None:
    """Declare `--database`."""
    parser.add_argument(
        "--database", default="", metavar="ALIAS", help="look there, and not where the router says that models are"
    )


def get_encryption_key_usage(*, using: str) -> dict[str, Any]:
    """Return the texts by key: those of KEYS['encryption'] in their order, and those that only texts name.

    Raises: KeyMissing.
    """
    counted, configured = _count_columns(using), [key.id for key in keyring.get_keys("encryption")]
    foreign = sorted({id_ for _, census in counted for id_ in census.counts_by_key_id} - set(configured))
    keys = [
        {
            "id": id_,
            "position": configured.index(id_) + 1 if id_ in configured else None,
            **_summarize_texts(counted, [census.counts_by_key_id.get(id_, 0) for _, census in counted]),
        }
        for id_ in [*configured, *foreign]
    ]
    return {
        "keys": keys,
        "retention": _summarize_texts(counted, [census.retention_count for _, census in counted]),
        "nameless": _summarize_texts(counted, [census.unrecognized_count for _, census in counted]),
    }


def write_key_usage(usage: Mapping[str, Any], stdout: OutputWrapper) -> None:
    """Print a line for each key, and under it one for each column that it is needed for."""
    kinds = [(key["position"] or "-", key["id"], key, _describe_key(key)) for key in usage["keys"]]
    kinds.append(("-", "retention keys", usage["retention"], "these keys end by themselves"))
    kinds.append(("-", "no key", usage["nameless"], "nothing that was sealed here"))
    stdout.write(f"KEYS['encryption']: {sum(told['texts'] for _, _, told, _ in kinds)} sealed texts")
    for position, name, told, said in kinds:
        if told["texts"] or position != "-":
            stdout.write(f"{position}  {name}  {told['texts']} texts: {said}")
        for each in told["columns"]:
            stdout.write(f"     {each['table']}.{each['column']}  {each['texts']}")


def list_key_faults(usage: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each thing that is wrong."""
    foreign = [key["id"] for key in usage["keys"] if key["position"] is None]
    found = [f"Texts are sealed under keys that are not configured: {', '.join(foreign)}."] if foreign else []
    if nameless := usage["nameless"]["texts"]:
        found.append(f"{nameless} texts name no key.")
    return found


def rotate(options: Mapping[str, Any], stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    """Seal again all that is not under the newest key; name each row whose text can't be opened.

    Raises: CommandError at the end, when texts were left; KeyMissing.
    """
    ring, as_json = keyring.get_keys("encryption"), options["json"]
    counted = _count_columns(options["database"])
    total, before, results = sum(census.count_remaining(ring[0].id) for _, census in counted), 0, []
    progress = Progress(stderr, "texts")

    def name(column: EncryptedColumn, pk: str) -> None:
        progress.end()
        told = {"unopenable": {**_describe_column(column), "pk": pk}}
        stdout.write(json.dumps(told) if as_json else f"{column} of {pk}: can't be opened, and was left as it is")

    for column, census in counted:
        results.append(
            reencrypt(
                column,
                keys=ring,
                report_progress=lambda looked_at, before=before: progress(before + looked_at, total),  # type: ignore[misc]
                report_undecryptable=lambda pk, column=column: name(column, pk),  # type: ignore[misc]
            )
        )
        before += census.count_remaining(ring[0].id)
    progress.end()
    done, unopenable, busy = (sum(getattr(each, what) for each in results) for what in ("done", "unopenable", "busy"))
    if as_json:
        columns = [_describe_result(column, result) for (column, _), result in zip(counted, results, strict=True)]
        stdout.write(json.dumps({"key": ring[0].id, "done": done, "columns": columns}))
    else:
        stdout.write(f"{done} texts were sealed again, under key {ring[0].id}.")
    left = [f"{unopenable} texts can't be opened."] if unopenable else []
    if busy:
        left.append(f"{busy} texts were held by others all the time: run it again.")
    if left:
        raise CommandError(" ".join(left))


def _count_columns(using: str) -> ColumnUsage:
    return [(column, count_key_usage(column)) for column in list_encrypted_columns(using)]


def _summarize_texts(column_usage: ColumnUsage, text_counts: Sequence[int]) -> dict[str, Any]:
    found = [(column, many) for (column, _), many in zip(column_usage, text_counts, strict=True) if many]
    return {
        "texts": sum(text_counts),
        "columns": [{**_describe_column(column), "texts": many} for column, many in found],
    }


def _describe_column(column: EncryptedColumn) -> dict[str, str]:
    return {"database": column.using, "table": column.table, "column": column.field.column}


def _describe_result(column: EncryptedColumn, result: ReencryptionResult) -> dict[str, Any]:
    return {
        **_describe_column(column),
        "done": result.reencrypted,
        "unopenable": result.undecryptable,
        "busy": result.skipped,
    }


def _describe_key(key: Mapping[str, Any]) -> str:
    if key["position"] is None:
        return "not configured, put it back"
    if key["position"] == 1:
        return "seals what is new"
    return "needed until `keys rotate` has run" if key["texts"] else "may be removed"
