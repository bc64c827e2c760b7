"""The results for sessions as tables and JSON, and the missed goals."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from tests.benchmarks.sign_in.measurement import Result

MOST_MICROSECONDS = 30.0
"""Maximum that the middleware adds to a request."""
LEAST_PAGES = 0.85
"""Minimum of pages in the same time, as a multiple of the bare stack, half a minute after the last page."""
MOST_LEAVING = 1.5
"""Maximum, as a multiple of a minimal logout."""
HEALTHY = 0.02
"""Seconds of a round trip to the provider for that limit, typical within a country."""
Requests = Mapping[str, Mapping[str, float]]
Leaving = Mapping[float, Mapping[str, Result]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The results of one run."""

    requests: Requests
    pages: Requests
    leaving: Leaving


def rows(results: Results) -> dict[str, Any]:
    """Return the rows of the tables; times in µs and ms."""
    return {"requests": results.requests, "pages": _page_rows(results.pages), "logout": _leaving_rows(results.leaving)}


def missed(results: Results) -> list[str]:
    """Return a line for each missed goal."""
    lines = []
    phi_oidc, bare = results.requests["phi_oidc"], results.requests["bare"]
    for kind in ("sync", "async"):
        if phi_oidc[kind] > MOST_MICROSECONDS:
            lines.append(f"{phi_oidc[kind]:.0f} µs a request ({kind}), the goal is {MOST_MICROSECONDS:.0f}")
        if phi_oidc[f"{kind}_queries"] > bare[f"{kind}_queries"]:
            lines.append(f"the middleware made a query when nothing was due ({kind})")
    for row in _page_rows(results.pages):
        if row["stack"] == "phi_oidc":
            if row["throughput"] < LEAST_PAGES:
                text = f"{row['throughput']:.2f} of the bare stack's pages, half a minute after the last one"
                lines.append(f"{text}, the goal is {LEAST_PAGES}")
            if row["commits"]:
                lines.append(f"{row['commits']:.2f} durable commits for such a page, the goal is none")
    for row in _leaving_rows(results.leaving):
        if row["portal"] == "phi_oidc" and row["round_trip"] == HEALTHY * 1000 and row["ratio"] > MOST_LEAVING:
            lines.append(f"a logout at {row['ratio']:.2f} of the bare one's time, the goal is {MOST_LEAVING}")
    return lines


def table(results: Results) -> str:
    """Return the tables as Markdown."""
    lines: list[list[str]] = [["middleware", "sync µs", "ASGI µs"], ["---"] * 3]
    for stack, took in results.requests.items():
        lines.append([stack if stack == "bare" else f"+ {stack}", f"{took['sync']:.0f}", f"{took['async']:.0f}"])
    titles = ["page after 30 s", "wall µs", "CPU µs", "pages", "CPU", "statements", "commits", "WAL bytes"]
    pages: list[list[str]] = [titles, ["---"] * len(titles)]
    for row in _page_rows(results.pages):
        ratios = [f"× {row['throughput']:.2f}", f"× {row['cpu_ratio']:.2f}"]
        counts = [f"{row['statements']:.1f}", f"{row['commits']:.1f}", f"{row['wal']:.0f}"]
        pages.append([row["stack"], f"{row['wall']:.0f}", f"{row['cpu']:.0f}", *ratios, *counts])
    logout: list[list[str]] = [["round trip", "logout", "wall ms", "CPU ms", "of bare"], ["---"] * 5]
    for row in _leaving_rows(results.leaving):
        times = [f"{row['wall']:.1f}", f"{row['cpu']:.1f}", f"× {row['ratio']:.2f}"]
        logout.append([f"{row['round_trip']:.0f} ms", row["portal"], *times])
    return "\n\n".join("\n".join(f"| {' | '.join(line)} |" for line in rows) for rows in (lines, pages, logout))


def _page_rows(pages: Requests) -> list[dict[str, Any]]:
    bare = pages["bare"]
    return [
        {"stack": stack, **took, "throughput": bare["wall"] / took["wall"], "cpu_ratio": took["cpu"] / bare["cpu"]}
        for stack, took in pages.items()
    ]


def _leaving_rows(leaving: Leaving) -> list[dict[str, Any]]:
    rows = []
    for round_trip, of in leaving.items():
        wall = {contender: median(sample.wall for sample in result.samples) for contender, result in of.items()}
        for contender, result in of.items():
            rows.append(
                {
                    "round_trip": round_trip * 1000,
                    "portal": contender,
                    "wall": wall[contender] * 1000,
                    "cpu": median(sample.cpu for sample in result.samples) * 1000,
                    "ratio": wall[contender] / wall["bare"],
                }
            )
    return rows
