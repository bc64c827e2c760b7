"""Partitions of the events: conversion while others write, detaching, attaching again, and what protects them."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc._internal import clock
from tests.support.manual_blocks import ROOT, block, commands
from tests.support.temporary_databases import scratch_databases

pytestmark = pytest.mark.postgresql
PRELUDE = """
import io, json, os, sys, threading, time, uuid
from datetime import timedelta
from pathlib import Path
import django
django.setup()
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connections, transaction
from django.test import override_settings
from django_phi_oidc._internal import clock
from django_phi_oidc.audit import partitions, tasks, triggers
from django_phi_oidc.audit.checks import databases
from django_phi_oidc.audit.db_privileges import grant_statements, list_excess_privileges
from django_phi_oidc.audit.events import Action, NewEvent, Origin
from django_phi_oidc.audit.log.verification_schedule import verify_next_part
from django_phi_oidc.audit.models import AuditEvent, AuditLeaf, AuditUnsealed
from django_phi_oidc.audit.log import tree_storage
from django_phi_oidc.audit.recorder import record_many
from django_phi_oidc.audit.search import find_oldest_unarchived_time
from django_phi_oidc.audit.log.archive import verify_archive
from django_phi_oidc.audit.log.archive_files import register_archive
from django_phi_oidc.audit.log.copies import ARCHIVE_FORMAT
from django_phi_oidc.audit.merkle.checkpoint import Checkpoint, parse_checkpoint, sign_checkpoint
from django_phi_oidc.audit.merkle.compact import CompactRange
from django_phi_oidc.audit.merkle.rfc6962 import hash_leaf
from tests.support.audit_log import KEY, OTHER_KEY, PEM, events, sealed, seal_now
from tests.support.phi_oidc_settings import override_phi_oidc

NOW = clock.now()
FOLDER = Path(sys.argv[1])
override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_signing": PEM})).enable()
for alias in ("default", "phi_audit"):
    call_command("migrate", database=alias, verbosity=0)

def audit(*arguments):
    out = io.StringIO()
    try:
        call_command("phi_oidc", "audit", *map(str, arguments), stdout=out)
    except CommandError as error:
        return out.getvalue() + f"error: {error}"
    return out.getvalue()

def sql(statement, *values):
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else None

def refused(statement):
    try:
        with transaction.atomic(using="phi_audit"):
            sql(statement)
    except DatabaseError as error:
        return str(error).splitlines()[0]
    return ""

def names():
    return [partition.name.removeprefix("phi_oidc_audit_auditevent_") for partition in partitions.list_partitions()]

def list_messages():
    return [message.id[-4:] for message in databases.check_audit_partitions(None, databases=["phi_audit"])]

def get_month(offset):
    # The start of the month that is offset months after the current one.
    return partitions._get_month(NOW, offset)

def month(offset):
    return f"{get_month(offset):%Y%m}"

def create_past_partitions(*offsets):
    for table in ("phi_oidc_audit_auditevent", "phi_oidc_audit_auditleaf"):
        for offset in offsets:
            sql("SELECT phi_oidc_audit_create_partition(%s, %s::timestamp)", table, f"{get_month(offset):%Y-%m-%d}")

# In the current month on its first day, too.
LATELY = max(NOW - timedelta(hours=2), get_month(0))
"""


ENDS = ("session_end", "subject_end")
PAGE = "archive-the-audit-log"


def documented_output(name: str) -> list[str]:
    """Return the lines that the manual shows below the command, without numbers."""
    return [without_numbers(line) for line in block(PAGE, name).splitlines()[1:]]


def without_numbers(line: str) -> str:
    return re.sub(r"SHA-256 \w+|SHA-256 …|\d+", "N", line.rpartition("/")[2])


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    with scratch_databases(tmp_path) as environment:
        yield environment


def wait_for_the_next_month() -> None:
    """Wait if the month ends in a minute: the database creates the partitions of the month in which it runs."""
    now = clock.now()
    in_a_minute = now + timedelta(minutes=1)
    if in_a_minute.month != now.month:
        time.sleep(60)


def run(environment: dict[str, str], script: str, folder: Path) -> Any:
    """Return the JSON that the script prints last in a new process with empty databases."""
    wait_for_the_next_month()
    command = [sys.executable, "-c", PRELUDE + script, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


CONVERT = """
ids = sealed(300, at=LATELY)
proof = audit("prove", ids[7])
Path(FOLDER / "proof.json").write_text(proof)
constraints = lambda: connections["phi_audit"].introspection.get_constraints(
    connections["phi_audit"].cursor(), "phi_oidc_audit_auditevent")
before = {name: c["columns"] for name, c in constraints().items() if c["index"] or c["primary_key"]}
stop, written, errors = threading.Event(), [], []

def write():
    number = 0
    while not stop.is_set():
        try:
            written.extend(events(1, at=clock.now()))
        except Exception as error:
            errors.append(repr(error))
        number += 1
    connections.close_all()

threads = [threading.Thread(target=write) for _ in range(3)]
for thread in threads:
    thread.start()
output = audit("partition")
for _ in range(50):
    if len(written) > 30: break
    stop.wait(0.1)
stop.set()
for thread in threads:
    thread.join()
after = {name: c["columns"] for name, c in constraints().items() if c["index"] or c["primary_key"]}
seal_now(at=clock.now())
is_sealed = not AuditUnsealed.objects.exists()
again = audit("partition")
key = audit("checkpoint", "--public-key").strip()
result = {
    "output": output, "again": again, "names": names(), "months": [month(i) for i in range(5)],
    "indexes": before == after, "errors": errors,
    "lost": len(set(written) - set(AuditEvent.objects.values_list("id", flat=True))),
    "deviations": triggers.list_deviations(), "problems": partitions.list_problems(now=NOW),
    "messages": list_messages(),
    "verify": audit("verify", "--full"), "proof": audit("check-proof", FOLDER / "proof.json", "--public-key", key),
    "seal": is_sealed,
}
first = f"phi_oidc_audit_auditevent_until_{month(2)}"
result["refused"] = [refused(statement) for table in ("phi_oidc_audit_auditevent", first, partitions.DEFAULT_PARTITION)
    for statement in (f"UPDATE {table} SET actor = 'x'", f"DELETE FROM {table}", f"TRUNCATE {table}")]
result["checks"] = [refused("SET LOCAL session_replication_role = replica; "
    f"UPDATE {first} SET actor = 'x'")]
