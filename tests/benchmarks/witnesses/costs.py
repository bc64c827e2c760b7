"""What a quorum of two of three witnesses costs, of which one hangs: a seal, an event and a proof."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.benchmarks.audit.processes import database, environment_of, process
from tests.benchmarks.worker_protocol import command_runner


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Times in milliseconds. The floors are the same without witnesses, in turns."""

    seal_floor: Sequence[float]
    seal: Sequence[float]
    quorum: Sequence[float]
    """From the commit of the seal until the cosignatures of a quorum are committed."""
    record_floor: Sequence[float]
    record: Sequence[float]
    """An event is recorded while the witnesses are asked."""
    proof_floor: Sequence[float]
    proof: Sequence[float]
    tree_size: int
    """Of the log of the proofs."""


def measure_witnesses(*, url: str, sealed: int, rounds: int, log: Callable[[str], None]) -> Costs:
    """Return the costs. url: of the server. sealed: leaves of the log."""
    with (
        database(url) as name,
        process("tests.benchmarks.witnesses.job", **environment_of("phi_oidc", url, name)) as running,
    ):
        run = command_runner(running)
        run("migrate")
        log(f"{sealed:,} sealed events built in {run('build_sealed', sealed)['wall']:.0f} s.")
        seals = run("seal", rounds)
        log(f"{2 * rounds} seals measured.")
        records = run("record", 5 * rounds)
        proofs = run("prove", 20 * rounds)
    return Costs(
        seal_floor=seals["plain"],
        seal=seals["witnessed"],
        quorum=seals["quorum"],
        record_floor=records["plain"],
        record=records["witnessed"],
        proof_floor=proofs["plain"],
        proof=proofs["witnessed"],
        tree_size=proofs["size"],
    )
