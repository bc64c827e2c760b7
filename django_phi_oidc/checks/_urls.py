"""The URL patterns of the project."""

from collections.abc import Iterator

from django.conf import settings
from django.urls import Resolver404, URLPattern, URLResolver, get_resolver, resolve


def iterate_url_patterns() -> Iterator[URLPattern]:
    """Yield the patterns of ROOT_URLCONF, also the included ones."""
    yield from (pattern for _, pattern in iterate_routes())


def iterate_routes() -> Iterator[tuple[str, URLPattern]]:
    """Yield the patterns as above, each with its whole route: that of an included one begins with
    those above it.
    """
    if getattr(settings, "ROOT_URLCONF", None):
        yield from _iterate("", get_resolver())


def is_shadowed(route: str, pattern: URLPattern) -> bool:
    """Return whether an earlier pattern answers this route. Routes with parameters are NOT
    checked.
    """
    try:
        return resolve(f"/{route}").func is not pattern.callback
    except Resolver404:
        return False


def _iterate(prefix: str, resolver: URLResolver) -> Iterator[tuple[str, URLPattern]]:
    for pattern in resolver.url_patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _iterate(route, pattern)
        else:
            yield route, pattern
