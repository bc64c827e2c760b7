"""The URLs of admin pages that a site may not have."""

from typing import Any

from django.urls import NoReverseMatch, reverse


def find_page_url(
    site_name: str,
    model_label: str,
    url_query: str = "",
    *,
    page: str = "changelist",
    **kwargs: Any,
) -> str:
    """Return the URL of a page of the model; empty if the admin site has none."""
    try:
        url = reverse(
            f"admin:{model_label.replace('.', '_')}_{page}",
            kwargs=kwargs or None,
            current_app=site_name,
        )
    except NoReverseMatch:
        return ""
    if url_query:
        return f"{url}?{url_query}"
    return url
