"""`conceptlab gpu-check`: does everything run, and run right, on this machine's GPU?"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..core import ConceptLabError


def add(verbs: argparse._SubParsersAction) -> None:
    """The verb and its options."""
    verb = verbs.add_parser("gpu-check", help="check every room on a GPU, without a network, in at most 8 minutes")
    verb.add_argument("--device", help="cuda (default), cuda:1, or cpu: the same checks at tiny size")
    verb.add_argument("--out", type=Path, default=Path("build/gpu.json"), help="file for the figures")
    verb.add_argument("--only", nargs="+", default=(), metavar="CHECK", help="some checks, by name")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the checks; a sentence and the exit status 1 where one fails, or where there is no GPU."""
    from ..experiments import check_gpu, failed_checks

    found = check_gpu(arguments.device, arguments.out, only=arguments.only)
    bad = failed_checks(found)
    if bad:
        raise ConceptLabError(
            f"{len(bad)} of {len(found['checks'])} checks did not come out ok ({', '.join(bad)}); {arguments.out} says "
            "why."
        )
    print(f"All {len(found['checks'])} checks are ok; their figures are in {arguments.out}.", flush=True)
