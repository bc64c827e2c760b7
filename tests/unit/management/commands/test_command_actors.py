"""Each event of a `phi_oidc` subcommand names its operator, and without one the subcommand is refused."""

import io
import json
import os
import pwd
import subprocess
import sys
import uuid
from collections.abc import Callable, Collection, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.management import CommandError, call_command, load_command_class
from django.db import connections, transaction
from django.test import override_settings

from django_phi_oidc import conf
from django_phi_oidc._internal import clock, randomness
from django_phi_oidc.audit import outbox
from django_phi_oidc.audit.events import (
    Action,
    Origin,
    parse_event,
)
from django_phi_oidc.audit.log.proofs import create_inclusion_proof
from django_phi_oidc.audit.models import AuditEvent, AuditOutbox, RefusalCount, SetAsideEvent
from django_phi_oidc.audit.operators import build_operator_actor, find_stated_account_pk
from django_phi_oidc.audit.request_context import current_origin, use_origin
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.contrib.invitations.models import ActivationCode
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold
from django_phi_oidc.contrib.legal_holds.models import LegalHold
from django_phi_oidc.contrib.scim.clients import create_client
from django_phi_oidc.contrib.scim.models import SCIMUser
from django_phi_oidc.management.commands.phi_oidc import READING_COMMANDS, READING_OPTIONS, list_subcommands
from django_phi_oidc.oidc.token import ReceivedToken
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.sessions.token_revocation import queue_revocations
from django_phi_oidc.subjects.models import PairwiseSubject
from tests.support import databases
from tests.support.audit_log import NOW, PEM, events, sealed
from tests.support.audit_tampering import EVENT, sql, without_triggers
from tests.support.claims_fixtures import DECLARED, Person
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
ROOT = Path(__file__).resolve().parents[4]
LATER = NOW + timedelta(minutes=1)
STRANGER = 54321
"""A user id without a name."""
REFUSAL = "Nothing was done: this user id has no name, so the events would have no actor. Add --as USER."


def fail_to_read_keys() -> list[str]:
    raise ConnectionError("the key service is sealed")


