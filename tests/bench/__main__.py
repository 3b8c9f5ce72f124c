"""`make bench`: run the benchmarks of this folder, `python tests/bench [NAME ...]` for some."""

import sys
from pathlib import Path

import harness

HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    sys.exit(harness.main(HERE, HERE.parents[1] / "build" / "bench.csv", sys.argv[1:]))
