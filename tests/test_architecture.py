"""Who may import whom, and what a plain import may load. The table is the map."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

GROUND = {"debias.data", "debias.metrics"}
KERAS = {*GROUND, "debias.keras_metrics", "debias.losses", "debias.layers"}
LOSSES = {"debias.corrections", "debias.retrieval_losses"}
TRAINING = {*KERAS, *LOSSES, "debias.optimizers"}
MODELS = {*TRAINING, "debias.models", "debias.pipeline"}
MAY_IMPORT = {
    "debias": set(),
    "debias.data": set(),
    "debias.metrics": set(),
    "debias.keras_metrics": {*GROUND, "debias.losses"},
    "debias.losses": GROUND,
    "debias.layers": {*GROUND, "debias.losses"},
    "debias.corrections": {*GROUND, "debias.losses"},
    "debias.optimizers": GROUND,
    "debias.retrieval_losses": GROUND,
    "debias.pipeline": {*GROUND, "debias.layers"},
    "debias.tfr": {*GROUND, "debias.losses"},
    "debias.models": TRAINING,
    "debias.propensity": MODELS,
    "debias.retrieval": {*MODELS, "debias.export"},
    "debias.serve": {"debias", *MODELS, "debias.retrieval"},
    "debias.diagnosis": {*MODELS, "debias.propensity", "debias.training"},
    "debias.export": MODELS,
    "debias.candidates": MODELS,
    "debias.distributed": set(),
    "debias.training": {*MODELS, "debias.distributed"},
    "debias.commands": {*MODELS, "debias", "debias.propensity", "debias.diagnosis"}
    | {"debias.candidates", "debias.export", "debias.training"}
    | {"debias.retrieval", "debias.serve"},
    "debias.__main__": {"debias.commands"},
    "simulators": {"debias.data"},
    "benchmarks": {"debias", *MODELS, "debias.tfr", "debias.propensity"}
    | {"debias.candidates", "debias.retrieval", "debias.diagnosis", "debias.export"}
    | {"debias.serve", "simulators"},
}
ROOT = Path(__file__).parents[1]
TOPS = ("debias", "simulators", "benchmarks")
FILES = [path for top in TOPS for path in sorted((ROOT / top).rglob("*.py"))]


def room(module: str) -> str | None:
    """The longest entry of the table that `module` lies in, None for outsiders."""
    parts = module.split(".")
    names = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((name for name in names if name in MAY_IMPORT), None)


def imported(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_downwards(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    own = room(module.removesuffix(".__init__"))
    for name in imported(path):
        to = room(name)
        if to in (None, own) or (to == "debias" and name == "debias"):
            continue
        assert to in MAY_IMPORT[own], f"{module} imports {name}"


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
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        debias.Nothing  # noqa: B018