class Case:
    """A person with a session and two claims, and an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.person = Person()
        self.person.store({"birthdate": "1990-05-17", "address": {"locality": "Bern"}})
        self.staff = get_user_model()._default_manager.create_user(username="clerk", is_staff=True)
        self.folder = folder

    @property
    def subject(self) -> str:
        return str(self.person.subject.uuid)

    @property
    def user(self) -> str:
        return f"pk:{self.person.user.pk}"

    def make_staff(self) -> str:
        get_user_model()._default_manager.filter(pk=self.person.user.pk).update(is_staff=True)
        return self.user

    def place_hold(self) -> str:
        hold = place_hold(self.person.subject.uuid, reason="x", until=None, origin=Origin(actor="7"), now=LATER)
        return str(hold.pk)

    def create_scim_client(self) -> str:
        fields: Any = {"provider": "default", "lifetime": timedelta(days=1), "now": NOW}
        create_client("hr", origin=Origin(actor="7"), **fields)
        return "hr"

    def create_scim_user(self) -> list[str]:
        """Return the id of a SCIM user, and the person, who had an account before."""
        account = get_user_model()._default_manager.create_user(username="created")
        names = {"user_name": "ann", "user_name_key": "ann", "created_at": NOW, "changed_at": NOW}
        row = SCIMUser.objects.create(id=randomness.uuid4(), provider="default", user=account, **names)
        issuer = conf.providers()["default"].issuer
        PairwiseSubject.objects.filter(user=self.person.user.pk).update(issuer=issuer)
        return [str(row.pk), self.user]

    def queue_unsigned_event(self) -> None:
        without_keys = override_phi_oidc(django_settings.PHI_OIDC, KEYS={"audit_mac": fail_to_read_keys})
        with override_settings(PHI_OIDC=without_keys), transaction.atomic():
            outbox.enqueue(Action.SESSION_ENDED, origin=Origin(actor="7"), now=NOW)

    def set_event_aside(self) -> uuid.UUID:
        event_id = randomness.uuid7(NOW)
        SetAsideEvent.objects.create(
            event_id=event_id, reader="outbox", error="ValueError", set_aside_at=NOW, tried_at=NOW
        )
        return event_id

    def forge_event(self) -> None:
        (id_,) = events(1)
        with without_triggers():
            sql(f"UPDATE {EVENT} SET actor = 'x' WHERE id = %s", id_)

    def delete_sealed_event(self) -> None:
        _, id_, _ = sealed(3)
        with without_triggers():
            sql(f"DELETE FROM {EVENT} WHERE id = %s", id_)

    def write_checkpoint_of_lost_log(self) -> Path:
        path = self.folder / "checkpoint"
        sealed(3)
        path.write_text(run("audit", "checkpoint"))
        with without_triggers():
            for table in ("leaf", "checkpoint", "unsealed", "event"):
                sql(f"DELETE FROM phi_oidc_audit_audit{table}")
        return path

    def queue_revocation(self) -> None:
        queue_revocations([ReceivedToken(token_type_hint="access_token", value="t")], provider="default", now=NOW)

    def expire_claims(self) -> None:
        self.person.store({"address": {"locality": "Basel"}}, now=NOW - timedelta(days=3))

    def write_evidence(self) -> list[Any]:
        path = self.folder / "evidence.json"
        run("evidence", "--output", path)
        return [path, "--public-key"]

    def write_file(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path


def after(prepare: Callable[[Case], object], *words: str) -> Callable[[Case], list[str]]:
    def build(case: Case) -> list[str]:
        prepare(case)
        return list(words)

    return build


Row = tuple[Callable[[Case], list[Any]], Collection[str]]
RECORDING: dict[str, Row] = {
    "admin grant": (lambda case: [case.user, "--yes"], {"role.changed"}),
    "admin withdraw": (lambda case: [case.make_staff(), "--yes"], {"role.changed"}),
    "audit archive": (lambda case: [case.folder / "archive" if sealed(1) else ""], {"audit.archived"}),
    "audit drain": (after(Case.queue_unsigned_event), {"alert.raised"}),
    "audit check-export": (lambda case: [case.write_file("export", "")], {"audit.viewed"}),
    "audit export": (lambda case: [], {"audit.exported"}),
    "audit prove": (lambda case: sealed(1), {"audit.exported"}),
    "audit resume": (
        lambda case: ["--checkpoint", case.write_checkpoint_of_lost_log(), "--reason", "x"],
        {"audit.restored"},
    ),
    "audit seal": (after(Case.forge_event), {"alert.raised"}),
    "audit set-aside drop": (lambda case: [case.set_event_aside(), "--reason", "x"], {"audit.set_aside"}),
    "audit set-aside retry": (lambda case: [case.set_event_aside()], {"audit.set_aside"}),
    "audit verify": (lambda case: [], {"audit.verified"}),
    "scim attach": (Case.create_scim_user, {"scim.user_changed", "role.changed"}),
    "scim create": (lambda case: ["pharmacy", "--provider", "default"], {"scim.client_changed"}),
    "scim rotate": (lambda case: [case.create_scim_client()], {"scim.client_changed"}),
    "scim revoke": (lambda case: [case.create_scim_client()], {"scim.client_changed"}),
    "delivery deliver": (after(Case.delete_sealed_event), {"alert.raised"}),
    "evidence": (lambda case: ["--output", case.folder / "evidence.json"], {"audit.exported"}),
    "configuration record": (lambda case: ["web"], {"configuration.changed"}),
    "groups": (lambda case: [], {"role.changed"}),
    # tests/integration/adoption has its events, because they need the tables of django-allauth.
    "migrate-from allauth": (lambda case: ["--apply"], set()),
    "hold place": (lambda case: [case.subject, "--reason", "x"], {"hold.placed"}),
    "hold release": (lambda case: [case.place_hold()], {"hold.released"}),
    "scrub": (after(Case.expire_claims), {"claim.scrubbed"}),
    "sessions end": (lambda case: [case.person.session_id], {"session.ended", "claim.scrubbed"}),
    "sessions retry": (after(Case.queue_revocation), {"token.revocation_failed"}),
    "signals add": (lambda case: ["--stream", "x"], {"signal.stream_changed"}),
    "signals create": (lambda case: ["--portal", "https://your.host"], {"signal.stream_changed"}),
    "signals delete": (lambda case: ["--stream", "x"], {"signal.stream_changed"}),
    "signals poll": (lambda case: [], set()),
    "signals remove": (lambda case: ["--stream", "x"], {"signal.stream_changed"}),
    "signals status": (lambda case: ["--stream", "x", "--set", "paused"], {"signal.stream_changed"}),
    "signals update": (lambda case: ["--stream", "x"], {"signal.stream_changed"}),
    "signals verify": (lambda case: ["--stream", "x"], set()),
    "subject accounting": (lambda case: [case.user], {"subject.accounted"}),
    "subject erase": (
        lambda case: [case.subject, "--yes"],
        {"claim.scrubbed", "session.ended", "subject.erased", "subject.unlinked"},
    ),
    "subject export": (lambda case: [case.subject], {"subject.exported"}),
    "subject invite": (lambda case: [case.user], {"activation.issued"}),
    "subject link": (lambda case: ["--provider", "default", "--user", case.user], {"subject.linked"}),
    "subject unlink": (lambda case: [case.subject], {"claim.scrubbed", "session.ended", "subject.unlinked"}),
}
READING: dict[str, Callable[[Case], list[Any]]] = {
    "apps": lambda case: [],
    "audit check-proof": lambda case: [
        *(case.write_file("proof", create_inclusion_proof(sealed(1)[0])), "--public-key"),
        run("audit", "checkpoint", "--public-key").strip(),
    ],
    "audit checkpoint": lambda case: ["--public-key"],
    "audit tiles": lambda case: ["--folder", case.folder],
    "audit witnesses": lambda case: [],
    "audit consistency": lambda case: [
        case.write_file("old", run("audit", "checkpoint") if sealed(1) else ""),
        case.write_file("new", run("audit", "checkpoint") if sealed(1) else ""),
    ],
    "audit grants": lambda case: ["portal"],
    "audit set-aside list": after(Case.set_event_aside),
    "audit verify": lambda case: ["--copy", case.write_file("copy", "")],
    "scim list": after(Case.create_scim_client),
    "configuration show": lambda case: [],
    "delivery status": lambda case: [],
    "doctor": lambda case: ["default"],
    "evidence verify": lambda case: [*case.write_evidence(), run("audit", "checkpoint", "--public-key").strip()],
    "groups": lambda case: ["--check"],
    "hold list": lambda case: [],
    "init": lambda case: [case.folder / "new"],
    "keys generate": lambda case: [],
    "keys retire": lambda case: ["0123abcd"],
    "keys rotate": lambda case: [],
    "keys status": lambda case: [],
    "migrate-from mozilla": lambda case: [],
    "register": lambda case: ["default", "--portal", "https://your.host", "--output", case.folder / "client"],
    "roles explain": lambda case: ["--user", case.user],
    "scrub": lambda case: ["--report"],
    "sessions list": lambda case: [],
    "signals list": lambda case: [],
    "subject list": lambda case: [],
}
"""Those that need a provider fail here, because none answers."""
ELSEWHERE = {"attack", "audit attach", "audit partition", "audit repair"}
"""`test_attack_command` and `test_triggers` run them: their databases and triggers are not those of the other tests."""


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    provider = {**django_settings.PHI_OIDC["PROVIDERS"]["default"], "provisioning": "invitation"}
    provider["scim"] = {"subject": "extension"}
    options: dict[str, Any] = {
        "CLAIMS": DECLARED,
        "PROVIDERS": {"default": {**provider, "issuer": "http://127.0.0.1:1", "signals": {"delivery": "poll"}}},
        "KEYS": {"audit_signing": PEM},
        "SIEM": {"file": {"type": "file", "path": tmp_path / "sink"}},
    }
    monkeypatch.setattr(sys, "stdin", io.StringIO("a-sub"))
    monkeypatch.delenv("SUDO_USER", raising=False)
    with (
        override_settings(PHI_OIDC=override_phi_oidc(django_settings.PHI_OIDC, **options)),
        clock.override_clock(lambda: LATER),
    ):
        case = Case(tmp_path)
        outbox.flush()
        yield case


def run(*words: object) -> str:
    out = io.StringIO()
    call_command("phi_oidc", *map(str, words), stdout=out, stderr=io.StringIO(), skip_checks=True)
    return out.getvalue()


def run_with_faults(*words: object) -> str:
    """Return the error, if any: a subcommand that reports one may have recorded an event before."""
    try:
        run(*words)
    except CommandError as error:
        return str(error)
    return ""


def all_events() -> dict[uuid.UUID, Any]:
    """Return the events in the audit log and in the outbox."""
    waiting = [parse_event(row.event, allow_unsigned=True).event for row in AuditOutbox.objects.all()]
    return {event.id: event for event in [*AuditEvent.objects.all(), *waiting]}


def count_rows() -> list[int]:
    models = (PairwiseSubject, StoredClaim, LegalHold, ActivationCode, Group)
    return [*(model.objects.count() for model in models), OIDCSession.objects.filter(ended_at=None).count()]


def without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def getpwuid(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", getpwuid)


def test_g6_each_subcommand_has_a_row() -> None:
    command = load_command_class("django_phi_oidc", "phi_oidc")
    command.create_parser("", "")
    names = {name for name, _ in list_subcommands(command.subcommands)}
    assert names == RECORDING.keys() | READING.keys() | ELSEWHERE
    assert RECORDING.keys().isdisjoint(READING_COMMANDS)
    assert READING.keys() | ELSEWHERE == READING_COMMANDS | READING_OPTIONS.keys()


@pytest.mark.parametrize("name", RECORDING)
@pytest.mark.parametrize("is_named", [False, True], ids=["by the system", "by --as"])
def test_g6_each_event_of_a_subcommand_names_its_operator(
    name: str, is_named: bool, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, expected = RECORDING[name]
    words = [*name.split(), *build(case), *(["--as", f"pk:{case.staff.pk}"] if is_named else [])]
    before = all_events().keys()
    if is_named:
        without_a_name(monkeypatch)
    fault = run_with_faults(*words)
    new = [event for id_, event in all_events().items() if id_ not in before]
    assert {event.action for event in new} >= set(expected), fault
    operator = build_operator_actor(account_pk=str(case.staff.pk) if is_named else "")
    assert {event.actor for event in new} == ({operator} if expected else set())


@pytest.mark.parametrize("name", RECORDING)
def test_g6_subcommand_without_an_operator_is_refused_and_changes_nothing(
    name: str, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*name.split(), *RECORDING[name][0](case)]
    before = all_events().keys(), count_rows()
    without_a_name(monkeypatch)
    assert run_with_faults(*words) == REFUSAL
    assert (all_events().keys(), count_rows()) == before


@pytest.mark.parametrize("name", READING)
def test_g6_reading_subcommand_records_nothing_and_needs_no_operator(
    name: str, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*name.split(), *READING[name](case)]
    before = all_events().keys()
    without_a_name(monkeypatch)
    assert "no name" not in run_with_faults(*words)
    assert all_events().keys() == before


@pytest.mark.parametrize(
    ("name", "message"),
    [("pk:0", "There is no user pk:0."), ("nemo", "There is no user nemo."), ("", "There is no user .")],
)
def test_g6_unknown_account_is_refused(name: str, message: str, case: Case) -> None:
    assert run_with_faults("hold", "place", case.subject, "--reason", "x", "--as", name) == message
    assert not LegalHold.objects.exists()


def test_g6_inactive_account_is_refused_and_an_active_one_accepted(case: Case) -> None:
    words = ("hold", "place", case.subject, "--reason", "x", "--as", "clerk")
    get_user_model()._default_manager.filter(pk=case.staff.pk).update(is_active=False)
    assert run_with_faults(*words) == "User clerk is not active."
    assert not LegalHold.objects.exists()
    get_user_model()._default_manager.filter(pk=case.staff.pk).update(is_active=True)
    assert run_with_faults(*words) == ""
    assert LegalHold.objects.get().placed_by == build_operator_actor(account_pk=str(case.staff.pk))


def test_g6_events_of_an_operator_are_found_by_the_actor(case: Case) -> None:
    run("hold", "place", case.subject, "--reason", "x", "--as", "clerk")
    lines = run("audit", "export", "--actor", build_operator_actor(account_pk=str(case.staff.pk))).splitlines()
    assert [json.loads(line)["action"] for line in lines] == ["hold.placed"]
    assert run("audit", "export", "--actor", case.staff.pk) == ""


def test_counted_refusals_keep_the_address_of_their_sender(case: Case) -> None:
    minute = NOW.replace(second=0, microsecond=0) - timedelta(minutes=2)
    for network in ("198.51.100.7", "unknown"):
        RefusalCount.objects.create(minute=minute, reason="state_invalid", network=network, count=30)
    run("audit", "drain")
    refusals = AuditEvent.objects.filter(action="login.refused")
    assert {(event.actor, event.client_ip) for event in refusals} == {("", "198.51.100.7"), ("", "")}


def test_origin_of_a_command_ends_with_its_block(case: Case) -> None:
    operator = Origin(actor="os:amina@portal")
    with use_origin(lambda: operator):
        assert current_origin() == operator
    assert current_origin() == Origin()
    with transaction.atomic():
        outbox.enqueue(Action.ALERT_RAISED, origin=Origin(), now=LATER, detail={"rule": "x"})
    assert AuditEvent.objects.get(action="alert.raised").actor == ""


@pytest.mark.parametrize(
    ("name", "host", "sudo_user", "pk", "actor"),
    [
        ("amina", "portal-1", "", "", "os:amina@portal-1"),
        ("root", "portal-1", "amina", "", "os:root@portal-1;sudo=amina"),
        ("root", "portal-1", "root", "", "os:root@portal-1"),
        ("root", "portal-1", "amina", "7", "os:root@portal-1;sudo=amina;as=7"),
        ("HOSPITAL\\ada berg", "h", "", "", "os:HOSPITAL%5Cada%20berg@h"),
        ("zoë", "h", "\udcff", "", "os:zo%C3%AB@h;sudo=%FF"),
        ("a", "h", "b;as=7\n", "", "os:a@h;sudo=b%3Bas%3D7%0A"),
        ("a@h;as=7", "h", "", "", "os:a%40h%3Bas%3D7@h"),
        ("n" * 99, "h" * 99, "s" * 99, "p" * 99, f"os:{'n' * 32}@{'h' * 63};sudo={'s' * 32};as={'p' * 64}"),
    ],
)
def test_names_cannot_imitate_another_part_of_the_actor(
    name: str, host: str, sudo_user: str, pk: str, actor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = pwd.struct_passwd((name, "x", 1000, 1000, "", "/", ""))
    monkeypatch.setattr("pwd.getpwuid", lambda uid: entry)
    monkeypatch.setattr("socket.gethostname", lambda: host)
    monkeypatch.setattr("django_phi_oidc.audit.operators._LOGIN_UID", Path("/nonexistent"))
    monkeypatch.setitem(os.environ, "SUDO_USER", sudo_user)
    assert build_operator_actor(account_pk=pk) == actor
    assert find_stated_account_pk(actor) == pk[:64]
    assert len(actor) < 255


@pytest.mark.parametrize(("login", "part"), [("1000", ";login=ada"), ("0", ""), (str(2**32 - 1), ""), ("", "")])
def test_login_that_the_kernel_keeps_is_part_of_the_actor(
    login: str, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {0: "root", 1000: "ada"}
    monkeypatch.setattr("os.getuid", lambda: 0)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: pwd.struct_passwd((names[uid], "x", uid, uid, "", "/", "")))
    monkeypatch.setattr("socket.gethostname", lambda: "h")
    monkeypatch.delenv("SUDO_USER", raising=False)
    (tmp_path / "loginuid").write_text(login)
    monkeypatch.setattr("django_phi_oidc.audit.operators._LOGIN_UID", tmp_path / "loginuid")
    assert build_operator_actor() == f"os:root@h{part}"


@pytest.mark.parametrize("actor", ["", "7", "a;as=7", "os:ada@h", "os:ada@h;sudo=b%3Bas%3D7"])
def test_actor_without_a_stated_account_has_none(actor: str) -> None:
    assert find_stated_account_pk(actor) == ""


CHILD = """
import os, sys, django
django.setup()
from django.core.management import call_command, execute_from_command_line
from django.db import connections
call_command("phi_oidc", "hold", "list", "--json", skip_checks=True)
connections.close_all()
if sys.argv[1]:
    os.setgroups([])
    os.setgid(int(sys.argv[1]))
    os.setuid(int(sys.argv[1]))
