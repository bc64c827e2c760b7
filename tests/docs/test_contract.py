"""Names that host projects rely on change only together with contract.json, and so in a reviewed change."""

import json

import pytest

from tests.docs.contract import FILE, read_contract


@pytest.mark.parametrize("kind", json.loads(FILE.read_text()))
def test_names_that_host_projects_rely_on_are_those_of_the_contract(kind: str) -> None:
    assert read_contract()[kind] == json.loads(FILE.read_text())[kind]
