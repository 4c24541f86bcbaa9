"""Attacks on the wall around training, each by real code in a real sealed process with a real truth beside it.

Every attack runs three times: without walls, where it must get hold of the secret (or it proves nothing); sealed,
where it must not, and its process must end with the leak code and a report; and behind the kernel's wall alone, as
if it had found a way to switch the audit hook off. The report is that of the hook, which comes before the call that the
kernel would refuse: the hook alone stops it as well. `pytest -s` prints the table.
"""

from __future__ import annotations

import dataclasses
import dis
import importlib.util
import json
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import CodeType, SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import xarray as xr
from command_line import call

from metabolismgraph import processes
from metabolismgraph.config import Simulation, load_config
from metabolismgraph.errors import FirewallError, InputError
from metabolismgraph.formats.dataset import write_dataset
from metabolismgraph.ground_truth.simulator import simulate
from metabolismgraph.runs import pipeline, results, training
from metabolismgraph.runs.checkpoint import _write, load_observations, save_observations
from metabolismgraph.runs.folder import REPORT, RunFolder
from metabolismgraph.sandbox import audit_hook, landlock

SEED = 918273
OVERRIDES = (
    "simulation.n_metabolites=12",
    "simulation.n_reactions=24",
    "simulation.n_frames=100",
    f"simulation.seed={SEED}",
)


@dataclasses.dataclass(frozen=True)
class Attack:
    """Code that leaves what it got in `got`.

    Attributes:
        event: what the report must say was tried.
        code: sees TRUTH, FOLDER (training), RUN, PACKAGE, PROJECT (its source tree) and PORT (of somebody who knows the
            truth).
        wanted: what it is after; None: the first rate constant.
        kernel: whether the kernel alone stops it.
        before: what training itself has imported by then.
    """

    event: str
    code: str
    wanted: str | None = None
    kernel: bool = True
    before: str = ""


