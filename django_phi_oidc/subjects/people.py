"""The names of people on the pages of the admin. They are computed when a page is shown, and stored
nowhere.
"""

import uuid
from collections.abc import Iterable
from typing import Any

from django.contrib.admin.utils import quote
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db.models import F, UUIDField, Value
from django.urls import NoReverseMatch, reverse

from ..audit.event_people import People, Person
from ..audit.operators import find_stated_account_pk
from .person_label import get_label


def get_person(user: Any) -> Person:
    """Return the name and the page of a user."""
    try:
        url = reverse("admin:phi_oidc_person", args=[quote(user.pk)])
    except NoReverseMatch:
        # The project has no admin, or another one.
        url = ""
    return Person(label=get_label(user), url=url)


def find_people(*, actors: Iterable[str] = (), subjects: Iterable[str] = ()) -> People:
    """Return the people that these actors and subjects of events are, by one SELECT, or none
    without both.
    """
    model = get_user_model()
    keys = set()
    uuids = set()
    for actor in actors:
        try:
            key = model._meta.pk.to_python(find_stated_account_pk(actor) or actor or None)
            model._meta.pk.run_validators(key)
        except ValidationError:
            continue
        keys.add(key)
    for subject in subjects:
        try:
            uuids.add(uuid.UUID(subject))
        except ValueError:
            continue
    users = model._default_manager
    no_subject: Any = Value(None, output_field=UUIDField())
    by_subject = users.filter(pairwise_subjects__uuid__in=uuids)
    by_key = users.filter(pk__in=keys - {None}).annotate(found_uuid=no_subject)
    # With OR, the database would scan all accounts.
    rows = by_key.union(by_subject.annotate(found_uuid=F("pairwise_subjects__uuid")), all=True)
    people_by_account: dict[str, Person] = {}
    people_by_subject: dict[str, Person] = {}
    for user in rows if keys - {None} or uuids else ():
        person = get_person(user)
        people_by_account[str(user.pk)] = person
        if user.found_uuid is not None:
            people_by_subject[str(user.found_uuid)] = person
    return People(by_account=people_by_account, by_subject=people_by_subject)
