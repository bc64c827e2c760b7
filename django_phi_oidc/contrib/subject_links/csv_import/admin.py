"""The pages that invite or link people from a CSV file: upload, preview, confirmation, result.

Nothing is written before the confirmation. Until then the file is in a hidden field of the preview
page, encrypted and bound to the administrator: not in a session, and not on a disk. Codes are in
the response to the confirmation only.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from django import forms
from django.contrib import messages
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied
from django.db import IntegrityError, OperationalError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.utils.formats import get_format
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from .... import conf
from ...._internal import clock, randomness
from ...._internal.admin_theme import ThemedFileInput
from ....audit.admin_base import get_error_message, render_trail_unavailable
from ....audit.events import Action, NewEvent, Origin
from ....audit.recorder import record_many
from ....audit.request_context import Actor
from ....config.providers import ProviderDeclaration
from ....crypto import keyring
from ....errors import AuditUnavailable, PhiOidcError
from ....replay.cache import mark_used_in_transaction
from ....subjects.person_label import get_label
from ..csv_tables import CSVTableError
from . import rows as csv_rows

LIFETIME = timedelta(hours=1)
"""Of a preview, and of the page with the codes."""
MAX_LISTED_ROWS = 200
_TEMPLATES = "admin/phi_oidc_subject_links/csv_import"


class _CheckRows(Protocol):
    def __call__(
        self, content: bytes, *, provider: ProviderDeclaration, actor: Any, now: Any
    ) -> csv_rows.CheckedFile: ...


class _ApplyRows(Protocol):
    """Returns the rows of the file with codes, if the import creates codes."""

    def __call__(
        self,
        checked: csv_rows.CheckedFile,
        *,
        provider: ProviderDeclaration,
        origin: Origin,
        now: Any,
    ) -> list[tuple[str, ...]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CSVImport:
    """What the rows of a file mean."""

    title: str | Promise
    description: str | Promise
    columns: Sequence[tuple[str, str | Promise]]
    """The names and meanings of the columns."""
    other_columns: str | Promise = ""
    """What happens to others; empty: they are ignored."""
    check: _CheckRows
    apply: _ApplyRows
    creates_codes: bool
    is_provider_offered: Callable[[ProviderDeclaration], bool] = lambda provider: True


LINKS = CSVImport(
    title=gettext_lazy("Link people from a CSV file"),
    description=gettext_lazy(
        "Each person can sign in to the account from then on. Verify the identities before."
    ),
    columns=(
        ("user", gettext_lazy("The user name; or “pk:” and the primary key, such as pk:43.")),
        (
            "sub",
            gettext_lazy(
                "The provider's identifier of the person for this "
                "portal. It is not stored or shown."
            ),
        ),
        (
            "provider",
            gettext_lazy("Optional: the name of the provider, if the file is for several."),
        ),
    ),
    check=csv_rows.check_links,
    apply=csv_rows.apply_links,
    creates_codes=False,
)


class CSVUploadForm(forms.Form):
    provider = forms.ChoiceField(label=gettext_lazy("Provider"))
    file = forms.FileField(
        label=gettext_lazy("CSV file"),
        widget=ThemedFileInput(attrs={"accept": ".csv,.txt,text/csv"}),
        help_text=gettext_lazy("UTF-8, with commas or semicolons, at most 5,000 rows and 1 MB."),
    )

    def __init__(self, *args: Any, providers: Sequence[ProviderDeclaration], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        provider_field: Any = self.fields["provider"]
        provider_field.choices = [
            (provider.name, provider.label or provider.name) for provider in providers
        ]

    def clean_file(self) -> Any:
        file = self.cleaned_data["file"]
        if file.size > csv_rows.MAX_BYTES:
            raise forms.ValidationError(
                _("The file is larger than 1 MB. Split it into several files.")
            )
        return file


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingImport:
    """A file that was shown in a preview."""

    content: bytes = field(repr=False)
    provider: str
    rows_digest: str
    """Of the rows that the preview showed as applicable."""
    id: str


class CSVImportPages:
    """The pages of an import below the list of a ModelAdmin that records refusals (`AuditedAdmin`).
    Importing needs the permission to add.
    """

    def __init__(self, model_admin: Any, csv_import: CSVImport) -> None:
        self.model_admin = model_admin
        self.opts = model_admin.opts
        self.admin_site = model_admin.admin_site
        self.csv_import = csv_import

    def build_urls(self) -> list[URLPattern]:
        views = {
            "import": ("import/", self.import_view),
            "template": ("import/template/", self.template_view),
        }
        if self.csv_import.creates_codes:
            views["codes"] = ("import/codes/", self.codes_view)
        wrap = self.admin_site.admin_view
        urls = []
        for name, (route, view) in views.items():
            urls.append(path(route, wrap(view), name=self._url_name(name)))
        return urls

    @method_decorator(sensitive_post_parameters())
    @method_decorator(sensitive_variables())
    def import_view(self, request: HttpRequest) -> HttpResponse:
        """Ask for a file; show what it would do; do it after the confirmation."""
        self._require_permission(request)
        try:
            if "pending" in request.POST:
                return self._confirm(request)
            return self._upload(request)
        except AuditUnavailable:
            return render_trail_unavailable(request, self.admin_site)

    def template_view(self, request: HttpRequest) -> HttpResponse:
        """Return a file with the names of the columns, with the delimiter that the user's
        spreadsheet expects.
        """
        self._require_permission(request)
        names = [name for name, _meaning in self.csv_import.columns]

        if get_format("DECIMAL_SEPARATOR") == ",":
            delimiter = ";"
        else:
            delimiter = ","

        content = csv_rows.render_csv(names, [], delimiter=delimiter, has_bom=True)
        return _build_download(content, f"{self.opts.model_name}-template.csv")

    @method_decorator(sensitive_post_parameters())
    @method_decorator(sensitive_variables())
    def codes_view(self, request: HttpRequest) -> HttpResponse:
        """Return the file with the codes that the result page contains, encrypted."""
        self._require_permission(request)
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        values = self._decrypt(request, request.POST.get("codes", ""), "codes")
        if values is None:
            messages.error(
                request,
                _("The codes are no longer available. Import the file again to replace them."),
            )
            return HttpResponseRedirect(self._get_url("import"))
        return _build_download(
            _decompress(values["file"]), f"activation-codes-{clock.now():%Y%m%dT%H%M%SZ}.csv"
        )

    @sensitive_variables()
    def _upload(self, request: HttpRequest) -> HttpResponse:
        is_posted = request.method == "POST"
        data: Any
        if is_posted:
            data = (request.POST, request.FILES)
        else:
            data = ()

        form = CSVUploadForm(*data, providers=self._list_providers())
        if is_posted and form.is_valid():
            content = form.cleaned_data["file"].read()
            provider = form.cleaned_data["provider"]
            try:
                return self._render_preview(request, content, conf.providers()[provider])
            except (CSVTableError, csv_rows.ImportRefused, PhiOidcError) as refusal:
                if isinstance(refusal, AuditUnavailable):
                    raise
                form.add_error("file", _get_refusal_message(refusal))
        return self._render_upload(request, form, status=400 if is_posted else 200)

    def _render_upload(
        self, request: HttpRequest, form: CSVUploadForm, *, status: int = 200
    ) -> HttpResponse:
        return self._render(
            request,
            "upload",
            status=status,
            form=form,
            template_url=self._get_url("template"),
            columns=self.csv_import.columns,
            other_columns=self.csv_import.other_columns,
        )

    @sensitive_variables()
    def _render_preview(
        self,
        request: HttpRequest,
        content: bytes,
        provider: ProviderDeclaration,
        *,
        warning: str = "",
    ) -> HttpResponse:
        """Raises: CSVTableError, ImportRefused, PhiOidcError."""
        checked = self.csv_import.check(
            content, provider=provider, actor=request.user, now=clock.now()
        )
        if not warning:
            self._record_forbidden(request, checked)
        values = {
            "id": randomness.token_b64url(16),
            "provider": provider.name,
            "rows": _compute_rows_digest(checked),
            "file": _compress(content),
        }
        groups = {
            "applicable": checked.applicable,
            "problems": checked.problems,
            "done": checked.done,
        }
        context: dict[str, Any] = {name: _describe_rows(rows) for name, rows in groups.items()}
        context |= {
            "provider": provider.label or provider.name,
            "warning": warning,
            "limit": MAX_LISTED_ROWS,
        }
        if checked.applicable:
            context["pending"] = self._encrypt(request, values, "pending")
        return self._render(request, "preview", **context)

    @sensitive_variables()
    def _confirm(self, request: HttpRequest) -> HttpResponse:
        values = self._decrypt(request, request.POST["pending"], "pending")
        provider = None
        if values:
            provider = conf.providers().get(values["provider"])

        if values is None or provider is None:
            messages.error(
                request, _("The preview is too old. Nothing was written. Select the file again.")
            )
            return HttpResponseRedirect(self._get_url("import"))
        content = _decompress(values["file"])
        try:
            checked = self.csv_import.check(
                content, provider=provider, actor=request.user, now=clock.now()
            )
            if _compute_rows_digest(checked) != values["rows"]:
                warning = _(
                    "Accounts have changed since the preview. Nothing "
                    "was written. Check the rows again."
                )
                return self._render_preview(request, content, provider, warning=warning)
            return self._apply(request, checked, provider, values["id"])
        except AuditUnavailable:
            raise
        except (IntegrityError, OperationalError):
            # Another link of the person or the user, or a deadlock.
            warning = _(
                "Another request invited or linked one of these people "
                "at the same time. Nothing was written."
            )
            return self._render_preview(request, content, provider, warning=warning)
        except (CSVTableError, csv_rows.ImportRefused, PhiOidcError, ObjectDoesNotExist) as refusal:
            messages.error(request, f"{_('Nothing was written.')} {_get_refusal_message(refusal)}")
            return HttpResponseRedirect(self._get_url("import"))

    @sensitive_variables()
    def _apply(
        self,
        request: HttpRequest,
        checked: csv_rows.CheckedFile,
        provider: ProviderDeclaration,
        import_id: str,
    ) -> HttpResponse:
        """Import the applicable rows, all or none. Raises: PhiOidcError, ObjectDoesNotExist,
        IntegrityError.
        """
        origin = Actor.from_request(request).origin
        now = clock.now()
        count = len(checked.applicable)
        with transaction.atomic():
            # A second click would replace the codes that the first response shows.
            if not mark_used_in_transaction("csv_import", import_id, expires_at=now + LIFETIME):
                messages.error(
                    request, _("This preview was already confirmed. Nothing further was written.")
                )
                return HttpResponseRedirect(self._get_url("import"))
            codes = self.csv_import.apply(checked, provider=provider, origin=origin, now=now)
        if not self.csv_import.creates_codes:
            message = ngettext(
                "%(count)d person was linked.", "%(count)d people were linked.", count
            )
            messages.success(request, message % {"count": count})
            return HttpResponseRedirect(self._get_url("changelist"))
        columns = (*checked.header, *csv_rows.CODE_COLUMNS)
        file = csv_rows.render_csv(
            columns, codes, delimiter=checked.delimiter, has_bom=checked.has_bom
        )
        return self._render(
            request,
            "codes",
            codes_url=self._get_url("codes"),
            count=count,
            skipped=len(checked.problems),
            codes=self._encrypt(request, {"file": _compress(file)}, "codes"),
        )

    def _record_forbidden(self, request: HttpRequest, checked: csv_rows.CheckedFile) -> None:
        """Record the accounts that the administrator may not invite or link. Raises:
        AuditUnavailable.
        """
        origin = Actor.from_request(request).origin
        now = clock.now()
        events = []
        for row in checked.rows:
            if row.is_forbidden:
                event = NewEvent(
                    Action.ACCESS_DENIED,
                    origin=origin,
                    now=now,
                    outcome="failure",
                    reason="permission_missing",
                    resource=f"user/{row.user.pk}",
                    detail={"page": f"{self.opts.model_name}/import"},
                )
                events.append(event)
        record_many(events)

    def _require_permission(self, request: HttpRequest) -> None:
        if not self.model_admin.has_add_permission(request):
            raise PermissionDenied

    def _list_providers(self) -> list[ProviderDeclaration]:
        providers = []
        for provider in conf.providers().values():
            if self.csv_import.is_provider_offered(provider):
                providers.append(provider)
        return providers

    def _url_name(self, name: str) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{name}"

    def _get_url(self, name: str) -> str:
        return reverse(f"admin:{self._url_name(name)}")

    @sensitive_variables()
    def _encrypt(self, request: HttpRequest, values: dict[str, Any], kind: str) -> str:
        """Return the values for a hidden field that only this administrator can send back, within
        LIFETIME.
        """
        text = json.dumps({**values, "expires_at": (clock.now() + LIFETIME).timestamp()})
        return keyring.encrypt(text, context=self._get_context(request, kind))

    @sensitive_variables()
    def _decrypt(self, request: HttpRequest, text: str, kind: str) -> dict[str, Any] | None:
        """Return the values; None if they are expired, or not of `_encrypt` for this
        administrator.
        """
        plaintext = keyring.decrypt_external(text, context=self._get_context(request, kind))
        values: dict[str, Any]
        if plaintext is not None:
            values = json.loads(plaintext)
        else:
            values = {"expires_at": 0}

        if values["expires_at"] > clock.now().timestamp():
            return values
        return None

    def _get_context(self, request: HttpRequest, kind: str) -> list[str]:
        return ["csv import", kind, str(self.opts.model_name), str(request.user.pk)]

    def _render(
        self, request: HttpRequest, template: str, *, status: int = 200, **context: Any
    ) -> HttpResponse:
        frame = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": self.csv_import.title,
            "description": self.csv_import.description,
            "creates_codes": self.csv_import.creates_codes,
            "list_url": self._get_url("changelist"),
            "import_url": self._get_url("import"),
            **context,
        }
        response = TemplateResponse(request, f"{_TEMPLATES}/{template}.html", frame, status=status)
        response["Cache-Control"] = "no-store"
        return response


def _describe_rows(rows: Sequence[csv_rows.ImportRow]) -> dict[str, Any]:
    shown = [_describe_row(row) for row in rows[:MAX_LISTED_ROWS]]
    return {"count": len(rows), "rows": shown, "has_text": any(row["text"] for row in shown)}


def _describe_row(row: csv_rows.ImportRow) -> dict[str, Any]:
    if row.user is not None:
        person = get_label(row.user)
    else:
        person = ""

    if row.user is not None:
        username = row.user.get_username()
    else:
        username = ""

    return {
        "line": row.line_number,
        "person": person,
        "username": username,
        "text": row.problem or row.note,
    }


def _compute_rows_digest(checked: csv_rows.CheckedFile) -> str:
    rows = []
    for row in checked.applicable:
        rows.append([row.line_number, str(row.user.pk)])
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _get_refusal_message(refusal: Exception) -> str:
    if isinstance(refusal, CSVTableError):
        text = _(refusal.message) % refusal.params
        return _("Line %(line)d: %(text)s") % {"line": refusal.line_number, "text": text}
    if isinstance(refusal, PhiOidcError | ObjectDoesNotExist):
        return get_error_message(refusal)
    return str(refusal)


def _build_download(content: bytes, name: str) -> HttpResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return HttpResponse(content, content_type="text/csv; charset=utf-8", headers=headers)


def _compress(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content)).decode("ascii")


def _decompress(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))
