"""Invitations from a CSV file. No text of a problem repeats a cell."""

from datetime import datetime
from typing import Any

from django.utils.translation import gettext, gettext_lazy
from django.views.decorators.debug import sensitive_variables

from ..._internal.batches import split_into_batches
from ...audit.events import Origin
from ...config.providers import ProviderDeclaration
from ...crypto import keyring
from ...subjects.models import PairwiseSubject
from ..common.privileges import find_more_privileged
from ..subject_links.csv_import.admin import CSVImport
from ..subject_links.csv_import.rows import (
    BATCH_SIZE,
    CODE_COLUMNS,
    USER_COLUMN,
    CheckedFile,
    list_unrefused,
    parse_rows,
)
from . import conf as invitations_conf
from .invitations import LINK_PERMISSION, create_invitations, validate_accepts_codes
from .models import ActivationCode


@sensitive_variables()
def check_invitations(
    content: bytes, *, provider: ProviderDeclaration, actor: Any, now: datetime
) -> CheckedFile:
    """Return the rows with the users that actor may invite. Raises: ImportRefused, CSVTableError,
    PhiOidcError.
    """
    validate_accepts_codes(provider)
    checked = parse_rows(content, required=(USER_COLUMN,), reserved=CODE_COLUMNS, provider=provider)
    may_link = actor.has_perm(LINK_PERMISSION)
    for batch in split_into_batches(list_unrefused(checked), BATCH_SIZE):
        users = {row.user.pk: row.user for row in batch}
        more_privileged = find_more_privileged(users, actor)
        links = list(PairwiseSubject.objects.filter(user__in=users).values_list("user", "issuer"))
        linked = set()
        linked_here = set()
        for pk, issuer in links:
            linked.add(pk)
            if issuer == provider.issuer:
                linked_here.add(pk)
        codes = ActivationCode.objects.redeemable(now=now).filter(
            user__in=users, provider=provider.name
        )
        invited = set(codes.values_list("user", flat=True))
        for row in batch:
            pk = row.user.pk
            if not row.user.is_active:
                row.refuse(gettext("The account is deactivated."))
            elif pk in more_privileged:
                row.refuse(
                    gettext("This account has permissions that you do not have."), is_forbidden=True
                )
            elif pk in linked_here:
                row.refuse(gettext("A person is already linked to this account at this provider."))
            elif pk in linked and not may_link:
                text = gettext(
                    "A person is already linked to this account, and you may not link a second one."
                )
                row.refuse(text, is_forbidden=True)
            elif pk in invited:
                row.note = gettext("Replaces the unused code of this account.")
    return checked


@sensitive_variables()
def apply_invitations(
    checked: CheckedFile, *, provider: ProviderDeclaration, origin: Origin, now: datetime
) -> list[tuple[str, ...]]:
    """Invite the users of the applicable rows; return each row with its code, in their order.

    Requires: an open transaction, which an error must roll back. Raises: PhiOidcError.
    """
    key = keyring.get_keys("subject")[0]
    lifetime = invitations_conf.activation_lifetime()
    invitations = {}
    # In the order of the keys, as within each batch: two imports must not deadlock.
    pks = sorted(row.user.pk for row in checked.applicable)
    for batch in split_into_batches(pks, BATCH_SIZE):
        for item in create_invitations(
            batch, provider=provider, key=key, lifetime=lifetime, origin=origin, now=now
        ):
            invitations[item.user_id] = item
    rows = []
    for row in checked.applicable:
        invitation = invitations[row.user.pk]
        expires_at = invitation.expires_at.isoformat(timespec="seconds")
        rows.append((*row.cells, invitation.code, expires_at))
    return rows


INVITATIONS = CSVImport(
    title=gettext_lazy("Invite people from a CSV file"),
    description=gettext_lazy(
        "Each person gets an activation code. You download the codes for your letters."
    ),
    columns=(
        ("user", gettext_lazy("The user name; or “pk:” and the primary key, such as pk:43.")),
    ),
    other_columns=gettext_lazy(
        "Other columns, such as names and addresses, are copied to the file with the codes."
    ),
    check=check_invitations,
    apply=apply_invitations,
    creates_codes=True,
    is_provider_offered=lambda provider: provider.provisioning == "invitation",
)
