"""Review of strategy files: hostile and broken ones do not land, each for its own reason; honest ones land and train.

Files that the syntax tree gives away are tried in the sealed process as well, where that is cheap: it alone would
have held them.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from strategy_files import base_run, written

from metabolismgraph.config import load_config
from metabolismgraph.errors import FirewallError, InputError
from metabolismgraph.explore.review import admission, allowed_names, contract, examination
from metabolismgraph.explore.review.admission import (
    Declaration,
    Verdict,
    learned_faults,
    on_trial,
    review,
    systems_for,
    write_trial,
)
from metabolismgraph.explore.review.examination import examine
from metabolismgraph.explore.review.syntax import LARGEST, static_reasons
from metabolismgraph.homeostasis.fit import initial_model
from metabolismgraph.homeostasis.strategies import STRATEGIES, chosen, custom, find
from metabolismgraph.processes import Completed
from metabolismgraph.runs.checkpoint import load_phase1, load_phase2, save_phase2
from metabolismgraph.runs.train_folder import train_folder
from metabolismgraph.sandbox import audit_hook

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/developing.md").read_text(encoding="utf-8")
EXAMPLE = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)[0]
RESPONSE = json.loads((ROOT / "tests/golden/new_strategy/response.json").read_text(encoding="utf-8"))
CALL = RESPONSE["choices"][0]["message"]["tool_calls"][0]
RECORDED = json.loads(CALL["function"]["arguments"])["file"]  # written from the prompt alone
LIMIT = 240.0  # seconds; generous, as machines that run tests may be busy
SHORT = 8.0  # for what never ends


@dataclasses.dataclass(frozen=True)
class Hostile:
    """A file that must not land.

    Attributes:
        source: TRUTH in it is where the truth lies.
        reason: what one of the reasons must say.
        sealed: what the sealed process alone must say of it; None: not tried there.
    """

    source: str
    reason: str
    sealed: str | None = None


LEAK = "tried to reach outside its folder"

NOT = "is not allowed"
# Refused by their syntax tree.
STATIC = {
    "open": Hostile(written("open('TRUTH/reactions.csv').read()\nreturn plan"), "open is not allowed", f"{LEAK}.*open"),
    "open at import": Hostile(written(top="TEXT = open('TRUTH/reactions.csv').read()"), "computed at import"),
    "np.load": Hostile(written("np.load('TRUTH/x.npy')\nreturn plan"), "numpy.load is not allowed"),
    "np.fromfile": Hostile(
        written("np.fromfile('TRUTH/reactions.csv', dtype='u1')\nreturn plan"), "numpy.fromfile is not allowed"
    ),
    "np.memmap": Hostile(written("np.memmap('TRUTH/reactions.csv')\nreturn plan"), "numpy.memmap is not allowed"),
    "numpy under another name": Hostile(
        written("n = np\nn.loadtxt('TRUTH/reactions.csv', dtype=str)\nreturn plan"), "np: a module is not a value"
    ),
    "a module in a module": Hostile(written("np.lib.format.open_memmap('x')\nreturn plan"), "numpy.lib is not allowed"),
    "ctypes by numpy": Hostile(written("np.ctypeslib.load_library('libc.so.6', '/')\nreturn plan"), "numpy.ctypeslib"),
    "tofile": Hostile(written("np.ones(3).tofile('TRUTH/x')\nreturn plan"), "attribute tofile is not allowed"),
    "pathlib": Hostile(
        written(top="from pathlib import Path\n\nTEXT = Path('TRUTH/reactions.csv').read_text()"),
        "import of pathlib is not allowed",
    ),
    "importlib": Hostile(
        written(top="import importlib\n\nTRUE = importlib.import_module('metabolismgraph.ground_truth.truth')"),
        "import of importlib",
        LEAK,
    ),
    "the truth itself": Hostile(
        written(top="from metabolismgraph.ground_truth.truth import Truth"),
        "import of metabolismgraph.ground_truth.truth",
    ),
    "the simulator": Hostile(
        written(top="from metabolismgraph.ground_truth.simulator import simulate"),
        "import of metabolismgraph.ground_truth.simulator",
    ),
    "the sandbox": Hostile(
        written(top="from metabolismgraph.sandbox import audit_hook"), "import of metabolismgraph.sandbox is"
    ),
    "what a module has imported": Hostile(
        written(top="from metabolismgraph.homeostasis.residuals import jax as j"),
        "import of jax from metabolismgraph.homeostasis",
    ),
    "relative import": Hostile(written(top="from . import audit_hook"), "relative or star import"),
    "star import": Hostile(written(top="from numpy import *"), "relative or star import"),
    "import on the way": Hostile(written("import math\nreturn plan"), "import inside a function or class"),
    "getattr chain": Hostile(
        written("getattr(getattr(plan, '_' * 2 + 'class' + '_' * 2), 'x')\nreturn plan"), "getattr is not allowed"
    ),
    "subclasses": Hostile(
        written("().__class__.__base__.__subclasses__()\nreturn plan"), "attribute __subclasses__ is not allowed"
    ),
    "globals of a function": Hostile(
        written("dataclasses.replace.__globals__['sys'].modules['os'].system('true')\nreturn plan"),
        "attribute __globals__ is not allowed",
    ),
    "format string": Hostile(
        written("'{0.' + '_' * 2 + 'class' + '_' * 2 + '}'.format(plan)\nreturn plan"),
        "attribute format is not",
    ),
    "pattern that reads attributes": Hostile(
        written("match plan:\n    case Plan(__class__=kind):\n        return kind\nreturn plan"),
        "match: write it",
    ),
    "builtins by name": Hostile(written("__builtins__['open']('x')\nreturn plan"), "names with two underscores"),
    "import under a special name": Hostile(written(top="import math as __builtins__"), "names with two underscores"),
    "eval": Hostile(written("eval('1 + 1')\nreturn plan"), "eval is not allowed"),
    "annotation that is run": Hostile(
        written(body="option: \"open('TRUTH/reactions.csv')\" = 1"), "a text in an annotation that is not a shape", LEAK
    ),
    "annotation with a call": Hostile(written(body="option: print('x') = 1"), "an annotation with more than names"),
    "ctypes": Hostile(written(top="import ctypes\n\nDONE = ctypes.CDLL(None).system(b'true')"), "import of ctypes"),
    "sys": Hostile(written("sys.modules['os'].system('true')\nreturn plan", top="import sys"), "import of sys"),
    "io_callback": Hostile(
        written(
            "io_callback(lambda: np.loadtxt('TRUTH/reactions.csv'), jnp.zeros(3))\nreturn plan",
            top="from jax.experimental import io_callback",
        ),
        "import of jax.experimental is not allowed",
        LEAK,
    ),
    "pure_callback": Hostile(written("jax.pure_callback(len, 1, [])\nreturn plan"), "jax.pure_callback is not allowed"),
    "debug.callback": Hostile(written("jax.debug.print('x')\nreturn plan"), "jax.debug is not allowed"),
    "settings of jax": Hostile(written("jax.config.update('jax_enable_x64', False)\nreturn plan"), "jax.config is not"),
    "files of equinox": Hostile(
        written("eqx.tree_serialise_leaves('TRUTH/x', plan)\nreturn plan"), "equinox.tree_serialise_leaves is not"
    ),
    "files of pydantic": Hostile(
        written("data.training.parse_file('TRUTH/x.json')\nreturn plan"), "attribute parse_file is not allowed"
    ),
    "subprocess": Hostile(
        written("subprocess.run(['true'])\nreturn plan", top="import subprocess"), "import of subprocess"
    ),
    "socket": Hostile(
        written(top="import socket\n\nLINE = socket.create_connection(('::1', 9))"),
        "import of socket",
        LEAK,
    ),
    "threading": Hostile(written(top="import threading"), "import of threading"),
    "multiprocessing": Hostile(written(top="import multiprocessing as m"), "import of multiprocessing"),
    "monkeypatch of a library": Hostile(written("jnp.sum = max\nreturn plan"), "assigns to the attribute sum"),
    "monkeypatch at import": Hostile(written(top="np.mean = max"), "assigns to the attribute mean"),
    "monkeypatch of a class": Hostile(written("Plan.steps = 1\nreturn plan"), "assigns to the attribute steps"),
    "the evaluation": Hostile(
        written("evaluation.evaluate = None\nreturn plan", top="from metabolismgraph import evaluation"),
        "import of metabolismgraph is not allowed",
    ),
    "frozen array": Hostile(written("data.phase1.log_k[:] = 0\nreturn plan"), "in place that it did not make"),
    "frozen array made writable": Hostile(
        written("data.phase1.log_k.setflags(write=True)\nreturn plan"), "attribute setflags is not allowed"
    ),
    "label words of the data": Hostile(written("return plan if data.labels is None else plan"), "the truth .labels"),
    "label words of another file": Hostile(
        written("return dataclasses.replace(plan, baselines=1)"), "truth .baselines"
    ),
    "label words": Hostile(written("types = data.metabolite_types\nreturn plan"), "the truth .metabolite type"),
    "label words in a name": Hostile(written("true_k = 1\nreturn plan"), "names the truth .true."),
    "label words in a text": Hostile(written("x = {}['gt_labels']\nreturn plan"), "names the truth .gt."),
    "label words in an f-string": Hostile(written("x = f'{1}baseline'\nreturn plan"), "names the truth .baseline."),
    "label words in an argument": Hostile(written(body="lam: float = Field(1.0, description='x')"), "names the truth"),
    "decorator": Hostile(written(head="@functools.cache\nclass Odd(Strategy):"), "decorator functools.cache is not"),
    "decorator with work": Hostile(
        written(top="@dataclasses.dataclass(frozen=len('ab'))\nclass Two:\n    x: int"), "an argument of a decorator is"
    ),
    "metaclass": Hostile(written(head="class Odd(Strategy, metaclass=Odder):"), "class Odd: arguments of a class"),
    "__init_subclass__": Hostile(
        written(body="def __init_subclass__(cls):\n    pass"), "__init_subclass__: no special methods"
    ),
    "__class_getitem__": Hostile(
        written(body="def __class_getitem__(cls, key):\n    pass"), "__class_getitem__: no special methods"
    ),
    "how options are read": Hostile(written(body="model_config: ClassVar = {}"), "model_config: leave it as it is"),
    "lambda as a default": Hostile(written(top="def f(x=(lambda: 1)()):\n    return x"), "a default argument is"),
    "work at import": Hostile(written(top="for i in range(3):\n    pass"), "statement at the top;"),
    "work in a class": Hostile(written(body="[i for i in range(3)]"), "a statement in the body of a class"),
    "state between calls": Hostile(written("global x\nx = 1\nreturn plan", top="x = 0"), "global: keep no state"),
    "bare except": Hostile(written("try:\n    pass\nexcept:\n    pass\nreturn plan"), "except without an exception"),
    "built-in replaced": Hostile(written("isinstance = 1\nreturn plan"), "assigned to, but it is an import or"),
    "syntax error": Hostile("def f(:\n", "line 1: cannot be parsed"),
    "nested too deeply": Hostile("x = " + "-" * 15_000 + "1", "cannot be parsed"),
    "table of numbers": Hostile(written(top=f"KNOWN = {[0.001] * 25}"), "a table of 25 numbers"),
    "table in the digits of a number": Hostile(written(top=f"KNOWN = {2**53 + 1}"), "a whole number above"),
    "seed of its own": Hostile(written("np.random.default_rng(7)\nreturn plan"), f"numpy.random {NOT}; draw random"),
    "seed by a keyword": Hostile(written("np.random.default_rng(seed=42)\nreturn plan"), f"numpy.random {NOT}"),
    "generator under another name": Hostile(written("g = np.random.default_rng\nreturn plan"), f"numpy.random {NOT}"),
    "seed of a loop": Hostile(
        written("for s in range(3):\n    default_rng(s)\nreturn plan", top="from numpy.random import default_rng"),
        f"import of numpy.random {NOT}",
    ),
    "generator for an annotation": Hostile(
        written(top="def f(g: np.random.Generator):\n    return g"), f"numpy.random {NOT}"
    ),
    "key of its own": Hostile(
        written("random.key(40 + 2)\nreturn plan", top="from jax import random"), f"jax.random.key {NOT}; use data.key"
    ),
    "key of a variable": Hostile(
        written("for s in range(3):\n    jax.random.key(s)\nreturn plan"), f"jax.random.key {NOT}; use data.key"
    ),
    "key by its name": Hostile(
        written("PRNGKey(0)\nreturn plan", top="from jax.random import PRNGKey"),
        f"import of PRNGKey from jax.random {NOT}; use data.key",
    ),
    "key from numbers": Hostile(
        written("jax.random.wrap_key_data(jnp.asarray([0, 1]))\nreturn plan"), f"jax.random.wrap_key_data {NOT}; use"
    ),
    "type of the numbers of a key": Hostile(
        written("jnp.uint32(7)\nreturn plan"), f"jax.numpy.uint32 {NOT}; nearest: u?int32"
    ),
    "random numbers of its own": Hostile(
        written("return dataclasses.replace(plan, steps=int(np.random.default_rng().integers(1, 10**9)))"),
        f"numpy.random {NOT}; draw random numbers by jax.random, from data.key",
    ),
    "random numbers in training": Hostile(
        written(
            "return dataclasses.replace(plan, start=_shake)",
            top="""
            def _shake(model):
                noise = np.random.default_rng().standard_normal(model.embeddings.shape)
                return eqx.tree_at(lambda m: m.embeddings, model, model.embeddings + noise)
            """,
        ),
        f"numpy.random {NOT}",
    ),
    # Arrays of what is not a number, by which a file could read any memory.
    "array at an address": Hostile(
        written("np.ndarray((1,), np.float64, buffer=plan)\nreturn plan"),
        "numpy.ndarray is a type for annotations and isinstance; make arrays by asarray or zeros",
    ),
    "array at an address, by another name": Hostile(written("n = np.ndarray\nreturn plan"), "ndarray is a type for"),
    "array at an address, by import": Hostile(
        written("list(map(ndarray, [1]))\nreturn plan", top="from numpy import ndarray"), "ndarray is a type for"
    ),
    "array at an address, by a base class": Hostile(written(top="class A(np.ndarray):\n    x: int"), "is a type for"),
    "dtype of objects": Hostile(
        written("np.zeros(3, dtype='O')\nreturn plan"), "the text 'O' as a dtype; write a name"
    ),
    "dtype of objects, by position": Hostile(written("np.empty_like(plan, 'f8,O')\nreturn plan"), "numpy.empty_like"),
    "dtype of objects, in an array": Hostile(written("np.array([plan], 'O')\nreturn plan"), "the text 'O' as a dtype"),
    "dtype of objects, in full": Hostile(written("np.full(3, plan, 'O')\nreturn plan"), "the text 'O' as a dtype"),
    "dtype of objects, by a method": Hostile(written("data.at.astype('O')\nreturn plan"), "the text 'O' as a dtype"),
    "dtype of objects, by a sum": Hostile(written("data.at.sum(0, 'O')\nreturn plan"), "the text 'O' as a dtype"),
    "dtype of objects, by a variable": Hostile(
        written("d = 'ob' + 'ject'\nnp.zeros(3, dtype=d)\nreturn plan"),
        "the dtype d is not allowed; write jnp.float64,",
    ),
    "dtype of objects, by astype": Hostile(
        written("data.at.astype(str)\nreturn plan"), "the dtype str is not allowed; write jnp.float64"
    ),
    "dtype of objects, passed on": Hostile(
        written("f = functools.partial(np.zeros, 3, 'O')\nreturn plan"),
        "numpy.zeros: not a value; call it where it is named",
    ),
    "dtype of records": Hostile(
        written("np.zeros(3, [('a', 'O')])\nreturn plan"), "the dtype .* is not allowed; write"
    ),
    "dtype with *": Hostile(written("np.zeros(*(3, 'x'))\nreturn plan"), "numpy.zeros with .; write its arguments out"),
    "object_": Hostile(written("np.zeros(3, np.object_)\nreturn plan"), f"numpy.object_ {NOT}; arrays hold numbers"),
    "dtype": Hostile(written("np.dtype({'names': ['a']})\nreturn plan"), f"numpy.dtype {NOT}; write jnp.float64"),
    **{
        name: Hostile(written(f"np.{name}(plan)\nreturn plan"), f"numpy.{name} {NOT}")
        for name in (
            *("fromiter", "frombuffer", "fromstring", "matrix", "asmatrix", "recarray", "record", "nditer", "void"),
            *(
                "genfromtxt",
                "char",
                "rec",
                "testing",
                "busday_count",
                "str_",
                "bytes_",
                "flatiter",
                "require",
                "copyto",
            ),
            *("nested_iters", "datetime64", "from_dlpack", "frompyfunc", "vectorize", "array2string", "printoptions"),
        )
    },
    "memory that is not set": Hostile(written("np.empty(9)\nreturn plan"), f"numpy.empty {NOT}; zeros has entries"),
    "memory that is not set, by where": Hostile(
        written("np.sqrt(data.at, where=data.at > 0)\nreturn plan"), "where in a call that leaves entries unset; write"
    ),
    "memory that is not set, by another name": Hostile(
        written("f = np.add\nf(1, data.at, where=False)\nreturn plan"), "where in a call that leaves entries unset"
    ),
    "memory that is not set, by no output": Hostile(
        written("np.add(1, data.at, out=None, where=False)\nreturn plan"), "where in a call that leaves entries unset"
    ),
    "memory that is not set, passed on": Hostile(
        written("functools.partial(np.add, where=False)\nreturn plan"), "where in a call that leaves entries unset"
    ),
    "memory that is not set, by a product": Hostile(
        written("np.add.outer(1, data.at, where=False)\nreturn plan"), "where in a call that leaves entries unset"
    ),
    "memory that is not set, by pad": Hostile(
        written("np.pad(data.at, 1, 'emp' + 'ty')\nreturn plan"), "numpy.pad with a mode that may leave entries unset"
    ),
    "memory that is not set, by pad with *": Hostile(
        written("np.pad(*(data.at, 1, 'empty'))\nreturn plan"), "numpy.pad with a mode that may leave entries unset"
    ),
    "store in a type of jaxtyping": Hostile(
        written("d = Float.dtypes\nd[0] = 1\nreturn plan", top="from jaxtyping import Float"), "attribute dtypes is not"
    ),
    "store in the defaults of a named tuple": Hostile(
        written("d = A._field_defaults\nd['x'] = 1\nreturn plan", body="_field_defaults: int = 1"),
        "attribute _field_defaults is not allowed",
    ),
    "array at an address, in isinstance": Hostile(
        written("isinstance(1, (n := np.ndarray))\nreturn plan"), "numpy.ndarray is a type for"
    ),
    "array at an address, called in isinstance": Hostile(
        written("isinstance(1, np.ndarray(3))\nreturn plan"), "numpy.ndarray is a type for"
    ),
    "constructor under another name": Hostile(
        written("z = np.zeros\nz(3, 'ob' + 'ject')\nreturn plan"), "numpy.zeros: not a value; call it where it is named"
    ),
    "constructor in a choice": Hostile(
        written("(np.zeros if plan else np.ones)(3, 'V8')\nreturn plan"), "numpy.zeros: not a value; call it where"
    ),
    "method under another name": Hostile(
        written("f = data.at.astype\nf('V8')\nreturn plan"), "astype: not a value; call it with a dtype"
    ),
    "dtype of its own": Hostile(
        written(top="class A(eqx.Module):\n    dtype: int"), "class A: dtype is an attribute of arrays only; choose"
    ),
    "dtype by a tuple with names": Hostile(
        written("NamedTuple('A', (('x', 1),))\nreturn plan", top="from typing import NamedTuple"),
        "NamedTuple: not a value; derive a class from it",
    ),
    "dtype by a copy": Hostile(
        written("data.training.copy(update={'x': 1})\nreturn plan"), "argument update is not allowed; leave it out"
    ),
    "dtype of a key, as a text": Hostile(
        written("jax.lax.iota('uint32', 2)\nreturn plan"), "the text 'uint32', a dtype; write a name"
    ),
    "something else called self": Hostile(written("self = data.at\nreturn plan"), "self: assigned to, but it is"),
    "import of what is not a function of numbers": Hostile(
        written(top="from numpy import frombufer"), f"import of frombufer from numpy {NOT}"
    ),
    "import with a wrong name": Hostile(
        written(top="from jax.numpy import argsrt"), f"import of argsrt from jax.numpy {NOT}; nearest: argsort"
    ),
    "import of a wrong module": Hostile(
        written(top="import jax.scipy.stat"), f"jax.scipy.stat {NOT}; nearest: jax.scipy"
    ),
    "attribute with a wrong name": Hostile(
        written("jnp.lstsqr\nreturn plan").replace("jnp.lstsqr", "jnp.linalg.lstsqr"), f"{NOT}; nearest: lstsq"
    ),
    "arrays that all share": Hostile(
        written("d = np.polynomial.Polynomial.domain\nd[0] = 1\nreturn plan"), f"numpy.polynomial.Polynomial {NOT}"
    ),
    **{
        f"attribute {name}": Hostile(written(f"data.at.{name}\nreturn plan"), f"attribute {name} {NOT}")
        for name in (
            *("view", "data", "getfield", "setfield", "newbyteorder", "byteswap", "cast", "obj", "lower", "compile"),
            *(
                "environ",
                "gi_yieldfrom",
                "cr_await",
                "ag_running",
                "with_traceback",
                "tobytes",
                "dump",
                "dumps",
                "base",
            ),
            *("flags", "ctypes", "resize", "strides", "sharding", "unsafe_buffer_pointer", "register", "keywords"),
            *("model_fields", "node_data", "array_type", "type", "traceback", "format"),
        )
    },
    # Options of the compiler, which may write files.
    "options of the compiler": Hostile(
        written("jax.jit(len, compiler_options={'xla_dump_to': 'x'})\nreturn plan"),
        "jax.jit with compiler_options; name static and donated arguments only",
    ),
    "options of the compiler, by equinox": Hostile(
        written("eqx.filter_jit(len, inline=True)\nreturn plan"), "equinox.filter_jit with inline; name static and"
    ),
    "options of the compiler, by **": Hostile(
        written("jax.jit(len, **{'a': 1})\nreturn plan"), r"\*\* in a call; write its arguments out"
    ),
    "options of the compiler, passed on": Hostile(
        written("functools.partial(jax.jit, compiler_options=1)\nreturn plan"),
        "argument compiler_options is not allowed",
    ),
    "options of the compiler, later": Hostile(
        written("jax.jit(len).lower(1).compile({'a': 1})\nreturn plan"), f"attribute compile {NOT}"
    ),
    "compiler under another name": Hostile(
        written("j = jit\nreturn plan", top="from jax import jit"), "jax.jit: not a value; call it with a function"
    ),
    "compiler in a tree": Hostile(
        written("jax.tree.map(len, eqx.Partial(eqx.filter_jit))\nreturn plan"), "equinox.filter_jit: not a value"
    ),
    # Stores between calls.
    "another answer the second time": Hostile(
        written("_CALLS.append(1)\nreturn dataclasses.replace(plan, steps=len(_CALLS))", top="_CALLS = []"),
        "a constant is a list: state between calls is not allowed; write a tuple or a frozenset",
    ),
    "store at the top": Hostile(written(top="SEEN = {}"), "line .*: a constant is a dict: state between calls is not"),
    "store within a tuple": Hostile(written(top="SEEN: tuple = (1, [2])"), "a constant is a list: state between calls"),
    "store in a class": Hostile(written(body="seen: ClassVar = set()"), "a value of a class is computed at import"),
    "store in a class of its own": Hostile(
        written(top="class A(eqx.Module):\n    x: int = eqx.field(default=[1])"), "a value of a class is a list: state"
    ),
    "store in a default": Hostile(
        written(top="def f(x, seen=[]):\n    return x"), "a default argument is a list: state"
    ),
    "store in a default of a lambda": Hostile(
        written("f = lambda *, s={1}: s\nreturn plan"), "argument is a set: state"
    ),
    "store by a function called Field": Hostile(
        written(top="def field(x):\n    return [x]", body="seen: ClassVar = field(1)"), "a value of a class is computed"
    ),
    "store by a library": Hostile(
        written(top="from functools import partial as field", body="seen: ClassVar = field(list)"),
        "a value of a class is",
    ),
    "store in what equals": Hostile(
        written(top="@dataclasses.dataclass(unsafe_hash=True)\nclass A:\n    x: int"),
        "dataclasses.dataclass with unsafe_hash: leave comparison as it is",
    ),
    "module hidden by an argument": Hostile(
        written(top="def f(np):\n    return np.resize"), "np: an import or a built-in"
    ),
    "module hidden by an import": Hostile(written(top="import math as np"), "np: is the name of two imports"),
    "built-in hidden by an import": Hostile(
        written(top="from numpy import zeros as frozenset"), "frozenset: a built-in"
    ),
    "private name of something else": Hostile(
        written("x = data.at._value\nreturn plan", top="class A:\n    _value: int = 1"), f"attribute _value {NOT}"
    ),
    "frozen array as the output": Hostile(
        written("np.multiply(1, 2, out=data.phase1.log_k)\nreturn plan"), "in place that it did not make"
    ),
    "frozen array by a method": Hostile(written("data.phase1.slope.fill(0)\nreturn plan"), "in place that it did not"),
    "frozen array by its diagonal": Hostile(
        written("np.fill_diagonal(data.at, 0)\nreturn plan"), "in place that it did not make"
    ),
    "special name as an argument": Hostile(
        written("dataclasses.replace(plan, __self__=1)\nreturn plan"), "__self__: names with two underscores"
    ),
    # Texts that a library executes as code.
    "code in a shape": Hostile(
        written("isinstance(data.at, Float[jax.Array, '[open(1)]'])\nreturn plan", top="from jaxtyping import Float"),
        "Float is a type for annotations",
    ),
    "code in a shape, under another name": Hostile(
        written(top="from jaxtyping import Float\n\nText = Float[jax.Array, '[open(1)]']"),
        "a text in an annotation that is not a shape",
    ),
    "code in a shape, by a constant": Hostile(
        written(top="from jaxtyping import Float\n\nCODE = 'a'\nText = Float[jax.Array, CODE]"),
        "a shape that is not written as a text",
    ),
    "code in a shape, by a cast": Hostile(
        written(
            "cast(t := Float[jax.Array, 'a'], 1)\nreturn plan",
            top="from typing import cast\n\nfrom jaxtyping import Float",
        ),
        "Float is a type for annotations",
    ),
    "a type alias as a value": Hostile(
        written(
            "isinstance(1, (t := Vector))\nreturn plan",
            top="from jaxtyping import Float\n\nVector = Float[jax.Array, 'n']",
        ),
        "Vector: a type is not a value",
    ),
    "code in an option": Hostile(
        written("info = Field(1).from_annotation('open(1)')\ninfo.apply_typevars_map({1: 1})\nreturn plan"),
        "Field: only as the value of an option",
    ),
    "an option of the class": Hostile(
        written("x = self.seen\nreturn plan", body="seen: ClassVar = Field(1)"), "Field: only as the value of an option"
    ),
    "an option of the class, by an alias": Hostile(
        written(top="Kept = ClassVar[int]", body="seen: Kept = Field(1)"), "Field: only as the value of an option"
    ),
    "an option of something else": Hostile(
        written(top="class A(eqx.Module):\n    seen: int = Field(1)"), "Field: only as the value of an option"
    ),
    "store in the errors of numpy": Hostile(
        written(top="def kept():\n    with np.errstate(divide='raise'):\n        yield 1"), "yield within with; collect"
    ),
    "arguments by ** of a partial function": Hostile(
        written("A(np.add, **{'where': False})\nreturn plan", top="class A(functools.partial):\n    pass"),
        r"\*\* in a call; write its arguments out",
    ),
    "arguments by ** of a function under an own name": Hostile(
        written("A._replace(1, data.at, **{'where': False})\nreturn plan", top="class A:\n    _replace: int = np.add"),
        r"\*\* in a call; write its arguments out",
    ),
    "arguments by ** of a function that is hidden": Hostile(
        written("f = np.add\nf(1, data.at, **{'where': False})\nreturn plan", top="def f(x):\n    return x"),
        r"\*\* in a call; write its arguments out",
    ),
    "dtype of objects, by two variables": Hostile(
        written("a = 'V8'\nb = a\nnp.zeros(3, dtype=b)\nreturn plan"), "the dtype b is not allowed"
    ),
    "dtype of objects, by an argument": Hostile(
        written(top="def f(d):\n    d = jnp.float64\n    return np.zeros(3, d)"), "the dtype d is not allowed"
    ),
    "dtype of objects, by a choice": Hostile(
        written("np.zeros(3, jnp.float64 if plan else 'V8')\nreturn plan"), "the text 'V8' as a dtype"
    ),
    "dtype of objects, by map": Hostile(
        written("list(map(data.at.astype, ('V8',)))\nreturn plan"), "astype: not a value; call it with a dtype"
    ),
    "dtype of objects, by a tree of two": Hostile(
        written("jax.tree.map(np.zeros, 3, 'V8')\nreturn plan"), "numpy.zeros: not a value; call it where it is named"
    ),
    "options of the compiler, by a decorator": Hostile(
        written(top="@functools.partial(jax.jit, inline=True)\ndef f(x):\n    return x"),
        "decorator functools.partial is not allowed",
    ),
    "a power that never ends": Hostile(written(top="A = 9**(9**9)"), r"computed at import \(BinOp\)"),
    "nothing": Hostile("", "0 subclasses of Strategy"),
    "argument that hides a built-in": Hostile(
        written(top="def f(float):\n    return float"), "float: an import or a built"
    ),
    "two strategies": Hostile(
        written() + "\nclass Odder(Strategy):\n    pass\n", "2 subclasses of Strategy; write one"
    ),
    "derived from another": Hostile(
        written(
            top="from metabolismgraph.homeostasis.strategies.residual import Residual\n\nclass A(Residual):\n    pass"
        ),
        "2 subclasses of Strategy",
    ),
    "hidden strategy": Hostile(written(head="class _Odd(Strategy):"), "the strategy must be public"),
    "no number": Hostile(written().replace("number: ClassVar = 11", "x: ClassVar = 11"), "number is missing"),
    "no apply": Hostile(written().replace("def apply", "def use"), "class Odd: apply is missing"),
    "huge": Hostile(written() + "# " + "x" * LARGEST, f"write at most {LARGEST}"),
    "null bytes": Hostile(written() + "# \0", "holds the character U.0000"),
    "no UTF-8": Hostile(written() + "# \udc80", "holds characters that are not UTF-8"),
    "text that runs backwards": Hostile(written() + "# \u202e", "holds the character U.202E"),
}

# What only a trial can tell. Those that are named in IN_PROCESS are run in the tests' own process, to spend less time
# on starting others; what a trial does there is the same.
TRIED = {
    "frozen array by a local name": Hostile(
        written("k = data.phase1.log_k\nk[:] = 0\nreturn plan"), "apply changes the data that it is given"
    ),
    "frozen array in the model": Hostile(
        written(
            "return dataclasses.replace(plan, start=_spoil)",
            top="def _spoil(model):\n    return eqx.tree_at(lambda m: m.log_k, model, model.log_k + 1.0)",
        ),
        "Phase 2 changed log_k",
    ),
    "not a number": Hostile(
        written(
            "return dataclasses.replace(plan, penalties=(*plan.penalties, Nothing()))",
            top="""
            class Nothing(Penalty):
                @property
                def name(self):
                    return "nothing"

                def __call__(self, model):
                    return jnp.log(-jnp.sum(model.embeddings**2) - 1.0)
            """,
        ),
        "loss is not finite|nothing is not finite|model is not finite",
    ),
    "an endless loop": Hostile(written("while True:\n    pass"), f"took longer than {SHORT:g} s"),
    "all the memory": Hostile(written("x = np.ones(3 * 10**9)\nreturn plan"), "line .*: .*MemoryError"),
    "nothing is learned": Hostile(
        written("return dataclasses.replace(plan, schedule=Schedule(peak=0.0))"),
        "training changed nothing",
    ),
    "no plan": Hostile(written("return None"), "apply gives a NoneType, expected a Plan"),
    "an error": Hostile(written("return plan.nothing"), "strategies/odd.py: line .*: AttributeError"),
    "parts not named": Hostile(
        written("return dataclasses.replace(plan, accumulate=4)"), "accumulation, which neither sets nor adjusts names"
    ),
    "declarations": Hostile(
        written(
            body="""
            sets: ClassVar[frozenset[Part]] = frozenset({"everything"})
            needs: ClassVar = "luck"
            one: float = Field(description="x")
            two: list = Field((), description="x")
            three: int = 3
            """
        ).replace("plan: Plan, data: Phase2Data", "plan: Plan"),
        "sets: expected a frozenset of",
    ),
}
# Refused by their text; what a trial would say of them.
BEYOND = {
    "random numbers of its own": "apply gives two plans for the same input",
    "another answer the second time": "apply gives two plans for the same input",
    "random numbers in training": "training twice gives two models",
}
SEALED = ("frozen array by a local name", "not a number", "an endless loop", "all the memory", "declarations")
IN_PROCESS = [name for name in TRIED if name not in SEALED]
DECLARED = [
    "needs: expected", "apply: expected the arguments self, plan, data", "option one: has no default",
    "option two: expected a bool, int", "option three: has no description",
]  # fmt: skip

HONEST = {
    "decay": EXAMPLE,
    RECORDED["name"]: RECORDED["source"],
    "regressed_contrastive": '''"""Strategies 1 and 3 in one, with a longer wait. No labels are seen, and no truth."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.training_plan import Plan
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.strategies.contrastive import Contrastive
from metabolismgraph.homeostasis.strategies.residual import Residual


