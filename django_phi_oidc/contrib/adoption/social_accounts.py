"""Link the users of django-allauth by the `uid` of their social accounts, which is the `sub` of
most providers.

A row is trusted as much as the account table: allauth would sign its user in by it. It is linked
only if nothing in it contradicts the declaration, and the `uid` is never part of a message.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.core.exceptions import ObjectDoesNotExist
from django.views.decorators.debug import sensitive_variables

from ..._internal import clock
from ...audit.events import Origin
from ...config.providers import ProviderDeclaration
from ...crypto.keyring import SymmetricKey
from ...errors import IDTokenError, SubjectTaken
from ...subjects.linking import find_linked_subject, link_existing_user, validate_linkable_sub
from ...subjects.local_accounts import is_local_account
from ..common.privileges import list_privileges
from .allauth import APP_LABEL, SocialApplication, find_provider, list_applications


class LinkOutcome(StrEnum):
    """What happened to a social account."""

    LINKED = "linked"
    ALREADY_LINKED = "already_linked"
    TAKEN = "taken"
    """The person is linked to another user."""
    PRIVILEGED = "privileged"
    """The user may act on the data of others."""
    OTHER_SUB = "other_sub"
    """The `uid` is not the `sub` of the last sign-in."""
    OTHER_ISSUER = "other_issuer"
    """The last sign-in was at another issuer than the declared one."""
    INVALID_SUB = "invalid_sub"
    """A sign-in with that `sub` would be refused."""
    USER_DELETED = "user_deleted"


DONE = frozenset({LinkOutcome.LINKED, LinkOutcome.ALREADY_LINKED})


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkResult:
    """A social account and what happened to it."""

    account_pk: Any
    user_pk: Any
    outcome: LinkOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOptions:
    """dry_run: change nothing. allow_privileged: also link users who may act on the data of
    others.
    """

    keys: Sequence[SymmetricKey]
    origin: Origin
    dry_run: bool = True
    allow_privileged: bool = False


def count_social_accounts(account_provider: str) -> int:
    """Return the number of social accounts of that provider. Raises: DatabaseError."""
    return int(_query_accounts(account_provider).count())


def count_users_without_social_account() -> int:
    """Return the number of users that no provider of allauth knows. Raises: DatabaseError."""
    return int(get_user_model()._base_manager.filter(**{APP_LABEL: None}).count())


def find_refusal(application: SocialApplication, provider: ProviderDeclaration | None) -> str:
    """Return why no account of the application can be linked to the declared provider; empty if it
    can.

    SocialAccount.provider does not show which of several applications with one name an account
    belongs to, so each of them must be of that provider.
    """
    same_name = []
    for item in list_applications():
        if item.account_provider == application.account_provider:
            same_name.append(item)
    return next(filter(None, (_find_refusal_of_all(item, provider) for item in same_name)), "")


def _find_refusal_of_all(
    application: SocialApplication, provider: ProviderDeclaration | None
) -> str:
    """Return why the accounts cannot be those of the declared issuer and client, by the metadata of
    the provider.
    """
    if not application.has_sub_as_uid:
        return "SocialAccount.uid is not the sub"
    if provider is None:
        return f"PHI_OIDC declares no provider {application.name}"
    if provider.client_id != application.client_id and provider.subject_type == "pairwise":
        return "PHI_OIDC declares another client_id, which gets other pairwise subjects"
    issuer, discovered = find_provider(application)
    if issuer and issuer.removesuffix("/") != provider.issuer.removesuffix("/"):
        return f"PHI_OIDC declares another issuer than {issuer}"
    if discovered is not None and discovered.issuer != provider.issuer:
        return f"PHI_OIDC declares another issuer than {discovered.issuer}"
    return ""


def link_social_accounts(
    application: SocialApplication, provider: ProviderDeclaration, options: LinkOptions
) -> Iterator[LinkResult]:
    """Link the user of each social account, each in its own transaction with an event, in the order
    of primary keys.

    Deactivated users are linked too: otherwise the person would get a new, active account at the
    next sign-in.
    Requires: find_refusal is empty. Raises: SubjectKeyMissing, SubjectAltered, DatabaseError.
    """
    accounts = _query_accounts(application.account_provider).select_related("user").order_by("pk")
    for account in accounts.iterator(chunk_size=500):
        outcome = _link(account, provider, options)
        yield LinkResult(account_pk=account.pk, user_pk=account.user_id, outcome=outcome)


@sensitive_variables()
def _link(account: Any, provider: ProviderDeclaration, options: LinkOptions) -> LinkOutcome:
    sub: str = account.uid
    known = find_linked_subject(issuer=provider.issuer, sub=sub, keys=options.keys)
    if known is not None:
        if known.user_id == account.user_id:
            return LinkOutcome.ALREADY_LINKED
        return LinkOutcome.TAKEN
    if refusal := _find_refusal(account, provider, options):
        return refusal
    if options.dry_run:
        return LinkOutcome.LINKED
    try:
        link_existing_user(
            account.user,
            sub=sub,
            provider=provider,
            keys=options.keys,
            origin=options.origin,
            now=clock.now(),
        )
    except SubjectTaken as error:
        if error.user == account.user_id:
            return LinkOutcome.ALREADY_LINKED
        return LinkOutcome.TAKEN
    except ObjectDoesNotExist:
        return LinkOutcome.USER_DELETED
    return LinkOutcome.LINKED


@sensitive_variables()
def _find_refusal(
    account: Any, provider: ProviderDeclaration, options: LinkOptions
) -> LinkOutcome | None:
    for claims in _iter_stored_claims(account.extra_data):
        if claims.get("sub", account.uid) != account.uid:
            return LinkOutcome.OTHER_SUB
        if claims.get("iss", provider.issuer) != provider.issuer:
            return LinkOutcome.OTHER_ISSUER
    try:
        validate_linkable_sub(account.uid, provider=provider)
    except IDTokenError:
        return LinkOutcome.INVALID_SUB
    is_local = is_local_account(account.user)
    if not options.allow_privileged and (is_local or list_privileges(account.user)):
        return LinkOutcome.PRIVILEGED
    return None


def _iter_stored_claims(extra_data: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the claims of the last sign-in: allauth stores UserInfo, the ID Token, or both."""
    if not isinstance(extra_data, Mapping):
        return
    yield extra_data
    for name in ("userinfo", "id_token"):
        claims = extra_data.get(name)
        if isinstance(claims, Mapping):
            yield claims


def _query_accounts(account_provider: str) -> Any:
    return apps.get_model(APP_LABEL, "SocialAccount")._base_manager.filter(
        provider=account_provider
    )