print(json.dumps(result))
"""


def test_conversion_while_others_write_loses_nothing_and_keeps_proofs(
    environment: dict[str, str], tmp_path: Path
) -> None:
    result = run(environment, CONVERT, tmp_path)
    months = result["months"]
    assert result["names"] == [months[2], months[3], "rest", f"until_{months[2]}"]
    assert commands(PAGE, "partition")[0][3:] == ["audit", "partition"]
    assert [without_numbers(line) for line in result["output"].splitlines()] == documented_output("partition")
    assert (result["errors"], result["lost"], result["seal"], result["indexes"]) == ([], 0, True, True)
    assert "has partitions already" in result["again"]
    assert result["deviations"] == []
    assert (result["problems"], result["messages"]) == ([], [])
    assert "no faults" in result["verify"]
    assert "Holds" in result["proof"]
    # A table without rows has no row to refuse.
    kept = [text for number, text in enumerate(result["refused"]) if number not in (6, 7)]
    assert all("never changed or deleted" in text for text in [*kept, *result["checks"]]), result["refused"]


PARTITIONED = """
partitions.partition_log(now=get_month(-4))
create_past_partitions(-2, -1)
past = get_month(-2) + timedelta(days=3)
older = sealed(40, at=past)
old = sealed(40, at=get_month(-1) + timedelta(days=3))
late = events(2, at=past + timedelta(days=1))
seal_now(at=get_month(0))
young = sealed(40, at=LATELY)
table = f"phi_oidc_audit_auditevent_{month(-2)}"
"""
DETACH = (
    PARTITIONED
    + """
result = {"months": [month(i) for i in range(-2, 4)], "names": names()}
result["verified"] = audit("verify")
# The first archive ends before the late events were sealed.
before = (get_month(0) - timedelta(hours=1)).isoformat()
result["first"] = audit("archive", FOLDER / "1.jsonl", "--before", before, "--detach")
result["gap"] = audit("archive", FOLDER / "x.jsonl", "--first", 81, "--detach")
victim = events(1, at=past + timedelta(days=2))
result["unsealed"] = audit("archive", FOLDER / "2.jsonl", "--detach")
seal_now(at=clock.now())
result["second"] = audit("archive", FOLDER / "3.jsonl.gz", "--detach")
seal_now(at=clock.now())
result["detail"] = json.loads(AuditEvent.objects.filter(action="audit.archived").last().detail)
result["after"] = names()
result["left"] = AuditEvent.objects.filter(id__in=[*older, *old, *late, *victim]).count()
result["default"] = audit("verify")
result["full"] = audit("verify", "--full").splitlines()[-2:]
result["sample"] = audit("verify", "--sample", "1")
result["schedule"] = verify_next_part(KEY, now=clock.now()).fault_count
files = [FOLDER / name for name in ("1.jsonl", "2.jsonl", "3.jsonl.gz")]
result["archives"] = audit("verify", *[argument for file in files for argument in ("--archive", file)])
result["missing"] = audit("prove", older[3])
result["proof"] = audit("prove", older[3], "--archive", files[0])
result["other_file"] = audit("prove", older[3], "--archive", files[1])
Path(FOLDER / "proof.json").write_text(result["proof"])
key = audit("checkpoint", "--public-key").strip()
result["holds"] = audit("check-proof", FOLDER / "proof.json", "--public-key", key)
late_again = events(1, at=past)
result["stored"] = AuditEvent.objects.filter(id__in=late_again).count()
result["problems"], result["messages"] = partitions.list_problems(now=NOW), list_messages()
sql("DROP TABLE " + f"phi_oidc_audit_auditevent_{month(-1)}")
result["deviations"] = triggers.list_deviations()
print(json.dumps(result))
"""
)


def test_archived_partitions_are_detached_and_their_events_stay_provable(
    environment: dict[str, str], tmp_path: Path
) -> None:
    result = run(environment, DETACH, tmp_path)
    months = result["months"]
    assert result["names"] == [*months, "rest", f"until_{months[0]}"]
    assert "no faults" in result["verified"]
    # Two events of the older month were sealed after the first archive; the other one is complete.
    assert f"Detached: phi_oidc_audit_auditevent_{months[1]}." in result["first"]
    *words, file, option, _, detach = commands(PAGE, "detach")[0][3:]
    assert (words, option, detach) == (["audit", "archive"], "--before", "--detach")
    (line,) = result["first"].splitlines()
    assert without_numbers(line) == documented_output("detach")[0].replace(without_numbers(file), "N.jsonl")
    assert "are in no archive" in result["gap"]
    assert "1 events that are not sealed" in result["unsealed"]
    assert f"Detached: phi_oidc_audit_auditevent_{months[0]}." in result["second"]
    assert result["detail"]["detached"] == [months[0]]
    assert result["after"] == [*months[2:], "rest", f"until_{months[0]}"]
    assert result["left"] == 0
    assert "no faults" in result["default"]
    assert "83 faults" in result["full"][0]
    assert "no faults" in result["sample"]
    assert result["schedule"] == 0
    assert "(83 of them from archives)" in result["archives"]
    assert "no faults" in result["archives"]
    assert "There is no event" in result["missing"]
    assert "There is no event" in result["other_file"]
    assert "Holds" in result["holds"]
    assert result["stored"] == 1
    (problem,) = result["problems"]
    assert f"auditevent_rest has events of {months[0][:4]}-{months[0][4:]}: run audit partition" in problem
    assert result["messages"] == ["W081"]
    assert result["deviations"] == []


UNPROVED = (
    """
def write_foreign_archive(path, *, size):
    lines = [json.dumps({"id": str(uuid.UUID(int=number))}, separators=(",", ":")) for number in range(size)]
    tree = CompactRange()
    tree.extend([hash_leaf(line.encode()) for line in lines])
    checkpoint = Checkpoint(origin="phi-oidc-audit", tree_size=size, root_hash=tree.compute_root())
    note = sign_checkpoint(checkpoint, KEY)
    header = {"format": ARCHIVE_FORMAT, "first": 0, "tree_size": size, "nodes": [], "checkpoint": note}
    with path.open("w") as file:
        file.write(json.dumps(header) + "\\n")
        for line in lines:
            file.write('{"event":' + line + ',"mac":"' + "0" * 64 + '"}\\n')
    register_archive(verify_archive(path, [KEY.public_key()]), sha256=f"{size:064}")

