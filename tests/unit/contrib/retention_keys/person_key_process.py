"""Processes that sign one person in again and again, or erase persons and are killed at each point in turn.

Arguments: activity, folder of the retention keys, declared claims, and those of the activity.
"""

import json
import os
import signal
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import django

django.setup()

from django.conf import settings  # noqa: E402
from django.contrib.auth import get_user_model  # noqa: E402
from django.db import transaction  # noqa: E402

from django_phi_oidc.audit.events import Origin  # noqa: E402
from django_phi_oidc.claims.retention import destroy_unused_keys, scrub_user  # noqa: E402
from django_phi_oidc.claims.storage import store_claims  # noqa: E402
from django_phi_oidc.config.claims import parse_claim  # noqa: E402
from django_phi_oidc.subjects.linking import mark_seen  # noqa: E402
from django_phi_oidc.subjects.models import PairwiseSubject  # noqa: E402
from tests.support.claims_fixtures import NOW  # noqa: E402
from tests.support.kill_points import watch  # noqa: E402
from tests.support.phi_oidc_settings import override_phi_oidc  # noqa: E402

ROUNDS = 60
activity, folder, declared, *arguments = sys.argv[1:]
settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"retention": Path(folder)}, CLAIMS=json.loads(declared))


def sign_in(subject_uuid: str) -> None:
    """Store claims as sign-ins of that person do, and print how many were stored."""
    claims, stored = {name: parse_claim(name, raw) for name, raw in json.loads(declared).items()}, 0
    for _ in range(ROUNDS):
        # Read before the lock, as the sign-in does.
        subject = PairwiseSubject.objects.get(uuid=subject_uuid)
        with transaction.atomic():
            mark_seen(subject, now=NOW)
            names = store_claims(
                {"address": "Bern", "birthdate": "1990-05-17"},
                declared_claims=claims,
                subject=subject,
                session_id=uuid.uuid4(),
                now=NOW,
            )
        stored += len(names)
    print(stored)


def erase(*persons: str) -> None:
    """Erase one person per child, each killed two points later than the one before.

    persons: primary key of the user, comma, name of the key. Prints each exit status, and whether the key still exists.
    """
    for number, person in enumerate(persons, start=1):
        user_pk, name = person.split(",")
        pid = os.fork()
        if pid == 0:
            watch(kill_at(2 * number))
            scrub_user(get_user_model().objects.get(pk=user_pk), origin=Origin(), now=NOW)
            destroy_unused_keys(now=NOW)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(status, int((Path(folder) / name).exists()))
        if status == 0:
            break


def kill_at(number: int) -> Callable[[str], None]:
    passed = 0

    def reach(point: str) -> None:
        nonlocal passed
        passed += 1
        if passed == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return reach


{"sign_in": sign_in, "erase": erase}[activity](*arguments)
