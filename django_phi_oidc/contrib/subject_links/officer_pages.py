"""What this app adds to the list of subjects: the pages that link people from a CSV file."""

from typing import Any

from django.urls import URLPattern
from django.utils.translation import gettext_lazy

from ..common.subject_list_pages import SubjectListPage, subject_list_pages
from .csv_import.admin import LINKS, CSVImportPages


def _build_import_urls(model_admin: Any) -> list[URLPattern]:
    return CSVImportPages(model_admin, LINKS).build_urls()


subject_list_pages.register(
    SubjectListPage(
        label=gettext_lazy("Import CSV file"),
        url_name="admin:django_phi_oidc_pairwisesubject_import",
        build_urls=_build_import_urls,
    )
)
