"""The SBOM lists each installed distribution once, with its package URL and its licenses."""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc.contrib.evidence.sbom import build_sbom
from tests.support.audit_log import NOW


def add_distribution(folder: Path, name: str, *headers: str, number: str = "1.0") -> None:
    info = folder / f"{name}-{number}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "\n".join(["Metadata-Version: 2.4", f"Name: {name}", f"Version: {number}", *headers])
    )


def find_components(name: str) -> list[dict[str, Any]]:
    components = build_sbom(portal="portal.example", now=NOW)["components"]
    return [component for component in components if component["name"] == name]


def test_components_are_the_installed_distributions() -> None:
    sbom = build_sbom(portal="portal.example", now=NOW)
    purls = [component["purl"] for component in sbom["components"]]
    assert purls == sorted(set(purls), key=lambda purl: purl.partition("@")[0])
    assert {f"pkg:pypi/{name}@{version(name)}" for name in ("django", "cryptography", "celery")} <= set(purls)
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.6")
    assert sbom["metadata"]["timestamp"] == NOW.isoformat()


def test_of_two_distributions_with_one_name_the_first_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, number in (("first", "1.0"), ("second", "2.0")):
        add_distribution(tmp_path / folder, "An_Example", number=number)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "first"), str(tmp_path / "second"), *sys.path])
    (component,) = find_components("An_Example")
    assert component["purl"] == component["bom-ref"] == "pkg:pypi/an-example@1.0"


def test_distribution_without_metadata_is_listed_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken-1.0.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (component,) = find_components("broken-1.0.dist-info")
    assert component["version"] == "unknown"


@pytest.mark.parametrize(
    ("headers", "licenses"),
    [
        (["License-Expression: MIT OR Apache-2.0", "License: MIT"], [{"expression": "MIT OR Apache-2.0"}]),
        (
            ["License: a text", "Classifier: License :: OSI Approved :: BSD License", "Classifier: Topic :: Security"],
            [{"license": {"name": "BSD License"}}],
        ),
        (["License: BSD-3-Clause"], [{"license": {"name": "BSD-3-Clause"}}]),
        (["License: Copyright of a holder", "        and a second line"], None),
        ([f"License: {'x' * 101}"], None),
        ([], None),
    ],
)
def test_licenses_are_those_of_the_metadata(
    headers: list[str], licenses: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_distribution(tmp_path, "example", *headers, number="1.0+local")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (component,) = find_components("example")
    assert component.get("licenses") == licenses
    assert component["purl"] == "pkg:pypi/example@1.0%2Blocal"
