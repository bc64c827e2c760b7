"""Vectors of trust: levels of assurance in several components, such as `P9.Cp.Cd`. Spec: RFC
8485.
"""

import json
from collections.abc import Collection

from ..config.assurance_levels import VECTOR_PATTERN


def parse_vector(value: object) -> frozenset[str]:
    """Return the components of a vector; none if value is not one. Their order has no meaning.
    Spec: RFC 8485 3.
    """
    if not isinstance(value, str) or not VECTOR_PATTERN.fullmatch(value):
        return frozenset()
    return frozenset(value.split("."))


def is_vector_sufficient(value: object, *, accepted: Collection[str]) -> bool:
    """Return whether the vector has all components of one of the accepted vectors; False if none
    are accepted.

    A category that an accepted vector omits may have any value, or none. Values are not ordered:
    `P9` does not satisfy `P5`, because only the trust framework defines an order. Spec: RFC 8485 4.
    """
    components = parse_vector(value)
    return any(vector and vector <= components for vector in map(parse_vector, accepted))


def complete_vectors(vectors: Collection[str], *, required: Collection[str]) -> list[str]:
    """Return the vectors, each with the components of a required one in the categories that it
    omits.

    An omitted category may have any value, so without these a vector would be weaker there than
    what is required. Several required vectors are alternatives. Spec: RFC 8485 3, 4.
    """
    completed: dict[str, None] = {}
    for vector in vectors:
        categories = set()
        for component in vector.split("."):
            categories.add(component[0])
        for alternative in required or (vector,):
            further = []
            for component in alternative.split("."):
                if component[0] not in categories:
                    further.append(component)
            completed[".".join([vector, *further])] = None
    return list(completed)


def format_vector_request(vectors: Collection[str]) -> str:
    """Return the value of `vtr`: a JSON array of strings. Spec: RFC 8485 4."""
    return json.dumps(list(vectors), separators=(",", ":"))
