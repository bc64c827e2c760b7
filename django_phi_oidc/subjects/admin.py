"""Who is linked to which account: a list to read, a form that links, a deletion that unlinks. No digest, no `sub`."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters

from .. import clock, conf, keyring
from ..audit.request import Actor
from ..errors import HeldForLegalReasons
from ..listing import SaysWhyNotAdmin
from .linking import link_existing
from .models import PairwiseSubject

if TYPE_CHECKING:
    SubjectForm = forms.ModelForm[PairwiseSubject]
else:
    SubjectForm = forms.ModelForm


def _providers() -> list[tuple[str, str]]:
    return [(name, declared.label or name) for name, declared in conf.providers().items()]


class LinkForm(SubjectForm):
    """Asks whom to link. The `sub` is not echoed, and does not come back with a page that shows a fault."""

    provider = forms.ChoiceField(choices=_providers)
    sub = forms.CharField(
        label="Subject (sub)",
        max_length=255,
        widget=forms.PasswordInput(attrs={"autocomplete": "off", "class": "vTextField"}),
        help_text="What the provider calls this person towards this portal. It is not stored, nor shown again.",
    )

    class Meta:
        model = PairwiseSubject
        fields = ("user",)


@admin.register(PairwiseSubject)
class PairwiseSubjectAdmin(SaysWhyNotAdmin):
    """Adding links a person to an account, deleting unlinks one; nothing can be changed."""

    form = LinkForm
    raw_id_fields = ("user",)
    list_display = ("uuid", "user", "issuer", "first_seen_at", "last_seen_at")
    list_select_related = ("user",)
    search_fields = ("uuid", "user")
    search_help_text = "A subject's UUID or a user name, in full."
    show_full_result_count = False
    # One at a time: each ends sessions, and asks the provider to revoke their tokens.
    actions = None

    def get_fields(self, request: HttpRequest, obj: PairwiseSubject | None = None) -> Any:
        return self.list_display if obj else ("provider", "user", "sub")

    def has_change_permission(self, request: HttpRequest, obj: PairwiseSubject | None = None) -> bool:
        return False

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[PairwiseSubject], search_term: str
    ) -> tuple[QuerySet[PairwiseSubject], bool]:
        """Answer by the index: Django's own search compares a UUID as text."""
        if not (term := search_term.strip()):
            return queryset, False
        with suppress(ValueError):
            found = queryset.filter(uuid=UUID(term))
            if found.exists():
                return found, False
        # A user name may look like a UUID.
        return queryset.filter(**{f"user__{get_user_model().USERNAME_FIELD}": term}), False

    @method_decorator(sensitive_post_parameters("sub"))
    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Link, or say why not."""
        return super().add_view(request, form_url, extra_context)

    def again(self, request: HttpRequest) -> str:
        """Return the form with all that it had but the `sub`."""
        kept = {name: request.POST.get(name, "") for name in ("provider", "user")}
        return f"{request.path}?{urlencode(kept)}"

    def save_model(self, request: HttpRequest, obj: PairwiseSubject, form: Any, change: bool) -> None:
        """Link, in the transaction of the form. Raises: PhiOidcError; DoesNotExist when the user is gone."""
        if getattr(obj.user, "is_superuser", False) and not getattr(request.user, "is_superuser", False):
            # Whoever links says who signs in: to that account too.
            raise PermissionDenied
        subject = link_existing(
            obj.user,
            sub=form.cleaned_data["sub"],
            provider=conf.providers()[form.cleaned_data["provider"]],
            keys=keyring.keys("SUBJECT_KEYS"),
            origin=Actor.from_request(request).origin,
            now=clock.now(),
        )
        obj.pk = subject.pk
        obj.refresh_from_db()

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Unlink, or say why not: the page has shown a legal hold that lasts, but one may have come since."""
        try:
            return super().delete_view(request, object_id, extra_context)
        except HeldForLegalReasons as refusal:
            self.message_user(request, str(refusal), messages.ERROR)
            return HttpResponseRedirect(request.path)

    def delete_model(self, request: HttpRequest, obj: PairwiseSubject) -> None:
        """Unlink, in the transaction of the page."""
        obj.deleted_by = Actor.from_request(request).origin
        obj.delete()
