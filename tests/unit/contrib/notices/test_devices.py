"""A browser is new to a user once; a user has a limited number of known ones."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test.utils import CaptureQueriesContext

from django_phi_oidc import tasks
from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.contrib.individual_rights.erasure import erase_person
from django_phi_oidc.contrib.notices.devices import DEVICE_LIFETIME, MAX_DEVICES, register_device
from django_phi_oidc.contrib.notices.models import KnownDevice
from tests.support.subject_linking import NOW, capturing, statements

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])


@pytest.fixture
def users() -> list[Any]:
    return [get_user_model()._default_manager.create_user(username=name) for name in ("ada", "bea")]


def test_g12_browser_is_new_once_to_each_user(users: list[Any]) -> None:
    ada, bea = users
    assert [register_device(ada, "a-browser", now=NOW) for _ in range(2)] == [True, False]
    assert register_device(ada, "another", now=NOW)
    assert register_device(bea, "a-browser", now=NOW)
    digests = set(KnownDevice.objects.values_list("digest", flat=True))
    assert len(digests) == 3, "the rows of two users of one browser do not match"
    assert not [digest for digest in digests if "browser" in digest]


def test_g12_known_browser_takes_one_statement(users: list[Any]) -> None:
    register_device(users[0], "a-browser", now=NOW)
    context: CaptureQueriesContext = capturing()
    with context:
        assert not register_device(users[0], "a-browser", now=NOW + timedelta(days=1))
    assert [statement.split()[0] for statement in statements(context)] == ["UPDATE"]
    assert KnownDevice.objects.get().last_used_at == NOW + timedelta(days=1)


def test_g12_least_recently_used_browser_is_forgotten(users: list[Any]) -> None:
    ada, bea = users
    register_device(bea, "0", now=NOW)
    for number in range(MAX_DEVICES + 1):
        register_device(ada, str(number), now=NOW + timedelta(seconds=number))
    assert KnownDevice.objects.filter(user=ada).count() == MAX_DEVICES
    assert [register_device(ada, str(number), now=NOW + timedelta(days=1)) for number in (1, 0)] == [False, True]
    assert not register_device(bea, "0", now=NOW)


def test_g12_unused_browsers_are_forgotten(users: list[Any]) -> None:
    register_device(users[0], "a-browser", now=NOW)
    for now, count in ((NOW + DEVICE_LIFETIME, 1), (NOW + DEVICE_LIFETIME + timedelta(seconds=1), 0)):
        with clock.override_clock(lambda now=now: now):
            tasks.prune()
        assert KnownDevice.objects.count() == count


def test_g12_browsers_are_erased_with_the_person(users: list[Any]) -> None:
    for user in users:
        register_device(user, "a-browser", now=NOW)
    erase_person(users[0], [], origin=Origin(), now=NOW)
    assert [device.user for device in KnownDevice.objects.all()] == [users[1]]
