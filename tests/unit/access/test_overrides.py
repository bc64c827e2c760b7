"""The registries of the decision: sources of overrides, demands of a new sign-in, and queues of events; and none."""

from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connections
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import clock
from django_phi_oidc.access.decisions import authorize
from django_phi_oidc.access.policy import SIGN_IN_DEMANDED, AccessPolicy
from django_phi_oidc.audit.events import NewEvent
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.request_context import Actor
from django_phi_oidc.contrib.emergency.models import EmergencyAccess
from django_phi_oidc.errors import AuditUnavailable
from django_phi_oidc.extensions import (
    AccessOverride,
    access_overrides,
    event_queues,
    sign_in_demands,
    sign_in_observers,
)
from tests.support.audit_outage import audit_database_fails
from tests.support.emergency_access import actor, declare
from tests.support.guarded_views import HELD, PERMISSION
from tests.support.session_fixtures import BACKEND

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])

POLICY = AccessPolicy(permission=PERMISSION, purposes=frozenset({"TREAT"}))
DETAIL = '{"emergency":"an-override"}'


@dataclass
class Source:
    """A source that grants its permission to each actor."""

    permission: str = PERMISSION
    spools: bool = True
    spooled: list[NewEvent] = field(default_factory=list)

    def is_offered(self, permission: str | None = None) -> bool:
        return permission in (None, self.permission)

    def requires_assurance(self) -> bool:
        return False

    def find_override(self, actor: Actor, *, resource: str, permission: str, now: datetime) -> AccessOverride | None:
        if permission != self.permission:
            return None
        return AccessOverride(source=self, purpose="ETREAT", detail={"emergency": "an-override"})

    def find_opening_url(self, actor: Actor, *, resource: str, next_url: str) -> str:
        return ""

    def has_spool(self) -> bool:
        return self.spools

    def record_or_spool(self, new_event: NewEvent) -> bool:
        self.spooled.append(new_event)
        return False

    def spool_event(self, new_event: NewEvent) -> None:
        self.spooled.append(new_event)


@pytest.fixture
def user(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a user without permissions, in a portal whose apps have registered nothing."""
    settings.AUTHENTICATION_BACKENDS = [BACKEND, "tests.support.guarded_views.Wards"]
    declare(settings)
    HELD.clear()
    for registry in (access_overrides, event_queues, sign_in_demands):
        monkeypatch.setattr(registry, "_items", [])
    return get_user_model()._default_manager.create_user(username="a")


def decide(user: Any, purpose: str = "TREAT") -> str | None:
    return authorize(actor(user), POLICY, resource="Patient/7", purpose=purpose, find_object=None, now=clock.now())


def get_event() -> AuditEvent:
    return AuditEvent.objects.latest("id")


def test_without_sources_the_permission_decides_and_no_emergency_is_read(user: Any) -> None:
    with CaptureQueriesContext(connections["default"]) as queries:
        assert decide(user) == "permission_missing"
        HELD.add((user.pk, None))
        assert decide(user) is None
    assert not [query for query in queries if EmergencyAccess._meta.db_table in query["sql"]]
    with audit_database_fails(), pytest.raises(AuditUnavailable):
        decide(user)


def test_first_source_that_finds_an_override_replaces_the_permission(user: Any) -> None:
    without_spool = Source(spools=False)
    access_overrides.register(Source(permission="portal.view_letter"))
    access_overrides.register(without_spool)
    assert decide(user, "ETREAT") is None
    assert (get_event().purpose, get_event().detail) == ("ETREAT", DETAIL)
    assert without_spool.spooled == []
    with audit_database_fails(), pytest.raises(AuditUnavailable):
        decide(user, "ETREAT")


def test_source_with_a_spool_records_what_it_permits(user: Any) -> None:
    source = Source()
    access_overrides.register(source)
    assert decide(user, "ETREAT") is None
    assert [event.purpose for event in source.spooled] == ["ETREAT"]
    # A refusal permits nothing, so it is recorded as usual.
    assert decide(user, "HMARKT") == "purpose_not_declared"
    assert len(source.spooled) == 1
    assert get_event().reason == "purpose_not_declared"


def test_permission_needs_an_override_only_while_the_audit_log_is_unavailable(user: Any) -> None:
    source = Source()
    access_overrides.register(Source(spools=False))
    access_overrides.register(source)
    HELD.add((user.pk, None))
    assert decide(user) is None
    assert (get_event().detail, source.spooled) == ("{}", [])
    with audit_database_fails():
        assert decide(user) is None
    assert [event.detail for event in source.spooled] == [{"emergency": "an-override"}]


def test_one_demand_of_a_new_sign_in_refuses(user: Any) -> None:
    HELD.add((user.pk, None))
    sign_in_demands.register(lambda actor: False)
    assert decide(user) is None
    sign_in_demands.register(lambda actor: True)
    assert decide(user) == SIGN_IN_DEMANDED


def test_queue_is_flushed_after_a_recorded_decision_and_its_failure_is_only_logged(
    user: Any, caplog: pytest.LogCaptureFixture
) -> None:
    flushed: list[float | None] = []

    def flush(*, now: datetime, timeout_seconds: float | None = None) -> int:
        flushed.append(timeout_seconds)
        raise OSError

    queue = SimpleNamespace(name="drawer", has_events=lambda: True, flush=flush)
    empty = SimpleNamespace(name="box", has_events=lambda: False)
    event_queues.register(empty)
    event_queues.register(queue)
    assert decide(user) == "permission_missing"
    assert len(flushed) == 1
    assert flushed[0]
    assert "The drawer was not flushed: OSError." in caplog.text


def test_apps_have_registered_once() -> None:
    for registry in (access_overrides, event_queues, sign_in_demands, sign_in_observers):
        items = list(registry)
        assert len(items) == len({id(item) for item in items})
        assert items
        registry.register(items[0])
        assert list(registry) == items
