"""The registry of pages that apps add to the list of subjects of the officers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.contrib.admin import ModelAdmin
from django.urls import URLPattern
from django.utils.functional import Promise

from ...extensions import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectListPage:
    """A page of an app below the list of subjects of `contrib.officer_admin`."""

    label: "str | Promise"
    """The text of the link above the list. It needs the permission to add subjects."""
    url_name: str
    """The name of the page's URL, with its namespace."""
    build_urls: "Callable[[ModelAdmin[Any]], list[URLPattern]]"
    """Returns the URL patterns of the page. The given list of subjects records their refusals."""


subject_list_pages: Registry[SubjectListPage] = Registry(
    "Add a page to the list of subjects of the officers."
)
