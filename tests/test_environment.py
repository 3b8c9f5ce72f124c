"""pyproject.toml holds the one list of dependencies; everything else agrees with it."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Where a package's import name differs from its name.
IMPORT_NAMES = {"pillow": "PIL", "pyyaml": "yaml", "transformer-lens": "transformer_lens"}
# Declared by these of our dependencies, whose parts we use directly.
ALONG_WITH = {"huggingface_hub": "transformers", "jinja2": "nbconvert", "IPython": "ipywidgets"}
ALONG_WITH |= {"tokenizers": "transformers", "docutils": "sphinx", "websocket": "jupyterlab"}


def declared():
    extras = PROJECT["optional-dependencies"]
    everything = PROJECT["dependencies"] + [r for name in extras for r in extras[name]]
    found = [Requirement(r) for r in everything]
    return {canonicalize_name(r.name): r for r in found if r.name != PROJECT["name"]}


def constraints():
    text = (ROOT / ".ci" / "constraints.txt").read_text()
    pinned = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("==") for line in pinned)


def test_conda_environment_repeats_nothing():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge"]
    python, pip, block = environment["dependencies"]
    assert (pip, block) == ("pip", {"pip": ["-e .[all]"]})
    version = re.fullmatch(r"python=(3\.\d+)", python).group(1)
    assert version in SpecifierSet(PROJECT["requires-python"])


def test_all_means_every_extra():
    extras = set(PROJECT["optional-dependencies"]) - {"all"}
    (everything,) = map(Requirement, PROJECT["optional-dependencies"]["all"])
    assert everything.name == PROJECT["name"] and everything.extras == extras


def test_constraints_are_exact_and_satisfy_pyproject():
    pinned = constraints()
    assert PROJECT["name"] not in pinned
    assert all(re.fullmatch(r"[\w.]+", version) for version in pinned.values()), "no +cpu, no +cu"
    for name, requirement in declared().items():
        assert name in pinned, f"{name} is not in .ci/constraints.txt"
        assert pinned[name] in requirement.specifier, f"{requirement} against {pinned[name]}"


TORCH = re.compile(r"torch$|triton$|nvidia-|cuda-")  # of which every build has files of its own: no checksums


def test_every_pin_but_torch_has_its_checksums():
    text = "".join((ROOT / ".ci" / name).read_text() for name in ("hashes.txt", "hashes-source.txt"))
    blocks = re.findall(r"^([\w.-]+)==(\S+) ((?:\\\n    --hash=sha256:[0-9a-f]{64}(?: |\n|\Z))+)", text, re.M)
    assert {name: version for name, version, _ in blocks} == {
        name: version for name, version in constraints().items() if not TORCH.match(name)
    }
    assert len(re.findall(r"^[\w.-]+==", text, re.M)) == len(blocks), "every line is read"
    assert "://" not in text, "no registry's address"


def test_what_torch_pulls_on_linux_is_pinned():
    assert sum(name.startswith("nvidia-") for name in constraints()) >= 12 and "triton" in constraints()


def test_the_environment_of_the_crosscheck_is_hashed():
    text = (ROOT / "tests" / "crosscheck" / "requirements.txt").read_text()
    pins = re.findall(r"^([\w.-]+)==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", text, re.M)
    assert {"sae-lens", "transformer-lens", "transformers"} <= set(pins) and "://" not in text
    assert len(pins) == len(re.findall(r"^[\w.-]+==", text, re.M)) and not any(map(TORCH.match, pins))


def test_every_import_of_the_library_is_declared():
    names = {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in declared()}
    names |= {module for module, owner in ALONG_WITH.items() if owner in declared()}
    for path in sorted((ROOT / "lib").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module]
            else:
                continue
            tops = {module.split(".")[0] for module in modules}
            extra = tops - names - set(sys.stdlib_module_names) - {PROJECT["name"]}
            assert not extra, f"{path.name} imports {extra}, which pyproject.toml does not list"
