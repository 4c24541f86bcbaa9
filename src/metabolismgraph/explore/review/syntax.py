"""Review of a strategy file by its syntax tree only: no part of it is executed.

Allowed modules and names are listed (those of other libraries in `allowed_names.py`); all others are refused. Names are
looked up in the libraries themselves, so that aliases and modules within other modules are recognised.
"""

from __future__ import annotations

import ast
import builtins
import difflib
import importlib
import itertools
import keyword
import re
import types
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from metabolismgraph.config.messages import nearest_name
from metabolismgraph.explore.review import allowed_names
from metabolismgraph.homeostasis.strategies import STRATEGIES, custom
from metabolismgraph.text import one_line

LARGEST = 20_000  # characters of a file
_MOST_REASONS = 20
_MOST_NUMBERS = 24  # in one literal; a quadrature rule or a stencil has fewer
_SIMILAR = 0.6  # of two names, between 0 and 1
_LARGEST_EXPONENT = 64
_LARGEST_NUMBER = 2**53  # larger whole numbers hold a table in their digits

# Modules and their allowed names. Listed modules may be reached through their parents.
_MODULES: dict[str, frozenset[str]] = {
    "__future__": frozenset({"annotations"}),
    "abc": frozenset({"ABC", "abstractmethod"}),
    "collections.abc": frozenset({"Callable", "Iterable", "Iterator", "Mapping", "Sequence"}),
    "dataclasses": frozenset({"dataclass", "field", "replace"}),
    "functools": frozenset({"partial", "reduce"}),
    "typing": frozenset(
        {
            *("Any", "Callable", "ClassVar", "Final", "Iterable", "Iterator", "Literal", "Mapping", "NamedTuple"),
            *("Optional", "Self", "Sequence", "TypeAlias", "Union", "cast"),
        }
    ),
    **allowed_names.LIBRARIES,
    "jax": frozenset(
        {
            *("Array", "checkpoint", "eval_shape", "grad", "hessian", "jacfwd", "jacrev", "jit", "jvp", "linearize"),
            *("remat", "value_and_grad", "vjp", "vmap"),
        }
    ),
    "jax.tree_util": frozenset({"Partial", "tree_leaves", "tree_map", "tree_reduce"}),
    "jaxtyping": frozenset({"Array", "Bool", "Float", "Int", "Key", "PRNGKeyArray", "Scalar"}),
    "equinox": frozenset(
        {
            *("Module", "Partial", "apply_updates", "combine", "field", "filter", "filter_grad", "filter_hessian"),
            *("filter_jacfwd", "filter_jacrev", "filter_jit", "filter_jvp", "filter_value_and_grad", "filter_vjp"),
            *("filter_vmap", "is_array", "is_array_like", "is_inexact_array", "partition", "tree_at", "tree_equal"),
        }
    ),
    "pydantic": frozenset({"Field", "PositiveInt"}),
    "metabolismgraph.config": frozenset({"GraphModel", "Training"}),
    "metabolismgraph.errors": frozenset({"InputError"}),
    "metabolismgraph.reactions.identifiability": frozenset({"Identifiability", "analyse"}),
    "metabolismgraph.system.integrate": frozenset({"euler", "evaluate_rate", "integrate"}),
    "metabolismgraph.system.model": frozenset({"MetabolismModel", "NodeFunction"}),
    "metabolismgraph.system.network": frozenset({"ReactionNetwork"}),
    "metabolismgraph.system.observations": frozenset({"Observations", "Transitions"}),
    "metabolismgraph.homeostasis.species_blocks": frozenset({"divide"}),
    "metabolismgraph.homeostasis.residuals": frozenset({"Phase2Data", "Residuals"}),
    "metabolismgraph.homeostasis.types_from_lines": frozenset({"Types", "find_types"}),
    "metabolismgraph.reactions.gauss_newton": frozenset({"Spline", "learn_spline"}),
    "metabolismgraph.homeostasis.training_plan": frozenset(
        {
            *("CAPACITY", "FixedLength", "Lengths", "Loss", "Objective", "Penalty", "Plan", "Rollouts", "Schedule"),
            "Starts",
        }
    ),
    "metabolismgraph.homeostasis.binned_regression": frozenset(
        {"Points", "Regress", "condense", "polish", "regress", "solve_outputs", "start_from_line"}
    ),
    "metabolismgraph.system.progress": frozenset({"Progress", "silent"}),
    "metabolismgraph.reactions.projection": frozenset({"fit_linear"}),
    "metabolismgraph.homeostasis.rollouts": frozenset({"NodeTable", "Scheme", "rolled"}),
    "metabolismgraph.system.tabulated_reactions": frozenset({"TabulatedReactions"}),
    "metabolismgraph.reactions.reweighting": frozenset({"fit_reweighted"}),
    "metabolismgraph.reactions.uncertainty": frozenset({"noise_variance"}),
    "metabolismgraph.homeostasis.strategies.base": frozenset({"Part", "Strategy"}),
    **{kind.__module__: frozenset({kind.__name__}) for kind in STRATEGIES.values()},
}
_MODULES["metabolismgraph.homeostasis.strategies.contrastive"] = frozenset({"Contrastive", "Similarity"})
_MODULES["metabolismgraph.homeostasis.strategies.curriculum"] = frozenset({"Curriculum", "LongToShort"})
_MODULES["metabolismgraph.homeostasis.strategies.multi_scale"] = frozenset({"Mixed", "MultiScale"})
_MODULES["metabolismgraph.homeostasis.strategies.weak_form"] = frozenset({"WeakForm", "Windows"})