_PROFILER = "import jaxlib._profiler as profiler"
_REPORT = Attack(
    "import",
    """
    import warnings; warnings.simplefilter('ignore')
    import numpy as np, scipy.odr as odr
    data = odr.Data(np.arange(5.0), np.arange(5.0))
    odr.ODR(data, odr.Model(lambda b, x: b[0] * x), beta0=[1.0], rptfile=TRUTH + '/report', iprint=0).run()
    os.remove(TRUTH + '/report'); got = 'written'
    """,
    "written",
)
_LOG = Attack(
    audit_hook._TAKEN_OUT,
    """
    highs = solver._Highs(); highs.setOptionValue('log_file', TRUTH + '/log'); highs.run()
    os.remove(TRUTH + '/log'); got = 'written'
    """,
    "written",
    before="import scipy.optimize; from scipy.optimize._highspy import _core as solver",
)
ATTACKS = {
    "absolute path": Attack("open", "got = open(TRUTH + '/reactions.csv').read()"),
    "relative path": Attack("open", "got = open('../data/truth/reactions.csv').read()"),
    "path of bytes": Attack("open", "got = open(os.fsencode(TRUTH) + b'/reactions.csv').read()"),
    "pathlib": Attack("open", "got = pathlib.Path(TRUTH, 'reactions.csv').read_text()"),
    "path that changes its mind": Attack(
        "open",
        """
        class Two:
            calls = 0
            def __fspath__(self):
                self.calls += 1
                return FOLDER + '/settings.json' if SEALED and self.calls > 1 else TRUTH + '/reactions.csv'
        got = os.read(os.open(Two(), os.O_RDONLY), 100000)
        """,
    ),
    "text that lies": Attack(
        "open",
        """
        class Liar(str):
            def startswith(self, *_): return True
            def split(self, *_): return [FOLDER]
        got = open(Liar(TRUTH + '/reactions.csv')).read()
        """,
    ),
    "text that is a number": Attack(
        "open",
        """
        class Liar(str):
            __class__ = int
        got = open(Liar(TRUTH + '/reactions.csv')).read()
        """,
    ),
    "text that is a number, os.open, and no exception": Attack(
        "open",
        """
        class Liar(str):
            __class__ = int
        try:
            got = os.read(os.open(Liar(TRUTH + '/reactions.csv'), os.O_RDONLY), 100000)
        except OSError:
            pass
        """,
    ),
    "text that is a number, os.listdir": Attack(
        "os.listdir",
        """
        class Liar(str):
            __class__ = int
        got = os.listdir(Liar(TRUTH))
        """,
        wanted="reactions.csv",
    ),
    "text that is a number, os.scandir": Attack(
        "os.scandir",
        """
        class Liar(str):
            __class__ = int
        got = [entry.name for entry in os.scandir(Liar(TRUTH))]
        """,
        wanted="reactions.csv",
    ),
    "text that ends the process when it is asked": Attack(
        "open",
        """
        class Liar(str):
            @property
            def __class__(self):
                os._exit(0)
        got = open(Liar(TRUTH + '/reactions.csv')).read()
        """,
    ),
    "bytes that end the process when they are read": Attack(
        "open",
        """
        class Liar(str):
            __class__ = bytes
            def decode(self, *_):
                os._exit(0)
        got = open(Liar(TRUTH + '/reactions.csv')).read()
        """,
    ),
    **{
        f"os.{name}": Attack("metabolismgraph.taken_out", f"{code}; got = 'done'", wanted="done", kernel=False)
        for name, code in {
            "setpriority": "os.setpriority(os.PRIO_PROCESS, os.getpid(), 1)",
            "sched_setaffinity": "os.sched_setaffinity(0, os.sched_getaffinity(0))",
            "sched_setaffinity of posix": "import posix; posix.sched_setaffinity(0, posix.sched_getaffinity(0))",
            "setpgid": "import posix; posix.setpgid(0, 0)",
            "setsid": "os.fork() and os._exit(0) if not SEALED else 0; os.setsid()",
            "mkfifo": "os.mkfifo(FOLDER + '/pipe')",
            "pidfd_send_signal": "import signal; signal.pidfd_send_signal(os.open(FOLDER, 0) if SEALED else "
            "os.pidfd_open(os.getpid()), 0)",
        }.items()
        if hasattr(os, name.split()[0]) or name.startswith("pidfd")
    },
    "resource.prlimit": Attack(
        "resource.prlimit",
        "import resource; resource.prlimit(os.getpid(), resource.RLIMIT_CORE, (0, 0)); got = 'done'",
        wanted="done",
        kernel=False,
    ),
    "resource.setrlimit": Attack(
        "resource.setrlimit",
        "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); got = 'done'",
        wanted="done",
        kernel=False,
    ),
    "os.open": Attack("open", "got = os.read(os.open(TRUTH + '/reactions.csv', os.O_RDONLY), 100000)"),
    "os.open, dir_fd": Attack(
        "open",
        """
        here = os.open(FOLDER, os.O_RDONLY)
        got = os.read(os.open('../data/truth/reactions.csv', os.O_RDONLY, dir_fd=here), 100000)
        """,
    ),
    "opener": Attack(
        "open", "got = open('x', opener=lambda _, flags: os.open(TRUTH + '/reactions.csv', flags)).read()"
    ),
    "up from a folder of its own": Attack(
        "open",
        "os.makedirs(FOLDER + '/a/b', exist_ok=True); got = open('a/b/../../../data/truth/reactions.csv').read()",
    ),
    "chdir": Attack("os.chdir", "os.chdir(TRUTH); got = open('reactions.csv').read()"),
    "numpy.loadtxt": Attack(
        "open", "got = str(numpy.loadtxt(TRUTH + '/reactions.csv', dtype=str))", before="import numpy"
    ),
    "numpy.fromfile": Attack(
        "open", "got = numpy.fromfile(TRUTH + '/reactions.csv', dtype='u1').tobytes()", before="import numpy"
    ),
    "numpy.memmap": Attack(
        "open", "got = numpy.memmap(TRUTH + '/reactions.csv', dtype='u1', mode='r').tobytes()", before="import numpy"
    ),
    "mmap": Attack("open", "import mmap; got = mmap.mmap(os.open(TRUTH + '/reactions.csv', 0), 0, prot=1)[:]"),
    "pandas.read_csv": Attack(
        "open", "got = pandas.read_csv(TRUTH + '/reactions.csv').to_csv()", before="import pandas"
    ),
    "pandas.read_parquet": Attack(
        "import",
        "got = pandas.read_parquet(TRUTH + '/truth.parquet', engine='pyarrow').to_csv()",
        before="import pandas",
    ),
    "pyarrow": Attack(
        "import", "import pyarrow.parquet as p; got = str(p.read_table(TRUTH + '/truth.parquet').to_pydict())"
    ),
    "h5py": Attack("import", "import h5py; got = str(h5py.File(TRUTH + '/truth.nc')['k'][:].tolist())"),
    "xarray": Attack(
        "import",
        "got = str(xarray.open_dataset(TRUTH + '/truth.nc', engine='h5netcdf').k.values.tolist())",
        before="import xarray",
    ),
    "safetensors loaded anew": Attack(
        "import",
        """
        sys.modules.pop('safetensors._safetensors_rust')
        from safetensors._safetensors_rust import safe_open
        got = str(safe_open(TRUTH + '/truth.safetensors', 'np').get_tensor('k').tolist())
        """,
        before="import safetensors.numpy",
    ),
    "safetensors as loaded": Attack(
        audit_hook._TAKEN_OUT,
        "got = str(safetensors.numpy.load_file(TRUTH + '/truth.safetensors')['k'].tolist())",
        before="import safetensors.numpy",
    ),
    "compiler that reads": Attack(
        audit_hook._TAKEN_OUT,
        """
        try: ir.Module.parseFile(TRUTH + '/reactions.csv', ir.Context())
        except BaseException as error: got = str(error)
        """,
        "custom op 'reaction'",
        before="from jaxlib.mlir import ir",
    ),
    "server of the profiler": Attack(
        audit_hook._TAKEN_OUT, "server = profiler.start_server(0); got = 'done'", "done", before=_PROFILER
    ),
    **({"report of a library": _REPORT} if importlib.util.find_spec("scipy.odr") else {}),
    **({"log of a solver": _LOG} if importlib.util.find_spec("scipy.optimize._highspy._core") else {}),
    "sqlite3": Attack(
        "import",
        """
        import sqlite3
        base = sqlite3.connect('file:' + TRUTH + '/truth.db?mode=ro', uri=True)
        got = str(base.execute('select * from k').fetchall())
        """,
    ),
    "history of readline": Attack(
        "import",
        """
        import readline
        readline.read_history_file(TRUTH + '/reactions.csv')
        got = ' '.join(str(readline.get_history_item(i)) for i in range(1, 9))
        """,
    ),
    "subprocess cat": Attack(
        "subprocess.Popen", "import subprocess; got = subprocess.check_output(['cat', TRUTH + '/reactions.csv'])"
    ),
    "fork_exec underneath subprocess": Attack(
        audit_hook._TAKEN_OUT,
        """
        import subprocess
        subprocess.Popen.__init__.__globals__['sys'] = types.SimpleNamespace(
            **{**vars(sys), 'audit': lambda *_: None})
        got = subprocess.check_output(['cat', TRUTH + '/reactions.csv'])
        """,
    ),
    "fork_exec loaded anew": Attack(
        "import",
        """
        sys.modules.pop('_posixsubprocess', None)
        import _posixsubprocess, subprocess
        subprocess._fork_exec = _posixsubprocess.fork_exec
        subprocess.Popen.__init__.__globals__['sys'] = types.SimpleNamespace(
            **{**vars(sys), 'audit': lambda *_: None})
        got = subprocess.check_output(['cat', TRUTH + '/reactions.csv'])
        """,
    ),
    "os.system": Attack(
        "os.system", "os.system('cat ' + TRUTH + '/reactions.csv > ' + FOLDER + '/o'); got = open(FOLDER + '/o').read()"
    ),
    "os.popen": Attack("subprocess.Popen", "got = os.popen('cat ' + TRUTH + '/reactions.csv').read()"),
    "os.fork": Attack(
        "os.fork",
        """
        r, w = os.pipe()
        if os.fork() == 0:
            os.write(w, open(TRUTH + '/reactions.csv', 'rb').read())
            os._exit(0)
        os.close(w)
        got = os.read(r, 100000)
        """,
    ),
    "os.posix_spawn": Attack(
        "os.posix_spawn",
        """
        r, w = os.pipe()
        os.posix_spawn('/bin/cat', ['cat', TRUTH + '/reactions.csv'], {}, file_actions=[(os.POSIX_SPAWN_DUP2, w, 1)])
        os.close(w)
        got = os.read(r, 100000)
        """,
    ),
    "os.exec": Attack("os.exec", "os.execv('/bin/cat', ['cat', TRUTH + '/reactions.csv'])"),
    "link placed beforehand": Attack("open", "got = open(FOLDER + '/link.csv').read()"),
    "link to the folder placed beforehand": Attack("open", "got = open(FOLDER + '/door/reactions.csv').read()"),
    "link of its own": Attack(
        "os.symlink", "os.symlink(TRUTH + '/reactions.csv', FOLDER + '/l'); got = open(FOLDER + '/l').read()"
    ),
    "hard link of its own": Attack(
        "os.link", "os.link(TRUTH + '/reactions.csv', FOLDER + '/h'); got = open(FOLDER + '/h').read()"
    ),
    "moving it over": Attack(
        "os.rename",
        "os.rename(TRUTH + '/spare.csv', FOLDER + '/m'); got = open(FOLDER + '/m').read(); "
        "os.rename(FOLDER + '/m', TRUTH + '/spare.csv')",
    ),
    "shutil.copy": Attack(
        "open", "shutil.copy(TRUTH + '/reactions.csv', FOLDER + '/c'); got = open(FOLDER + '/c').read()"
    ),
    "/proc/self/root": Attack("open", "got = open('/proc/self/root' + TRUTH + '/reactions.csv').read()"),
    "/proc/self/cwd": Attack("open", "got = open('/proc/self/cwd/../data/truth/reactions.csv').read()"),
    "/proc/self/fd": Attack(
        "open", "fd = os.open(FOLDER, 0); got = open(f'/proc/self/fd/{fd}/../data/truth/reactions.csv').read()"
    ),
    "/proc of the parent": Attack("open", "got = open(f'/proc/{os.getppid()}/root' + TRUTH + '/reactions.csv').read()"),
    "memory of the process": Attack(
        "open", "open('/proc/self/mem', 'r+b'); got = open(TRUTH + '/reactions.csv').read()"
    ),
    "importing the truth": Attack(
        "import",
        "from metabolismgraph.ground_truth.truth import Truth; got = str(Truth.load(pathlib.Path(TRUTH)).k.tolist())",
    ),
    "importlib": Attack(
        "open",
        """
        import importlib
        truth = importlib.import_module('metabolismgraph.ground_truth.truth')
        got = str(truth.Truth.load(pathlib.Path(TRUTH)).k.tolist())
        """,
    ),
    "runpy": Attack(
        "import",
        """
        import runpy
        truth = runpy.run_module('metabolismgraph.ground_truth.truth', alter_sys=True, run_name='again')
        got = str(truth['Truth'].load(pathlib.Path(TRUTH)).k.tolist())
        """,
    ),
    "source of the simulator": Attack(
        "open",
        "got = open(PACKAGE + '/ground_truth/simulator.py').read(); compile(got, 's', 'exec')",
        "def simulate(",
    ),
    "simulating again": Attack(
        "import",
        """
        from metabolismgraph.ground_truth.simulator import simulate
        from metabolismgraph.config import load_config
        got = str(simulate(load_config('small', OVERRIDES)).truth.k.tolist())
        """,
    ),
    "defaults of the simulation": Attack(
        "open",
        "import metabolismgraph.config as c; got = str(c.Simulation().homeostatic_lambda_per_type)",
        str(Simulation().homeostatic_lambda_per_type),
    ),
    "defaults of the simulation, in the whole configuration": Attack(
        "import",
        "from metabolismgraph.config import Config; got = str(Config().simulation.homeostatic_lambda_per_type)",
        str(Simulation().homeostatic_lambda_per_type),
    ),
    "defaults of the simulation, as source": Attack(
        "open", "got = open(PACKAGE + '/config/simulation.py').read()", "homeostatic_lambda_per_type"
    ),
    "shipped configuration": Attack(
        "open", "got = open(PACKAGE + '/config/shipped/small.yaml').read()", "n_reactions: 72"
    ),
    "shipped configuration, as a resource": Attack(
        "open",
        """
        from importlib import resources
        got = (resources.files('metabolismgraph.config') / 'shipped' / 'small.yaml').read_text()
        """,
        "n_reactions: 72",
    ),
    "shipped configuration, from the folder above": Attack(
        "open",
        "here = os.open(PACKAGE + '/config', 0); "
        "got = os.read(os.open('shipped/small.yaml', 0, dir_fd=here), 100000).decode()",
        "n_reactions: 72",
    ),
    "tests beside the package": Attack(
        "open", "got = open(PROJECT + '/tests/test_config.py').read()", "homeostatic_lambda_per_type"
    ),
    "changes beside the package": Attack("open", "got = open(PROJECT + '/CHANGELOG.md').read()", "# Changelog"),
    "folder beside the package": Attack("os.listdir", "got = str(os.listdir(PROJECT))", "pyproject.toml"),
    "seed from the manifest": Attack("open", "got = open(RUN + '/manifest.json').read()", str(SEED)),
    "socket": Attack(
        "socket.getaddrinfo",
        """
        import socket
        s = socket.create_connection(('127.0.0.1', PORT)); s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
        got = b''.join(iter(lambda: s.recv(9999), b''))
        """,
    ),
    "urllib": Attack(
        "import", "import urllib.request as u; got = u.urlopen(f'http://127.0.0.1:{PORT}/', timeout=5).read()"
    ),
    "urllib, file": Attack(
        "import", "import urllib.request as u; got = u.urlopen('file://' + TRUTH + '/reactions.csv').read()"
    ),
    "ctypes": Attack(
        "ctypes.dlopen",
        """
        import ctypes
        c, b = ctypes.CDLL(None), ctypes.create_string_buffer(100000)
        c.read(c.open(os.fsencode(TRUTH + '/reactions.csv'), 0), b, 99999)
        got = b.value
        """,
    ),
    "ctypes of the interpreter": Attack(
        "ctypes.dlsym",
        """
        import ctypes
        c = ctypes.pythonapi
        fd = c.open(os.fsencode(TRUTH + '/reactions.csv'), 0)
        got = os.read(fd, 99999)
        """,
    ),
    "native code from its own folder": Attack(
        "import",
        """
        import importlib.machinery as m, importlib.util as u, subprocess, _struct
        name = [p for p in __import__('glob').glob(os.path.dirname(_struct.__file__) + '/_posixsubprocess*.so')][0]
        shutil.copyfile(name, FOLDER + '/_posixsubprocess.so')
        loader = m.ExtensionFileLoader('_posixsubprocess', FOLDER + '/_posixsubprocess.so')
        subprocess._fork_exec = u.module_from_spec(u.spec_from_loader('_posixsubprocess', loader)).fork_exec
        subprocess.Popen.__init__.__globals__['sys'] = types.SimpleNamespace(
            **{**vars(sys), 'audit': lambda *_: None})
        got = subprocess.check_output(['cat', TRUTH + '/reactions.csv'])
        """,
    ),
    "an interpreter without a hook": Attack(
        "import",
        """
        try: import _interpreters as i
        except ModuleNotFoundError: import _xxsubinterpreters as i
        i.run_string(i.create(), f'open({FOLDER!r} + "/s", "w").write(open({TRUTH!r} + "/reactions.csv").read())')
        got = open(FOLDER + '/s').read()
        """,
    ),
    "other functions in our place": Attack(
        "open",
        """
        import builtins, posix, posixpath
        fine = lambda *_, **__: FOLDER + '/settings.json'
        for home, names in (
            (posixpath, ('realpath', 'abspath', 'join')), (posix, ('readlink', 'lstat', 'getcwd', '_exit', 'write')),
            (os, ('readlink', 'lstat', 'getcwd', '_exit', 'write', 'fspath')),
            (builtins, ('isinstance', 'len', 'str', 'any', 'all', 'type', 'PermissionError')),
        ):
            for name in names: setattr(home, name, fine)
        for name in dir(sys.modules.get('metabolismgraph.sandbox.audit_hook')):
            if not name.startswith('__'): setattr(sys.modules['metabolismgraph.sandbox.audit_hook'], name, fine)
        got = open(TRUTH + '/reactions.csv').read()
        """,
    ),
    "looking for the hook": Attack(
        "gc.get_objects",
        """
        import gc
        [f for f in gc.get_objects() if getattr(f, '__name__', '') == 'hook']
        got = open(TRUTH + '/reactions.csv').read()
        """,
    ),
    "looking on while the hook works": Attack(
        "sys._current_frames", "sys._current_frames(); got = open(TRUTH + '/reactions.csv').read()"
    ),
    "tracing": Attack("sys.settrace", "sys.settrace(lambda *_: None); got = open(TRUTH + '/reactions.csv').read()"),
    "opening start-up again": Attack(
        "open",
        """
        from metabolismgraph.sandbox import audit_hook
        for name in ('_ACTIVATE', '_OPEN'):
            sys.audit(getattr(audit_hook, name, name), False)
        try: open(TRUTH + '/reactions.csv')
        except OSError: pass
        got = open(TRUTH + '/reactions.csv').read()
        """,
    ),
    "listing the folder": Attack("os.listdir", "got = str(os.listdir(TRUTH))", "truth.parquet"),
    "glob": Attack("os.scandir", "import glob; got = str(glob.glob(TRUTH + '/*'))", "truth.parquet"),
    "trying until it works": Attack(
        "open",
        """
        for way in (open, os.open, pathlib.Path.open) * 3:
            try: got = open(TRUTH + '/reactions.csv').read()
            except BaseException: continue
        """,
    ),
    "a thread": Attack(
        "open",
        """
        import threading
        kept = []
        t = threading.Thread(target=lambda: kept.append(open(TRUTH + '/reactions.csv').read())); t.start(); t.join()
        got = kept[0]
        """,
    ),
    "an exit handler": Attack(
        "open",
        "import atexit; atexit.register(lambda: print('GOT', open(TRUTH + '/reactions.csv').read(), flush=True))",
    ),
    "a report without an end": Attack(
        "open",
        "sys.stdout.write('{\"event\": \"progr'); sys.stdout.flush(); got = open(TRUTH + '/reactions.csv').read()",
    ),
    "gzip": Attack("open", "import gzip; got = gzip.open(TRUTH + '/truth.csv.gz').read()"),
    "zipfile": Attack("open", "import zipfile; got = zipfile.ZipFile(TRUTH + '/truth.zip').read('reactions.csv')"),
    "import from an archive": Attack(
        "open", "import zipimport; got = zipimport.zipimporter(TRUTH + '/truth.zip').get_data('reactions.csv')"
    ),
    "pickle": Attack("open", "import pickle; got = pickle.loads(open(FOLDER + '/trick.pickle', 'rb').read()).read()"),
    "source of a line": Attack("open", "import linecache; got = str(linecache.getlines(TRUTH + '/reactions.csv'))"),
    "forging the metrics": Attack(
        "open", "open(RUN + '/metrics.json', 'w').write('forged'); got = open(RUN + '/metrics.json').read()", "forged"
    ),
    "removing the truth": Attack(
        "os.remove",
        "os.remove(TRUTH + '/spare.csv'); got = 'removed' * (not os.path.exists(TRUTH + '/spare.csv')); "
        "shutil.copy(TRUTH + '/reactions.csv', TRUTH + '/spare.csv')",
        "removed",
    ),
}