"""
    + PARTITIONED
    + """
sealed(256, at=LATELY)
audit("tiles")
before = (get_month(0) + timedelta(minutes=1)).isoformat()
audit("archive", FOLDER / "1.jsonl", "--before", before)
other = FOLDER.parent / f"{FOLDER.name}-other"
other.mkdir()
(FOLDER / "1.jsonl").rename(other / "1.jsonl")
result = {"months": [month(-2), month(-1)]}
result["missing"] = audit("archive", FOLDER / "2.jsonl", "--detach")
text = (other / "1.jsonl").read_text()
(FOLDER / "1.jsonl").write_text(text.replace("birthdate", "birthdatf", 1))
result["altered"] = audit("archive", FOLDER / "3.jsonl", "--detach")
(FOLDER / "1.jsonl").write_text(text.partition("\\n")[0] + "\\n")
result["empty"] = audit("archive", FOLDER / "4.jsonl", "--detach")
(FOLDER / "1.jsonl").unlink()
os.mkfifo(FOLDER / "1.jsonl")
result["pipe"] = audit("archive", FOLDER / "5.jsonl", "--detach")
result["kept"] = names()
(FOLDER / "1.jsonl").unlink()
# Signed, but of another log: as long as this one, and longer, as before a restore.
write_foreign_archive(FOLDER / "short.jsonl", size=100)
write_foreign_archive(FOLDER / "long.jsonl", size=2000)
result["foreign"] = audit("archive", FOLDER / "7.jsonl", "--detach")
(other / "1.jsonl").rename(FOLDER / "1.jsonl")
result["proved"] = audit("archive", FOLDER / "6.jsonl", "--detach")
result["after"] = names()
print(json.dumps(result))
"""
)


def test_p7_partition_stays_unless_files_prove_that_its_events_are_archived(
    environment: dict[str, str], tmp_path: Path
) -> None:
    result = run(environment, UNPROVED, tmp_path)
    for case in ("missing", "altered", "empty", "pipe", "foreign"):
        assert "Detached: none." in result[case], case
        assert "stays: the archive that ends with leaf 81 is not in the folder" in result[case], case
    assert set(result["months"]) <= set(result["kept"])
    assert "Detached: phi_oidc_audit_auditevent_" in result["proved"]
    assert not set(result["months"]) & set(result["after"])


ATTACH = (
    PARTITIONED
    + """
audit("verify")
audit("archive", FOLDER / "1.jsonl", "--detach")
result = {"detached": names()}
sql(f"UPDATE {table} SET actor = 'x' WHERE id = %s", older[5])
result["wrong"] = [audit("attach", name) for name in ("auth_user", table[:-1] + "x", table + "; --")]

def count_indexes():
    return sql(f"SELECT count(*) FROM pg_index WHERE indrelid = '{table}'::regclass")[0][0]

def count_before(execute, statement, *arguments):
    if "ATTACH PARTITION" in statement:
        result["indexes"].append(count_indexes())
    return execute(statement, *arguments)

# As if it had been detached before the migrations that created them.
result["indexes"] = [count_indexes()]
for (name,) in sql("SELECT indexrelid::regclass::text FROM pg_index "
        f"WHERE indrelid = '{table}'::regclass AND pg_get_indexdef(indexrelid) ~ 'subject|actor'"):
    sql(f"DROP INDEX {name}")
result["indexes"].append(count_indexes())
with connections["phi_audit"].execute_wrapper(count_before):
    result["attached"] = audit("attach", table)
result["indexes"].append(count_indexes())
result["names"] = names()
result["deviations"] = triggers.list_deviations()
result["verify"] = audit("verify", "--full")
result["refused"] = refused(f"UPDATE {table} SET actor = 'y'")
result["victim"] = str(older[5])
result["month"] = month(-2)
result["again"] = AuditEvent.objects.filter(id__in=older).count()
print(json.dumps(result))
"""
)


def test_detached_partition_is_attached_again_and_its_alteration_is_found(
    environment: dict[str, str], tmp_path: Path
) -> None:
    result = run(environment, ATTACH, tmp_path)
    assert result["month"] not in result["detached"]
    assert all("is not the name of a partition" in text for text in result["wrong"])
    assert "Attached" in result["attached"]
    # The two that were missing are created before.
    assert result["indexes"] == [8, 6, 8, 8]
    assert result["month"] in result["names"]
    assert result["again"] == 40
    assert result["deviations"] == []
    assert "never changed or deleted" in result["refused"]
    assert f"event_altered: event {result['victim']}" in result["verify"]


PROTECTION = """
partitions.partition_log(now=NOW)
first = f"phi_oidc_audit_auditevent_until_{month(2)}"
next_one = f"phi_oidc_audit_auditevent_{month(2)}"
changes = {
    "dropped": f"DROP TRIGGER phi_oidc_audit_refuse_truncate ON {next_one}",
    "disabled": f"ALTER TABLE {first} DISABLE TRIGGER phi_oidc_audit_refuse_update",
    "ordinary": f"ALTER TABLE {first} ENABLE TRIGGER phi_oidc_audit_queue",
    "rule": f"CREATE RULE swallow AS ON INSERT TO {first} DO INSTEAD NOTHING",
    "unlogged": f"ALTER TABLE {next_one} SET UNLOGGED",
}
result = {"changes": {}}
for name, change in changes.items():
    before = triggers.list_deviations()
    sql(change)
    result["changes"][name] = sorted(set(triggers.list_deviations()) - set(before))
sql(f"DROP RULE swallow ON {first}")
result["repair"] = audit("repair")
result["after"] = triggers.list_deviations()
sql("ALTER TABLE phi_oidc_audit_auditevent ALTER reason TYPE char(256)")
result["columns"] = triggers.list_deviations()
sql("ALTER TABLE phi_oidc_audit_auditevent ALTER reason TYPE varchar(256)")
sql("DROP ROLE IF EXISTS phi_partition_web")
sql("CREATE ROLE phi_partition_web")
for statement in grant_statements("phi_partition_web", is_sealer=False):
    sql(statement)
