"""axe-core in a page of the headless browser: the accessibility checks that a reader's tools would make.

The script comes with the package axe-core-python; `CONCEPTLAB_AXE` may name a newer axe.min.js.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

from chromium import Page

WHY_SKIPPED = "no axe-core here: pip install axe-core-python, or name an axe.min.js in CONCEPTLAB_AXE"
GRAVE = ("serious", "critical")


def _found() -> Path | None:
    if named := os.environ.get("CONCEPTLAB_AXE"):
        return Path(named)
    spec = importlib.util.find_spec("axe_core_python")
    path = Path(spec.origin).parent / "axe.min.js" if spec and spec.origin else None
    return path if path and path.exists() else None


AXE = _found()


def findings(page: Page) -> list[str]:
    """Serious and critical findings of the page that is open, each with the first elements it is about."""
    assert AXE is not None, WHY_SKIPPED
    page.evaluate(AXE.read_text(encoding="utf-8") + "; true")
    page.evaluate("Promise.all(document.getAnimations().map(a => a.finished)).then(() => true)")  # colours have settled
    told = page.evaluate(
        "axe.run(document, {resultTypes: ['violations']}).then(found => JSON.stringify(found.violations.map(v => "
        "({id: v.id, impact: v.impact, n: v.nodes.length, at: v.nodes.slice(0, 3).map(x => x.target.join(' ') + ' ' + "
        "x.html.slice(0, 120))}))))"
    )
    return [f"{v['impact']} {v['id']} x{v['n']}: {v['at']}" for v in json.loads(told) if v["impact"] in GRAVE]
