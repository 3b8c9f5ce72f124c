"""The reference: a page per room, from signatures and docstrings as they stand in the source, without an import."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

LIBRARY = Path(__file__).resolve().parents[2]


def rooms() -> list[str]:
    """Rooms of the library that export something."""
    return sorted(p.parent.name for p in LIBRARY.glob("*/__init__.py") if next(exported(p.parent.name), None))


def exported(room: str) -> Iterator[tuple[str, ast.stmt, str]]:
    """(name, definition, module) of what a room's door shows, in the order of the names."""
    door = _parsed(LIBRARY / room / "__init__.py")
    found = {}
    for node in door.body:
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            path = LIBRARY / room / Path(*node.module.split("."))
            file = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
            for alias in node.names:
                if made := _definition(file, alias.name):
                    found[alias.asname or alias.name] = (made[0], made[1])
    for name in sorted(found, key=str.lower):
        yield name, *found[name]


@lru_cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _definition(file: Path, name: str) -> tuple[ast.stmt, str] | None:
    """The function, class or value of that name, and its module; followed through doors of folders."""
    if not file.exists():
        return None
    for node in _parsed(file).body:
        module = ".".join(["conceptlab", *file.relative_to(LIBRARY).with_suffix("").parts]).removesuffix(".__init__")
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node, module
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return node, module
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            if any((a.asname or a.name) == name for a in node.names):
                inner = file.parent / Path(*node.module.split("."))
                return _definition(inner.with_suffix(".py"), name) or _definition(inner / "__init__.py", name)
    return None


def api_page(room: str) -> str:
    """The Markdown of one room."""
    door = ast.get_docstring(_parsed(LIBRARY / room / "__init__.py")) or ""
    parts = [f"# conceptlab.{room}", _plain(door), f"    from conceptlab.{room} import ...\n"]
    for name, node, module in exported(room):
        parts.append(_entry(name, node, module))
    return "\n\n".join(parts) + "\n"


def _entry(name: str, node: ast.stmt, module: str) -> str:
    if isinstance(node, ast.FunctionDef):
        returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        signature = f"{name}({ast.unparse(node.args)}){returned}"
    elif isinstance(node, ast.ClassDef):
        signature = f"class {name}" + (f"({', '.join(map(ast.unparse, node.bases))})" if node.bases else "")
    else:
        signature = name
    text = (ast.get_docstring(node) if isinstance(node, ast.FunctionDef | ast.ClassDef) else None) or ""
    fields = _fields(node) if isinstance(node, ast.ClassDef) else ""
    return f"## {name}\n\n```python\n{_wrapped(signature)}\n```\n\n{_plain(text)}\n\n{fields}*In* `{module}`."


def _fields(node: ast.ClassDef) -> str:
    """The fields of a dataclass and the public methods with the first line of what they say."""
    rows = [
        f"- `{ast.unparse(x.target)}: {ast.unparse(x.annotation)}{f' = {ast.unparse(x.value)}' if x.value else ''}`"
        for x in node.body
        if isinstance(x, ast.AnnAssign) and not ast.unparse(x.target).startswith("_")
    ]
    for x in node.body:
        if isinstance(x, ast.FunctionDef) and not x.name.startswith("_"):
            said = (ast.get_docstring(x) or "").split("\n")[0]
            rows.append(f"- `{x.name}({ast.unparse(x.args)})` {_plain(said)}")
    return "\n".join(rows) + "\n\n" if rows else ""


def _wrapped(signature: str, width: int = 96) -> str:
    """A long signature with one argument per line, cut at the commas of its own level."""
    if len(signature) <= width or "(" not in signature:
        return signature
    head, _, rest = signature.partition("(")
    depth, parts, start, quoted = 0, [], 0, False
    for i, c in enumerate(rest):
        quoted ^= c in "'\""
        if quoted:
            continue
        if c in ")]}" and depth == 0:
            parts.append(rest[start:i])
            return f"{head}(\n" + "".join(f"    {p.strip()},\n" for p in parts) + rest[i:]
        depth += (c in "([{") - (c in ")]}")
        if c == "," and depth == 0:
            parts.append(rest[start:i])
            start = i + 1
    return signature


def _plain(text: str) -> str:
    """A docstring as Markdown: no formula begins at a dollar, no role at a brace, no link at brackets."""
    text = text.replace("$", r"\$")
    return text if "`" in text else text.replace("{", r"\{").replace("<", r"\<")
