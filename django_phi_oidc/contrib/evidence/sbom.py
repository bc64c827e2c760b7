"""The installed distributions as a CycloneDX document."""

from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import Distribution, distributions
from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

_LICENSE_CLASSIFIER = "License :: "
_MAX_LICENSE_NAME = 100
"""The older field may contain the whole text of the license."""


def build_sbom(*, portal: str, now: datetime) -> dict[str, Any]:
    """Return the document: every distribution that this process can import, and not only those that
    this app needs.

    Left out: which of them depends on which. Spec: CycloneDX 1.6.
    """
    # Of two distributions with one name, Python imports the first.
    components: dict[str, dict[str, Any]] = {}
    for distribution in distributions():
        component = _build_component(distribution)
        components.setdefault(component["purl"].partition("@")[0], component)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, f'{portal} {now.isoformat()}')}",
        "version": 1,
        "metadata": {
            "timestamp": now.isoformat(),
            "component": {"type": "application", "name": portal, "bom-ref": "portal"},
        },
        "components": [components[name] for name in sorted(components)],
    }


def _build_component(distribution: Distribution) -> dict[str, Any]:
    # A broken installation leaves a folder without metadata.
    metadata = distribution.metadata.json
    name = str(metadata.get("name") or _find_folder_name(distribution))
    version = str(metadata.get("version") or "unknown")
    # The type `pypi` of the package URL: lower case, and dashes.
    purl = f"pkg:pypi/{quote(name.lower().replace('_', '-'), safe='')}@{quote(version, safe='')}"
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
    }
    licenses = _list_licenses(distribution)
    if licenses:
        component["licenses"] = licenses
    return component


def _find_folder_name(distribution: Distribution) -> str:
    return str(getattr(distribution, "_path", "unknown")).rpartition("/")[2]


def _list_licenses(distribution: Distribution) -> list[Mapping[str, Any]]:
    metadata = distribution.metadata.json
    if expression := metadata.get("license_expression"):
        return [{"expression": expression}]
    classifiers = []
    for text in metadata.get("classifier", ()):
        if text.startswith(_LICENSE_CLASSIFIER):
            classifiers.append(text)
    names = []
    for text in classifiers:
        names.append(text.rpartition(" :: ")[2])
    declared = str(metadata.get("license", "")).strip()
    if not names and declared and declared.isprintable() and len(declared) <= _MAX_LICENSE_NAME:
        names = [declared]
    licenses: list[Mapping[str, Any]] = []
    for name in names:
        licenses.append({"license": {"name": name}})
    return licenses
