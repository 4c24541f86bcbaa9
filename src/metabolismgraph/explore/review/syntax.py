"""Review of a strategy file by its syntax tree only: no part of it is executed.

Allowed modules and names are listed; all others are refused. Names are looked up in the libraries themselves, so that
aliases and modules within other modules are recognised.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import itertools
import keyword
import re
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from metabolismgraph.homeostasis.strategies import STRATEGIES, custom
from metabolismgraph.text import one_line

LARGEST = 20_000  # characters of a file
_MOST_REASONS = 20
_MOST_NUMBERS = 24  # in one literal; a quadrature rule or a stencil has fewer
_LARGEST_NUMBER = 2**53  # larger whole numbers hold a table in their digits

# Modules and their allowed names; None: all public names but modules. Listed modules may be reached through their
# parents.
_MODULES: dict[str, frozenset[str] | None] = {
    "__future__": frozenset({"annotations"}),
    "abc": frozenset({"ABC", "abstractmethod"}),
    "collections.abc": frozenset({"Callable", "Iterable", "Iterator", "Mapping", "Sequence"}),
    "dataclasses": frozenset({"dataclass", "field", "replace"}),
    "functools": frozenset({"partial", "reduce"}),
    **dict.fromkeys(("itertools", "math")),
    "typing": frozenset({"Any", "ClassVar", "Final", "Literal", "NamedTuple", "cast"}),
    **dict.fromkeys(("numpy", "numpy.fft", "numpy.linalg", "numpy.polynomial")),
    "numpy.random": frozenset({"default_rng", "Generator"}),
    "jax": frozenset(
        {
            *("Array", "checkpoint", "eval_shape", "grad", "hessian", "jacfwd", "jacrev", "jit", "jvp", "linearize"),
            *("remat", "value_and_grad", "vjp", "vmap"),
        }
    ),
    **dict.fromkeys(("jax.lax", "jax.nn", "jax.nn.initializers", "jax.numpy", "jax.numpy.fft", "jax.numpy.linalg")),
    **dict.fromkeys(("jax.random", "jax.scipy", "jax.scipy.linalg", "jax.scipy.special", "jax.scipy.stats")),
    "jax.tree": None,
    "jax.tree_util": frozenset({"Partial", "tree_leaves", "tree_map", "tree_reduce"}),
    "jaxtyping": frozenset({"Array", "Bool", "Float", "Int", "Key", "PRNGKeyArray", "Scalar"}),
    "equinox": frozenset(
        {
            *("Module", "Partial", "apply_updates", "combine", "field", "filter", "filter_grad", "filter_jit"),
            *("filter_value_and_grad", "filter_vmap", "is_array", "is_inexact_array", "partition", "tree_at"),
        }
    ),
    **dict.fromkeys(("equinox.nn", "optax")),
    "pydantic": frozenset({"Field", "PositiveInt"}),
    "metabolismgraph.config": frozenset({"GraphModel", "Training"}),
    "metabolismgraph.errors": frozenset({"InputError"}),
    "metabolismgraph.reactions.identifiability": frozenset({"Identifiability", "analyse"}),
    "metabolismgraph.system.integrate": frozenset({"euler", "evaluate_rate", "integrate"}),
    "metabolismgraph.system.model": frozenset({"MetabolismModel", "NodeFunction"}),
    "metabolismgraph.system.network": frozenset({"ReactionNetwork"}),
    "metabolismgraph.system.observations": frozenset({"Observations", "Transitions"}),
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
        *("abs", "all", "any", "bool", "dict", "divmod", "enumerate", "filter", "float", "frozenset", "int"),
        *("isinstance", "iter", "len", "list", "map", "max", "min", "next", "pow", "property", "range", "reversed"),
        *("round", "set", "slice", "sorted", "staticmethod", "classmethod", "str", "sum", "tuple", "zip"),
        *("ArithmeticError", "AssertionError", "FloatingPointError", "IndexError", "KeyError", "NotImplementedError"),
        *("TypeError", "ValueError", "ZeroDivisionError"),
    }
)
# Refused attributes of any object: files, code, frames, global settings of libraries.
_ATTRIBUTES = frozenset(
    {
        *("DataSource", "dump", "dumps", "frombuffer", "fromfile", "fromregex", "genfromtxt", "load", "loads"),
        *("loadtxt", "memmap", "open", "open_memmap", "read", "save", "savetxt", "savez", "savez_compressed"),
        *("tofile", "write", "unsafe_buffer_pointer", "ctypes", "setflags", "flags", "format", "format_map"),
        *("from_dlpack", "to_dlpack", "dlpack", "callback", "io_callback", "pure_callback", "host_callback"),
        *("debug_callback", "debug", "ffi", "ffi_call", "export", "profiler", "experimental", "interpreters", "infeed"),
        *("outfeed", "set_printoptions", "set_string_function", "seterr", "seterrcall", "setbufsize", "mro"),
        *("bmat", "frompyfunc", "vectorize", "show_config", "show_runtime", "info", "get_include", "test"),
        *("parse_file", "parse_raw", "construct", "from_orm", "model_post_init"),
        *("f_back", "f_builtins", "f_code", "f_globals", "f_locals", "tb_frame", "tb_next", "gi_frame", "gi_code"),
        *("cr_frame", "ag_frame", "func_globals", "co_code", "model_construct", "model_rebuild", "model_config"),
        *("clear_caches", "clear_cache", "cache_clear"),
    }
)
_DUNDERS = frozenset({"__call__", "__check_init__", "__len__", "__post_init__"})  # allowed special methods
_GENERATORS = frozenset({"default_rng", "key", "PRNGKey"})
_DECORATORS = frozenset(
    {
        *("abc.abstractmethod", "abstractmethod", "classmethod", "dataclasses.dataclass", "dataclass"),
        *("eqx.filter_jit", "equinox.filter_jit", "jax.checkpoint", "jax.jit", "property", "staticmethod"),
    }
)
_MAKERS = frozenset({"Field", "dataclasses.field", "eqx.field", "equinox.field", "field", "frozenset"})
_VALUES = (ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.UnaryOp, ast.BinOp, ast.Name, ast.Attribute)
_IN_VALUES = (*_VALUES, ast.Subscript, ast.Starred, ast.unaryop, ast.operator, ast.expr_context)
_IN_ANNOTATIONS = (ast.Name, ast.Attribute, ast.Subscript, ast.Constant, ast.Tuple, ast.List, ast.BinOp, ast.BitOr)
_SHAPE = re.compile(r"\.\.\.|[\w*#+\- ]*")
_STATEMENTS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
_REFUSED_NODES: dict[type[ast.AST], str] = {
    ast.Global: "global: keep no state between calls",
    ast.Nonlocal: "nonlocal: keep no state between calls",
    ast.Await: "await: write plain functions",
    **dict.fromkeys((ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith), "async: write plain functions"),
    # Its patterns read attributes by any name.
    ast.Match: "match: write it with if",
}
# Words in names of the truth of a system.
_LABELS = frozenset(
    {"truth", "true", "groundtruth", "gt", "label", "labels", "lam", "lambdas", "baseline", "baselines", "oracle"}
)
_LABEL_PAIRS = frozenset(
    {
        *(("metabolite", "type"), ("metabolite", "types"), ("species", "type"), ("species", "types")),
        *(("per", "type"), ("type", "id"), ("type", "ids"), ("lambda", "per"), ("homeostatic", "lambda")),
        *(("homeostatic", "strength"), ("rate", "law"), ("ground", "real")),
    }
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_DESCRIPTIVE = frozenset({"summary", "reference"})  # texts for people, as docstrings are


def modules() -> Mapping[str, frozenset[str] | None]:
    """The modules that a strategy file may import, with the names that it may use; None: all public names."""
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
        imported: all imported names.
        own: names that the file defines, attributes included.
    """

    def __init__(self, tree: ast.Module):
        self.tree = tree
        self.modules: dict[str, types.ModuleType] = {}
        self.imported: dict[str, str] = {}
        self.own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        self.own |= {name for node in ast.walk(tree) if isinstance(node, ast.AnnAssign) for name in _assigned(node)}
        self.descriptive = _descriptive(tree)
        # Expressions before the dot of an attribute.
        self.ways = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        self.checks: dict[type[ast.AST], Callable[[Any], Iterator[str]]] = {
            ast.AnnAssign: lambda node: _annotation(node.annotation),
            ast.Attribute: self._attribute,
            ast.Call: self._call,
            ast.ClassDef: self._class,
            ast.Constant: self._constant,
            **dict.fromkeys((ast.Dict, ast.List, ast.Set, ast.Tuple), _table),
            ast.ExceptHandler: _handler,
            ast.FunctionDef: self._function,
            ast.Lambda: self._function,
            ast.Name: self._name,
            ast.Subscript: self._subscript,
            ast.alias: lambda node: _bound(node.asname or ""),
            ast.arg: lambda node: _bound(node.arg),
            # The argument gt of Field means "greater than".
            ast.keyword: lambda node: _labels(node.arg or "") if node.arg != "gt" else iter(()),
            **dict.fromkeys(_REFUSED_NODES, lambda node: iter((_REFUSED_NODES[type(node)],))),
        }

    def reasons(self) -> Iterator[str]:
        """Yield every reason to refuse the file."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield from self._imports(node)
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
                reason = self._from(node.module or "", alias.name, local)
            elif alias.name in _MODULES and not alias.name.startswith("metabolismgraph"):
                reason = None
                self.modules[local] = importlib.import_module(alias.name if alias.asname else local)
            else:
                reason = f"import of {alias.name} is not allowed"
            self.imported[local] = alias.name
            if reason:
                yield where + reason

    def _from(self, module: str, name: str, local: str) -> str | None:
        if module not in _MODULES:
            return f"import of {module} is not allowed"
        home = importlib.import_module(module)
        problem = _forbidden(home, name)
        if problem is None and isinstance(getattr(home, name, None), types.ModuleType):
            self.modules[local] = getattr(home, name)
        return problem and f"import of {name} from {module} is not allowed"

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

    # Code that is executed when the file is loaded

    def _top_level(self) -> Iterator[str]:
        for i, node in enumerate(self.tree.body):
            if i == 0 and _is_text(node):
                continue
            if not isinstance(node, _STATEMENTS):
                yield f"line {node.lineno}: statement at the top; only imports, constants, functions and classes there"
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                yield from _constant(node.value, "a constant")

    def _subscript(self, node: ast.Subscript) -> Iterator[str]:
        stored = isinstance(node.ctx, ast.Store | ast.Del)
        if stored and (not isinstance(node.value, ast.Name) or node.value.id in self.imported):
            yield "changes an object in place that it did not make; make a changed copy"

    def _function(self, node: ast.FunctionDef | ast.Lambda) -> Iterator[str]:
        defaults = [*node.args.defaults, *(d for d in node.args.kw_defaults if d is not None)]
        for default in defaults:
            yield from _constant(default, "a default argument")
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg) and argument.annotation is not None:
                yield from _annotation(argument.annotation)
        if isinstance(node, ast.FunctionDef):
            if node.returns is not None:
                yield from _annotation(node.returns)
            yield from self._defined(node)

    def _class(self, node: ast.ClassDef) -> Iterator[str]:
        yield from self._defined(node)
        if node.keywords:
            yield f"class {node.name}: arguments of a class, such as a metaclass, are not allowed"
        for base in node.bases:
            if not isinstance(base, ast.Name | ast.Attribute):
                yield f"class {node.name}: derive it from a named class"
        for i, inside in enumerate(node.body):
            if isinstance(inside, ast.Assign | ast.AnnAssign):
                yield from _constant(inside.value, "a value of a class", makers=True)
                if "model_config" in _assigned(inside):
                    yield "model_config: leave it as it is in Strategy"
            elif not (isinstance(inside, ast.FunctionDef | ast.Pass) or (i == 0 and _is_text(inside))):
                yield f"class {node.name}: a statement in the body of a class; only values and methods there"
            elif isinstance(inside, ast.FunctionDef) and inside.name.startswith("model_"):
                yield f"{inside.name}: the reading of options may not be changed"

    def _defined(self, node: ast.FunctionDef | ast.ClassDef) -> Iterator[str]:
        if "__" in node.name and node.name not in _DUNDERS:
            yield f"{node.name}: no special methods but {', '.join(sorted(_DUNDERS))}"
        if hasattr(builtins, node.name):
            yield f"{node.name}: a built-in has that name; choose another"
        yield from _labels(node.name)
        for decorator in node.decorator_list:
            call = isinstance(decorator, ast.Call)
            named = ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)
            if named not in _DECORATORS or (call and named not in {"dataclass", "dataclasses.dataclass"}):
                yield f"decorator {named} is not allowed"
            for argument in decorator.keywords if isinstance(decorator, ast.Call) else ():
                yield from _constant(argument.value, "an argument of a decorator")

    # Names

    def _name(self, node: ast.Name) -> Iterator[str]:
        name = node.id
        yield from _labels(name)
        if "__" in name:
            yield f"{name}: names with two underscores are not allowed"
        elif isinstance(node.ctx, ast.Load):
            if name in self.modules and id(node) not in self.ways:
                yield f"{name}: a module is not a value; use its functions"
            elif hasattr(builtins, name) and name not in _BUILTINS:
                yield f"{name} is not allowed"
        elif name in self.imported or hasattr(builtins, name):
            yield f"{name}: assigned to, but it is an import or a built-in; choose another name"

    def _attribute(self, node: ast.Attribute) -> Iterator[str]:
        name = node.attr
        yield from _labels(name)
        if not isinstance(node.ctx, ast.Load):
            yield f"assigns to the attribute {name}; make a changed copy with dataclasses.replace"
        home = self._reached(node.value)
        if home is not None:
            problem = _forbidden(home, name)
            if problem:
                yield problem
            elif id(node) not in self.ways and self._reached(node) is not None:
                yield f"{home.__name__}.{name}: a module is not a value; use its functions"
        elif name in _ATTRIBUTES or (name.startswith("_") and not self._is_own(name)):
            yield f"attribute {name} is not allowed"

    def _is_own(self, name: str) -> bool:
        return name == "_replace" or (name in self.own and "__" not in name)

    def _call(self, node: ast.Call) -> Iterator[str]:
        """A generator of random numbers with a seed that the file fixes."""
        f = node.func
        named = self.imported.get(f.id) if isinstance(f, ast.Name) else None
        if isinstance(f, ast.Attribute) and self._reached(f.value) is not None:
            named = f.attr
        fixed = node.args and not any(isinstance(part, ast.Name) for part in ast.walk(node.args[0]))
        if named in _GENERATORS and fixed:
            yield f"{named} with a fixed seed; draw random numbers from data.key"

    def _constant(self, node: ast.Constant) -> Iterator[str]:
        if type(node.value) is int and node.value > _LARGEST_NUMBER:
            yield f"a whole number above {_LARGEST_NUMBER}; compute such values from the data"
        if isinstance(node.value, str) and id(node) not in self.descriptive:
            if "__" in node.value:
                yield "a text with two underscores is not allowed"
            yield from _labels(node.value)

    # The strategy itself

    def _strategy(self) -> Iterator[str]:
        kinds = {
            local
            for local, name in self.imported.items()
            if name == "Strategy" or name in {kind.__name__ for kind in STRATEGIES.values()}
        }
        classes = [node for node in self.tree.body if isinstance(node, ast.ClassDef)]
        found = []
        for node in classes:
            if any(isinstance(base, ast.Name) and base.id in kinds for base in node.bases):
                found.append(node)
                kinds.add(node.name)
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
    """The reason to refuse a name of a module; None if it is allowed."""
    path = f"{home.__name__}.{name}"
    allowed = _MODULES.get(home.__name__, frozenset())
    if path in _MODULES:
        return None
    if name.startswith("_") or name in _ATTRIBUTES or (allowed is not None and name not in allowed):
        return f"{path} is not allowed"
    # A name that is not listed must exist, and must not be a module.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = getattr(home, name, None)
    return f"{path} is not allowed" if found is None or isinstance(found, types.ModuleType) else None


def _constant(node: ast.expr | None, what: str, *, makers: bool = False) -> Iterator[str]:
    """Reasons to refuse a value that is computed when the file is loaded.

    Args:
        makers: whether calls of `Field` and similar functions are allowed.
    """
    if node is None:
        return
    if makers and isinstance(node, ast.Call):
        named = ast.unparse(node.func)
        if named not in _MAKERS:
            yield f"{what} calls {named}; calls belong in functions"
        for argument in (*node.args, *(k.value for k in node.keywords)):
            yield from _constant(argument, what)
        return
    for part in ast.walk(node):
        if not isinstance(part, _IN_VALUES) or isinstance(part, ast.Pow | ast.LShift):
            yield f"{what} is computed at import ({type(part).__name__}); write the value, or compute it in a function"
            return


def _table(node: ast.Dict | ast.List | ast.Set | ast.Tuple) -> Iterator[str]:
    numbers = sum(isinstance(part, ast.Constant) and type(part.value) in {int, float} for part in ast.walk(node))
    if numbers > _MOST_NUMBERS:
        yield f"a table of {numbers} numbers, of at most {_MOST_NUMBERS}; compute them from the data"


def _annotation(node: ast.expr) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.expr) and not isinstance(part, _IN_ANNOTATIONS):
            yield "an annotation with more than names"
        elif isinstance(part, ast.Constant) and isinstance(part.value, str) and not _SHAPE.fullmatch(part.value):
            yield "a text in an annotation that is not a shape"


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


def _handler(node: ast.ExceptHandler) -> Iterator[str]:
    yield from _bound(node.name or "")
    if node.type is None:
        yield "except without an exception; name one"


def _bound(name: str) -> Iterator[str]:
    """Reasons to refuse the name of an argument, an import or an exception."""
    yield from _labels(name)
    if "__" in name:
        yield f"{name}: names with two underscores are not allowed"


def _labels(text: str) -> Iterator[str]:
    words = [word.lower() for word in _WORD.findall(text)]
    hit = next((w for w in words if w in _LABELS), None)
    pair = next((" ".join(p) for p in itertools.pairwise(words) if p in _LABEL_PAIRS), None)
    if hit or pair:
        yield f"{one_line(text, 50)}: names the truth ({hit or pair}), which training does not see"
