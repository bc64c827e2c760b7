"""Vectors of trust: form, matching and request. The first rows are the examples of RFC 8485 and of NHS login."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_phi_oidc.oidc.vectors_of_trust import (
    complete_vectors,
    format_vector_request,
    is_vector_sufficient,
    parse_vector,
)

pytestmark = pytest.mark.sqlite
COMPONENTS = st.from_regex(r"[A-Z][0-9a-z]", fullmatch=True)
VECTORS = st.lists(COMPONENTS, min_size=1, max_size=8, unique=True).map(".".join)


@pytest.mark.parametrize(
    ("vector", "components"),
    [
        ("P1.Cc.Ac", {"P1", "Cc", "Ac"}),
        ("Cb.Mc.Cd.Ac", {"Cb", "Mc", "Cd", "Ac"}),
        ("P9", {"P9"}),
        ("", set()),
        ("P", set()),
        ("P9.", set()),
        (".P9", set()),
        ("P9..Cp", set()),
        ("P9 Cp", set()),
        ("P9.Cp\n", set()),
        ("p9", set()),
        ("PP", set()),
        ("P10", set()),
        ("P９", set()),
        (".".join(["P1"] * 33), set()),
        (["P9"], set()),
        (None, set()),
        (9, set()),
    ],
)
def test_parse_vector_has_components_only_if_it_is_a_vector(vector: object, components: set[str]) -> None:
    """RFC 8485 3."""
    assert parse_vector(vector) == components


@pytest.mark.parametrize(
    ("vot", "accepted", "is_sufficient"),
    [
        ("P1.Cb.Cc.Ab", ["P1.Cb.Cc.Ab", "Ce.Ab"], True),
        ("Ab.Ce", ["P1.Cb.Cc.Ab", "Ce.Ab"], True),
        ("P1.Cb.Ab", ["P1.Cb.Cc.Ab", "Ce.Ab"], False),
        ("P1.Ce", ["P1.Cb.Cc.Ab", "Ce.Ab"], False),
        ("P9.Cp.Cd", ["P9.Cp.Cd", "P9.Cp.Ck", "P9.Cm"], True),
        ("P5.Cp.Cd", ["P9.Cp.Cd", "P9.Cp.Ck", "P9.Cm"], False),
        ("P9.Cp.Cd", ["P9"], True),
        ("P9.Cp.Cd", ["P5"], False),
        ("P9", [], False),
        ("P9", ["gold"], False),
        ("gold", ["gold"], False),
        ("", [""], False),
        (None, ["P9"], False),
    ],
)
def test_vector_is_sufficient_if_it_has_each_component_of_one_that_is_accepted(
    vot: object, accepted: list[str], is_sufficient: bool
) -> None:
    """RFC 8485 4: the components of a vector are ANDed, the vectors ORed; omitted components may have any value."""
    assert is_vector_sufficient(vot, accepted=accepted) is is_sufficient


@given(VECTORS, VECTORS)
def test_vector_with_further_components_stays_sufficient(accepted: str, further: str) -> None:
    assert is_vector_sufficient(f"{further}.{accepted}", accepted=[accepted])
    assert is_vector_sufficient(further, accepted=[accepted]) is ({*accepted.split(".")} <= {*further.split(".")})


@given(st.text())
def test_any_text_is_a_vector_or_not_sufficient(text: str) -> None:
    assert is_vector_sufficient(text, accepted=[text]) is bool(parse_vector(text))


@pytest.mark.parametrize(
    ("vectors", "required", "completed"),
    [
        (["Cm"], ["P9.Cp.Cd"], ["Cm.P9"]),
        (["P9"], ["P5.Cp.Cd", "P5.Cm"], ["P9.Cp.Cd", "P9.Cm"]),
        (["P9.Cp"], ["P5.Cp"], ["P9.Cp"]),
        (["P9.Cp", "P9.Cm"], ["P5", "P3"], ["P9.Cp", "P9.Cm"]),
        (["P9", "P5"], [], ["P9", "P5"]),
        ([], ["P5"], []),
    ],
)
def test_vector_is_completed_by_the_categories_that_it_omits(
    vectors: list[str], required: list[str], completed: list[str]
) -> None:
    """RFC 8485 3, 4: an omitted category may have any value, or none, so it would be weaker than required."""
    assert complete_vectors(vectors, required=required) == completed


@given(st.lists(VECTORS, max_size=3), st.lists(VECTORS, min_size=1, max_size=3))
def test_completed_vector_satisfies_the_page_and_each_category_of_a_required_one(
    vectors: list[str], required: list[str]
) -> None:
    for vector in complete_vectors(vectors, required=required):
        assert is_vector_sufficient(vector, accepted=vectors)
        categories = {component[0] for component in vector.split(".")}
        assert any(categories >= {component[0] for component in other.split(".")} for other in required)


def test_vector_request_is_a_json_array() -> None:
    """RFC 8485 4."""
    assert format_vector_request(("P9.Cp.Cd", "P9.Cm")) == '["P9.Cp.Cd","P9.Cm"]'
    assert json.loads(format_vector_request(("P1",))) == ["P1"]
