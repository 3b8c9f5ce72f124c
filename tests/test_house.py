"""The rooms of the library: nothing points upward, rooms talk through their `__init__`, one room knows transformers."""

import ast
import importlib
import json
import re
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[1] / "lib" / "conceptlab"
# Rooms of one floor do not import each other.
FLOORS = (
    {"core"}, {"models"}, {"data"}, {"edits"}, {"evaluation"}, {"concept_vectors", "sae", "autointerp"}, {"erasure"},
    {"attacks", "dissection", "specialisation", "directions", "early_exit"}, {"experiments", "course"}, {"cli"},
)  # fmt: skip
FLOOR = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
SAME_FLOOR = {("autointerp", "sae")}  # labels are given to features of a dictionary
MODULES = sorted(p for p in LIBRARY.rglob("*.py") if p.parent.name != "sphinx")  # Sphinx settings


def imports(path: Path) -> list[tuple[int, str, list[str]]]:
    """(line, absolute module, names) of every import of the library in a module, lazy ones included."""
    here = ["conceptlab", *path.relative_to(LIBRARY).with_suffix("").parts]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module.split(".")[0] == "conceptlab":
                found.append((node.lineno, module, [alias.name for alias in node.names]))
        elif isinstance(node, ast.Import):
            found += [(node.lineno, a.name, []) for a in node.names if a.name.split(".")[0] == "conceptlab"]
    return found


def crossings(path: Path):
    """(line, own room, other room, whether through its `__init__`) of the imports that leave the room."""
    own = path.relative_to(LIBRARY).parts[0].removesuffix(".py")
    for line, module, names in imports(path):
        parts = module.split(".")
        for other in [parts[1]] if len(parts) > 1 else names:
            if other != own:
                yield line, own, other, len(parts) == 2


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(LIBRARY)))
def test_imports_go_down_and_through_the_door(path):
    if path.parent == LIBRARY:
        assert path.name == "__init__.py" and not imports(path)
        return
    wrong = []
    for line, own, other, door in crossings(path):
        if FLOOR[other] >= FLOOR[own] and (own, other) not in SAME_FLOOR:
            wrong.append(f"line {line}: {own} imports {other}, which is not below it")
        if not door:
            wrong.append(f"line {line}: import from conceptlab.{other}, not from a module inside it")
    assert not wrong, "; ".join(wrong)


def test_every_room_has_a_floor():
    rooms = {p.name for p in LIBRARY.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert rooms <= FLOOR.keys()


def test_only_models_touches_transformers():
    for path in MODULES:
        if path.relative_to(LIBRARY).parts[0] != "models":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"^\s*(from|import) (transformers|transformer_lens)", text, re.M), path
            assert not re.search(r"\blm\.hf\b|\.lm\.hf\b", text), path


def test_no_test_imports_a_test():
    for path in Path(__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert not node.module.split(".")[-1].startswith("test_"), path


VERBS = {"add", "run", "main"}  # every file of the command line has the first two; two programs have a `main`


def test_no_two_rooms_export_one_name_for_different_things():
    found: dict[str, dict[int, str]] = {}
    for room in sorted(p.name for p in LIBRARY.iterdir() if (p / "__init__.py").exists()):
        module = importlib.import_module(f"conceptlab.{room}")
        for name in module.__all__:
            found.setdefault(name, {}).setdefault(id(getattr(module, name)), room)
    assert not {name: list(rooms.values()) for name, rooms in found.items() if len(rooms) > 1}


def test_what_a_room_exports_is_no_name_of_something_else_inside_another_room():
    """A reader who meets `Asked` in any module may take it for what a room's door shows under that name."""
    made: dict[str, set[str]] = {}
    for path in MODULES:
        room = path.relative_to(LIBRARY).parts[0]
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else [node]
            for target in targets:
                if name := getattr(target, "name", None) or getattr(target, "id", None):
                    made.setdefault(name, set()).add(room)
    rooms = [p.name for p in LIBRARY.iterdir() if (p / "__init__.py").exists()]
    exported = {name for room in rooms for name in importlib.import_module(f"conceptlab.{room}").__all__}
    assert not {name: sorted(made[name]) for name in (exported - VERBS) & made.keys() if len(made[name]) > 1}


def test_only_models_tokenises():
    # elsewhere `lm.encode`: a special token written out in a text is text, and the start token is the model's affair
    for path in MODULES:
        if path.relative_to(LIBRARY).parts[0] != "models" and path != LIBRARY / "autointerp" / "embedding.py":
            assert not re.search(r"tokenizer\(", path.read_text(encoding="utf-8")), path


# ---- nothing stands here for its tests alone --------------------------------------------------------------------
KEPT = {  # public names that only tests and pages use
    "SETTINGS": "adding_a_method.md: how many settings a method of one's own must have",
    "register_attack": "adding_an_attack.md: called by whoever adds one",
    "load_card": "library.md: how good a dictionary that ships is",
    "in_words": "statistics.md: an interval with what it is over",
    "Explainer": "the interface that an explainer of one's own has to fit",
    "EndpointExplainer": "library.md: labels written by a model elsewhere",
    "accuracy_original": "statistics.md: a number of a scorecard's change",
    "continuations": "what a model wrote, for whoever wants to read it",
    "auth_flow": "called by httpx",
    "model_config": "read by pydantic",
    "prune_after_relearning": "the other half of the antidote; 05 is to show it, or it goes",
    "plot_tokens": "10 is to show it, or it goes",
}


def words_of(tree: ast.AST) -> set[str]:
    """Names that a module reads, calls or spells as a string (a profile's field, a registry's key)."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            found.add(node.id if isinstance(node, ast.Name) else node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found


def defined(body: list[ast.stmt]):
    """Public functions, classes, methods, fields and constants of a module."""
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
        for target in targets:
            if name := getattr(target, "name", None) or getattr(target, "id", None):
                yield name
        if isinstance(node, ast.ClassDef):
            yield from defined(node.body)


def test_no_public_name_is_there_for_its_tests_alone():
    used, made = set(), {}
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if path.name == "__init__.py":  # a door names what it shows, and uses nothing
            tree.body = [node for node in tree.body if "__all__" not in ast.unparse(node)]
        used |= words_of(tree)
        made |= {name: path.relative_to(LIBRARY) for name in defined(tree.body) if not name.startswith("_")}
    for path in (LIBRARY.parents[1] / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            used |= set(re.findall(r"\w+", "".join(cell["source"])))
    unused = {name: str(path) for name, path in made.items() if name not in used | KEPT.keys()}
    assert not unused, f"named nowhere in the library and the notebooks: {unused}; delete them, or say why in KEPT"