sql("SET ROLE phi_partition_web")
result["excess"] = list_excess_privileges(is_sealer=False)
ids = events(1, at=NOW)
result["direct"] = refused(f"INSERT INTO {first} SELECT * FROM phi_oidc_audit_auditevent")
result["written"] = AuditEvent.objects.filter(id__in=ids).count()
sql("RESET ROLE")
sql(f"GRANT DELETE ON {first} TO phi_partition_web")
sql("SET ROLE phi_partition_web")
result["granted"] = list_excess_privileges(is_sealer=False)
# A process without rights on the tables creates the next partitions.
sql("RESET ROLE")
sql(f"ALTER TABLE phi_oidc_audit_auditevent DETACH PARTITION phi_oidc_audit_auditevent_{month(3)}")
sql(f"DROP TABLE phi_oidc_audit_auditevent_{month(3)}")
result["missing"] = month(3) not in names()
sql("SET ROLE phi_partition_web")
result["problems"] = [partitions.list_problems(now=get_month(delay)) for delay in (0, 1, 2)]
result["not_created"] = refused("SELECT phi_oidc_audit_create_partitions()")
with override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_signing": ""})):
    tasks.create_partitions()
sql("RESET ROLE")
result["worker_without_key"] = names().count(month(3))
for statement in grant_statements("phi_partition_web", is_sealer=True):
    sql(statement)
sql("SET ROLE phi_partition_web")
result["created"] = [partitions.create_partitions(), partitions.create_partitions()]
result["needed"] = list_excess_privileges(is_sealer=True)
result["not_needed"] = [text for text in list_excess_privileges(is_sealer=False) if "EXECUTE" in text]
sql("RESET ROLE")
result["deviations"] = triggers.list_deviations()
sql("DROP OWNED BY phi_partition_web")
sql("DROP ROLE phi_partition_web")
print(json.dumps(result))
"""


@pytest.mark.without_pooler("it sets the role of a connection")
def test_triggers_and_privileges_of_each_partition_are_checked_and_repaired(
    environment: dict[str, str], tmp_path: Path
) -> None:
    result = run(environment, PROTECTION, tmp_path)
    assert {name: len(found) for name, found in result["changes"].items()} == dict.fromkeys(result["changes"], 1)
    assert result["after"] == [], result["repair"]
    # Of the table and its four partitions.
    assert ["has the type character(256)" in text for text in result["columns"]] == [True] * 5
    assert result["excess"] == []
    assert "permission denied" in result["direct"]
    assert result["written"] == 1
    (excess,) = result["granted"]
    assert excess.startswith("has DELETE on phi_oidc_audit_auditevent_until_")
    assert result["missing"]
    assert [len(problems) for problems in result["problems"]] == [0, 0, 1]
    assert "permission denied" in result["not_created"]
    assert result["created"] == [1, 0]
    assert result["needed"] == []
    assert result["worker_without_key"] == 0
    assert result["not_needed"] == ["has EXECUTE on phi_oidc_audit_create_partitions()"]
    assert result["deviations"] == []


REFUSED_CONVERSION = """
ids = events(1, at=get_month(40))
result = {"output": audit("partition")}
result["stored"] = AuditEvent.objects.filter(id__in=events(1, at=get_month(4))).count()
result["problems"] = [partitions.list_problems(now=NOW)]
# As if the process had been killed during the first step.
sql("ALTER TABLE phi_oidc_audit_auditevent ADD CONSTRAINT phi_oidc_auditevent_range CHECK (v = 1) NOT VALID")
result["problems"] += partitions.list_problems(now=NOW)
result["messages"] = list_messages()
print(json.dumps(result))
"""


def test_conversion_that_fails_refuses_no_event_afterwards(environment: dict[str, str], tmp_path: Path) -> None:
    """An event with an id of the future, such as from a wrong clock, belongs to no first partition."""
    result = run(environment, REFUSED_CONVERSION, tmp_path)
    assert result["problems"][0] == []
    assert "interrupted" in result["problems"][1]
    assert result["messages"] == ["W081"]
    assert "error" in result["output"]
    assert result["stored"] == 1


MISSING_MONTHS = """
partitions.partition_log(now=get_month(-4))
result = {"months": [month(i) for i in range(-2, 4)], "names": names()}
# While the task did not run, these came: of a month without a partition, and of one that was detached.
late = sealed(5, at=get_month(-2) + timedelta(days=3))
past = sealed(40, at=get_month(-1) + timedelta(days=3))
waiting = [events(1, at=get_month(-1) + timedelta(days=4))[0], events(1, at=get_month(-2) + timedelta(days=4))[0]]
result["problems"], result["messages"] = partitions.list_problems(now=NOW), list_messages()
result["detached"] = sql(f"CREATE TABLE phi_oidc_audit_auditevent_{month(-2)} (id uuid)")
result["refused"] = audit("partition")
result["kept"] = names()
sql(f"DROP TABLE phi_oidc_audit_auditevent_{month(-2)}")
result["moved"] = audit("partition")
result["after"] = names()
result["leaves"] = [
    sql(f"SELECT count(*) FROM phi_oidc_audit_auditleaf_{name}")[0][0] for name in ("rest", month(-2), month(-1))]
result["rest"] = sql("SELECT count(*) FROM phi_oidc_audit_auditevent_rest")[0][0]
result["queue"] = sorted(map(str, AuditUnsealed.objects.values_list("event_id", flat=True)))
result["waiting"] = sorted(map(str, waiting))
seal_now(at=clock.now())
result["verify"] = audit("verify", "--full")
result["deviations"], result["solved"] = triggers.list_deviations(), partitions.list_problems(now=NOW)
result["again"] = audit("partition")
table = "phi_oidc_audit_auditevent"
result["protected"] = [refused(statement) for name in (f"{table}_{month(-1)}", f"{table}_{month(-2)}")
    for statement in (f"UPDATE {name} SET actor = 'x'", f"DELETE FROM {name}", f"TRUNCATE {name}")]