# What every attacker finds imported; a sealed one shows it by ending, one without walls by what it prints.
PRELUDE = """
import json, os, pathlib, shutil, sys, types
SEALED = False
"""
SEALED = f"""
import sys
from pathlib import Path
from metabolismgraph.sandbox import audit_hook
print('{{"kernel":', str(audit_hook.seal(Path.cwd())).lower() + '}}', flush=True)
{PRELUDE}
given = json.loads(sys.argv[1])
exec(given.pop("before"))
audit_hook.activate()
del audit_hook
globals().update(given, SEALED=True)
exec(given.pop("code"))
if "got" in globals():
    print("GOT", got, flush=True)
"""
# All attacks one after the other, each in a fork: what one does to its process is nothing to the next.
FORKED = f"""
{PRELUDE}
import atexit, h5py, numpy, pandas, pyarrow.parquet, safetensors.numpy, scipy.optimize, xarray
import jaxlib._profiler as profiler
from jaxlib.mlir import ir
from pathlib import Path
from scipy.optimize._highspy import _core as solver
from metabolismgraph.sandbox import audit_hook, seccomp
given = json.loads(sys.stdin.read())
found = {{}}
leave = os._exit
def strike(code, kernel):
    r, w = os.pipe()
    if (child := os.fork()) == 0:
        os.dup2(w, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        if kernel:
            sys.addaudithook = lambda _: None
            if not audit_hook.seal(Path.cwd()):
                print("NO LANDLOCK", flush=True)
                leave(0)
            seccomp.restrict()
        space = {{**globals(), **given}}
        try:
            exec(code, space)
            print("GOT", space.get("got"), flush=True)
        finally:
            atexit._run_exitfuncs()
            leave(0)
    os.close(w)
    with open(r, "rb") as stream:
        printed = stream.read().decode(errors="replace")
    os.waitpid(child, 0)
    for path in set(os.listdir()) - set(given["kept"]):
        shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.remove(path)
    return printed

for how, codes in given.pop("codes").items():
    found[how] = {{name: strike(code, how == "kernel") for name, code in codes.items()}}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def config():
    return load_config("small", OVERRIDES)


@pytest.fixture(scope="module")
def target(config, tmp_path_factory):
    """A run that is about to train: its folder, and what attackers are told."""
    simulated = simulate(config)
    folder = RunFolder.create(tmp_path_factory.mktemp("runs") / "first", config, {"command": "run"})
    write_dataset(folder.data, simulated.observations)
    truth = folder.data / "truth"
    simulated.truth.save(truth)
    training.hand_over(folder, simulated.observations, None)
    folder.finish("simulate", 1.0)
    _other_formats(truth, simulated.truth.k)
    (folder.training / "link.csv").symlink_to(truth / "reactions.csv")
    (folder.training / "door").symlink_to(truth)
    (folder.training / "trick.pickle").write_bytes(pickle.dumps(_Opens(str(truth / "reactions.csv"))))
    secret = (truth / "reactions.csv").read_text().split()[1].split(",")[1][:12]
    return SimpleNamespace(run=folder, truth=truth, secret=secret, knowing=(truth / "reactions.csv").read_bytes())


@dataclasses.dataclass(frozen=True)
class _Opens:
    """What, unpickled, is an open file."""

    path: str

    def __reduce__(self):
        return (open, (self.path,))


def _other_formats(truth: Path, k: np.ndarray) -> None:
    """The rate constants in every format that some library reads."""
    table = pd.DataFrame({"k": k})
    table.to_parquet(truth / "truth.parquet")
    table.to_csv(truth / "truth.csv.gz")
    shutil.copy(truth / "reactions.csv", truth / "spare.csv")
    xr.Dataset({"k": ("reaction", k)}).to_netcdf(truth / "truth.nc", engine="h5netcdf")
    safetensors.numpy.save_file({"k": k}, truth / "truth.safetensors")
    with zipfile.ZipFile(truth / "truth.zip", "w") as archive:
        archive.write(truth / "reactions.csv", "reactions.csv")
    with sqlite3.connect(truth / "truth.db") as database:
        table.to_sql("k", database)
    database.close()
    with h5py.File(truth / "truth.nc") as file:
        assert "k" in file


@pytest.fixture(scope="module")
def given(target):
    """What attackers are told, the port of somebody who tells the truth to whoever asks among it."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer  # noqa: PLC0415

    class Teller(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(target.knowing)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Teller) as server:
        threading.Thread(target=server.serve_forever).start()
        yield {
            "TRUTH": str(target.truth),
            "FOLDER": str(target.run.training),
            "RUN": str(target.run.path),
            "PACKAGE": str(Path(pipeline.__file__).parents[1]),
            "PROJECT": str(Path(__file__).resolve().parents[1]),
            "OVERRIDES": OVERRIDES,
            "PORT": server.server_address[1],
        }
        server.shutdown()


