"""What was measured of sealing, as tables, as JSON, and as a verdict on the aims."""

from typing import Any

from tests.benchmarks.encryption.rotation_throughput import Results

LEAST_RATE = 30_000
"""Texts sealed again in a second."""
MOST_OF_FERNET = 1.6
"""Times what Fernet takes for the same bytes, of a claim."""
MOST_GROWTH = 5
"""Megabytes by which ten times the texts may take more memory."""
JUDGED = "birthdate"


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
            for contender, took in {**results.rotated, "ours, a tenth": results.small}.items()
        ],
        "sealing": [
            {"text": kind, "bytes": beside.bytes, "call": call, "took": took * 1e6, "of_fernet": took / of}
            for kind, beside in results.beside.items()
            for call, took, of in (
                ("seal", beside.seal, beside.encrypt),
                ("open_sealed", beside.open_sealed, beside.decrypt),
            )
        ],
    }


def missed(results: Results) -> list[str]:
    """Return a line for each aim that was missed."""
    ours, lines = results.rotated["ours"], []
    if ours.rate < LEAST_RATE:
        lines.append(f"{ours.rate:,.0f} texts/s sealed again, and the aim is {LEAST_RATE:,}")
    if (growth := (ours.peak - results.small.peak) / 1e6) > MOST_GROWTH:
        lines.append(f"{growth:.0f} MB more for ten times the texts, and the aim is {MOST_GROWTH}")
    lines += [
        f"{row['call']} takes {row['of_fernet']:.2f} of Fernet's time, and the aim is {MOST_OF_FERNET}"
        for row in rows(results)["sealing"]
        if row["text"] == JUDGED and row["of_fernet"] > MOST_OF_FERNET
    ]
    return lines


def table(results: Results) -> str:
    """Return the rows as two Markdown tables."""
    told = rows(results)
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
        for row in told["rotation"]
    ]
    sealed = [
        [row["text"], row["bytes"], f"`{row['call']}`", f"{row['took']:.1f}", f"× {row['of_fernet']:.2f}"]
        for row in told["sealing"]
    ]
    header = ["rotation", "texts", "texts/s", "of the floor", "CPU µs", "counted in s", "peak MB"]
    return "\n\n".join(
        (_markdown(header, rotated), _markdown(["text", "bytes", "call", "µs", "of Fernet"], sealed)),
    )


def _markdown(header: list[str], lines: list[list[Any]]) -> str:
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in (header, ["---"] * len(header), *lines))