execute_from_command_line(["manage.py", "phi_oidc", *sys.argv[2:]])
"""
"""All modules are imported first: the other user may not be allowed to read them."""


def run_process(*words: object, uid: int | None = None, **environment: str) -> "subprocess.CompletedProcess[str]":
    named = {alias: connections[alias].settings_dict for alias in databases.ALIASES}
    if connections["default"].vendor == "sqlite" and uid is not None:
        for alias in databases.ALIASES:
            for path in Path(named[alias]["NAME"]).parent.glob(f"{Path(named[alias]['NAME']).name}*"):
                path.chmod(0o666)
    return subprocess.run(
        [sys.executable, "-c", CHILD, "" if uid is None else str(uid), *map(str, words)],
        env={**databases.child_environment(os.environ, named), "PYTHONPATH": str(ROOT), **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_g6_process_under_sudo_names_both_users(person: Person) -> None:
    place = ("hold", "place", person.subject.uuid, "--reason", "x")
    assert run_process(*place, SUDO_USER="amina").returncode == 0
    (event,) = AuditEvent.objects.filter(action="hold.placed")
    assert event.actor.startswith(f"os:{pwd.getpwuid(os.getuid()).pw_name}@")
    assert ";sudo=amina" in event.actor
    assert LegalHold.objects.get().placed_by == event.actor


@pytest.mark.sqlite  # another user may not open the socket of a temporary PostgreSQL server
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_g6_process_of_a_user_without_a_name_is_refused_without_an_account(person: Person) -> None:
    with pytest.raises(KeyError):
        pwd.getpwuid(STRANGER)
    place = ("hold", "place", person.subject.uuid, "--reason", "x")
    refused = run_process(*place, uid=STRANGER)
    assert refused.returncode == 1
    assert refused.stderr == f"CommandError: {REFUSAL}\n"
    assert not LegalHold.objects.exists()
    accepted = run_process(*place, "--as", person.user.get_username(), uid=STRANGER)
    assert accepted.returncode == 0, accepted.stderr
    (event,) = AuditEvent.objects.filter(action="hold.placed")
    assert event.actor.startswith(f"os:uid={STRANGER}@")
    assert event.actor.endswith(f";as={person.user.pk}")
