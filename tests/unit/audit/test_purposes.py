"""The vocabulary of purposes of use."""

import pytest

from django_phi_oidc.audit.purposes import PATIENT_REQUEST, PURPOSES


def test_purposes_contain_the_codes_of_the_fhir_r4_expansion() -> None:
    assert len(PURPOSES) == 59
    assert {"TREAT", "ETREAT", "HPAYMT", "HOPERAT", "HRESCH", "PUBHLTH", "BTG", PATIENT_REQUEST} <= PURPOSES.keys()


def test_purposes_are_immutable() -> None:
    with pytest.raises(TypeError):
        PURPOSES["MINE"] = "my purpose"  # type: ignore[index]
