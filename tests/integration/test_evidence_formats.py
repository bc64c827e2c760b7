"""The OSCAL documents and the SBOM of an evidence pack are valid for compliance-trestle and for CycloneDX's schema."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import override_settings

from tests.support.audit_log import PEM, sealed
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.validators import validators_python  # noqa: F401 -- a fixture

pytestmark = [pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]), pytest.mark.sqlite]
VALIDATE = """
import sys
from pathlib import Path
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from trestle.core.validator_factory import validator_factory
from trestle.oscal.assessment_results import AssessmentResults
from trestle.oscal.component import ComponentDefinition

folder = Path(sys.argv[1])
if fault := JsonStrictValidator(SchemaVersion.V1_6).validate_str((folder / "sbom.json").read_text()):
    sys.exit(f"SBOM: {fault}")
for model, name in ((ComponentDefinition, "component-definition"), (AssessmentResults, "assessment-results")):
    document = model.oscal_read(folder / f"{name}.json")
    validators = validator_factory.get_all()
    if not document or not validators or not all(found.model_is_valid(document, True, folder) for found in validators):
        sys.exit(f"OSCAL: {name}")
"""


def write_evidence(file: Path) -> dict[str, Any]:
    with override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_signing": PEM})):
        sealed(3)
        call_command("phi_oidc", "audit", "verify")
        call_command("phi_oidc", "evidence", "--output", str(file))
    content: dict[str, Any] = json.loads(file.read_text())["evidence"]
    return content


def validate(python: Path, folder: Path, evidence: dict[str, Any]) -> str:
    """Return the error, or an empty string."""
    (folder / "sbom.json").write_text(json.dumps(evidence["sbom"]))
    for name, document in evidence["oscal"].items():
        (folder / f"{name}.json").write_text(json.dumps({name: document}))
    done = subprocess.run(
        [python, "-c", VALIDATE, folder], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0 or done.stderr
    return done.stderr if done.returncode else ""


def get_requirement(evidence: dict[str, Any]) -> Any:
    component = evidence["oscal"]["component-definition"]["components"][0]
    return component["control-implementations"][0]["implemented-requirements"][0]


FAULTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a control id that is no token": lambda evidence: get_requirement(evidence).update({"control-id": "(a)(1)"}),
    "a member that OSCAL does not have": lambda evidence: get_requirement(evidence).update(state="met"),
    "no plan": lambda evidence: evidence["oscal"]["assessment-results"].pop("import-ap"),
    "two equal ids": lambda evidence: get_requirement(evidence).update(
        uuid=evidence["oscal"]["component-definition"]["components"][0]["uuid"]
    ),
    "a component without a name": lambda evidence: evidence["sbom"]["components"][0].pop("name"),
    "a member that CycloneDX does not have": lambda evidence: evidence["sbom"]["components"][0].update(state="met"),
}


def test_documents_are_valid_and_each_fault_is_found(validators_python: Path, tmp_path: Path) -> None:
    """One test: the validators take seconds to start, and the file is the same."""
    evidence = write_evidence(tmp_path / "evidence.json")
    assert len(evidence["oscal"]["assessment-results"]["results"][0]["observations"]) > 2
    assert validate(validators_python, tmp_path, evidence) == ""
    for name, break_document in FAULTS.items():
        broken = json.loads(json.dumps(evidence))
        break_document(broken)
        assert validate(validators_python, tmp_path, broken), name