# Built-in names and exceptions: none that read, execute, print, or inspect code or names.
_BUILTINS = frozenset(
    {
        *("abs", "all", "any", "bool", "callable", "dict", "divmod", "enumerate", "filter", "float", "frozenset"),
        *("int", "isinstance", "iter", "len", "list", "map", "max", "min", "next", "pow", "property", "range"),
        *("reversed", "round", "set", "slice", "sorted", "staticmethod", "classmethod", "str", "sum", "tuple", "zip"),
        *("ArithmeticError", "AssertionError", "FloatingPointError", "IndexError", "KeyError", "NotImplementedError"),
        *("TypeError", "ValueError", "ZeroDivisionError"),
    }
)
# Not _, which a shell of Python and doctest set to the last value that they printed.
_BUILTIN_NAMES = frozenset(dir(builtins)) - {"_"}
_DUNDERS = frozenset({"__call__", "__check_init__", "__len__", "__post_init__"})  # allowed special methods
_DECORATORS = frozenset(
    {
        *(
            "abc.abstractmethod",
            "classmethod",
            "dataclasses.dataclass",
            "equinox.filter_jit",
            "jax.checkpoint",
            "jax.jit",
        ),
        *("property", "staticmethod"),
    }
)
_MAKERS = frozenset({"pydantic.Field", "dataclasses.field", "equinox.field", "frozenset"})
# Built-in names whose meaning the review takes for granted.
_RELIED_ON = frozenset(
    {"classmethod", "frozenset", "isinstance", "map", "property", "staticmethod", *allowed_names.BUILTIN_DTYPES}
)
_IN_PLACE = frozenset({"fill", "partition", "sort"})  # methods of arrays
# What calls a function with one argument for every further argument.
_MAPS = frozenset({"jax.tree.map", "jax.tree_util.tree_map", "map"})
_OF_TYPES = ("collections.abc.", "jaxtyping.", "typing.")  # what begins so and is subscripted is a type
_GENERIC = frozenset({"dict", "frozenset", "list", "set", "tuple"})
# Annotations that make an attribute of a class, not an option.
_OF_CLASSES = frozenset({"typing.ClassVar", "typing.Final"})
# Classes whose arguments are the values of their fields, and no more.
_OF_FIELDS = ("equinox.Module", "typing.NamedTuple", "abc.ABC", "metabolismgraph.")
_OPTIMISERS = ("optax.GradientTransformation", "optax.GradientTransformationExtraArgs")
# Methods that change fields.
_CHANGERS = frozenset({"_replace", "with_rollouts"})
# With these, values that differ could be equal, and a compiled function would keep what it was given first.
_EQUALITY = frozenset({"compare", "eq", "hash", "unsafe_hash"})
_CONTAINERS = (ast.List, ast.Set, ast.Dict, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_VALUES = (ast.Constant, ast.Tuple, ast.UnaryOp, ast.BinOp, ast.Name, ast.Attribute)
_IN_VALUES = (*_VALUES, ast.Subscript, ast.Starred, ast.unaryop, ast.operator, ast.expr_context)
_IN_ANNOTATIONS = (ast.Name, ast.Attribute, ast.Subscript, ast.Constant, ast.Tuple, ast.List, ast.BinOp, ast.BitOr)
_OBJECTS = re.compile(r"[|=<>]?\d*O\d*|object(?:_|0)?|uint\d*")  # what numpy reads as a dtype of objects or keys
_ARRAY_MODULES = frozenset({"numpy", "jax.numpy", "jax.lax"})
_ATTRIBUTES = allowed_names.ATTRIBUTES
_SHAPE = re.compile(r"\.\.\.|[\w*#+\- ]*")
_STATEMENTS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
_REFUSED_NODES: dict[type[ast.AST], str] = {
    ast.Global: "global: keep no state between calls",
    ast.Nonlocal: "nonlocal: keep no state between calls",
    ast.Await: "await: write plain functions",
    **dict.fromkeys((ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith), "async: write plain functions"),
    # Its patterns read attributes by any name.
    ast.Match: "match: write it with if",
    **{
        getattr(ast, kind): "type parameters: write annotations without them"
        for kind in ("TypeAlias", "TypeVar", "ParamSpec", "TypeVarTuple")
        if hasattr(ast, kind)
    },
}
# Words in names of the truth of a system.
_LABELS = frozenset(
    {"truth", "true", "groundtruth", "gt", "label", "labels", "lam", "lambdas", "baseline", "baselines", "oracle"}
)
# Words with other meanings where the file defines the name: labels of clusters, the baseline of a loss.
_OF_FILES = frozenset({"label", "labels", "baseline", "baselines"})
_LABEL_PAIRS = frozenset(
    {
        *(("metabolite", "type"), ("metabolite", "types"), ("species", "type"), ("species", "types")),
        *(("per", "type"), ("type", "id"), ("type", "ids"), ("lambda", "per"), ("homeostatic", "lambda")),
        *(("homeostatic", "strength"), ("rate", "law"), ("ground", "real")),
    }
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_DESCRIPTIVE = frozenset({"summary", "reference"})  # texts for people, as docstrings are


def modules() -> Mapping[str, frozenset[str]]:
    """The modules that a strategy file may import, with the names that it may use."""
    return types.MappingProxyType(_MODULES)


def words() -> Mapping[str, str]:
    """What else a strategy file may use, by kind, as lists in one line."""
    found = {"builtins": _BUILTINS, "decorators": _DECORATORS, "special_methods": _DUNDERS, "truth": _LABELS}
    return {kind: ", ".join(sorted(names)) for kind, names in found.items()}


def static_reasons(name: str, source: str) -> tuple[str, ...]:
    """Reasons to refuse a strategy file by its text, one line each; empty if it may go on trial."""
    found = [*_name_reasons(name), *_text_reasons(source)]
    if found:
        return tuple(found)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        where = f"line {error.lineno}: " if isinstance(error, SyntaxError) and error.lineno else ""
        return (one_line(f"{where}cannot be parsed ({str(error) or type(error).__name__})"),)
    try:
        reasons = dict.fromkeys(_File(tree).reasons())
    except RecursionError:
        return ("nested too deeply; write shorter expressions",)
    return tuple(one_line(reason) for reason in reasons)[:_MOST_REASONS]


def _name_reasons(name: str) -> Iterator[str]:
    if not custom.NAME.fullmatch(name) or keyword.iskeyword(name):
        yield f"{one_line(name, 50)}: not a name of a strategy; use small letters, digits and _, 2 to 41 of them"
    elif name in STRATEGIES:
        yield f"{name}: the package has a strategy of that name; choose another"


def _text_reasons(source: str) -> Iterator[str]:
    if len(source) > LARGEST:
        yield f"has {len(source)} characters; write at most {LARGEST}"
        return
    try:
        source.encode()
    except UnicodeEncodeError:
        yield "holds characters that are not UTF-8"
        return
    # Invisible characters, which change the appearance of a line, and null bytes.
    odd = next((c for c in source if not c.isprintable() and c not in "\n\t "), None)
    if odd is not None:
        yield f"line {source[: source.index(odd)].count(chr(10)) + 1}: holds the character U+{ord(odd):04X}; remove it"


class _File:
    """A parsed file with its names.

    Attributes:
        modules: imported modules by their local name.
        imported: all imported names, with what they are in full.
        own: names that classes of the file define, attributes included.
    """

    def __init__(self, tree: ast.Module):
        self.tree = tree
        self.modules: dict[str, types.ModuleType] = {}
        self.imported: dict[str, str] = {}
        self.classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        inside = [node for kind in self.classes.values() for node in kind.body]
        self.own = {node.name for node in inside if isinstance(node, ast.FunctionDef)}
        self.own |= {
            name for node in inside if isinstance(node, ast.AnnAssign | ast.Assign) for name in _assigned(node)
        }
        self.bound = _bindings(tree)
        self.called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        # Called without arguments.
        self.plain = {
            id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call) and not node.args + node.keywords
        }
        self.decorating = {id(part) for node in ast.walk(tree) for part in getattr(node, "decorator_list", ())}
        self.decorating |= {
            id(part.args[0])
            for node in ast.walk(tree)
            for part in getattr(node, "decorator_list", ())
            if isinstance(part, ast.Call) and part.args
        }
        # Known once imports are.
        self.aliases: dict[str, ast.expr] = {}
        self.types: frozenset[int] = frozenset()
        self.options: frozenset[int] = frozenset()
        self.mapped: set[int] = set()
        self.bases = {id(base) for kind in self.classes.values() for base in kind.bases}
        self.descriptive = _descriptive(tree)
        # Expressions before the dot of an attribute.
        self.ways = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        self.checks: dict[type[ast.AST], Callable[[Any], Iterator[str]]] = {
            ast.AnnAssign: lambda node: _annotation(node.annotation),
            ast.Attribute: self._attribute,
            ast.Call: self._call,
            ast.With: _suspended,
            ast.ClassDef: self._class,
            ast.Constant: self._constant,
            **dict.fromkeys((ast.Dict, ast.List, ast.Set, ast.Tuple), _table),
            ast.ExceptHandler: self._handler,
            ast.FunctionDef: self._function,
            ast.Lambda: self._function,
            ast.Name: self._name,
            ast.Subscript: self._subscript,
            ast.alias: lambda node: _bound(node.asname or ""),
            ast.arg: lambda node: self._argument(node.arg),
            ast.keyword: self._keyword,
            **dict.fromkeys(_REFUSED_NODES, lambda node: iter((_REFUSED_NODES[type(node)],))),
        }

    def reasons(self) -> Iterator[str]:
        """Yield every reason to refuse the file."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield from self._imports(node)
        self._find_types()
        yield from self._top_level()
        for node in ast.walk(self.tree):
            check = self.checks.get(type(node))
            for reason in check(node) if check else ():
                line = getattr(node, "lineno", None)
                yield f"line {line}: {reason}" if line else reason
        yield from self._strategy()

    # Imports, and modules reached through them

    def _imports(self, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
        where = f"line {node.lineno}: "
        if node not in self.tree.body:
            yield f"{where}import inside a function or class; import at the top"
        for alias in node.names:
            local = alias.asname or alias.name.partition(".")[0]
            if isinstance(node, ast.ImportFrom):
                if node.level or alias.name == "*":
                    yield f"{where}relative or star import; name module and names in full"
                    continue
                full = f"{node.module}.{alias.name}"
                reason = self._from(node.module or "", alias.name, local)
            elif alias.name in _MODULES and not alias.name.startswith("metabolismgraph"):
                reason, full = None, alias.name if alias.asname else local
                self.modules[local] = importlib.import_module(full)
            else:
                reason, full = _no_module(alias.name), alias.name
            if self.imported.setdefault(local, full) != full:
                yield f"{where}{local}: is the name of two imports; choose another by as"
            elif local in _RELIED_ON:
                yield f"{where}{local}: a built-in has that name; choose another by as"
            if reason:
                yield where + reason

    def _from(self, module: str, name: str, local: str) -> str | None:
        if module not in _MODULES:
            return _no_module(module)
        home = importlib.import_module(module)
        if (problem := _forbidden(home, name)) is not None:
            return f"import of {name} from {module} is not allowed{problem}"
        if isinstance(getattr(home, name, None), types.ModuleType):
            self.modules[local] = getattr(home, name)
        return None

    def _named(self, node: ast.expr) -> str:
        """What an expression names, in full: of a module, a built-in or the file; empty for other expressions."""
        if isinstance(node, ast.Name):
            return self.imported.get(node.id, node.id)
        home = self._reached(node.value) if isinstance(node, ast.Attribute) else None
        return f"{home.__name__}.{node.attr}" if isinstance(node, ast.Attribute) and home is not None else ""

    def _reached(self, node: ast.expr) -> types.ModuleType | None:
        """The module that an expression names; None for other expressions."""
        if isinstance(node, ast.Name):
            return self.modules.get(node.id)
        if isinstance(node, ast.Attribute):
            home = self._reached(node.value)
            if home is not None and _forbidden(home, node.attr) is None:
                found = getattr(home, node.attr, None)
                return found if isinstance(found, types.ModuleType) else None
        return None

    # What is a type, and what is an option

    def _find_types(self) -> None:
        """Find type aliases, expressions that are types, options, and functions that are called by `map`."""
        for node in self.tree.body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and self._is_type(node.value):
                self.aliases.update(dict.fromkeys(_assigned(node), node.value))
        cast = [
            node.args[0]
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Call) and self._named(node.func) == "typing.cast" and node.args
            if not any(_annotation(node.args[0]))
        ]
        self.types = _types(self.tree, [*self.aliases.values(), *cast])
        self.options = frozenset(
            id(inside.value.func)
            for kind in self._strategies()
            for inside in kind.body
            if isinstance(inside, ast.AnnAssign) and isinstance(inside.value, ast.Call) and self._is_option(inside)
        )
        for call in ast.walk(self.tree):
            if isinstance(call, ast.Call) and self._named(call.func) in _MAPS and len(call.args) == 2:
                function, values = call.args
                if not isinstance(values, ast.Starred) and {k.arg for k in call.keywords} <= {"is_leaf"}:
                    self.mapped.add(id(function))

    def _is_type(self, node: ast.expr) -> bool:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            return self._is_type(node.left) or self._is_type(node.right)
        if isinstance(node, ast.Subscript):
            return (named := self._named(node.value)).startswith(_OF_TYPES) or named in _GENERIC
        return self._named(node) in allowed_names.ONLY_TYPES and isinstance(node, ast.Attribute)

    def _is_option(self, node: ast.AnnAssign) -> bool:
        """Whether a value of a class belongs to its objects: of a class, it would stay what `Field` gives."""
        if isinstance(node.annotation, ast.Constant):
            return False
        names = [part.id for part in ast.walk(node.annotation) if isinstance(part, ast.Name)]
        wholes = [node.annotation, *(self.aliases[name] for name in names if name in self.aliases)]
        parts = [part for whole in wholes for part in ast.walk(whole) if isinstance(part, ast.expr)]
        return not any(self._named(part) in _OF_CLASSES for part in parts)

    # Code that is executed when the file is loaded

    def _top_level(self) -> Iterator[str]:
        for i, node in enumerate(self.tree.body):
            if i == 0 and _is_text(node):
                continue
            if not isinstance(node, _STATEMENTS):
                yield f"line {node.lineno}: statement at the top; only imports, constants, functions and classes there"
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                is_type = any(node.value is alias for alias in self.aliases.values())
                value = self._value(node.value, "a constant", makers=("frozenset",))
                for reason in _annotation(node.value) if is_type and node.value is not None else value:
                    yield f"line {node.lineno}: {reason}"

    def _subscript(self, node: ast.Subscript) -> Iterator[str]:
        stored = isinstance(node.ctx, ast.Store | ast.Del)
        if stored and (not isinstance(node.value, ast.Name) or node.value.id in self.imported):
            yield "changes an object in place that it did not make; make a changed copy"
        if self._named(node.value).startswith("jaxtyping."):
            shape = node.slice.elts[1:] if isinstance(node.slice, ast.Tuple) else []
            if len(shape) != 1 or not isinstance(shape[0], ast.Constant) or any(_annotation(shape[0])):
                yield "a shape that is not written as a text"

    def _function(self, node: ast.FunctionDef | ast.Lambda) -> Iterator[str]:
        defaults = [*node.args.defaults, *(d for d in node.args.kw_defaults if d is not None)]
        for default in defaults:
            yield from self._value(default, "a default argument")
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg) and argument.annotation is not None:
                yield from _annotation(argument.annotation)
        if isinstance(node, ast.FunctionDef):
            if node.returns is not None:
                yield from _annotation(node.returns)
            yield from self._defined(node)

    def _class(self, node: ast.ClassDef) -> Iterator[str]:
        yield from self._defined(node)
        if any("dtype" in (getattr(inside, "name", ""), *_names(inside)) for inside in node.body):
            yield f"class {node.name}: dtype is an attribute of arrays only; choose another name"
        if node.keywords:
            yield f"class {node.name}: arguments of a class, such as a metaclass, are not allowed"
        for base in node.bases:
            if not isinstance(base, ast.Name | ast.Attribute):
                yield f"class {node.name}: derive it from a named class"
        for i, inside in enumerate(node.body):
            if isinstance(inside, ast.Assign | ast.AnnAssign):
                yield from self._value(inside.value, "a value of a class", makers=_MAKERS)
                if "model_config" in _assigned(inside):
                    yield "model_config: leave it as it is in Strategy"
            elif not (isinstance(inside, ast.FunctionDef | ast.Pass) or (i == 0 and _is_text(inside))):
                yield f"class {node.name}: a statement in the body of a class; only values and methods there"
            elif isinstance(inside, ast.FunctionDef) and inside.name.startswith("model_"):
                yield f"{inside.name}: the reading of options may not be changed"

    def _defined(self, node: ast.FunctionDef | ast.ClassDef) -> Iterator[str]:
        if "__" in node.name and node.name not in _DUNDERS:
            yield f"{node.name}: no special methods but {', '.join(sorted(_DUNDERS))}"
        if node.name in _BUILTIN_NAMES or node.name in self.imported:
            yield f"{node.name}: a built-in or an import has that name; choose another"
        yield from _labels(node.name, own=True)
        for decorator in node.decorator_list:
            call = decorator if isinstance(decorator, ast.Call) else None
            named = self._named(decorator if call is None else call.func)
            if call and named == "functools.partial" and self._is_compiler(call):
                pass
            elif named not in _DECORATORS or (call and named != "dataclasses.dataclass"):
                yield f"decorator {ast.unparse(decorator if call is None else call.func)} is not allowed"
            for argument in call.keywords if call else ():
                listed = argument.value.elts if isinstance(argument.value, ast.List) else [argument.value]
                for value in listed:
                    yield from self._value(value, "an argument of a decorator")

    def _is_compiler(self, call: ast.Call) -> bool:
        """Whether a decorator `functools.partial` compiles, with static or donated arguments only."""
        if len(call.args) != 1 or (named := self._named(call.args[0])) not in allowed_names.COMPILERS:
            return False
        return {keyword.arg for keyword in call.keywords} <= allowed_names.COMPILERS[named]

    def _value(self, node: ast.expr | None, what: str, *, makers: Collection[str] = ()) -> Iterator[str]:
        """Reasons to refuse a value that is there when the file is loaded, and as long as it is.

        Args:
            makers: functions that may be called, such as `Field`.
        """
        if node is None:
            return
        if makers and isinstance(node, ast.Call):
            named = self._named(node.func)
            if named not in makers:
                yield f"{what} is computed at import (it calls {ast.unparse(node.func)}); do so in a function"
                return
            for argument in (*node.args, *(k.value for k in node.keywords)):
                # What a frozenset is made of is not kept.
                elements = (
                    argument.elts if isinstance(argument, ast.Set | ast.List) and named == "frozenset" else [argument]
                )
                for value in elements:
                    yield from self._value(value, what)
            return
        for part in ast.walk(node):
            if isinstance(part, _CONTAINERS):
                kind = type(part).__name__.lower()
                yield f"{what} is a {kind}: state between calls is not allowed; write a tuple or a frozenset"
                return
            if not isinstance(part, _IN_VALUES) or isinstance(part, ast.LShift) or _is_large_power(part):
                kind = type(part).__name__
                yield f"{what} is computed at import ({kind}); write the value, or compute it in a function"
                return

    # Names

    def _name(self, node: ast.Name) -> Iterator[str]:
        name = node.id
        yield from _labels(name, own=True)
        if "__" in name:
            yield f"{name}: names with two underscores are not allowed"
        elif isinstance(node.ctx, ast.Load):
            if name in self.modules and id(node) not in self.ways:
                yield f"{name}: a module is not a value; use its functions"
            elif name in _BUILTIN_NAMES and name not in _BUILTINS and id(node) not in self.types:
                yield f"{name} is not allowed"
            elif name in self.imported:
                yield from self._used(node)
            elif name in self.aliases and id(node) not in self.types:
                yield f"{name}: a type is not a value; use it in annotations"
        elif name in self.imported or name in _BUILTIN_NAMES or name in {"self", "cls"}:
            yield f"{name}: assigned to, but it is an import or a built-in, or self; choose another name"

    def _attribute(self, node: ast.Attribute) -> Iterator[str]:
        name = node.attr
        yield from _labels(name, own=name in self.own)
        if name == "lower" and id(node) in self.plain:
            return  # of a text; what it gives of a compiled function has no attributes that are allowed
        if not isinstance(node.ctx, ast.Load):
            yield f"assigns to the attribute {name}; make a changed copy with dataclasses.replace"
        home = self._reached(node.value)
        if home is not None:
            problem = _forbidden(home, name)
            if problem is not None:
                yield f"{home.__name__}.{name} is not allowed{problem}"
            elif id(node) not in self.ways and self._reached(node) is not None:
                yield f"{home.__name__}.{name}: a module is not a value; use its functions"
            else:
                yield from self._used(node)
        elif name == "astype" and id(node) not in self.called:
            yield "astype: not a value; call it with a dtype"
        elif name in _ATTRIBUTES or (name.startswith("_") and not self._is_own(node)):
            yield f"attribute {name} is not allowed; choose another name for what the file defines"

    def _used(self, node: ast.Name | ast.Attribute) -> Iterator[str]:
        """Types and compilers are not values that could be passed on, and used as something else."""
        named = self._named(node)
        if named in allowed_names.ONLY_TYPES and id(node) not in self.types:
            yield f"{named} is a type for annotations and isinstance; make arrays by asarray or zeros"
        if named in allowed_names.COMPILERS and id(node) not in self.called | self.decorating:
            yield f"{named}: not a value; call it with a function, or decorate one"
        if named in allowed_names.NOT_PASSED_ON and id(node) not in self.called | self.mapped:
            yield f"{named}: not a value; call it where it is named, in a lambda if need be"
        if named == "typing.NamedTuple" and id(node) not in self.bases:
            yield "NamedTuple: not a value; derive a class from it"
        if named.startswith("jaxtyping.") and id(node) not in self.types:
            # Shapes are texts that are executed when something is compared with them.
            yield f"{node.attr if isinstance(node, ast.Attribute) else node.id} is a type for annotations"
        if named == "pydantic.Field" and id(node) not in self.options:
            yield "Field: only as the value of an option, in the class of the strategy: name: float = Field(...)"

    def _is_own(self, node: ast.Attribute) -> bool:
        if node.attr == "_replace":
            return True
        its = isinstance(node.value, ast.Name) and (node.value.id in {"self", "cls"} or node.value.id in self.classes)
        return its and node.attr in self.own and "__" not in node.attr

    # Calls

    def _call(self, node: ast.Call) -> Iterator[str]:
        """Arguments that would compile otherwise, or make arrays of something else than numbers."""
        named = self._named(node.func)
        given = {keyword.arg for keyword in node.keywords}
        if None in given and not self._sets_fields(node, named):
            yield "** in a call; write its arguments out"
        # Of the first function, it says which dimensions there are; of the other, it is what it consists of.
        meant = {"jax.numpy.vectorize": {"signature"}, **{name: {"update"} for name in _OPTIMISERS}}.get(named, set())
        for name in sorted(allowed_names.KEYWORDS & given - meant):
            yield f"argument {name} is not allowed; leave it out"
        if named in allowed_names.COMPILERS:
            other = given - allowed_names.COMPILERS[named] - {None}
            if other:
                yield f"{named} with {', '.join(sorted(map(str, other)))}; name static and donated arguments only"
            if len(node.args) != 1 or isinstance(node.args[0], ast.Starred):
                yield f"{named} takes one function; write {named}(function)"
        elif given & _EQUALITY and named in {"dataclasses.dataclass", "dataclasses.field"}:
            yield f"{named} with {', '.join(sorted(map(str, given & _EQUALITY)))}: leave comparison as it is"
        if any(
            not isinstance(_whole(changed), ast.Name | ast.Call | ast.Constant) for changed in _changed(node, named)
        ):
            yield "changes an object in place that it did not make; make a changed copy"
        if "where" in given and not self._sets_all(node, named):
            yield "where in a call that leaves entries unset; write np.where, or the function with out=np.zeros(...)"
        if named == "numpy.pad":
            mode = [*node.args[2:3], *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
            hidden = any(isinstance(argument, ast.Starred) for argument in node.args)
            if hidden or any(not isinstance(value, ast.Constant) or value.value == "empty" for value in mode):
                yield "numpy.pad with a mode that may leave entries unset; write its mode as a text, such as 'edge'"
        yield from self._dtype_by_position(node, named)

    def _sets_fields(self, node: ast.Call, named: str) -> bool:
        """Whether the arguments of a call are values of fields or of a function of the file, whatever their names."""
        changers = _CHANGERS - self.own
        if named == "dataclasses.replace" or (isinstance(node.func, ast.Attribute) and node.func.attr in changers):
            return True
        if not isinstance(node.func, ast.Name):
            return False
        own = any(isinstance(one, ast.FunctionDef) and one.name == node.func.id for one in self.tree.body)
        return (own and self.bound.count(node.func.id) == 1) or self._has_fields(node.func)

    def _has_fields(self, node: ast.expr) -> bool:
        """Whether a name is that of a class whose arguments are the values of its fields."""
        if isinstance(node, ast.Name) and node.id in self.classes and self.bound.count(node.id) == 1:
            return all(self._has_fields(base) for base in self.classes[node.id].bases)
        return self._named(node).startswith(_OF_FIELDS)

    def _sets_all(self, node: ast.Call, named: str) -> bool:
        """Whether a call with the argument where gives an array all of whose entries are set."""
        home, _, name = named.rpartition(".")
        made = next((keyword.value for keyword in node.keywords if keyword.arg == "out"), None)
        if home == "numpy" and isinstance(made, ast.Call):
            return self._named(made.func) in allowed_names.SET_BY
        if home:
            return home.startswith("jax.") or (home == "numpy" and name in allowed_names.WITH_WHERE)
        return isinstance(node.func, ast.Attribute) and node.func.attr in allowed_names.WITH_WHERE

    def _dtype_by_position(self, node: ast.Call, named: str) -> Iterator[str]:
        home, _, name = named.rpartition(".")
        if home in _ARRAY_MODULES:
            at = allowed_names.DTYPE_AT.get(name)
        else:
            at = allowed_names.DTYPE_OF_METHOD.get(node.func.attr) if isinstance(node.func, ast.Attribute) else None
        if at is None:
            return
        if home in _ARRAY_MODULES and any(isinstance(argument, ast.Starred) for argument in node.args[: at + 1]):
            yield f"{named} with *; write its arguments out"
        elif len(node.args) > at:
            yield from self._dtype(node.args[at])

    def _keyword(self, node: ast.keyword) -> Iterator[str]:
        if "__" in (node.arg or ""):
            yield f"{node.arg}: names with two underscores are not allowed"
        # The argument gt of Field means "greater than".
        if node.arg is not None and node.arg != "gt":
            yield from _labels(node.arg, own=node.arg in self.own or node.arg in self.bound)
        if node.arg in allowed_names.DTYPE_KEYWORDS:
            yield from self._dtype(node.value)

    def _dtype(self, node: ast.expr) -> Iterator[str]:
        """A type of entries has a name: text and lists could say that entries are objects."""
        home, _, name = self._named(node).rpartition(".")
        if isinstance(node, ast.IfExp):
            yield from (*self._dtype(node.body), *self._dtype(node.orelse))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield f"the text {one_line(node.value, 20)!r} as a dtype; write a name, such as jnp.float64"
        elif not (
            (isinstance(node, ast.Constant) and node.value is None)
            or (home in _ARRAY_MODULES and name in allowed_names.DTYPES)
            or (not home and name in allowed_names.BUILTIN_DTYPES)
            or (isinstance(node, ast.Attribute) and node.attr == "dtype")
            or (isinstance(node, ast.Name) and self._holds_dtypes(node.id))
        ):
            yield (
                f"the dtype {one_line(ast.unparse(node), 30)} is not allowed; write jnp.float64, float, int, bool, or "
                "that of an array, x.dtype"
            )

    def _holds_dtypes(self, name: str) -> bool:
        """Whether every value that the file gives to a name is a dtype."""
        values = [
            node.value
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and _assigned(node) == [name]
        ]
        # Not of another variable, which could be given in turn what this one holds.
        given = [value for value in values if not isinstance(value, ast.Name) or value.id not in self.bound]
        return len(given) == self.bound.count(name) > 0 and not any(reason for v in given for reason in self._dtype(v))

    def _handler(self, node: ast.ExceptHandler) -> Iterator[str]:
        yield from self._argument(node.name or "")
        if node.type is None:
            yield "except without an exception; name one"

    def _argument(self, name: str) -> Iterator[str]:
        yield from _bound(name)
        if name in self.imported or name in _RELIED_ON:
            yield f"{name}: an import or a built-in has that name; choose another"

    def _constant(self, node: ast.Constant) -> Iterator[str]:
        if type(node.value) is int and node.value > _LARGEST_NUMBER:
            yield f"a whole number above {_LARGEST_NUMBER}; compute such values from the data"
        if isinstance(node.value, str) and id(node) not in self.descriptive:
            if "__" in node.value:
                yield "a text with two underscores is not allowed"
            if _OBJECTS.fullmatch(node.value):
                yield f"the text {node.value!r}, a dtype; write a name, such as jnp.float64"
            yield from _labels(node.value)

    # The strategy itself

    def _strategies(self) -> list[ast.ClassDef]:
        """Classes derived from `Strategy`."""
        kinds = {
            local
            for local, name in self.imported.items()
            if name.rpartition(".")[2] in {"Strategy", *(kind.__name__ for kind in STRATEGIES.values())}
        }
        found = []
        for node in self.tree.body:
            if isinstance(node, ast.ClassDef) and any(isinstance(b, ast.Name) and b.id in kinds for b in node.bases):
                found.append(node)
                kinds.add(node.name)
        return found

    def _strategy(self) -> Iterator[str]:
        found = self._strategies()
        if len(found) != 1:
            yield f"{len(found)} subclasses of Strategy; write one"
            return
        (node,) = found
        if node.name.startswith("_"):
            yield f"class {node.name}: the strategy must be public"
        written = {inside.name for inside in node.body if isinstance(inside, ast.FunctionDef)}
        for inside in node.body:
            if isinstance(inside, ast.Assign | ast.AnnAssign) and inside.value is not None:
                written.update(_assigned(inside))
        for name in ("number", "summary", "reference", "apply"):
            if name not in written:
                yield f"class {node.name}: {name} is missing"


def _forbidden(home: types.ModuleType, name: str) -> str | None:
    """What to write in place of a name of a module that is not allowed, which may be empty; None if it is allowed."""
    path = f"{home.__name__}.{name}"
    allowed = _MODULES.get(home.__name__, frozenset())
    if path in _MODULES:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exists = hasattr(home, name) and not isinstance(getattr(home, name), types.ModuleType)
    if name in allowed and exists:
        return None
    return f"; {allowed_names.INSTEAD[path]}" if path in allowed_names.INSTEAD else _nearest(name, allowed - {name})


def _no_module(name: str) -> str:
    instead = allowed_names.INSTEAD.get(name)
    return f"import of {name} is not allowed{f'; {instead}' if instead else _nearest(name, _MODULES)}"


def _nearest(name: str, names: Collection[str]) -> str:
    """The most similar of the names that are allowed, for a message; empty if none is similar."""
    near = nearest_name(name, names) if names else ""
    return f"; nearest: {near}" if difflib.SequenceMatcher(None, name, near).ratio() > _SIMILAR else ""


def _only_names(node: ast.expr) -> bool:
    parts = (ast.Name, ast.Attribute, ast.Tuple, ast.BinOp, ast.BitOr, ast.expr_context)
    return all(isinstance(part, parts) for part in ast.walk(node))


def _bindings(tree: ast.Module) -> list[str]:
    """Names that the file gives to values or arguments, as often as it does."""
    return [
        name
        for node in ast.walk(tree)
        for name in (
            (node.id,)
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
            else (node.arg,)
            if isinstance(node, ast.arg)
            else (node.name,)
            if isinstance(node, ast.ExceptHandler | ast.FunctionDef | ast.ClassDef) and node.name
            else ()
        )
    ]


def _changed(node: ast.Call, named: str) -> Iterator[ast.expr]:
    """What a call changes in place."""
    yield from (keyword.value for keyword in node.keywords if keyword.arg == "out")
    if isinstance(node.func, ast.Attribute) and node.func.attr in _IN_PLACE and not named:
        yield node.func.value
    elif named == "numpy.fill_diagonal":
        yield from node.args[:1]


def _whole(node: ast.expr) -> ast.expr:
    return node.value if isinstance(node, ast.Subscript) else node


def _suspended(node: ast.With) -> Iterator[str]:
    """What a `with` sets, such as np.errstate, would stay set while a generator waits."""
    if any(isinstance(part, ast.Yield | ast.YieldFrom) for part in ast.walk(node)):
        yield "yield within with; collect the values in a list"


def _types(tree: ast.Module, others: Collection[ast.expr]) -> frozenset[int]:
    """Expressions that are types: in annotations, the second argument of isinstance, and others."""
    found: list[ast.expr | None] = [*others]
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign | ast.arg):
            found.append(node.annotation)
        elif isinstance(node, ast.FunctionDef):
            found.append(node.returns)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            found += [kind for kind in node.args[1:] if _only_names(kind)]
    return frozenset(id(part) for node in found if node is not None for part in ast.walk(node))


def _table(node: ast.Dict | ast.List | ast.Set | ast.Tuple) -> Iterator[str]:
    numbers = sum(isinstance(part, ast.Constant) and type(part.value) in {int, float} for part in ast.walk(node))
    if numbers > _MOST_NUMBERS:
        yield f"a table of {numbers} numbers, of at most {_MOST_NUMBERS}; compute them from the data"


def _is_large_power(node: ast.AST) -> bool:
    """Whether an expression is a power that may take long to compute."""
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Pow):
        return False
    exponent = node.right.operand if isinstance(node.right, ast.UnaryOp) else node.right
    if not isinstance(exponent, ast.Constant) or not isinstance(exponent.value, int | float):
        return True
    return not isinstance(node.left, ast.Constant) or abs(exponent.value) > _LARGEST_EXPONENT


def _annotation(node: ast.expr) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.expr) and not isinstance(part, _IN_ANNOTATIONS):
            yield "an annotation with more than names"
        elif isinstance(part, ast.Constant) and isinstance(part.value, str) and not _SHAPE.fullmatch(part.value):
            yield "a text in an annotation that is not a shape"


def _names(node: ast.stmt) -> set[str]:
    """All names that a statement binds outside functions and classes."""
    defined = isinstance(node, ast.FunctionDef | ast.ClassDef)
    return set() if defined else {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _assigned(node: ast.Assign | ast.AnnAssign) -> list[str]:
    """The names that a statement assigns to or declares, without attributes and parts of tuples."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _descriptive(tree: ast.Module) -> frozenset[int]:
    """Texts for people: docstrings, summary and reference, descriptions of options."""
    found: list[ast.expr | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body and _is_text(node.body[0]):
            found.append(getattr(node.body[0], "value", None))
        if isinstance(node, ast.ClassDef):
            declared = [inside for inside in node.body if isinstance(inside, ast.AnnAssign)]
            found += [inside.value for inside in declared if _DESCRIPTIVE.intersection(_assigned(inside))]
        if isinstance(node, ast.keyword) and node.arg == "description":
            found.append(node.value)
    return frozenset(id(node) for node in found)


def _bound(name: str) -> Iterator[str]:
    """Reasons to refuse the name of an argument, an import or an exception."""
    yield from _labels(name, own=True)
    if "__" in name:
        yield f"{name}: names with two underscores are not allowed"


def _labels(text: str, *, own: bool = False) -> Iterator[str]:
    """Reasons to refuse a name or a text for its words.

    Args:
        own: whether it is a name that the file defines.
    """
    words = [word.lower() for word in _WORD.findall(text)]
    refused = _LABELS - _OF_FILES if own else _LABELS
    hit = next((w for w in words if w in refused), None)
    pair = next((" ".join(p) for p in itertools.pairwise(words) if p in _LABEL_PAIRS), None)
    if hit or pair:
        yield f"{one_line(text, 50)}: names the truth ({hit or pair}), which training does not see"
