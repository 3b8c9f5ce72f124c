"""A student copy with nothing solved runs to its end: nothing outside an exercise stops at what a stub gives.

Read from the source, since running all copies takes as long as the course; the small pieces that use a stub are run.
"""

import ast
import builtins
import importlib
import inspect
import symtable
from pathlib import Path

import pytest

from conceptlab.course import notebook

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PROVIDED = set(dir(builtins)) | {"get_ipython", "display"}


def copies(path):
    """(index, tags, tree) of the code cells of the student copy."""
    copy = notebook.student_copy(notebook.read(path))
    return [
        (i, notebook.tags(cell), ast.parse(_without_shell(cell.source)))
        for i, cell in enumerate(copy.cells)
        if cell.cell_type == "code"
    ]


def _without_shell(source):
    lines = []
    for line in source.splitlines():
        shell = line.lstrip().startswith(("!", "%"))
        lines.append(line[: len(line) - len(line.lstrip())] + "pass" if shell else line)
    return "\n".join(lines)


def names(node, context):
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, context)}


def from_stubs(node):
    """Names that a value is made of. `use(points, mine)` is the reader's function only where its check passed, else the
    library's, so that what it gives stops no copy."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "use":
        return set()
    below = set().union(*map(from_stubs, ast.iter_child_nodes(node)))
    return below | ({node.id} if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) else set())


def made(tree):
    """What a cell defines at its top: functions, classes, assigned names."""
    return {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)} | {
        name
        for n in tree.body
        if isinstance(n, ast.Assign)
        for target in n.targets
        for name in names(target, ast.Store)
    }


def asserts(node):
    """Statements and calls that stop a cell when a comparison fails."""
    for n in ast.walk(node):
        if isinstance(n, ast.Assert) or (isinstance(n, ast.Call) and "assert" in ast.unparse(n.func).split(".")[-1]):
            yield n


def base(target):
    """The name that an assignment changes: `x` of `x`, `x[i]` and `x.y`."""
    while isinstance(target, ast.Subscript | ast.Attribute | ast.Starred):
        target = target.value
    if isinstance(target, ast.Tuple | ast.List):
        return set().union(*map(base, target.elts))
    return {target.id} if isinstance(target, ast.Name) else set()


def in_order(node):
    """The node and all below it, in the order of the source."""
    yield node
    for child in ast.iter_child_nodes(node):
        yield from in_order(child)


def follow(node, stubs):
    """Add to `stubs` the names that get a value from what a stub gave; drop those that are set to something else."""
    for n in in_order(node):
        if isinstance(n, ast.Assign | ast.AugAssign | ast.AnnAssign) and n.value is not None:
            targets = n.targets if isinstance(n, ast.Assign) else [n.target]
            for target in targets:
                if from_stubs(n.value) & stubs:
                    stubs |= base(target)
                elif isinstance(n, ast.Assign):  # `x[0] = 1` leaves the rest of x
                    stubs -= names(target, ast.Store)
        elif isinstance(n, ast.For) and names(n.iter, ast.Load) & stubs:
            stubs |= base(n.target)
        elif isinstance(n, ast.For):
            stubs -= base(n.target)
        elif isinstance(n, ast.FunctionDef | ast.Lambda) and names(n, ast.Load) & stubs and hasattr(n, "name"):
            stubs |= {n.name}


def stops(cells):
    """(cell, source) of every assertion outside the exercises on something that a stub gave."""
    stubs, found = set(), []
    for i, tags, tree in cells:
        if "exercise" in tags:
            stubs |= made(tree)
            continue
        for statement in tree.body:
            for _ in range(2):  # a name may be used above the line of a loop that sets it
                before = set(stubs)
                follow(statement, stubs)
                found += [(i, ast.unparse(a)) for a in asserts(statement) if names(a, ast.Load) & (stubs | before)]
    return sorted(set(found))


def cell(source, *tags):
    return len(tags), list(tags), ast.parse(source)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_no_cell_asserts_on_an_exercise(path):
    assert stops(copies(path)) == []


@pytest.mark.parametrize(
    "source",
    [
        "assert f(1) == 2",
        "x = f(1)\nassert x == 2",
        "for a in range(3):\n    y = f(a)\n    if y == y:\n        assert abs(y - 1) < 1e-4",
        "import torch\ntorch.testing.assert_close(f(1), 2)",
        "z = {}\nz[0] = f(1)\nfor k, v in z.items():\n    assert v",
        "def g(x):\n    return f(x)\nassert g(1)",
        "p = check(f)\nassert use(p, f)(1) == f(1)",
        "with open('x') as h:\n    assert torch.equal(f(W), other)",
    ],
)
def test_the_rule_finds_what_stops_a_copy(source):
    assert stops([cell("def f(x):\n    return 0", "exercise"), cell(source)])


@pytest.mark.parametrize(
    "source",
    [
        "print(f(1) == 2)",
        "assert g(1)",
        "f = h\nassert f(1)",
        "y = f(1)\ny = 2\nassert y",
        "x = f(1)",
        "p = check(f)\nbest = use(p, f)\nassert best(1) == 2",
    ],
)
def test_the_rule_leaves_the_rest(source):
    assert not stops([cell("def f(x):\n    return 0", "exercise"), cell(source)])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_name_of_a_copy_is_made_in_it(path):
    """A solution that is taken out takes no import or helper with it that a later cell needs."""
    top = symtable.symtable("\n".join(ast.unparse(tree) for _, _, tree in copies(path)), path.stem, "exec")
    there = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
    missing, tables = set(), [top]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        symbols = [s for s in table.get_symbols() if s.is_referenced() and (table is top or s.is_global())]
        missing |= {s.get_name() for s in symbols} - there - PROVIDED
    assert not missing


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_what_a_notebook_takes_from_the_library_is_there(path):
    """Every imported name, and every attribute of an imported room (`A.share`)."""
    rooms, missing = {}, []
    for i, _, tree in copies(path):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("conceptlab"):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    found = _taken(module, alias.name)
                    missing += [(i, f"{node.module}.{alias.name}")] if found is None else []
                    if inspect.ismodule(found):
                        rooms[alias.asname or alias.name] = found
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in rooms:
                if not hasattr(rooms[node.value.id], node.attr):
                    missing.append((i, ast.unparse(node)))
    assert not missing


def _taken(module, name):
    """The attribute or the submodule; None where there is neither."""
    try:
        return getattr(module, name, None) or importlib.import_module(f"{module.__name__}.{name}")
    except ImportError:
        return None
