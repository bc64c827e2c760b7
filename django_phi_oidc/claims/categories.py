"""Categories of claims: the permission to reveal the claims of each. Spec: 45 CFR 164.514(d)(2),
minimum necessary.

A declared category is not known to the migrations, so `migrate` creates its permission afterwards.
The permissions belong to PairwiseSubject: backends such as django-guardian grant a permission only
for objects of its own model.
"""

from typing import Any

from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.db import router

from .. import conf
from ..access.decisions import has_permission
from ..config.claims import ClaimDeclaration
from ..subjects.models import PairwiseSubject

REVEAL_PERMISSION = "django_phi_oidc.reveal_storedclaim"
"""The permission to reveal claims without a category."""


def get_category_permission(category: str) -> str:
    """Return the permission to reveal the claims of a category; "": those without a category."""
    if category:
        return f"{REVEAL_PERMISSION}_{category}"
    return REVEAL_PERMISSION


def can_reveal(
    user: Any, declaration: ClaimDeclaration, subject: PairwiseSubject | None = None
) -> bool:
    """Return whether user may reveal the claim of other persons, or of this subject."""
    return has_permission(user, get_category_permission(declaration.category), subject)


def list_hidden_names(user: Any, subject: PairwiseSubject | None = None) -> list[str]:
    """Return the claims with a category that user may not reveal: their names alone may disclose a
    condition.
    """
    claims = conf.claims().values()
    hidden_names = []
    for claim in claims:
        if claim.category and not can_reveal(user, claim, subject):
            hidden_names.append(claim.name)
    return hidden_names


def list_names_hidden_of(user: Any, person: Any) -> set[str]:
    """Return the hidden names for all subjects of person. One SELECT, unless the model-wide
    permissions suffice.
    """
    hidden = set(list_hidden_names(user))
    for subject in PairwiseSubject.objects.filter(user=person.pk) if hidden else ():
        hidden.intersection_update(list_hidden_names(user, subject))
    return hidden


def list_categories() -> list[str]:
    return sorted({claim.category for claim in conf.claims().values()} - {""})


def list_missing_categories(*, using: str) -> list[str]:
    """Return the declared categories whose permission is not in that database."""
    by_codename = {}
    for category in list_categories():
        by_codename[get_category_permission(category).partition(".")[2]] = category
    rows = Permission.objects.using(using).filter(
        content_type__app_label=PairwiseSubject._meta.app_label,
        content_type__model=PairwiseSubject._meta.model_name,
        codename__in=by_codename,
    )

    if by_codename:
        existing = set(rows.values_list("codename", flat=True))
    else:
        existing = set()

    missing_categories = []
    for codename, category in by_codename.items():
        if codename not in existing:
            missing_categories.append(category)
    return missing_categories


def create_category_permissions(*, using: str) -> None:
    """Create the missing permissions of the declared categories in that database. None is
    deleted.
    """
    if not router.allow_migrate_model(using, Permission) or not (
        missing := list_missing_categories(using=using)
    ):
        return
    content_type = ContentType.objects.db_manager(using).get_for_model(PairwiseSubject)
    permissions = []
    for category in missing:
        permission = Permission(
            content_type=content_type,
            codename=get_category_permission(category).partition(".")[2],
            name=f"Can reveal {category} claims of other persons",
        )
        permissions.append(permission)
    Permission.objects.using(using).bulk_create(permissions)
