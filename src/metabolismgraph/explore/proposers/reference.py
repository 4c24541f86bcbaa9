"""Reference for prompts, generated from the code: parameters, strategies, and what a strategy file may use."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from metabolismgraph.config import Config, GraphModel, Training
from metabolismgraph.config.section import Section
from metabolismgraph.explore.keys import STRATEGY, TIME_STEP
from metabolismgraph.explore.proposal import shown
from metabolismgraph.explore.review import syntax
from metabolismgraph.explore.review.allowed_names import LIBRARIES
from metabolismgraph.explore.search_space import DEFAULT, Move, Range, SearchSpace, shipped_space
from metabolismgraph.explore.settings import reasons_without_effect
from metabolismgraph.homeostasis.strategies import STRATEGIES, Declared
from metabolismgraph.homeostasis.strategies.base import Strategy
from metabolismgraph.homeostasis.strategies.contrastive import Contrastive
from metabolismgraph.homeostasis.strategies.curriculum import Curriculum
from metabolismgraph.homeostasis.strategies.weak_form import WeakForm
from metabolismgraph.reactions.result import Phase1Result
from metabolismgraph.system.kinetics import Structure
from metabolismgraph.system.model import Perceptron

EXAMPLES: Mapping[str, type[Strategy]] = {
    "a penalty": Contrastive,
    "a schedule of rollout lengths": Curriculum,
    "an objective of its own, made of data and residual": WeakForm,
}
# Classes of attributes of what a strategy file may import.
_REACHED = (Phase1Result, Perceptron, Structure)
_OURS = "metabolismgraph."
_DISTRIBUTIONS = "jax.scipy.stats."  # one module each
_SEEN = {
    "MLP_sub": "good|bad: what is seen",
    "MLP_node": "active|inactive: slopes seen",
    "Embeddings": "separated|clustered|collapsed: clusters seen",
    "k": "good|bad: what is seen",
}
FIXED_BY_SLOT = (
    "Simulation, data set, architecture and everything of Phase 1 are fixed. "
    f"{TIME_STEP} belongs to the slot and may not be changed."
)
CONTROL_BY_SLOT = (
    "A run is compared with its control, the settings of its parent at the rollout length of the slot, seed by seed. "
    "Choose a parent at the rollout length of your slot; otherwise the rollout length is a second change, and the "
    "effect of yours may stay unknown."
)
FIRST_BY_SLOT = (
    "The first batch of an exploration runs the root's parameters, unchanged, in every slot, so that rollout lengths "
    "can be compared."
)
FIRST_OF_SPACE = "The first batch of an exploration runs the start, and single changes of it."
_SECTIONS = re.compile(r"\n\n *(Raises|Example):\n.*", re.DOTALL)


def of_space(space: SearchSpace, primary: str) -> dict[str, str]:
    """What a search space says, by placeholder of a template."""
    by_slot = space.time_step_by_slot
    return {
        "space": space.description,
        "parameters": _parameters(space),
        "reward": _reward(space, primary),
        "move_list": "\n".join(f"- {move.mode}: {move.why}.{_changes(move)}" for move in space.moves),
        "order": ", ".join(space.order),
        "fixed": FIXED_BY_SLOT if by_slot else "Everything else is fixed.",
        "control": CONTROL_BY_SLOT if by_slot else "A run is compared with its control, the parent, seed by seed.",
        "first_batch": FIRST_BY_SLOT if by_slot else FIRST_OF_SPACE if space.first_batch else "",
        "visual": ", ".join(f"{name}={_SEEN[name]}" for name in space.log.visual),
    }


def _parameters(space: SearchSpace) -> str:
    """Parameters that may be changed, with their values and meanings."""
    sections: Mapping[str, type[Section]] = {"training": Training, "graph_model": GraphModel}
    schemas = {name: section.model_json_schema()["properties"] for name, section in sections.items()}
    lines = []
    for parameter in space.parameters:
        section, _, name = parameter.key.partition(".")
        found = schemas[section][name]
        values = "list of strategies, or null" if parameter.key == STRATEGY else allowed(found)
        within = f", from {_range(parameter.range)}" if parameter.range else ""
        typical = f"; typically {_range(parameter.typical)}" if parameter.typical else ""
        lines.append(f"- {parameter.name} ({parameter.key}): {values}{within}{typical}: {found['description']}")
    return "\n".join(lines)


def _range(found: Range) -> str:
    low, high = ("any" if end is None else shown(end) for end in found)
    return f"{low} to {high}"


def _reward(space: SearchSpace, primary: str) -> str:
    """The terms of a reward and its classes, in words."""
    reward = space.rewards[primary]
    lines = [
        f"- {term.metric}, weight {shown(term.weight)}"
        + (f"; what follows counts only from {shown(term.gate)} on" if term.gate is not None else "")
        for term in reward.terms
    ]
    lines += [f"- class {each.name}: {_conditions(each.when)}" for each in reward.classes]
    return "\n".join(lines)


def _conditions(when: Mapping[str, Range]) -> str:
    return ", ".join(f"{name} from {_range(found)}" for name, found in when.items()) or "otherwise"


def _changes(move: Move) -> str:
    changes = [", ".join(f"{name} {shown(way)}" for name, way in each.items()) for each in move.changes]
    last = f" (in the last {move.last} runs)" if move.last else ""
    when = f" When {_conditions(move.when)}{last}." if move.when else ""
    return when + (f" Change {'; or '.join(changes)}." if changes else "")


def allowed(schema: Mapping[str, Any]) -> str:
    """The values that a JSON schema allows, in words."""
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    bounds = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    found = [f"{sign} {shown(schema[name])}" for name, sign in bounds.items() if name in schema]
    return " ".join([str(schema.get("type", "value")), " and ".join(found)]).strip()


def strategies() -> str:
    """The strategies of the package, with their options."""
    lines = []
    for name, kind in STRATEGIES.items():
        decides = ", ".join(sorted(kind.sets)) or "nothing"
        needs = f"; needs {kind.needs}" if kind.needs else ""
        lines.append(f"- {kind.number} {name}: {kind.summary} [{kind.reference}]; decides on {decides}{needs}")
        for option, schema in kind.model_json_schema().get("properties", {}).items():
            default, about = json.dumps(schema.get("default")), schema.get("description", "")
            lines.append(f"    {option} = {default} ({allowed(schema)}): {about}")
    return "\n".join(lines)


def without_effect() -> str:
    """For every strategy of the package: the settings of Phase 2 without an effect, with the reason."""
    space = shipped_space(DEFAULT)
    alone: dict[str, Mapping[str, Declared]] = {name: {name: kind()} for name, kind in STRATEGIES.items()}
    by_reason: dict[str, list[str]] = {}
    for name, found in {"[]": dict[str, Declared](), **alone}.items():
        reasons = reasons_without_effect(Config(), found, space)
        for reason in dict.fromkeys(reasons.values()):
            settings = [space.names.get(key, key.partition(".")[2]) for key in reasons if reasons[key] == reason]
            by_reason.setdefault(f"{', '.join(settings)} ({reason})", []).append(name)
    return "\n".join(f"- {', '.join(names)}: no effect of {settings}" for settings, names in by_reason.items())


def libraries() -> str:
    """Modules outside the package that a strategy file may import; names in brackets where there are few."""
    found = []
    for module, names in syntax.modules().items():
        if not module.startswith((_OURS, _DISTRIBUTIONS)) and names:
            few = f" ({', '.join(sorted(names))})" if module not in LIBRARIES else ""
            found.append(f"{module}{few}")
    return ", ".join(found)


@functools.cache
def interface() -> str:
    """Signatures of everything in the package that a strategy file may import, and of what its attributes hold."""
    parts = []
    for module, names in syntax.modules().items():
        if module.startswith(_OURS):
            home = importlib.import_module(module)
            outlines = (_outline(home, name) for name in sorted(names or ()))
            parts.append(f"# from {module} import {', '.join(sorted(names or ()))}\n" + "\n".join(outlines))
    reached = "\n".join(_outline(importlib.import_module(kind.__module__), kind.__name__) for kind in _REACHED)
    return "\n\n".join([*parts, f"# not to be imported, but held by attributes\n{reached}"])


def examples() -> str:
    """Whole strategy files of different kinds."""
    sources = {what: inspect.getsource(importlib.import_module(kind.__module__)) for what, kind in EXAMPLES.items()}
    return "\n\n".join(f"{what.capitalize()}:\n```python\n{source}```" for what, source in sources.items())


def _outline(module: Any, name: str) -> str:
    """A class or function without its code, or the definition of a constant."""
    found = getattr(module, name)
    home = importlib.import_module(found.__module__) if inspect.isclass(found) or inspect.isfunction(found) else module
    (node,) = (node for node in ast.parse(inspect.getsource(home)).body if name in _defined(node))
    options = found.model_fields if inspect.isclass(found) and issubclass(found, Strategy) else {}
    return ast.unparse(_Outline(tuple(options)).visit(node))


def _defined(node: ast.stmt) -> Iterable[str]:
    if isinstance(node, ast.Assign):
        return (target.id for target in node.targets if isinstance(target, ast.Name))
    return (node.name,) if isinstance(node, ast.ClassDef | ast.FunctionDef) else ()


class _Outline(ast.NodeTransformer):
    """Leaves signatures, fields and docstrings without errors and examples.

    Args:
        listed: options of a strategy, which are left out: they are in the list of strategies.
    """

    def __init__(self, listed: tuple[str, ...]):
        self._listed = listed

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        kept = [part for part in node.body if self._is_public(part)]
        node.body = [self.visit(part) for part in kept] or [ast.Expr(ast.Constant(...))]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        about = ast.get_docstring(node, clean=False)
        node.body = [ast.Expr(ast.Constant(_SECTIONS.sub("", about).strip() if about else ...))]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign:
        # Of a section of the configuration: bounds and description are in the list of parameters.
        if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "Field":
            node.value = None
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.Expr:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            node.value = ast.Constant(_SECTIONS.sub("", node.value.value).strip())
        return node

    def _is_public(self, node: ast.stmt) -> bool:
        if isinstance(node, ast.FunctionDef):
            return node.name == "__call__" or not node.name.startswith("_")
        named = node.target.id if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else ""
        return named not in self._listed


# What a template may name besides other templates, see `prompt.py`.
GENERATED: Mapping[str, Callable[[], str]] = {
    "strategies": strategies,
    "without_effect": without_effect,
    "libraries": libraries,
    "interface": interface,
    "examples": examples,
    "largest": functools.partial(str, syntax.LARGEST),
    **{kind: functools.partial(str, text) for kind, text in syntax.words().items()},
}