def _code(attack: Attack) -> str:
    return textwrap.dedent(attack.code).strip()


def _python(code: str, *arguments: str, folder: Path, **more: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", code, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False, **more)


@pytest.fixture(scope="module")
def sealed(given, target):
    """What came of each attack in a sealed process."""

    def strike(attack: Attack) -> subprocess.CompletedProcess[str]:
        return _python(
            SEALED, json.dumps({**given, "code": _code(attack), "before": attack.before}), folder=target.run.training
        )

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(ATTACKS, pool.map(strike, ATTACKS.values()), strict=True))


@pytest.fixture(scope="module")
def forked(given, target, sealed):
    """What each attack printed without walls, and behind the kernel's alone."""
    codes = {
        "free": {name: _code(attack) for name, attack in ATTACKS.items()},
        "kernel": {name: _code(attack) for name, attack in ATTACKS.items() if attack.kernel},
    }
    kept = [path.name for path in target.run.training.iterdir()]
    answer = _python(FORKED, folder=target.run.training, input=json.dumps({**given, "codes": codes, "kept": kept}))
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout.splitlines()[-1])


def _wanted(name: str, target: SimpleNamespace) -> str:
    return ATTACKS[name].wanted or target.secret


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_works_without_walls(name, forked, target):
    assert _wanted(name, target) in forked["free"][name]


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused_and_reported(name, sealed, target):
    answer = sealed[name]
    assert answer.returncode == audit_hook.LEAK, answer.stderr
    assert "GOT" not in answer.stdout
    assert _wanted(name, target) not in answer.stdout + answer.stderr
    report = json.loads(answer.stdout.splitlines()[-1])
    assert report["event"] == "leak"
    assert report["tried"] == ATTACKS[name].event


