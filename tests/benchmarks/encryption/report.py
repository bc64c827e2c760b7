"""The results for encryption as tables and JSON, and the missed goals."""

from typing import Any

from tests.benchmarks.encryption.rotation_throughput import Results

LEAST_RATE = 30_000
"""Texts encrypted again per second."""
MOST_OF_FERNET = 1.6
"""Maximum, as a multiple of the time of Fernet for the same bytes of a claim."""
MOST_GROWTH = 5
"""Megabytes of additional memory allowed for ten times the texts."""
GOAL_TEXT = "birthdate"


def rows(results: Results) -> dict[str, Any]:
    """Return the rows of both tables; times in µs for each text, memory in megabytes."""
    floor = results.rotated["floor"].rate
    return {
        "rotation": [
            {
                "contender": contender,
                "texts": took.texts,
                "rate": took.rate,
                "of_floor": took.rate / floor,
                "cpu": took.cpu / took.texts * 1e6,
                "counted": took.counted,
                "peak": took.peak / 1e6,
            }
            for contender, took in {**results.rotated, "phi_oidc, a tenth": results.small}.items()
        ],
        "sealing": [
            {"text": kind, "bytes": comparison.bytes, "call": call, "took": took * 1e6, "of_fernet": took / of}
            for kind, comparison in results.comparisons.items()
            for call, took, of in (
                ("seal", comparison.seal, comparison.encrypt),
                ("open_sealed", comparison.open_sealed, comparison.decrypt),
            )
        ],
    }


def missed(results: Results) -> list[str]:
    """Return a line for each missed goal."""
    phi_oidc, lines = results.rotated["phi_oidc"], []
    if phi_oidc.rate < LEAST_RATE:
        lines.append(f"{phi_oidc.rate:,.0f} texts/s encrypted again, the goal is {LEAST_RATE:,}")
    if (growth := (phi_oidc.peak - results.small.peak) / 1e6) > MOST_GROWTH:
        lines.append(f"{growth:.0f} MB more for ten times the texts, the goal is {MOST_GROWTH}")
    lines += [
        f"{row['call']} takes {row['of_fernet']:.2f} of Fernet's time, the goal is {MOST_OF_FERNET}"
        for row in rows(results)["sealing"]
        if row["text"] == GOAL_TEXT and row["of_fernet"] > MOST_OF_FERNET
    ]
    return lines


def table(results: Results) -> str:
    """Return the rows as two Markdown tables."""
    results_rows = rows(results)
    rotated = [
        [
            row["contender"],
            f"{row['texts']:,}",
            f"{row['rate']:,.0f}",
            f"{row['of_floor']:.2f}",
            f"{row['cpu']:.1f}",
            f"{row['counted']:.2f}" if row["counted"] else "",
            f"{row['peak']:.0f}" if row["peak"] else "",
        ]
        for row in results_rows["rotation"]
    ]
    sealed = [
        [row["text"], row["bytes"], f"`{row['call']}`", f"{row['took']:.1f}", f"× {row['of_fernet']:.2f}"]
        for row in results_rows["sealing"]
    ]
    header = ["rotation", "texts", "texts/s", "of the floor", "CPU µs", "counted in s", "peak MB"]
    return "\n\n".join(
        (_markdown(header, rotated), _markdown(["text", "bytes", "call", "µs", "of Fernet"], sealed)),
    )


def _markdown(header: list[str], lines: list[list[Any]]) -> str:
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in (header, ["---"] * len(header), *lines))
