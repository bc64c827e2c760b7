"""The methods that a project's classes override in those of another library."""

from collections.abc import Iterator, Mapping
from typing import Any

from django.utils.module_loading import import_string


def find_class(path: Any) -> type | None:
    """Return the class at a dotted path; None if it cannot be imported, or is none."""
    try:
        found = import_string(path)
    except Exception:  # noqa: BLE001 -- the project's own module: the report goes on without it
        return None
    if isinstance(found, type):
        return found
    return None


def is_of_package(cls: Any, package: str) -> bool:
    """Return whether the package defines the class or function."""
    return f"{cls.__module__}.".startswith(f"{package}.")


def find_base(cls: type, package: str) -> type | None:
    """Return the nearest class that the package defines, which may be cls itself."""
    for base in cls.__mro__:
        if is_of_package(base, package):
            return base
    return None


def list_overrides(cls: type, package: str) -> Iterator[str]:
    """Yield the sorted names of the methods and properties of the package's class that the project
    replaces.
    """
    base = find_base(cls, package)
    attributes: set[str] = set()
    for parent in cls.__mro__:
        if not is_of_package(parent, package) and parent is not object:
            attributes.update(vars(parent))
    for name in sorted(attributes):
        if name.startswith("__"):
            continue
        replaced = getattr(base, name, None)
        value = getattr(cls, name)
        if (callable(replaced) or isinstance(replaced, property)) and value is not replaced:
            yield name


def describe_overrides(
    path: str, package: str, counterparts: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield the full name of each override, and what replaces it."""
    cls = find_class(path)
    if cls is None:
        yield path, "it cannot be imported, so its hooks were not read."
        return
    for name in list_overrides(cls, package):
        yield f"{path}.{name}", counterparts.get(name, "it has no counterpart and is never called.")
