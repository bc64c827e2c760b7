"""The URL patterns of the project."""

from collections.abc import Iterator

from django.conf import settings
from django.urls import URLPattern, URLResolver, get_resolver


def iterate_url_patterns() -> Iterator[URLPattern]:
    """Yield the patterns of ROOT_URLCONF, also the included ones."""
    if getattr(settings, "ROOT_URLCONF", None):
        yield from _iterate(get_resolver())


def _iterate(resolver: URLResolver) -> Iterator[URLPattern]:
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLResolver):
            yield from _iterate(pattern)
        else:
            yield pattern
