"""SCIM clients with their tokens, and the users and groups that they manage."""

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop

MAX_LENGTH = 255
"""Characters of each text that a client sends."""


class SCIMClient(models.Model):
    """A system that manages the accounts of one provider."""

    name = models.CharField(_("name"), max_length=64, unique=True)
    provider = models.CharField(_("provider"), max_length=64)
    created_at = models.DateTimeField(_("created at"), editable=False)
    created_by = models.CharField(_("created by"), max_length=255, editable=False)
    """The actor: the primary key of the creating user, or the operator of a command."""
    revoked_at = models.DateTimeField(_("revoked at"), null=True, editable=False)

    class Meta:
        app_label = "phi_oidc_scim"
        verbose_name = _("SCIM client")
        verbose_name_plural = _("SCIM clients")
        default_permissions = ("view",)
        permissions = (
            ("manage_scimclient", gettext_noop("Can create, rotate and revoke SCIM clients")),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def actor(self) -> str:
        """The actor of the events that the client causes."""
        return f"scim:{self.name}"


class SCIMToken(models.Model):
    """A bearer token of a client; only its digest is stored. During a rotation, two are valid."""

    client = models.ForeignKey(SCIMClient, on_delete=models.CASCADE, related_name="tokens")
    digest = models.CharField(max_length=64, unique=True, editable=False)
    """Hexadecimal SHA-256 of the token, which has 256 random bits."""
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True)
    """Exact to a minute."""
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        app_label = "phi_oidc_scim"
        verbose_name = _("SCIM token")
        verbose_name_plural = _("SCIM tokens")
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.pk)


class SCIMUser(models.Model):
    """An account that clients of a provider manage. No client sees a deleted one, whose row has no
    names.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    provider = models.CharField(max_length=64)
    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+"
    )
    user_name = models.CharField(max_length=MAX_LENGTH)
    user_name_key = models.CharField(max_length=MAX_LENGTH)
    """As it is compared: without case."""
    external_id = models.CharField(max_length=MAX_LENGTH, blank=True)
    active = models.BooleanField(null=True, default=True)
    """As the client has set it; None: it has removed the attribute."""
    has_disabled_account = models.BooleanField(default=False)
    """Whether the account is inactive because of a client, and not of an administrator."""
    version = models.PositiveIntegerField(default=1)
    created_at = models.DateTimeField()
    changed_at = models.DateTimeField()
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        app_label = "phi_oidc_scim"
        verbose_name = _("SCIM user")
        verbose_name_plural = _("SCIM users")
        default_permissions = ()
        indexes = (
            models.Index(fields=["provider", "external_id"], name="phi_oidc_scim_user_external_id"),
        )
        constraints = (
            models.UniqueConstraint(
                fields=["provider", "user_name_key"],
                condition=models.Q(deleted_at=None),
                name="phi_oidc_scim_user_name_unique",
            ),
        )

    def __str__(self) -> str:
        return str(self.id)


class SCIMGroup(models.Model):
    """A group of users of one provider, which `ROLES` may map to roles."""

    id = models.UUIDField(primary_key=True, editable=False)
    provider = models.CharField(max_length=64)
    display_name = models.CharField(max_length=MAX_LENGTH)
    display_name_key = models.CharField(max_length=MAX_LENGTH)
    """As it is compared: without case."""
    external_id = models.CharField(max_length=MAX_LENGTH, blank=True)
    version = models.PositiveIntegerField(default=1)
    created_at = models.DateTimeField()
    changed_at = models.DateTimeField()

    class Meta:
        app_label = "phi_oidc_scim"
        verbose_name = _("SCIM group")
        verbose_name_plural = _("SCIM groups")
        default_permissions = ()
        constraints = (
            models.UniqueConstraint(
                fields=["provider", "display_name_key"], name="phi_oidc_scim_group_name_unique"
            ),
        )

    def __str__(self) -> str:
        return str(self.id)


class SCIMMembership(models.Model):
    """A user in a group of the same provider."""

    group = models.ForeignKey(SCIMGroup, on_delete=models.CASCADE, related_name="memberships")
    member = models.ForeignKey(SCIMUser, on_delete=models.CASCADE, related_name="memberships")

    class Meta:
        app_label = "phi_oidc_scim"
        verbose_name = _("SCIM membership")
        verbose_name_plural = _("SCIM memberships")
        default_permissions = ()
        constraints = (
            models.UniqueConstraint(
                fields=["group", "member"], name="phi_oidc_scim_membership_unique"
            ),
        )

    def __str__(self) -> str:
        return str(self.pk)