result["protected"].append(refused(f"TRUNCATE {table}_rest"))
print(json.dumps(result))
"""


def test_q3_rows_of_months_without_a_partition_are_moved_into_one(environment: dict[str, str], tmp_path: Path) -> None:
    result = run(environment, MISSING_MONTHS, tmp_path)
    months = result["months"]
    assert result["names"] == [*months[2:], "rest", f"until_{months[0]}"]
    (problem,) = result["problems"]
    stray = [f"{name[:4]}-{name[4:]}" for name in months[:2]]
    assert f"_rest has events of {', '.join(stray)}: run audit partition, which moves them" in problem
    assert result["messages"] == ["W081"]
    assert f"phi_oidc_audit_auditevent_{months[0]} was detached" in result["refused"]
    assert result["kept"] == result["names"]
    assert f"phi_oidc_audit_auditleaf_{months[1]}" in result["moved"]
    assert result["after"] == [*months, "rest", f"until_{months[0]}"]
    assert (result["rest"], result["leaves"]) == (0, [0, 5, 40])
    assert result["queue"] == result["waiting"], "each is sealed once"
    assert "47 sealed events" in result["verify"]
    assert "no faults" in result["verify"]
    assert (result["deviations"], result["solved"]) == ([], [])
    assert "has partitions already" in result["again"]
    assert all("never changed or deleted" in text for text in result["protected"]), result["protected"]


COMING_MONTHS = """
partitions.partition_log(now=NOW)
table = "phi_oidc_audit_auditevent"

def drop_partition(offset):
    sql(f"ALTER TABLE {table} DETACH PARTITION {table}_{month(offset)}")
    sql(f"DROP TABLE {table}_{month(offset)}")

def insert(at):
    try:
        events(1, at=at)
    except Exception as error:
        return type(error).__name__
    return "inserted"

result = {"coming": [insert(get_month(offset)) for offset in (3, 4, 40)]}
drop_partition(2)
drop_partition(3)
result["ahead"] = [insert(get_month(2)), insert(NOW + timedelta(hours=23))]
# As if it had been accepted.
sql(f"ALTER TABLE {table}_rest DROP CONSTRAINT phi_oidc_auditevent_ahead")
result["ahead"].append(insert(get_month(2)))
result["created"] = [partitions.create_partitions(), partitions.create_partitions()]
result["names"] = names()
result["problems"] = partitions.list_problems(now=get_month(1))
result["moved"] = audit("partition")
result["after"] = names()
result["solved"] = partitions.list_problems(now=get_month(1))
# A month that another one follows is not skipped.
drop_partition(2)
result["created"].append(partitions.create_partitions())
result["months"] = [month(2), month(3)]
print(json.dumps(result))
"""


def test_q3_event_of_a_coming_month_keeps_no_month_from_getting_a_partition(
    environment: dict[str, str], tmp_path: Path
) -> None:
    result = run(environment, COMING_MONTHS, tmp_path)
    first, second = result["months"]
    assert result["coming"] == ["inserted", "AuditUnavailable", "AuditUnavailable"]
    assert result["ahead"] == ["AuditUnavailable", "inserted", "inserted"]
    assert result["created"] == [1, 0, 1]
    assert result["names"] == [second, "rest", f"until_{first}"]
    (problem,) = result["problems"]
    assert f"has events of {first[:4]}-{first[4:]}: run audit partition" in problem
    assert f"phi_oidc_audit_auditevent_{first}" in result["moved"]
    assert result["after"] == [first, second, "rest", f"until_{first}"]
    assert result["solved"] == []


INHERITED = """
sql("CREATE TABLE forged () INHERITS (phi_oidc_audit_auditevent)")
result = {"problems": partitions.list_problems(now=NOW), "verify": audit("verify")}
print(json.dumps(result))
"""


def test_table_that_inherits_from_the_events_is_no_partition(environment: dict[str, str], tmp_path: Path) -> None:
    result = run(environment, INHERITED, tmp_path)
    assert result["problems"] == []
    assert "faults" in result["verify"]


FORGED = (
    PARTITIONED
    + """
import uuid
audit("verify")
audit("archive", FOLDER / "1.jsonl", "--detach")
before = names()
kept = f"{table}_kept"
sql(f"ALTER TABLE {table} RENAME TO {kept}")
other_columns = [
    f"CREATE TABLE {table} (id uuid PRIMARY KEY, actor text)",
    f"CREATE TABLE {table} AS SELECT *, 1 AS further FROM {kept}",
    f"CREATE VIEW {table} AS SELECT * FROM {kept}",
]
result = {"refused": []}
for statement in other_columns:
    sql(statement)
    result["refused"].append(audit("attach", table))
    sql(f"DROP {'VIEW' if 'VIEW' in statement else 'TABLE'} {table}")
