"""`python -m conceptlab.course.run_copy COPY`: run a copy to its end; a cell that fails does not stop the others."""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def main(path: Path) -> None:
    """Execute the notebook in its own folder; nothing is written but what its checks record."""
    nb = nbformat.read(path, as_version=4)
    NotebookClient(
        nb, timeout=None, startup_timeout=600, kernel_name="python3", allow_errors=True, record_timing=False,
        resources={"metadata": {"path": str(path.parent)}}, extra_arguments=["--log-level=CRITICAL"],
    ).execute()  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))
