"""Run as a script: save one source archive as the package index serves it, and run nothing of it.

`pip download` runs a source archive's `setup.py` (or its build backend, with whatever packages that asks for) to learn
its name. Here pip only looks the file up, with the indexes, certificates and passwords that it is configured with, and
its bytes are saved; the caller checks their SHA-256. pip's own modules are used for that, as pip-tools does.

    python source_archive.py NAME FILENAME TARGET
"""

import importlib
import sys


def save(name: str, filename: str, target: str) -> str | None:
    """Save the file; returns what went wrong, or None."""
    command = importlib.import_module("pip._internal.commands").create_command("download")
    options, _ = command.parse_args(["-q", "--no-deps", "--no-binary", name, name])
    with command.main_context():
        session = command.get_default_session(options)
        finder = command._build_package_finder(options=options, session=session)
        for candidate in finder.find_all_candidates(name):
            if candidate.link.filename == filename:
                # as it is: else a server may pack it once more
                answer = session.get(candidate.link.url, headers={"Accept-Encoding": "identity"}, stream=True)
                answer.raise_for_status()
                with open(target, "wb") as file:
                    for chunk in answer.iter_content(1 << 20):
                        file.write(chunk)
                return None
    return f"no index has {filename}"


if __name__ == "__main__":
    try:
        problem = save(*sys.argv[1:])
    except Exception as error:  # whatever pip and its network raise: one line for the caller
        problem = f"{type(error).__name__}: {error}"
    sys.exit(f"ERROR: {problem}" if problem else 0)