result["names"] = names() == before
result["written"] = len(events(1, at=clock.now()))
# Of the same columns, with rows that were never sealed, a trigger, a rule, and privileges.
sql(f"CREATE TABLE {table} (LIKE {kept} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
sql(f"INSERT INTO {table} SELECT * FROM {kept}")
other_id = uuid.UUID(int=older[5].int ^ 1)
sql(f"UPDATE {table} SET id = %s, actor = 'x' WHERE id = %s", other_id, older[5])
sql(f"CREATE FUNCTION phi_oidc_swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
sql(f"CREATE TRIGGER phi_oidc_swallow BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION phi_oidc_swallow()")
result["attached"] = audit("attach", table)
result["deviations"] = triggers.list_deviations()
result["verify"] = audit("verify", "--full")
print(json.dumps(result))
"""
)


def test_forged_partition_is_refused_or_found(environment: dict[str, str], tmp_path: Path) -> None:
    result = run(environment, FORGED, tmp_path)
    assert all("error" in text for text in result["refused"]), result["refused"]
    assert (result["names"], result["written"]) == (True, 1)
    assert "Attached" in result["attached"]
    assert len([text for text in result["deviations"] if "phi_oidc_swallow" in text]) == 1
    assert len([text for text in result["deviations"] if "phi_oidc_audit_refuse_truncate" in text]) == 1
    assert "event_forged" in result["verify"]
    assert "event_missing" in result["verify"]


WRITERS = (
    PARTITIONED
    + """
stop, written, errors = threading.Event(), [], []

def write():
    while not stop.is_set():
        try:
            # Also late events of the month that is detached.
            written.extend(events(1, at=clock.now()))
            written.extend(events(1, at=past + timedelta(days=2)))
        except Exception as error:
            errors.append(repr(error))
    connections.close_all()

threads = [threading.Thread(target=write) for _ in range(3)]
for thread in threads:
    thread.start()
outputs = []
for number in range(6):
    try:
        seal_now(at=clock.now())
        outputs.append(audit("archive", FOLDER / f"{number}.jsonl", "--detach"))
    except Exception as error:
        outputs.append(repr(error))
stop.set()
for thread in threads:
    thread.join()
seal_now(at=clock.now())
outputs.append(audit("archive", FOLDER / "last.jsonl", "--detach"))
here = set(AuditEvent.objects.values_list("id", flat=True))
archived = set()
for file in FOLDER.glob("*.jsonl"):
    archived |= {json.loads(line)["event"]["id"] for line in file.read_text().splitlines()[1:]}
lost = [str(id_) for id_ in [*older, *old, *late, *written] if id_ not in here and str(id_) not in archived]
print(json.dumps({"errors": errors, "lost": lost, "outputs": outputs, "written": len(written), "names": names()}))
"""
)


def test_detaching_while_others_write_loses_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    result = run(environment, WRITERS, tmp_path)
    assert (result["errors"], result["lost"]) == ([], [])
    assert result["written"] > 20
    assert "Detached: phi_oidc_audit_auditevent_" in "".join(result["outputs"])


GRANTED = """
sql("DROP ROLE IF EXISTS phi_partition_app")
sql("CREATE ROLE phi_partition_app")
sql("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO phi_partition_app")
partitions.partition_log(now=NOW)
for statement in grant_statements("phi_partition_app", is_sealer=True):
    sql(statement)
sql("SET ROLE phi_partition_app")
result = {"granted": list_excess_privileges(is_sealer=True)}
sql("RESET ROLE")
sql(f"ALTER TABLE phi_oidc_audit_auditevent DETACH PARTITION phi_oidc_audit_auditevent_{month(3)}")
sql(f"DROP TABLE phi_oidc_audit_auditevent_{month(3)}")
sql("SET ROLE phi_partition_app")
# Functions of the caller's schema must not run with the owner's rights.
sql("CREATE TEMP TABLE phi_oidc_audit_auditevent (id uuid)")
sql("CREATE FUNCTION pg_temp.format(text, text) RETURNS text LANGUAGE sql AS 'SELECT ''DROP TABLE x''::text'")
sql("SET search_path = pg_temp, public")
sql("SELECT public.phi_oidc_audit_create_partitions()")
sql("RESET search_path")
sql("DROP TABLE pg_temp.phi_oidc_audit_auditevent")
result["created"] = month(3) in names()
result["later"] = list_excess_privileges(is_sealer=True)
sql("RESET ROLE")
result["deviations"] = triggers.list_deviations()
sql("ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM phi_partition_app")
sql("DROP OWNED BY phi_partition_app")
sql("DROP ROLE phi_partition_app")
print(json.dumps(result))
"""


@pytest.mark.without_pooler("it sets the role of a connection")
def test_new_partition_has_no_default_privileges(environment: dict[str, str], tmp_path: Path) -> None:
    result = run(environment, GRANTED, tmp_path)
    assert result["granted"] == []
    assert result["created"]
    assert result["deviations"] == []
    assert result["later"] == []


CATALOGUE = """
for role in ("phi_catalogue_web", "phi_catalogue_sealer"):
    sql(f"DROP ROLE IF EXISTS {role}")
    sql(f"CREATE ROLE {role}")

def grant():
    for is_sealer, role in enumerate(("phi_catalogue_web", "phi_catalogue_sealer")):
        for statement in grant_statements(role, is_sealer=bool(is_sealer)):
            sql(statement)

READ_ACLS = " UNION ALL ".join((
    "SELECT c.relname, a.grantee, a.privilege_type FROM pg_class c "
    "LEFT JOIN LATERAL aclexplode(c.relacl) a ON a.grantee <> c.relowner "
    "WHERE c.relname ~ '^phi_oidc_' AND c.relkind IN ('r', 'p', 'S', 'v')",
    "SELECT c.relname || '.' || t.attname, a.grantee, a.privilege_type FROM pg_attribute t "
    "JOIN pg_class c ON c.oid = t.attrelid, LATERAL aclexplode(t.attacl) a WHERE c.relname ~ '^phi_oidc_'",
    "SELECT p.proname || '()', a.grantee, a.privilege_type FROM pg_proc p "
    "LEFT JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a ON a.grantee <> p.proowner "
    "WHERE p.proname ~ '^phi_oidc_'",
))

def read_catalogue():
    privileges = {}
    for name, grantee, privilege in sql(READ_ACLS):
        names = {0: "PUBLIC"} | dict(sql("SELECT oid, rolname FROM pg_roles"))
        granted = privileges.setdefault(name, {})
        if privilege:
            granted.setdefault(names[grantee], []).append(privilege)
    return privileges

grant()
result = {"before": read_catalogue()}
partitions.partition_log(now=NOW)
result["converted"] = read_catalogue()
grant()
result["after"] = read_catalogue()
result["partitions"] = [name for names in partitions.list_partition_names().values() for name in names]

def attempt(*statements):
    try:
        with transaction.atomic(using="phi_audit"):
            for statement in statements:
                sql(statement)
    except DatabaseError as error:
        return str(error).splitlines()[0]
    return "done"

def attempt_as(role):
    sql(f"SET ROLE {role}")
    texts = [
        attempt("SELECT phi_oidc_audit_create_partitions()"),
        attempt("CREATE TEMP TABLE mine (id uuid)",
            "CREATE TRIGGER fill AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION phi_oidc_audit_queue()",
            "INSERT INTO mine VALUES ('01990000-0000-7000-8000-000000000001')"),
        attempt("CREATE TEMP TABLE mine (id uuid)",
            "CREATE TRIGGER refuse BEFORE UPDATE ON mine FOR EACH ROW EXECUTE FUNCTION phi_oidc_audit_refuse()"),
    ]
    sql("RESET ROLE")
    return texts

result["attempts"] = {role: attempt_as(role) for role in ("phi_catalogue_web", "phi_catalogue_sealer")}
sql("SET ROLE phi_catalogue_web")
ids = events(1, at=NOW)
sql("RESET ROLE")
result["queued"] = [str(row.event_id) for row in AuditUnsealed.objects.all()] == [str(id_) for id_ in ids]
for role in ("phi_catalogue_web", "phi_catalogue_sealer"):
    sql(f"DROP OWNED BY {role}")
    sql(f"DROP ROLE {role}")
print(json.dumps(result))
"""


def read_documented_privileges(names: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """Return the privileges that the manual lists, by object and role. Others have none."""
    roles = ("PUBLIC", "phi_catalogue_web", "phi_catalogue_sealer")
    documented: dict[str, dict[str, list[str]]] = {name: {} for name in names}
    lines = (ROOT / "docs/how-to/postgresql-role.md").read_text().splitlines()
    for line in lines:
        objects = re.findall(r"`([a-z_]+(?:\(\))?)`", line.split("|")[1] if line.startswith("|") else "")
        for name in objects:
            cells = [re.findall(r"[A-Z]{6,}", cell) for cell in line.split("|")[2:5]]
            documented[f"phi_oidc_audit_{name}"] = {
                role: sorted(cell) for role, cell in zip(roles, cells, strict=True) if cell
            }
    return documented


def sort_privileges(catalogue: dict[str, dict[str, list[str]]]) -> dict[str, dict[str, list[str]]]:
    return {name: {role: sorted(cell) for role, cell in roles.items()} for name, roles in catalogue.items()}


@pytest.mark.without_pooler("it sets the role of a connection")
def test_q2_privileges_in_the_catalogue_are_those_of_the_manual(environment: dict[str, str], tmp_path: Path) -> None:
    result = run(environment, CATALOGUE, tmp_path)
    after = sort_privileges(result["after"])
    assert after == read_documented_privileges(after)
    assert {"phi_oidc_audit_create_partitions()", "phi_oidc_audit_queue()", "phi_oidc_audit_refuse()"} <= after.keys()
    assert set(result["partitions"]) <= after.keys()
    before = sort_privileges(result["before"])
    assert before == {name: after[name] for name in before}
    # The conversion leaves the privileges of the roles as they are, and the sealer can create partitions at once.
    assert sort_privileges(result["converted"]) == after
    # Neither of them locks the default partitions, or fills the queue through a table of its own.
    web = result["attempts"]["phi_catalogue_web"]
    assert ["permission denied for function" in text for text in web] == [True, True, True]
    sealer = result["attempts"]["phi_catalogue_sealer"]
    assert [text == "done" for text in sealer] == [True, False, False]
    assert result["queued"]


LEAVES = """
tiles = FOLDER / "tiles"
override_settings(
    PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_signing": PEM}, AUDIT={"tiles": tiles})
).enable()
partitions.partition_log(now=get_month(-4))
create_past_partitions(-2, -1)
past = get_month(-2) + timedelta(days=3)
older = sealed(300, at=past)
Path(FOLDER / "old.txt").write_text(audit("checkpoint"))
old = sealed(40, at=get_month(-1) + timedelta(days=3))
audit("tiles")
young = sealed(300, at=LATELY)
(FOLDER / "export.jsonl").write_text(audit("export"))
leaf_names = lambda: {partition.name for partition in
    partitions.list_partitions(partitions.LEAF_TABLE)}
before = leaf_names()
archive = lambda number, *options: audit("archive", FOLDER / f"{number}.jsonl", "--detach", *options)
audit("verify")
result = {"partial": archive(1)}

def detach(number):
    seal_now(at=clock.now())
    return archive(number)

audit("tiles")
tile, checkpoint = tiles / "tile/0/000", tiles / "checkpoint"
contents = {path: path.read_bytes() for path in (tile, checkpoint)}
tile.write_bytes(contents[tile][32:] + contents[tile][:32])
result["altered"] = detach(2)
tile.unlink()
result["missing"] = detach(3)
tile.write_bytes(contents[tile])
checkpoint.write_text(sign_checkpoint(parse_checkpoint(contents[checkpoint].decode()), OTHER_KEY))
result["foreign"] = detach(4)
checkpoint.write_bytes(contents[checkpoint])
result["kept"] = leaf_names() == before
result["removed"] = detach(5)
result["removed_names"] = sorted(before - leaf_names())
seal_now(at=clock.now())
result["leaves"] = AuditLeaf.objects.filter(leaf_index__lt=340).count()
result["detail"] = json.loads(AuditEvent.objects.filter(action="audit.archived").last().detail)["detached_leaves"]
result["deviations"], result["problems"] = triggers.list_deviations(), partitions.list_problems(now=NOW)
result["export"] = audit("check-export", FOLDER / "export.jsonl")
result["default"] = audit("verify")
result["sample"] = audit("verify", "--sample", "1")
result["schedule"] = verify_next_part(KEY, now=clock.now()).fault_count
result["full"] = audit("verify", "--full")
files = [argument for number in range(1, 6) for argument in ("--archive", FOLDER / f"{number}.jsonl")]
result["archives"] = audit("verify", "--full", *files)
key = audit("checkpoint", "--public-key").strip()

def proven(*arguments):
    Path(FOLDER / "proof.json").write_text(audit(*arguments))
    return audit("check-proof", FOLDER / "proof.json", "--public-key", key)

result["proofs"] = [
    proven("prove", older[3], "--archive", FOLDER / "1.jsonl"),
    proven("prove", old[39], "--archive", FOLDER / "1.jsonl"),
    # Its neighbours in the tile have left.
    proven("prove", young[0]),
]
Path(FOLDER / "new.txt").write_text(audit("checkpoint"))
result["proofs"].append(proven("consistency", FOLDER / "old.txt", FOLDER / "new.txt"))
result["copy"] = audit("tiles", "--folder", FOLDER / "copy")
result["same"] = (FOLDER / "copy/tile/0/000").read_bytes() == contents[tile]
result["unarchived"] = find_oldest_unarchived_time().isoformat()
# The path of an event that is still in the table also needs the tile, in a process that has not read it.
tree_storage._get_tile.cache_clear()
tile.write_bytes(contents[tile][32:] + contents[tile][:32])
result["lost"] = audit("verify", "--sample", "1")
result["unproven"] = audit("prove", older[3], "--archive", FOLDER / "1.jsonl")
tile.write_bytes(contents[tile])
result["attached"] = [audit("attach", f"phi_oidc_audit_auditevent_{month(offset)}") for offset in (-2, -1)]
result["back"] = leaf_names() == before
result["again"] = audit("verify", "--full")
result["deviations_again"] = triggers.list_deviations()
result["detached_again"] = detach(6)
sql(f"DROP TABLE phi_oidc_audit_auditleaf_{month(-2)}")
result["without_leaves"] = audit("attach", f"phi_oidc_audit_auditevent_{month(-2)}")
# Leaves of a month that is in the log again are no detached ones.
audit("attach", f"phi_oidc_audit_auditevent_{month(-1)}")
for kind, key in (("event", "id"), ("leaf", "event_id")):
    partition = f"phi_oidc_audit_audit{kind}_{month(-1)}"
    sql(f"ALTER TABLE {partition} DISABLE TRIGGER ALL")
    sql(f"DELETE FROM {partition} WHERE {key} = %s", old[3])
    sql(f"ALTER TABLE {partition} ENABLE TRIGGER ALL")
files += ["--archive", FOLDER / "6.jsonl"]
result["deleted"] = [audit("verify", "--sample", "1"), audit("verify", "--full", *files)]
# An archived event that is inserted again.
columns = "SELECT * FROM phi_oidc_audit_auditevent_" + month(-2)
sql(f"INSERT INTO phi_oidc_audit_auditevent {columns} WHERE id = %s", older[5])
result["returned"] = audit("verify", "--full", *files)
result["ids"] = [str(old[3]), str(older[5])]
print(json.dumps(result))
"""


def test_leaves_leave_the_database_when_the_tiles_have_them(environment: dict[str, str], tmp_path: Path) -> None:
    result = run(environment, LEAVES, tmp_path)
    assert "stays: the tiles have 340 events, and 512 are needed" in result["partial"]
    assert "Detached: phi_oidc_audit_auditevent_" in result["partial"]
    assert "Nothing is detached: The tiles 0 to 1 do not lead to the exported checkpoint." in result["altered"]
    assert "Nothing is detached: The tile tile/0/000 is missing" in result["missing"]
    assert "Nothing is detached: " in result["foreign"]
    assert result["kept"]
    names = result["removed_names"]
    assert len(names) == 2
    assert f"Detached: {', '.join(names)}." in result["removed"]
    months = [name.removeprefix("phi_oidc_audit_auditleaf_") for name in names]
    assert [entry.partition(":")[0] for item in result["detail"] for entry in item.split()] == months
    assert result["leaves"] == 0
    assert (result["deviations"], result["problems"]) == ([], [])
    assert [result["schedule"], *("no faults" in result[name] for name in ("default", "sample", "archives"))] == [
        *(0, True, True, True),
    ]
    assert "0 wait to be sealed, 340 have left the log, 340 do not match the filters; no faults" in result["export"]
    assert "event_missing" in result["full"]
    assert "(340 of them from archives)" in result["archives"]
    assert all("Holds" in text for text in result["proofs"]), result["proofs"]
    assert result["same"], result["copy"]
    assert "event_missing" in result["lost"]
    assert "is not what was sealed" in result["unproven"] or "can't be read" in result["unproven"]
    assert all("Attached: phi_oidc_audit_auditleaf_" in text for text in result["attached"]), result["attached"]
    assert result["back"]
    assert "no faults" in result["again"]
    assert result["deviations_again"] == []
    assert result["detached_again"].count("auditleaf") == 2
    assert "There is no table phi_oidc_audit_auditleaf_" in result["without_leaves"]
    assert all(re.search(r"event_missing: leaf \d+: The leaf is gone", text) for text in result["deleted"])
    deleted, returned = result["ids"]
    assert f"event_altered: event {returned}" in result["returned"]
    assert f"event {deleted}" not in result["returned"]


LAST_LEAF = """
tiles = FOLDER / "tiles"
override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, AUDIT={"tiles": tiles})).enable()
partitions.partition_log(now=get_month(-3))
create_past_partitions(-1)
# All tiles of the log are full, and all its events are of a past month.
sealed(256, at=get_month(-1) + timedelta(days=3))
audit("tiles")
(partition,) = [p for p in partitions.list_past_partitions(partitions.LEAF_TABLE, now=NOW) if p.suffix == month(-1)]
result = {}
try:
    partitions.detach_leaves(partition, end_leaf=256)
