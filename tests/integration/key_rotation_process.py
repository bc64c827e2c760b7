"""A process for the rows of a test: `python -m tests.integration.key_rotation_process write|reseal`.

It prints "ready" and waits for a line. `write` increments the encrypted number of random rows until its standard input
ends, and prints how often it did so for which row. `reseal` prints after each batch how many texts it has processed.
"""

import json
import random
import select
import sys
import time
from collections import Counter
from importlib import import_module
from typing import Any

import django

HOT = 100
"""Rows that get half of all writes, so that two writers and the rotation meet there."""
BATCH_SIZE = 500


def main() -> None:
    """Run the command of the argument."""
    django.setup()
    command = {"write": _write, "reseal": _reencrypt}[sys.argv[1]]
    model: Any = import_module("django_phi_oidc.sessions.models").PendingRevocation
    keys = sorted(model.objects.values_list("pk", flat=True))
    print("ready", flush=True)
    sys.stdin.readline()
    command(model, keys)


def _write(model: Any, keys: list[Any]) -> None:
    transaction, field = import_module("django.db.transaction"), model._meta.get_field("token")
    counts: Counter[str] = Counter()
    while not select.select([sys.stdin], [], [], 0.001)[0]:
        pk = random.choice(keys[:: len(keys) // HOT] if random.random() < 0.5 else keys)
        with transaction.atomic():
            row = model.objects.select_for_update().get(pk=pk)
            row.token = str(int(field.decrypt(row)) + 1)
            row.save(update_fields=["token"])
        counts[str(pk)] += 1
    print(json.dumps(counts), flush=True)


def _reencrypt(model: Any, keys: list[Any]) -> None:
    encryption_keys = import_module("django_phi_oidc.contrib.key_rotation.encryption_keys")
    ring = import_module("django_phi_oidc.crypto.keyring").get_keys("encryption")
    column = encryption_keys.EncryptedColumn("default", model._meta.get_field("token"))

    def report_progress(processed: int) -> None:
        print(processed, flush=True)
        # A test that kills this process at a number hits it during one of the next batches.
        time.sleep(random.random() / 100)

    encryption_keys.reencrypt(column, keys=ring, batch_size=BATCH_SIZE, report_progress=report_progress)


if __name__ == "__main__":
    main()
