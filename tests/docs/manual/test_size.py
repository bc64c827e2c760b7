"""The manual is short enough to find an answer in it. Results of tests and benchmarks are not part of it."""

from tests.docs.manual.test_readability import FILES

MAX_WORDS = 105_360
"""Three fifths of what the manual had when the package was one app."""


def test_manual_has_at_most_its_number_of_words() -> None:
    pages = [path for name, path in FILES.items() if not name.startswith("benchmarks/")]
    words = sum(len(path.read_text().split()) for path in pages)
    assert 0 < words <= MAX_WORDS