except ValueError as error:
    result["refused"] = str(error)
# The event of the archive is the next leaf.
result["archive"] = audit("archive", FOLDER / "1.jsonl", "--detach")
events(1, at=LATELY)
result["sealed"] = seal_now(at=clock.now()).event_count
audit("tiles")
result["again"] = audit("archive", FOLDER / "2.jsonl", "--detach")
events(1, at=LATELY)
result["sealed_again"] = seal_now(at=clock.now()).event_count
result["verify"] = audit("verify", "--sample", "1")
print(json.dumps(result))
"""


def test_last_leaf_of_the_log_stays(environment: dict[str, str], tmp_path: Path) -> None:
    """The sequencer continues from it."""
    result = run(environment, LAST_LEAF, tmp_path)
    stays = r"Detached: phi_oidc_audit_auditevent_\d+\. .*auditleaf_\d+ stays: it has the last leaf"
    assert re.search(stays, result["archive"])
    assert "no later leaves" in result["refused"]
    assert result["sealed"] == 1
    assert "auditleaf" in result["again"]
    assert result["sealed_again"] == 1
    assert "no faults" in result["verify"]


EARLIER = """
from functools import partial
sealed(5, at=LATELY)
# As an earlier version did, which had no partitions of leaves.
end = get_month(2)
partitions._check_range(partitions.EVENT_TABLE, "v = 1")
partitions._run_with_short_locks(partial(partitions._replace_table, table=partitions.EVENT_TABLE, end=end))
result = {"problems": partitions.list_problems(now=NOW), "messages": list_messages()}
result["output"] = audit("partition")
result["after"] = partitions.list_problems(now=NOW)
result["deviations"] = triggers.list_deviations()
sealed(5, at=NOW - timedelta(hours=1))
result["verify"] = audit("verify", "--full")
leaves = "phi_oidc_audit_auditleaf"
second_leaf = f"INSERT INTO {leaves} SELECT leaf_index + 100, event_id, leaf_hash FROM {leaves}"
result["refused"] = [refused(statement) for statement in (
    second_leaf, f"DELETE FROM {leaves}", f"TRUNCATE {leaves}", f"TRUNCATE {leaves}_until_{end:%Y%m}")]
print(json.dumps(result))
"""


def test_leaves_of_a_log_with_partitions_are_converted_later(environment: dict[str, str], tmp_path: Path) -> None:
    result = run(environment, EARLIER, tmp_path)
    assert result["problems"] == ["the leaves have no partitions: run audit partition again"]
    assert result["messages"] == ["W081"]
    assert "phi_oidc_audit_auditleaf_rest" in result["output"]
    assert (result["after"], result["deviations"]) == ([], [])
    assert "no faults" in result["verify"]
    assert "duplicate key" in result["refused"][0]
    assert all("never changed or deleted" in text for text in result["refused"][1:]), result["refused"]
