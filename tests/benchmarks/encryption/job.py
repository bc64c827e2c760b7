"""A process that encrypts: `python -m tests.benchmarks.encryption.job`, one command per line, results in JSON.

Times exclude the start of Python and Django.
"""

import base64
import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from statistics import median
from typing import Any

from cryptography.fernet import Fernet
from django.db import connection, transaction

from tests.benchmarks.worker_protocol import Command, peak_memory, run_commands

BIRTHDATE, ADDRESS = (
    '"1984-03-09"',
    '{"locality": "Stockholm", "postal_code": "111 21", "street_address": "Drottninggatan 1"}',
)
NIL = "00000000-0000-0000-0000-000000000000"
BATCH = 2_000
ROUNDS, CALLS = 40, 500
"""For the comparison with Fernet: rounds, and calls of each contender per round."""


def build(count: int) -> dict[str, Any]:
    """Create the table with that many texts encrypted with the older key."""
    model, keyring = _held(), import_module("django_phi_oidc.crypto.keyring")
    old = keyring.get_keys("encryption")[1]
    fernet, now = Fernet(base64.urlsafe_b64encode(old.material)), datetime.now(UTC)
    table = model._meta.db_table
    with connection.schema_editor() as editor:
        editor.create_model(model)
    with connection.cursor() as cursor:
        columns = "person, session, name, value, purpose, obtained_at, expires_at"
        with cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as to:
            for number in range(count):
                person, name = number // 2, ("birthdate", "address")[number % 2]
                value = (BIRTHDATE, ADDRESS)[number % 2]
                envelope = json.dumps([table, "value", str(person), NIL, name, value], separators=(",", ":"))
                token = fernet.encrypt_at_time(envelope.encode(), 0).decode()
                to.write_row((person, NIL, name, f"{old.id}:{token}", "TREAT", now, now))
        # Otherwise the server would do this later, during the measurement.
        cursor.execute(f"VACUUM ANALYZE {table}")
        cursor.execute("CHECKPOINT")
    return {"texts": count}


def phi_oidc() -> dict[str, Any]:
    """Encrypt all texts again with `reencrypt`."""
    rotation = import_module("django_phi_oidc.contrib.key_rotation.encryption_keys")
    keys = import_module("django_phi_oidc.crypto.keyring").get_keys("encryption")
    column = rotation.EncryptedColumn("default", _held()._meta.get_field("value"))
    counting = time.perf_counter()
    assert list(rotation.count_key_usage(column).counts_by_key_id) == [keys[1].id]
    counted = time.perf_counter() - counting
    took = _measure(lambda: rotation.reencrypt(column, keys=keys, batch_size=BATCH).reencrypted)
    assert rotation.count_key_usage(column).counts_by_key_id == {keys[0].id: took["texts"]}
    return {**took, "counted": counted, "peak": peak_memory()}


def naive() -> dict[str, Any]:
    """Encrypt them again with model instances: decrypt, assign and save, each in a transaction."""
    model = _held()
    field: Any = model._meta.get_field("value")

    def rotate() -> int:
        done = 0
        for row in model.objects.iterator(BATCH):
            row.value = field.decrypt(row)
            row.save(update_fields=["value"])
            done += 1
        return done

    return _measure(rotate)


def floor() -> dict[str, Any]:
    """Replace each text without encryption, in batches of the same size: `UPDATE … FROM unnest`."""
    table = _held()._meta.db_table

    def replace() -> int:
        done, last = 0, 0
        with connection.cursor() as cursor:
            while True:
                cursor.execute(f"SELECT id, value FROM {table} WHERE id > %s ORDER BY id LIMIT %s", [last, BATCH])
                if not (rows := cursor.fetchall()):
                    return done
                ids, texts = [list(column) for column in zip(*rows, strict=True)]
                with transaction.atomic():
                    cursor.execute(
                        f"UPDATE {table} AS t SET value = n.value FROM unnest(%s::bigint[], %s::text[]) AS n(id, value)"
                        " WHERE t.id = n.id",
                        [ids, [f"0{text[1:]}" for text in texts]],
                    )
                    done += cursor.rowcount
                last = ids[-1]

    return _measure(replace)


def ratio() -> dict[str, Any]:
    """Compare `encrypt` and `decrypt` with Fernet for the same bytes, in turns; seconds per call."""
    keyring = import_module("django_phi_oidc.crypto.keyring")
    fernet = Fernet(base64.urlsafe_b64encode(keyring.get_keys("encryption")[0].material))
    context, results = ["rows_held", "value", "4711", NIL, "birthdate"], {}
    for name, value in (("birthdate", BIRTHDATE), ("token", "x" * 2_000)):
        text = keyring.encrypt(value, context=context)
        token = text.partition(":")[2].encode()
        envelope = fernet.decrypt(token)
        results[name] = {
            "bytes": len(envelope),
            **_compare(
                seal=lambda value=value: keyring.encrypt(value, context=context),
                encrypt=lambda envelope=envelope: fernet.encrypt_at_time(envelope, 0),
                open_sealed=lambda text=text: keyring.decrypt(text, context=context),
                decrypt=lambda token=token: fernet.decrypt(token),
            ),
        }
    return results


COMMANDS: Mapping[str, Command] = {command.__name__: command for command in (build, phi_oidc, naive, floor, ratio)}


def _held() -> Any:
    return import_module("tests.benchmarks.encryption.rows.models").Held


def _measure(rotate: Callable[[], int]) -> dict[str, Any]:
    connection.ensure_connection()
    wall, cpu = time.perf_counter(), time.process_time()
    texts = rotate()
    return {"texts": texts, "wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def _compare(**contenders: Callable[[], Any]) -> dict[str, float]:
    """Return the median seconds per call of each contender; all have a turn in each round."""
    took: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, call in contenders.items():
            took[name].append(_calls(call, range(CALLS)))
    return {name: median(times) for name, times in took.items()}


def _calls(call: Callable[[], Any], calls: Sequence[int]) -> float:
    began = time.perf_counter()
    for _ in calls:
        call()
    return (time.perf_counter() - began) / len(calls)


if __name__ == "__main__":
    run_commands(COMMANDS)
