"""The results for sessions as tables and JSON, and the missed goals."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.sessions.logout_time import LogoutResult

MOST_MICROSECONDS = 30.0
"""Maximum that the middleware adds to a request."""
LEAST_PAGES = 0.85
"""Minimum of pages in the same time, as a multiple of the bare stack, half a minute after the last page."""
LEAST_THROUGHPUT = {0: 0.55, 20: 0.85}
"""Minimum of a logout in one thread, as a share of a minimal one, by the round trip to the provider in milliseconds."""
MOST_CPU = 2.0
"""Maximum of the CPU time, as a multiple of a minimal logout without a round trip."""
MOST_STATEMENTS = 14
MOST_WAL = 6000
"""Bytes."""
Requests = Mapping[str, Mapping[str, float]]
Leaving = Mapping[float, Mapping[str, LogoutResult]]


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
    return [*lines, *_missed_leaving(_leaving_rows(results.leaving))]


def _missed_leaving(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        if row["portal"] != "phi_oidc":
            continue
        of_bare, condition = "of the bare logout's", f"at {row['round_trip']} ms"
        least = LEAST_THROUGHPUT.get(row["round_trip"], 0.0)
        if row["throughput"] < least:
            yield f"{row['throughput']:.2f} {of_bare} throughput {condition}, the goal is {least}"
        if row["round_trip"] == 0 and row["cpu_ratio"] > MOST_CPU:
            yield f"{row['cpu_ratio']:.2f} {of_bare} CPU time {condition}, the goal is {MOST_CPU}"
        if row["statements"] > MOST_STATEMENTS:
            yield f"{row['statements']} statements of a logout, the goal is {MOST_STATEMENTS}"
        if row["wal"] > MOST_WAL:
            yield f"{row['wal']:.0f} bytes of WAL of a logout, the goal is {MOST_WAL}"


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
    columns = ["wall ms", "CPU ms", "throughput", "CPU", "statements", "commits", "events", "WAL bytes"]
    logout: list[list[str]] = [["round trip", "logout", *columns], ["---"] * (2 + len(columns))]
    for row in _leaving_rows(results.leaving):
        times = [f"{row['wall']:.1f}", f"{row['cpu']:.1f}", f"× {row['throughput']:.2f}", f"× {row['cpu_ratio']:.2f}"]
        counts = [f"{row[name]:,.0f}" for name in ("statements", "commits", "events", "wal")]
        logout.append([f"{row['round_trip']} ms", row["portal"], *times, *counts])
    return "\n\n".join("\n".join(f"| {' | '.join(line)} |" for line in rows) for rows in (lines, pages, logout))


def _page_rows(pages: Requests) -> list[dict[str, Any]]:
    bare = pages["bare"]
    return [
        {"stack": stack, **took, "throughput": bare["wall"] / took["wall"], "cpu_ratio": took["cpu"] / bare["cpu"]}
        for stack, took in pages.items()
    ]


def _leaving_rows(leaving: Leaving) -> list[dict[str, Any]]:
    """Return one row for each round-trip time and contender; times in milliseconds, WAL in bytes."""
    rows = []
    for round_trip, of in leaving.items():
        medians = {contender: result.compute_medians() for contender, result in of.items()}
        bare = medians["bare"]
        rows += [
            {
                "round_trip": round(round_trip * 1000),
                "portal": contender,
                **taken,
                "throughput": bare["wall"] / taken["wall"],
                "cpu_ratio": taken["cpu"] / bare["cpu"],
                **{name: getattr(of[contender], name) for name in ("statements", "commits", "events")},
            }
            for contender, taken in medians.items()
        ]
    return rows