class RegressedContrastive(Strategy):
    """Residual supervision with the contrastive loss."""

    number: ClassVar = 12
    summary: ClassVar = "regression on the residual and contrastive loss; no labels"
    reference: ClassVar = "Raissi et al. 2019; Chen et al. 2020"
    sets: ClassVar[frozenset[Part]] = frozenset({"objective"})
    adjusts: ClassVar[frozenset[Part]] = Residual.adjusts | Contrastive.adjusts

    wait: float = Field(0.5, ge=0, lt=1, description="share of the training before the embeddings move")

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        return Contrastive(wait=self.wait).apply(Residual().apply(plan, data), data)
''',
}


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """A training folder in a run, the truth beside it."""
    return base_run(tmp_path_factory.mktemp("review") / "base")


def _told(source: str, training: Path) -> str:
    return source.replace("TRUTH", str(training.parent / "data" / "truth"))


@pytest.fixture(scope="module")
def verdicts(training, tmp_path_factory):
    """What came of all files that are run, two at a time."""
    scratch = tmp_path_factory.mktemp("scratch")

    def judge(key: tuple[str, str]) -> Verdict:
        kind, name = key
        if kind == "honest":
            return review(name, HONEST[name], training, scratch, time_limit=LIMIT)
        if kind == "sealed":
            return on_trial("odd", _told(STATIC[name].source, training), training, scratch, time_limit=LIMIT)
        limit = SHORT if "endless" in name else LIMIT
        return review("odd", _told(TRIED[name].source, training), training, scratch, time_limit=limit)

    keys = [
        *(("honest", name) for name in HONEST),
        *(("tried", name) for name in SEALED),
        *(("sealed", name) for name, hostile in STATIC.items() if hostile.sealed),
    ]
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(keys, pool.map(judge, keys), strict=True))
    assert list(scratch.iterdir()) == []  # nothing is left behind
    return found


def _check(verdict: Verdict, reason: str) -> None:
    assert not verdict.accepted
    assert verdict.declaration is None
    assert any(re.search(reason, line) for line in verdict.reasons), verdict.reasons
    assert all(len(line) <= Verdict.limit and len(line.splitlines()) == 1 for line in verdict.reasons)


@pytest.mark.parametrize("name", STATIC)
def test_hostile_files_are_refused_by_their_text(name, tmp_path):
    # Nothing is trained on here: the file does not come so far.
    _check(review("odd", STATIC[name].source, tmp_path / "none", tmp_path / "scratch"), STATIC[name].reason)
    assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize("name", [name for name, hostile in STATIC.items() if hostile.sealed])
def test_the_sealed_process_alone_would_have_held_them(name, verdicts):
    _check(verdicts["sealed", name], STATIC[name].sealed)


@pytest.mark.parametrize("name", SEALED)
def test_hostile_files_are_refused_on_trial(name, verdicts):
    assert static_reasons("odd", TRIED[name].source) == ()
    _check(verdicts["tried", name], TRIED[name].reason)


@pytest.fixture
def trial(training, tmp_path):
    """What a trial finds, in this process; frozen arrays that change are what it fails on."""

    def inner(source: str) -> list[str]:
        write_trial(tmp_path / "trial", {"odd": source}, systems_for(source, training))
        try:
            return examine(tmp_path / "trial", "odd")[1]
        except (InputError, FirewallError) as error:
            return [str(error)]
        finally:
            custom.forget()

    return inner


@pytest.mark.parametrize("name", IN_PROCESS)
def test_hostile_files_fail_the_contract(name, trial):
    assert static_reasons("odd", TRIED[name].source) == ()
    faults = trial(TRIED[name].source)
    assert any(re.search(TRIED[name].reason, fault) for fault in faults), faults


@pytest.mark.parametrize("name", BEYOND)
def test_the_contract_alone_would_have_refused_them(name, trial):
    faults = trial(STATIC[name].source)
    assert any(BEYOND[name] in fault for fault in faults), faults


@pytest.fixture(scope="module")
def learned(training, tmp_path_factory):
    """What a trial leaves, and its systems."""
    folder, systems = tmp_path_factory.mktemp("learned") / "trial", systems_for(written(), training)
    write_trial(folder, {"odd": written()}, systems)
    try:
        assert examine(folder, "odd")[1] == []
    finally:
        custom.forget()
    return folder, systems


def test_a_file_that_passes(learned):
    assert learned_faults(*learned) == []


def _with_model(result, **changes):
    return dataclasses.replace(result, model=dataclasses.replace(result.model, **changes))


def _unlearned(result, data):
    return dataclasses.replace(result, model=initial_model(data, data.checkpoint_residuals()), node_magnitude=1.0)


# Results of a trial that finds no fault, since its checks are those of the file: place, change and reason.
FORGED = {
    "no number": ("0", lambda r, _: dataclasses.replace(r, losses=np.full(3, np.inf)), "losses holds inf"),
    "no losses": ("1", lambda r, _: dataclasses.replace(r, losses=r.losses[:0]), "left no model that can be read"),
    "a part that is no number": (
        "2",
        lambda r, _: dataclasses.replace(r, components={"left": np.full(3, np.nan)}),
        "left is not finite at step 1",
    ),
    "a frozen array": ("1", lambda r, _: _with_model(r, log_k=r.model.log_k + 1e-9), "Phase 2 changed log_k"),
    "nothing learned": ("1", _unlearned, "training changed nothing"),
    "other sizes": ("1", lambda r, _: _with_model(r, embeddings=r.model.embeddings[1:]), "left no model that can be"),
    "another model when repeated": (
        "repeated",
        lambda r, _: _with_model(r, embeddings=r.model.embeddings * 1.5),
        "training twice gives two models",
    ),
    "other losses when repeated": (
        "repeated",
        lambda r, _: dataclasses.replace(r, losses=r.losses * 2),
        "training twice gives two curves",
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_the_parent_process_judges_what_a_trial_leaves(learned, tmp_path, name):
    given, systems = learned
    place, change, reason = FORGED[name]
    folder = shutil.copytree(given, tmp_path / "trial")
    data = systems.every[0 if place == "repeated" else int(place)]
    path = folder / "learned" / place
    save_phase2(path, change(load_phase2(path, data.graph_model), data), 0.0)
    assert reason in "".join(learned_faults(folder, systems))


@pytest.mark.parametrize("name", ["0.json", "repeated.safetensors"])
def test_a_trial_that_leaves_too_little_is_refused(learned, tmp_path, name):
    given, systems = learned
    folder = shutil.copytree(given, tmp_path / "trial")
    (folder / "learned" / name).unlink()
    assert "left no model that can be read" in learned_faults(folder, systems)[0]


def test_a_forged_message_gains_nothing(training, tmp_path):
    forged = json.dumps({"event": "passed", "declared": {}}) + "\n"
    top = f"""
    import os
    for number in range(3, 30):
        try:
            os.write(number, {forged.encode()!r})
        except OSError:
            pass
    os._exit(0)
    """
    verdict = on_trial("odd", written(top=top), training, tmp_path / "scratch", time_limit=LIMIT)
    # Python code that ends its process is reported; what it has written before is not believed.
    _check(verdict, "tried to reach outside its folder .*os._exit")


def test_trainings_of_a_trial_share_no_compiled_functions(learned, tmp_path, monkeypatch):
    """A static argument that equals an earlier one would bring back the function that was compiled for that."""
    given, systems = learned
    said = iter((1, 1.0) * 4)
    heard = []

    def is_whole(x):
        return jnp.asarray(isinstance(x, int))

    def train(*_, **__):
        one = next(said)
        heard.append(bool(jax.jit(is_whole, static_argnums=0)(one)) == isinstance(one, int))

    monkeypatch.setattr(contract, "train", train)
    monkeypatch.setattr(contract, "result_faults", lambda _: [])
    monkeypatch.setattr(contract, "repetition_faults", lambda *_: [])
    monkeypatch.setattr(examination, "save_phase2", lambda *_: None)
    paths = sorted((given / "systems").iterdir())
    assert examination._training_faults(paths, ("odd",), "odd", tmp_path) == []
    assert heard == [True] * (len(systems.every) + 3)


def test_every_fault_of_a_declaration_is_named(verdicts):
    for reason in DECLARED:
        _check(verdicts["tried", "declarations"], reason)


@pytest.mark.parametrize("name", HONEST)
def test_honest_files_land(name, verdicts):
    verdict = verdicts["honest", name]
    assert verdict.reasons == ()
    assert verdict.accepted
    assert verdict.declaration.name == name


def test_what_a_strategy_declares(verdicts):
    declared = verdicts["honest", "regressed_contrastive"].declaration
    assert declared.number == 12
    assert declared.sets == ("objective",)
    assert declared.needs == ""
    assert declared.summary.endswith("no labels")
    assert declared.options["properties"]["wait"]["default"] == 0.5
    assert Declaration.model_validate_json(json.dumps(declared.as_dict())) == declared
    told = declared.as_dict() | {"summary": "clears\x1b[2J\u202e the\nscreen"}
    assert Declaration.model_validate_json(json.dumps(told)).summary == "clears [2J the screen"
    declared.check({"wait": 0.3})
    declared.check({"wait": 0})
    for options, message in (
        ({"weight": 1}, r"option weight of regressed_contrastive: there is no such option \(options: wait\)"),
        ({"wait": 1}, "expected less than 1, not 1"),
        ({"wait": -0.1}, "expected at least 0"),
        ({"wait": "long"}, "expected a value of type number"),
        ({"wait": True}, "expected a value of type number"),
        ({"wait": float("nan")}, "expected a finite number"),
    ):
        with pytest.raises(InputError, match=message):
            declared.check(options)


def test_the_packages_own_strategies_pass_the_reading():
    for name, kind in STRATEGIES.items():
        source = Path(sys.modules[kind.__module__].__file__).read_text(encoding="utf-8")
        assert static_reasons(f"own_{name}", source) == (), name
        assert static_reasons(name, source) == (f"{name}: the package has a strategy of that name; choose another",)
    assert static_reasons("decay", EXAMPLE) == ()


# What strategies compute.
HARMLESS = {
    "scan": "jax.lax.scan(lambda carry, x: (carry + x, carry), jnp.zeros(2), jnp.ones((3, 2)))",
    "loops": "jax.lax.fori_loop(0, 3, lambda i, x: x + i, jax.lax.while_loop(lambda x: x < 3, lambda x: x + 1, 0))",
    "choices": "jax.lax.cond(jnp.any(data.at > 0), jnp.sin, jnp.cos, jax.lax.stop_gradient(jnp.asarray(data.at)))",
    "vectorize": "jnp.vectorize(jnp.dot, signature='(n),(n)->()')(jnp.ones((3, 2)), jnp.ones(2))",
    "vmap and grad": "jax.vmap(jax.grad(lambda x: jnp.sum(x**2)))(jnp.ones((3, 2)))",
    "jit": "jax.jit(lambda x, n: x * n, static_argnums=1)(jnp.ones(2, dtype=jnp.float64), 3)",
    "static arguments by name": "jax.jit(len, static_argnames=('n',), donate_argnums=(0,))",
    "filter_jit": "eqx.filter_jit(lambda x: x)(plan)",
    "least squares": "np.linalg.lstsq(data.at, np.zeros(len(data.at)), rcond=None)[0]",
    "norms": "jnp.linalg.norm(jnp.ones((2, 2)), ord='fro') + np.linalg.norm(data.at, axis=0).max()",
    "decompositions": "jnp.linalg.svd(jnp.eye(3), full_matrices=False)[1] + jax.scipy.linalg.cho_factor(jnp.eye(3))[0]",
    "quantiles": "np.quantile(data.at, (0.1, 0.9), axis=0, method='linear') + np.nanmedian(data.at)",
    "optimiser": "optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(1e-3, 100)))",
    "losses": "optax.huber_loss(jnp.ones(3), jnp.zeros(3)) + optax.losses.l2_loss(jnp.ones(3))",
    "segments": "jax.ops.segment_sum(jnp.ones(4), jnp.asarray([0, 0, 1, 1]), num_segments=2)",
    "random numbers": "[jax.random.normal(key, (3,)) for key in jax.random.split(data.key(7), 2)]",
    "permutation": "jax.random.permutation(jax.random.fold_in(data.key(7), 1), len(data.moving))",
    "einsum": "jnp.einsum('ij,jk->ik', jnp.eye(2), jnp.eye(2)) + np.einsum('ii', np.eye(2))",
    "cumulative sums": "np.cumsum(data.at, axis=0, dtype=np.float64) / np.arange(1, 1 + len(data.at))[:, None]",
    "interpolation": "jnp.interp(0.5, jnp.linspace(0.0, 1.0, 5), jnp.ones(5)) + np.interp(0.5, [0, 1], [0, 1])",
    "where and clip": "jnp.where(jnp.isfinite(data.at), jnp.clip(data.at, 0.0, 1.0), jnp.nan)",
    "order": "np.argsort(-np.abs(data.at).mean(axis=0), kind='stable')[:2] + np.sort(data.at, axis=None)[0]",
    "groups": "np.unique(np.round(data.at[0], 2), return_counts=True, axis=0)",
    "types of entries": "data.at.astype(float) + data.keep.astype(data.at.dtype) + data.keep.astype(jnp.float32).sum()",
    "entries of an array": "np.zeros((3, 2), float)[:, 0] + np.full(3, np.nan, dtype=np.float64) + np.ones(3, bool)",
    "bits of an array": "np.asarray([1, 2], np.int64).tolist() + jnp.zeros_like(data.at, dtype=data.at.dtype).tolist()",
    "array or not": "isinstance(data.at, np.ndarray | jax.Array) or isinstance(data.at, (np.ndarray, float))",
    "k-means": "[data.at[:, np.argmin((data.at[0][:, None] - 1) ** 2, axis=1) == k].mean(axis=1) for k in range(2)]",
    "softmax": "jax.nn.softmax(jax.nn.one_hot(jnp.arange(3), 3) / 0.1, axis=-1) + jax.nn.gelu(0.0)",
    "a network": "eqx.nn.MLP(1, 1, 8, 2, activation=jax.nn.tanh, key=data.key(3))(jnp.ones(1))",
    "trees": "jax.tree.map(lambda a, b: a - b, plan, plan) or optax.apply_updates(jnp.ones(1), jnp.ones(1))",
    "updates": "jnp.zeros((3, 2)).at[0, :].set(1.0).at[1].add(2.0).at[2].multiply(3.0).T.reshape(-1)",
    "division": "np.divide(data.at, data.at, out=np.zeros_like(data.at), where=data.at != 0)",
    "distributions": "jax.scipy.stats.norm.logpdf(0.0) + jax.scipy.special.logsumexp(jnp.ones(3))",
    "quadrature": "np.polynomial.legendre.leggauss(8)[0] + np.polyfit(np.arange(8), np.arange(8), 2)[0]",
    "spectrum": "np.abs(np.fft.rfft(data.at, axis=0)) ** 2",
    "iteration": "list(itertools.islice(itertools.count(), 3)) + list(itertools.pairwise((1, 2)))",
    "a dtype by a name": "np.zeros(3, dtype=kind) + np.zeros(3, jnp.float64 if data.at.size else kind)",
    "conversion of a tree": "jax.tree.map(np.asarray, (data.at, list(map(np.asarray, data.at))))",
    "changes by name": "dataclasses.replace(plan, **changes) or plan.with_rollouts(**changes)",
    "an optimiser of its own": "optax.GradientTransformation(init=len, update=lambda u, state, p=None: (u, state))",
    "texts": "'Hann'.lower() == ', '.join(f'{x:.2f}' for x in data.at[0])",
    "numbers": "math.sqrt(2) + float(np.float64(1)) + np.finfo(np.float64).eps + np.finfo(data.at.dtype).tiny",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_mathematics_passes_the_reading(name):
    before = "changes = {'steps': 3}\nkind = jnp.float64\n"
    source = written(
        f"{before}x = {HARMLESS[name]}\ndel x\nreturn plan", top="import itertools\nimport math\n\nimport optax"
    )
    assert static_reasons("odd", source) == ()


@pytest.mark.parametrize(
    ("event", "code", "limit", "lost"),
    [
        ({"event": "leak", "tried": "openat", "on": "/x"}, -9, None, False),  # killed by its watcher
        ({"event": "progress"}, -9, None, True),
        ({"event": "progress"}, -9, "time", False),
        ({"event": "progress"}, -11, None, False),
    ],
)
def test_a_trial_is_lost_only_if_it_was_killed_from_outside(event, code, limit, lost):
    completed = Completed(code, limit, json.dumps(event).encode() + b"\n", b"")
    verdict = admission._verdict("odd", written(), completed, LIMIT)
    assert (verdict.accepted, verdict.lost) == (False, lost)


def test_a_file_may_have_labels_of_clusters_and_a_baseline_of_a_loss():
    top = """
    class Groups(eqx.Module):
        labels: jax.Array

        def counts(self, k):
            return jnp.bincount(self.labels, length=k)


    def group(points, baseline):
        labels = jnp.argmin(points - baseline, axis=-1)
        return Groups(labels=labels)
    """
    apply = (
        "found = group(jnp.zeros((3, 2)), baseline=1.0)\nbaseline_loss = found.labels\ndel baseline_loss\nreturn plan"
    )
    assert static_reasons("odd", written(apply, top=top)) == ()


def test_definitions_pass_the_reading():
    imports = "from collections.abc import Callable\nfrom typing import NamedTuple, Optional, TypeAlias, cast\n"
    top = """
    from jax.nn import relu
    from jaxtyping import Array, Float

    _KINDS = frozenset({"a", "b"})
    _TABLE: tuple[tuple[str, float], ...] = (("a", 1.0), ("b", -np.pi / 2))
    _VECTOR = Float[jax.Array, " n"]
    Matrix: TypeAlias = Float[np.ndarray, "frames species"]
    Values = np.ndarray | jax.Array
    Step = Callable[[Matrix], tuple[Matrix, Values]]
    ROOT, SMALL = 2.0**0.5, 10**-12


    class Curve(NamedTuple):
        at: Float[np.ndarray, " n"]
        power: float = 2.0


    @dataclasses.dataclass(frozen=True)
    class Line:
        slope: float = dataclasses.field(default=0.0)


    class Net(eqx.Module):
        layers: tuple[eqx.nn.Linear, ...]
        width: int = eqx.field(static=True, default=8)

        def __call__(self, x: Float[Array, " n"], *, scale: float = 1.0) -> Float[Array, " n"]:
            return self._scaled(relu(x), scale)

        def _scaled(self, x, scale):
            return x * scale


    def made(arrays: dict[str, Array], x: Optional[Matrix] = None) -> Net:
        width = cast(int, 3)
        return Net(**arrays) if x is None else made(**{"arrays": arrays})


    @functools.partial(jax.jit, static_argnames=["n"])
    def g(x: Values, n: int = 1, step: Optional[Step] = None):
        return x * n


    @jax.jit
    def f(x: np.ndarray | jax.Array, max=1.0, slice=None, shape: tuple[int, ...] = (1, 2)) -> np.ndarray:
        return x
    """
    assert static_reasons("odd", written(top=imports + textwrap.dedent(top))) == ()


def test_all_allowed_names_of_libraries_exist_and_are_no_modules():
    for module, names in allowed_names.LIBRARIES.items():
        home = importlib.import_module(module)
        assert home.__name__ == module
        found = {name: getattr(home, name) for name in names if hasattr(home, name)}
        if not module.startswith("jax.scipy.stats."):  # no distribution has all of them
            assert names - set(found) == set()
        assert not any(isinstance(value, types.ModuleType) for value in found.values())


def test_the_place_of_a_dtype_is_that_of_the_libraries():
    for name in allowed_names.LIBRARIES["numpy"] - {"ndarray", "finfo"}:
        try:
            arguments = inspect.signature(getattr(np, name)).parameters
        except (TypeError, ValueError):  # older versions of numpy do not tell
            continue
        for i, (key, argument) in enumerate(arguments.items()):
            if key == "dtype" and argument.kind is not inspect.Parameter.KEYWORD_ONLY:
                assert allowed_names.DTYPE_AT[name] == i, name


def test_every_attribute_of_an_array_is_either_allowed_or_refused():
    assert not allowed_names.ARRAY_ATTRIBUTES & allowed_names.ATTRIBUTES
    for kind in (np.ndarray, np.generic, jax.Array, type(jnp.ones(1))):
        public = {name for name in dir(kind) if not name.startswith("_")}
        assert public - allowed_names.ARRAY_ATTRIBUTES - allowed_names.ATTRIBUTES == set()
    for compiled in (jax.jit(len), jax.tree.structure(1), memoryview(b"")):
        public = {name for name in dir(compiled) if not name.startswith("_")}
        assert public & {"lower", "trace", "node_data", "compose", "cast", "obj", "tobytes"} <= allowed_names.ATTRIBUTES


@pytest.mark.parametrize("name", ["Decay", "1st", "a", "de cay", "../decay", "x" * 42, "class", "décay", "", "a\n"])
def test_names_that_are_none(name):
    assert "not a name of a strategy" in static_reasons(name, EXAMPLE)[0]


def test_nothing_to_train_on(training, tmp_path):
    for missing in ("settings.json", "observations.safetensors", "phase1.json"):
        folder = tmp_path / missing / "training"
        folder.mkdir(parents=True)
        for path in training.iterdir():
            if path.name != missing:
                (folder / path.name).symlink_to(path)
        with pytest.raises(InputError, match=missing.replace("settings.json", "settings.json: missing or damaged")):
            review("decay", EXAMPLE, folder, tmp_path / "scratch")


# -- strategies of its own in a training


def _train(folder: Path, *shared: Path) -> tuple[int, list[dict[str, object]]]:
    command = [sys.executable, "-P", "-m", "metabolismgraph.runs.train_process", str(folder), *map(str, shared)]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=LIMIT, check=False)
    return answer.returncode, [json.loads(line) for line in answer.stdout.splitlines() if line.startswith("{")]


@pytest.fixture
def own_run(training, tmp_path):
    """A folder that trains with a strategy of its own, on observations and a checkpoint elsewhere."""

    def inner(source: str, name: str = "decay", entry: object = None) -> Path:
        folder = tmp_path / "run" / "training"
        (folder / custom.FOLDER).mkdir(parents=True)
        settings = json.loads((training / "settings.json").read_text())
        settings["training"]["strategies"] = ["residual", entry or name]
        settings["training"]["phase2_steps"] = 100
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / custom.FOLDER / f"{name}.py").write_text(source, encoding="utf-8")
        return folder

    return inner


def test_an_own_strategy_trains_on_shared_data(own_run, training):
    folder = own_run(EXAMPLE, entry={"decay": {"weight": 0.01}})
    (folder / custom.FOLDER / "not_named.py").write_text("raise SystemError")
    before = {path.name: path.read_bytes() for path in training.iterdir()}
    code, said = _train(folder, training)
    assert code == 0, said
    assert said[-1]["stage"] == "phase 2"
    config = load_config("small")
    found = load_phase2(folder / "phase2", config.graph_model)
    assert (found.components["decay"] > 0).all()
    assert (found.model.log_k == load_phase1(training / "phase1", config.graph_model).log_k).all()
    assert {path.name for path in folder.iterdir()} == {
        "settings.json", "strategies", "phase2.safetensors", "phase2.json"
    }  # fmt: skip
    assert {path.name: path.read_bytes() for path in training.iterdir()} == before


def test_a_file_that_fails_is_named(own_run, training):
    code, said = _train(own_run(written("return plan.nothing")), training)
    assert code == 2
    assert said[-1]["event"] == "refused"
    assert re.fullmatch(
        r"strategies/decay.py: line \d+: AttributeError: 'Plan' object has no attribute 'nothing'",
        str(said[-1]["message"]),
    )


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("decay", "x = 1 / 0", "^strategies/decay.py: line 1: ZeroDivisionError: division by zero$"),
        ("decay", "\nraise SystemExit(0)", "^strategies/decay.py: line 2: SystemExit: 0$"),
        ("decay", "x = (", "^strategies/decay.py: line 1: SyntaxError: '.' was never closed"),
        ("decay", "", "^strategies/decay.py: 0 subclasses of Strategy; write one$"),
        ("curriculum", EXAMPLE, "^strategies/curriculum.py: the package has a strategy of that name; choose another$"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_named(own_run, training, name, source, message):
    with pytest.raises(InputError, match=message):
        train_folder(own_run(source, name), training)


def test_a_frozen_array_that_is_changed_voids_the_result(own_run, training):
    """Even where what training starts from was changed with it."""
    folder = own_run(written("k = data.phase1.log_k\nk[:] = 0\nreturn plan"), "decay")
    try:
        with pytest.raises(FirewallError, match="Phase 2 changed log_k"):
            train_folder(folder, training)
    finally:
        custom.forget()
    assert not (folder / "phase2.json").exists()


@pytest.mark.parametrize(("damage", "message"), [(None, "no such file"), (b"x", "does not match its checksum")])
def test_a_shared_checkpoint_is_never_made_anew(own_run, training, tmp_path, damage, message):
    shared = tmp_path / "shared"
    shutil.copytree(training, shared)
    arrays = shared / "phase1.safetensors"
    if damage is None:
        arrays.unlink()
    else:
        arrays.write_bytes(damage)
    with pytest.raises(InputError, match=message):
        train_folder(own_run(EXAMPLE), shared)
    assert arrays.exists() == (damage is not None)


def test_own_strategies_are_found_until_they_are_forgotten():
    custom.register("decay", STRATEGIES["warmup"])
    custom.register("warmup", STRATEGIES["residual"])
    try:
        assert find("decay") is STRATEGIES["warmup"]
        assert find("warmup") is STRATEGIES["warmup"]  # the package's own come first
        training = load_config("small").replace({"training.strategies": [{"decay": {"peak": 2.0}}]}).training
        assert chosen(training)["decay"].peak == 2.0
    finally:
        custom.forget()
    with pytest.raises(InputError, match="unknown strategy decay"):
        find("decay")


def test_the_trial_cannot_write_compiled_programs(training, tmp_path, monkeypatch):
    """What it wrote there would be run by others."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "trial").mkdir()
    for kept in (True, False):
        bounds = audit_hook._bounds(tmp_path / "trial", training, keep_compiled=kept)
        assert (f"{os.path.realpath(tmp_path)}/cache/" in bounds.own) == kept