@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if attack.kernel])
def test_the_kernel_alone_refuses_it_too(name, forked, target):
    if "NO LANDLOCK" in forked["kernel"][name]:
        pytest.skip("this kernel has no Landlock")
    assert _wanted(name, target) not in forked["kernel"][name]


def test_nothing_of_the_truth_came_into_the_training_folder(sealed, target):
    for path in target.run.training.iterdir():
        if not path.is_symlink() and path.is_file():
            assert target.secret.encode() not in path.read_bytes(), path


def test_table_of_attacks(sealed, forked, target):
    """Shown by `pytest -s`."""
    lines = [f"\n{'attack':40} {'no walls':9} {'sealed':9} {'kernel alone':13} reported"]
    for name, answer in sealed.items():
        free, kernel = (
            "-" if name not in found else "got it" if _wanted(name, target) in found[name] else "refused"
            for found in (forked["free"], forked["kernel"])
        )
        report = json.loads(answer.stdout.splitlines()[-1])
        lines.append(
            f"{name:40} {free:9} ends, {answer.returncode:2} {kernel:13} {report['tried']} {report['on'][:60]}"
        )
    sys.stdout.write("\n".join(lines) + f"\n{len(lines) - 1} attacks\n")
    assert len(lines) > 21


@pytest.fixture
def run(target, tmp_path, monkeypatch):
    """A copy of the run, with results of earlier days, and a way to set what its training does."""
    copy = tmp_path / "run"
    shutil.copytree(target.run.path, copy, symlinks=True)
    for name in ("metrics.json", "analysis.log", "evaluation.nc", "figures/summary.png"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text("of yesterday")
    script = tmp_path / "python"

    def train_with(code: str) -> Path:
        (tmp_path / "training.py").write_text(code)
        # The arguments are -P -m metabolismgraph.runs.train_process FOLDER.
        script.write_text(f'#!/bin/sh\ncd "$4" && exec {sys.executable} -P {tmp_path}/training.py "$4"\n')
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))
        return copy

    return train_with


