"""A process at the rows of a test: `python -m tests.integration.key_rotation_process write|reseal`. Says "ready", waits for a line.

`write` adds one to the number that is sealed in a row, again and again, until its standard input ends, and tells how
often it did so to which row. `reseal` tells after each batch how many texts it has looked at.
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
BATCH = 500


def main() -> None:
    """Run the command of the argument."""
    django.setup()
    act = {"write": _write, "reseal": _reseal}[sys.argv[1]]
    model: Any = import_module("django_phi_oidc.sessions.models").PendingRevocation
    keys = sorted(model.objects.values_list("pk", flat=True))
    print("ready", flush=True)
    sys.stdin.readline()
    act(model, keys)


def _write(model: Any, keys: list[Any]) -> None:
    transaction, field = import_module("django.db.transaction"), model._meta.get_field("token")
    wrote: Counter[str] = Counter()
    while not select.select([sys.stdin], [], [], 0.001)[0]:
        pk = random.choice(keys[:: len(keys) // HOT] if random.random() < 0.5 else keys)
        with transaction.atomic():
            row = model.objects.select_for_update().get(pk=pk)
            row.token = str(int(field.decrypt(row)) + 1)
            row.save(update_fields=["token"])
        wrote[str(pk)] += 1
    print(json.dumps(wrote), flush=True)


def _reseal(model: Any, keys: list[Any]) -> None:
    resealing, keyring = (
        import_module("django_phi_oidc.key_rotation.encryption_keys"),
        import_module("django_phi_oidc.crypto.keyring"),
    )
    column = resealing.SealedColumn("default", model._meta.get_field("token"))

    def tell(looked_at: int) -> None:
        print(looked_at, flush=True)
        # A test that kills this process at a number hits it during one of the next batches.
        time.sleep(random.random() / 100)

    resealing.reseal(column, ring=keyring.keys("ENCRYPTION_KEYS"), batch=BATCH, progress=tell)


if __name__ == "__main__":
    main()
