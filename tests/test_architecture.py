"""The folders of the package are floors: each imports only from those below it, and no imports form a circle."""

import ast
import graphlib
from pathlib import Path

import pytest

import metabolismgraph

PACKAGE = Path(metabolismgraph.__file__).parent
# From the ground up. A module may import from its own folder and from those before it.
FLOORS = (
    *(
        "errors",
        "text",
        "overview",
        "memory",
        "garbage",
        "files",
        "json_lines",
        "processes",
        "secret_keys",
        "metrics",
        "config",
        "schedulers",
        "system",
        "formats",
        "kinetic_models",
    ),
    *(
        "trajectories",
        "reactions",
        "homeostasis",
        "fitting",
        "uncertainty",
        "ground_truth",
        "sandbox",
        "evaluation",
        "figures",
        "plot",
        "reports",
        "runs",
        "explore",
    ),
    *("benchmarks", "cli", "testing"),
)


def module_files():
    """Every module by its dotted name within the package; that of the package itself is empty."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


FILES = module_files()


def imported(source, files=FILES):
    """Modules of the package that some source imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "metabolismgraph":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == "metabolismgraph"]
        for name in names:
            own = name.partition(".")[2]
            while own not in files:
                own = own.rpartition(".")[0]
            found.add(own)
    return found


def floor(module):
    return FLOORS.index(module.split(".")[0])


def upward(module, source):
    """What a module imports from a floor above its own."""
    return sorted(name for name in imported(source) if name and floor(name) > floor(module))


MODULES = sorted(set(FILES) - {"", "__main__"})


def test_every_folder_has_its_floor():
    assert {name.split(".")[0] for name in MODULES} == set(FLOORS)


@pytest.mark.parametrize("module", MODULES)
def test_no_import_goes_up(module):
    assert upward(module, FILES[module].read_text()) == []


def test_an_import_that_goes_up_is_seen():
    source = "def f():\n    from metabolismgraph.runs import pipeline\n    from metabolismgraph import errors"
    assert upward("reactions.fit", source) == ["runs.pipeline"]
    assert upward("cli.app", source) == []


def test_no_imports_form_a_circle():
    graph = {module: imported(FILES[module].read_text()) - {module, ""} for module in MODULES}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(MODULES)