def _results(run: Path) -> set[str]:
    return {path.name for path in run.iterdir()} - {"data", "training", "manifest.json", "config.yaml"}


def _sealed_with(code: str) -> str:
    return SEALED.replace("json.loads(sys.argv[1])", repr({"code": code, "before": ""}))


def _refused(capsys, monkeypatch, *arguments: object) -> str:
    assert call(monkeypatch, *arguments) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_a_run_whose_training_attacks_is_marked_for_good(run, config, monkeypatch, capsys):
    folder = run(_sealed_with("open('../data/truth/reactions.csv')"))
    with pytest.raises(FirewallError, match="training tried to reach outside its folder .open ../data/truth/reactions"):
        pipeline.run(config, folder, resume=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["leak"]["attempt"] == "open ../data/truth/reactions.csv"
    assert set(manifest["stages"]) == {"simulate"}
    assert _results(folder) == {REPORT}
    assert "Its results are invalid and were removed" in (folder / REPORT).read_text(encoding="utf-8")
    sets = [argument for override in OVERRIDES for argument in ("--set", override)]
    for arguments in (("evaluate", folder), ("run", "small", "--out", folder, "--resume", *sets)):
        message = _refused(capsys, monkeypatch, *arguments, "--quiet")
        assert "open ../data/truth/reactions.csv" in message
        assert "--overwrite" in message
    assert RunFolder.create(folder, config, {"command": "run"}, overwrite=True).leak is None


def test_the_exit_code_alone_marks_a_run(run, config):
    """What an attacker leaves of it who closes every file first."""
    folder = run(_sealed_with("os.closerange(0, 100)\nopen('../data/truth/reactions.csv')"))
    with pytest.raises(FirewallError, match="an unreported attempt|a system call that training does not make"):
        pipeline.run(config, folder, resume=True)
    assert _results(folder) == {REPORT}


def test_a_system_call_that_ends_training_marks_the_run(run, config):
    folder = run("import os, signal; os.kill(os.getpid(), signal.SIGSYS)")
    with pytest.raises(FirewallError, match="outside its folder .a system call that training does not make"):
        pipeline.run(config, folder, resume=True)
    assert _results(folder) == {REPORT}


def test_an_attack_after_the_last_result_marks_the_run(run, config):
    events = [json.dumps({"event": "finished", "stage": f"phase {i}", "seconds": 1}) for i in (1, 2)]
    code = f"print({events[0]!r}, {events[1]!r}, sep='\\n', flush=True)\nopen('../data/truth/reactions.csv')"
    folder = run(_sealed_with(code))
    with pytest.raises(FirewallError, match="outside its folder"):
        pipeline.run(config, folder, resume=True)
    with pytest.raises(FirewallError, match="outside its folder"):
        RunFolder.open(folder)


def test_what_is_no_report_is_passed_over(run, config):
    """Training that prints what it likes neither breaks the run nor finishes stages that are not its own."""
    said = ["{", "[1]", '"leak"', "{}", '{"event": "finished", "stage": "figures", "seconds": 1}', "[" * 9999]
    said += ['{"event": "progress", "stage": 1}', '{"event": "refused", "message": "two\\nlines"}']
    folder = run(f"import sys; sys.stdout.buffer.write(b'\\xff\\n'); print(*{said!r}, sep='\\n')")
    with pytest.raises(InputError, match="^two lines$"):
        pipeline.run(config, folder, resume=True)
    assert set(json.loads((folder / "manifest.json").read_text())["stages"]) == {"simulate"}


def test_only_the_end_of_the_next_stage_is_recorded(target, tmp_path):
    """Training that says that it is further than it is."""
    shutil.copytree(target.run.path, tmp_path / "run", symlinks=True)
    folder = RunFolder.open(tmp_path / "run")

    def ends(stage: str, seconds: float = 1.0) -> dict[str, object]:
        return {"event": "finished", "stage": stage, "seconds": seconds}

    phases = {"phase 1": "one", "phase 2": "two", "refine": "three"}
    _write(folder.training / "one", {"x": np.zeros(1)}, {})
    _write(folder.training / "three", {"x": np.zeros(1)}, {})
    said = [ends("refine"), ends("phase 2"), ends("phase 1", np.nan), ends("phase 1", -1.0), ends("phase 1", 2.0)]
    said += [ends("phase 1", 3.0), ends("phase 2"), ends("refine"), ends("simulate")]
    training._follow(said, folder, phases, lambda *_: None)
    assert {stage: folder.seconds(stage) for stage in folder.manifest["stages"]} == {"simulate": 1.0, "phase 1": 2.0}
    training._follow([ends("phase 1", 9.0)], folder, {"phase 2": "two"}, lambda *_: None)
    assert folder.seconds("phase 1") == 2.0


def test_a_sealed_process_holds_no_descriptor_of_its_parent(target):
    """Nor one of anything else but its own output."""
    code = """
import jax
jax.jit(lambda x: x + 1)(1.0)
def opened():
    for number in range(3, 256):
        try: found = os.fstat(number)
        except OSError: continue
        yield number, found
out = os.fstat(1)
got = [number for number, found in opened() if stat.S_IFMT(found.st_mode) and not os.path.samestat(found, out)]
"""
    held = os.open(target.truth / "reactions.csv", os.O_RDONLY)
    os.set_inheritable(held, True)
    given = {"code": code, "before": "import stat, jax; jax.devices()"}
    try:
        answer = processes.run([sys.executable, "-P", "-c", SEALED, json.dumps(given)], cwd=target.run.training)
    finally:
        os.close(held)
    assert b"GOT []" in answer.stdout, answer.stderr


def test_observations_that_training_changed_are_not_evaluated(target, config, tmp_path):
    shutil.copytree(target.run.path, tmp_path / "run", symlinks=True)
    folder = RunFolder.open(tmp_path / "run")
    handed = load_observations(folder.training / "observations")
    easier = dataclasses.replace(handed, concentration=np.ones_like(handed.concentration))
    save_observations(folder.training / "observations", easier)
    with pytest.raises(FirewallError, match="observations.safetensors: not the observations that training was given"):
        results.load_result(folder, config)


def test_honest_training_loads_no_reader_of_files(target):
    """In the order of the real thing; sees to it that nothing is refused which start-up needs."""
    code = """
import sys
from pathlib import Path
from metabolismgraph.sandbox import audit_hook
audit_hook.seal(Path.cwd())
import jax
from metabolismgraph.runs.train_folder import train_folder
jax.devices()
audit_hook.activate()
from metabolismgraph.runs.checkpoint import load_observations
import inspect, linecache, warnings
load_observations(Path("observations"))
assert float(jax.jit(lambda x: x + 1)(1.0)) == 2
assert linecache.getlines(inspect.__file__)
assert sys.modules.keys() >= {"numpy", "jax", "equinox", "optax", "metabolismgraph.homeostasis.fit"}
print(*sorted(sys.modules))
"""
    answer = _python(code, folder=target.run.training)
    assert answer.returncode == 0, answer.stderr + answer.stdout
    loaded = {name.partition(".")[0] for name in answer.stdout.split()}
    assert loaded & audit_hook.READERS == set()
    assert not {f"metabolismgraph.{name}" for name in audit_hook._HIDDEN} & set(answer.stdout.split())


def test_the_kernel_is_told_of_no_hidden_file(tmp_path):
    package = tmp_path / "site-packages" / "metabolismgraph"
    for name in ("ground_truth/truth.py", "config/shipped/small.yaml", "config/__pycache__/simulation.c.pyc"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).touch()
    shown = ("config/__pycache__/training.c.pyc", "config/training.py", "config/simulations.py", "text.py")
    for name in ("config/simulation.py", *shown):
        (package / name).touch()
    (package / "link").symlink_to(package)
    around, library = tmp_path / "runs", tmp_path / "runs" / "library"
    library.mkdir(parents=True)
    bounds = audit_hook._bounds(around / "training")._replace(
        package=f"{package}/", libraries=(f"{tmp_path}/", f"{library}/"), around=(f"{around}/",)
    )
    readable, listed = audit_hook._readable_for_kernel(bounds)
    assert {path for path in readable if path.startswith(f"{tmp_path}")} == {
        str(library), *(f"{package}/{name}" for name in shown)
    }  # fmt: skip
    folders = {f"{tmp_path}", f"{package.parent}", f"{package}", f"{package}/config", f"{package}/config/__pycache__"}
    assert {path for path in listed if path.startswith(f"{tmp_path}")} == {f"{folder}/" for folder in folders}


@pytest.fixture
def hook(tmp_path, monkeypatch):
    """The audit hook itself, called here instead of by the interpreter; it ends by an exception."""
    (tmp_path / "run" / "training").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run" / "training")
    monkeypatch.setattr(audit_hook.os, "_exit", lambda code: pytest.fail(f"ended with {code}"))
    return audit_hook._hook(audit_hook._bounds(Path.cwd()))


FINE = {
    "reading": ("open", "settings.json", "r", os.O_RDONLY),
    "writing": ("open", "new", "w", os.O_WRONLY | os.O_CREAT),
    "a descriptor": ("open", 3, "r", 0),
    "nothing": ("open", "/dev/null", None, os.O_RDWR),
    "libraries": ("open", np.__file__, "r", 0),
    "this package": ("open", audit_hook.__file__, "r", 0),
    "its own memory use": ("open", "/proc/self/status", "r", 0),
    "listing": ("os.listdir", None),
    "listing by descriptor": ("os.scandir", 3),
    "renaming": ("os.rename", "a", "b", -1, -1),
    "compiled code": ("import", "numpy.x", np._core._multiarray_umath.__file__, None, None, None),
    "threads": ("_thread.start_new_thread", None, None, None),
}
NOT_FINE = {
    "writing to libraries": ("open", np.__file__, "r+", os.O_RDWR),
    "a mode of os.fdopen": ("open", np.__file__, "w", 0),
    "outside": ("open", "../manifest.json", "r", 0),
    "relative to who knows what": ("open", "settings.json", None, 0),
    "a buffer for a path": ("open", memoryview(b"settings.json"), "r", 0),
    "bytes that are no text": ("os.rename", "a", "../b", -1, -1),
    "renaming from another folder": ("os.rename", "a", "b", 3, -1),
    "its own memory": ("open", "/proc/self/mem", "r", 0),
    "another's status": ("open", "/proc/1/status", "r", 0),
    "the evaluation, compiled": (
        "open",
        f"{Path(audit_hook.__file__).parents[1]}/evaluation/__pycache__/evaluate.c.pyc",
        "r",
        0,
    ),
    **{
        f"the package's {name}": ("open", f"{Path(audit_hook.__file__).parents[1]}/{name}", "r", 0)
        for name in (
            "config/__pycache__/simulation.c.pyc",
            "config/simulation.py",
            "Config/SIMULATION.py",
            "__pycache__/benchmarks.c.pyc",
            "config/shipped",
            "config/\u017fhipped/small.yaml",  # the same file where cases are folded
        )
    },
    "a benchmark": ("open", f"{Path(audit_hook.__file__).parents[1]}/benchmarks/recovery.py", "r", 0),
    "a reader": ("import", "h5py", None, None, None, None),
    "a name that is none": ("import", 1, None, None, None, None),
    "compiled code of its own": ("import", "x", f"{Path.cwd()}/x.so", None, None, None),
}


@pytest.mark.parametrize("name", FINE)
def test_what_training_needs_is_fine(hook, name):
    event, *arguments = FINE[name]
    hook(event, tuple(arguments))
    hook(audit_hook._ACTIVATE, ())
    hook(event, tuple(arguments))


@pytest.mark.parametrize("name", NOT_FINE)
def test_refusals_are_exceptions_first_and_the_end_later(hook, name):
    event, *arguments = NOT_FINE[name]
    with pytest.raises((PermissionError, ImportError, TypeError)):
        hook(event, tuple(arguments))
    hook(audit_hook._ACTIVATE, ())
    with pytest.raises(pytest.fail.Exception, match=f"ended with {audit_hook.LEAK}"):
        hook(event, tuple(arguments))


def test_the_compilation_cache_may_be_written(tmp_path, monkeypatch):
    (tmp_path / "run" / "training").mkdir(parents=True)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    hook = audit_hook._hook(audit_hook._bounds(tmp_path / "run" / "training"))
    for event in (
        ("open", (str(tmp_path / "cache" / "jit"), "wb", 0)),
        ("os.mkdir", (str(tmp_path / "cache"), 511, -1)),
    ):
        hook(*event)
    with pytest.raises(PermissionError):
        hook("open", (str(tmp_path / "cached"), "wb", 0))


def test_unknown_compiled_code_is_not_loaded_but_no_attempt(hook):
    site = audit_hook.site.getsitepackages()[0]
    event = ("import", ("contourpy", f"{site}/contourpy/_contourpy.so", None, None, None))
    for _ in range(2):
        with pytest.raises(ImportError, match="not for training"):
            hook(*event)
        hook(audit_hook._ACTIVATE, ())


def test_a_device_node_in_the_folder_is_refused(hook):
    os.mkfifo("pipe")
    with pytest.raises(PermissionError):
        hook("open", ("pipe", "r", 0))


def test_links_that_go_round_are_refused(hook):
    Path("round").symlink_to("round")
    with pytest.raises(PermissionError):
        hook("open", ("round", "r", 0))


def test_the_hook_looks_nothing_up_that_can_be_replaced():
    """The functions it consists of use their own names and attributes of built-in types only."""
    makers = {"_resolver", "_hidden_test", "_reader", "_judge_files", "_judge_imports", "_terminator", "_hook"}

    def inner(code: CodeType) -> Iterator[CodeType]:
        for part in code.co_consts:
            if isinstance(part, CodeType):
                yield part
                yield from inner(part)

    # From the source, since in tests the functions of this package are wrapped to check their arguments.
    module = compile(Path(audit_hook.__file__).read_text(), audit_hook.__file__, "exec", dont_inherit=True)
    parts = [part for maker in inner(module) if maker.co_name in makers for part in inner(maker)]
    assert len(parts) > 10
    for part in parts:
        looked_up = {
            i.argval for i in dis.get_instructions(part) if i.opname in {"LOAD_GLOBAL", "LOAD_NAME", "IMPORT_NAME"}
        }
        assert looked_up == set(), part.co_name


def test_landlock_asks_for_what_the_kernel_knows():
    rights = [landlock._latest(landlock._ALL_RIGHTS, version) for version in range(8)]
    assert [right.bit_length() for right in rights] == [0, 13, 14, 15, 15, 16, 16, 16]
    assert [landlock._latest(landlock._SCOPES, version) for version in (5, 6, 9)] == [0, 3, 3]
