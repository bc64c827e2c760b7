"""Options that name levels of assurance: values of `acr`, and vectors of trust. No Django."""

import re

from .option_parsers import checked, parse_strings

VECTOR_PATTERN = re.compile(r"[A-Z][0-9a-z](?:\.[A-Z][0-9a-z]){0,31}")
"""Components of a category and a value, in any order. Spec: RFC 8485 3."""

parse_acr_values = checked(
    parse_strings,
    lambda values: all(value.split() == [value] for value in values),
    "must be a list of values without blanks",
)
parse_vectors = checked(
    parse_strings,
    lambda vectors: all(map(VECTOR_PATTERN.fullmatch, vectors)),
    "must be a list of vectors of trust such as P9.Cp.Cd",
)
