"""Who may import whom, and what a plain import may load. The table is the map."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

GROUND = {"debias.types", "debias.data", "debias.metrics", "debias.losses"}
GROUND |= {"debias.presets"}
ENGINE = {*GROUND, "debias.engine"}
LAYERS = {*ENGINE, "debias.layers"}
MODELS = {*LAYERS, "debias.models"}
FITTED = {*MODELS, "debias.propensity", "debias.training"}
WINGS = {*FITTED, "debias.diagnosis", "debias.retrieval"}
MAY_IMPORT = {
    "debias": set(),
    "debias.types": set(),
    "debias.data": {"debias.types"},
    "debias.metrics": {"debias.types"},
    "debias.losses": {"debias.types"},
    "debias.metrics.keras": GROUND,
    "debias.presets": {"debias.data"},
    "debias.artifacts": {*MODELS, "debias.retrieval"},
    "debias.tfr": GROUND,
    "debias.engine": GROUND,
    "debias.layers": ENGINE,
    "debias.models": LAYERS,
    "debias.propensity": MODELS,
    "debias.training": {*MODELS, "debias.propensity"},
    "debias.diagnosis": FITTED,
    "debias.retrieval": MODELS,
    "debias.serve": {"debias", *MODELS, "debias.retrieval", "debias.artifacts"},
    "debias.commands": {"debias", *WINGS, "debias.serve", "debias.artifacts"},
    "debias.commands.demo": {"debias", *WINGS, "debias.commands", "simulators"},
    "debias.__main__": {"debias.commands", "debias.commands.demo"},
    "simulators": {"debias.data", "debias.retrieval.data", "debias.types"},
    "simulators.__main__": {"simulators", "debias.data", "debias.commands"}
    | {"debias.engine"},
    "debias.retrieval.data": {"debias.types", "debias.data"},
    "benchmarks.__main__": {"benchmarks", "debias.commands"},
    "benchmarks": {"debias", *WINGS, "debias.tfr", "debias.serve", "simulators"}
    | {"debias.__main__", "debias.artifacts", "debias.commands"},
}
ROOT = Path(__file__).parents[1]
TOPS = ("debias", "simulators", "benchmarks")
FILES = [path for top in TOPS for path in sorted((ROOT / top).rglob("*.py"))]


def room(module: str) -> str | None:
    """The longest entry of the table that `module` lies in, None for outsiders."""
    parts = module.split(".")
    names = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((name for name in names if name in MAY_IMPORT), None)


class _ForTypes(ast.NodeTransformer):
    """Leaves out what is imported for type checkers alone."""

    def visit_If(self, node: ast.If):
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else node


def imported(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(_ForTypes().visit(tree)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def within(module: str, rooms: set[str]) -> bool:
    """Whether `module` is one of `rooms` or lies in one; `debias` is no room."""
    parts = module.split(".")
    names = {".".join(parts[:n]) for n in range(1, len(parts) + 1)} - {"debias"}
    return bool(names & rooms) or module in rooms


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_downwards(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    own = room(module.removesuffix(".__init__"))
    for name in imported(path):
        to = room(name)
        if to in (None, own) or (to == "debias" and name == "debias"):
            continue
        assert within(to, {own, *MAY_IMPORT[own]}), f"{module} imports {name}"


def test_no_files_import_each_other_in_a_circle():
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(
            ".__init__"
        ): path
        for path in FILES
    }
    imports = {m: modules.keys() & set(imported(p)) - {m} for m, p in modules.items()}
    # A package that is named because a module of it is imported is no import of it.
    for module, names in imports.items():
        inner = {n for n in names if any(o.startswith(f"{n}.") for o in names)}
        imports[module] = names - inner
    list(TopologicalSorter(imports).static_order())  # CycleError names the circle


def test_every_room_of_the_table_exists():
    rooms = {room(".".join(p.relative_to(ROOT).with_suffix("").parts)) for p in FILES}
    assert rooms - {None} <= set(MAY_IMPORT)
    assert {"debias.data", "debias.models", "simulators", "benchmarks"} <= rooms


@pytest.mark.parametrize(
    "statement",
    [
        "import debias, simulators, benchmarks",
        "import debias.data, debias.metrics",
        "import debias.__main__",
        "import simulators.__main__",
        "import benchmarks.__main__, benchmarks.experiments",
    ],
)
def test_light_imports_load_neither_tensorflow_nor_keras(statement):
    heavy = "sorted({'tensorflow', 'keras', 'jax'} & set(sys.modules))"
    program = f"import sys; {statement}; loaded = {heavy}; assert not loaded, loaded"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_public_name_of_debias_is_there():
    import debias

    assert all(getattr(debias, name) is not None for name in debias.__all__)
    with pytest.raises(AttributeError, match="No debias attribute Nothing"):
        debias.Nothing  # noqa: B018
