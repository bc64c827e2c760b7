"""Fast construction of an audit log of any size: valid events by COPY, and a sealed log by `generate_series`.

Requires django.setup() and an autocommit connection to the audit database.
"""

import hashlib
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

from django.db import connections

from django_phi_oidc._internal import randomness
from django_phi_oidc._internal.inserts import insert
from django_phi_oidc.audit.log.reader import create_mac_calculator
from django_phi_oidc.audit.log.signing_keys import find_signing_key, get_checkpoint_origin
from django_phi_oidc.audit.log.tree_storage import STORED_LEVELS, build_node_rows
from django_phi_oidc.audit.merkle.checkpoint import Checkpoint, sign_checkpoint
from django_phi_oidc.audit.merkle.compact import CompactRange
from django_phi_oidc.audit.models import AuditCheckpoint
from django_phi_oidc.crypto import keyring
from tests.benchmarks.audit.contenders import CLAIM, COLUMNS, PEOPLE, PROVIDER, PURPOSE, person
from tests.support.audit_tampering import EVENT, LEAF, sql, without_triggers

ACTION = "claim.revealed"
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
_COPY_ROWS = 5_000
"""Rows per write to COPY."""
_GROWTH = 1 << 16
"""Leaves appended at once."""
_FILLER_ID = "(lpad(to_hex({millis} + number / 100), 12, '0') || '70008000' || lpad(to_hex(number), 12, '0'))::uuid"


def build_genuine(count: int, *, begun: datetime = BEGUN, step_micros: int = 10) -> None:
    """Write that many events, step_micros apart, with MACs of the newest key. The trigger queues them for sealing.

    Their canonical form is built here at a fifth of the usual cost; sealing fails if it differs.
    """
    with (
        connections["phi_audit"].cursor() as cursor,
        cursor.copy(f"COPY {EVENT} ({', '.join(COLUMNS)}) FROM STDIN") as to,
    ):
        rows = _genuine_rows(count, begun, step_micros)
        while lines := "".join(itertools.islice(rows, _COPY_ROWS)):
            to.write(lines)


def build_sealed(count: int) -> None:
    """Write that many events with their leaves, nodes and one checkpoint.

    Only the tree is valid: the MACs and leaves do not match the events, so verification would fail. The sequencer
    does not check them again; it continues from the nodes and the last checkpoint.
    """
    with without_triggers(), _without_secondary_indexes(), ThreadPoolExecutor(2) as executor:
        futures = [executor.submit(partial(_write, statement)) for statement in (_filler(count), _filler_leaves(count))]
        tree = CompactRange()
        for start in range(0, count, _GROWTH):
            numbers = range(start + 1, min(start + _GROWTH, count) + 1)
            hashes = [hashlib.sha256(number.to_bytes(8, "big")).digest() for number in numbers]
            if nodes := build_node_rows(tree.extend(hashes, kept_levels=STORED_LEVELS)):
                insert(nodes, using="phi_audit")
        for future in futures:
            future.result()
    key = find_signing_key()
    assert key is not None
    note = sign_checkpoint(
        Checkpoint(origin=get_checkpoint_origin(1), tree_size=count, root_hash=tree.compute_root()), key
    )
    row = AuditCheckpoint(tree_size=count, root_hash=tree.compute_root(), epoch=1, sealed_at=BEGUN, note=note)
    insert([row], using="phi_audit")


def tamper() -> str:
    """Change one field of the event in the middle of the log, and return its id."""
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute(f"SELECT event_id FROM {LEAF} WHERE leaf_index = (SELECT max(leaf_index) / 2 FROM {LEAF})")
        (id_,) = cursor.fetchone()
    with without_triggers():
        assert sql(f"UPDATE {EVENT} SET purpose = 'HMARKT' WHERE id = %s", id_) == 1
    return str(id_)


def _genuine_rows(count: int, begun: datetime, step_micros: int) -> Iterator[str]:
    """Yield lines in the text format of COPY."""
    key, compute_mac = keyring.get_keys("audit_mac")[0].id, create_mac_calculator()
    parts = [_build_constant_parts(key, person(number)) for number in range(PEOPLE)]
    ids = randomness.lowest_uuid7(begun).int
    detail = f'{{"claim":"{CLAIM}"}}'
    for number, (head, middle, tail, columns) in zip(range(count), itertools.cycle(parts), strict=False):
        micros = number * step_micros
        at = begun + timedelta(microseconds=micros)
        time = at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        # The number replaces the random part: it is faster and also ascending.
        raw = f"{ids + (micros // 1000 << 80) + (micros % 1000 * 4096 // 1000 << 64) + number:032x}"
        id_ = f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}"
        mac = compute_mac(key, f"{head}{id_}{middle}{time}{tail}".encode())
        assert mac is not None
        yield f"{id_}\t1\t{key}\t{time}\t{columns}\t{detail}\t\\\\x{mac.hex()}\n"


def _build_constant_parts(key: str, values: dict[str, str]) -> tuple[str, str, str, str]:
    """Return the constant parts of a person's events: three parts of the canonical form, and the text columns."""
    head = (
        f'{{"action":"{ACTION}","actor":"{values["actor"]}","client_ip":"{values["client_ip"]}",'
        f'"detail":{{"claim":"{CLAIM}"}},"id":"'
    )
    middle = f'","mac_key":"{key}","occurred_at":"'
    tail = (
        f'","on_behalf_of":"","outcome":"success","provider":"{PROVIDER}","purpose":"{PURPOSE}","reason":"",'
        f'"request_id":"{values["request_id"]}","resource":"","session":"{values["session"]}","subject":"{values["subject"]}","v":1}}'
    )
    texts = (
        *(ACTION, "success", values["actor"], "", values["subject"], PROVIDER, values["session"]),
        *(values["client_ip"], PURPOSE, "", "", values["request_id"]),
    )
    return head, middle, tail, "\t".join(texts)


def _filler(count: int) -> str:
    values = {name: f"'{value}'" for name, value in person(0).items()}
    return f"""
        INSERT INTO {EVENT} ({", ".join(COLUMNS)})
        SELECT {_filler_id()}, 1, '0123abcd', now(), '{ACTION}', 'success', (number % {PEOPLE})::text, '',
            encode(sha256(int8send(number % {PEOPLE})), 'hex'), '{PROVIDER}', md5((number % {PEOPLE})::text),
            {values["client_ip"]}, '{PURPOSE}', '', '', {values["request_id"]}, '{{"claim":"{CLAIM}"}}', sha256('a MAC')
        FROM generate_series(1, {count:d}) AS number
    """


def _filler_leaves(count: int) -> str:
    return f"""
        INSERT INTO {LEAF} (leaf_index, event_id, leaf_hash)
        SELECT number - 1, {_filler_id()}, sha256(int8send(number)) FROM generate_series(1, {count:d}) AS number
    """


def _filler_id() -> str:
    return _FILLER_ID.format(millis=int((BEGUN - timedelta(days=1)).timestamp() * 1000))


def _write(statement: str) -> None:
    """Execute on a new connection of this thread."""
    connection = connections["phi_audit"]
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()


@contextmanager
def _without_secondary_indexes() -> Iterator[None]:
    """Drop the indexes for the block, and create them again afterwards."""
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s AND indexname NOT LIKE '%%_pkey'", [EVENT]
        )
        indexes = cursor.fetchall()
    for name, _ in indexes:
        sql(f"DROP INDEX {name}")
    try:
        yield
    finally:
        for _, definition in indexes:
            sql(definition)
