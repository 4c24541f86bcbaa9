"""The sandbox of training: the process has access to its folder and its libraries, and ends at any other access.

Training code is not trusted, as it may search for the truth. Three guards restrict it. A kernel with Landlock refuses
all other files (`landlock.py`), and one with seccomp ends the process at system calls that act on other processes
(`seccomp.py`); the process cannot undo that. On every system, an audit hook (PEP 578) refuses and reports attempts of
Python code to open, load or start something else. The first attempt after start-up ends the process at once with the
code `LEAK`, so that catching the exception has no effect.

Readers in C and C++ raise no audit event. They are not loaded; functions of that kind in libraries that training
needs are disabled (`_DISABLED_FUNCTIONS`). Where strategy files are executed, the kernel also asks a process beside
this one about every file (`watcher.py`), which reports what Landlock would only refuse. The hook alone does not stop
code that writes to the memory of its own process (which is possible with NumPy); the kernel does.

Runs that share observations and a checkpoint read these four files, and no others, from a second folder.

The order is: `seal`, imports of trusted code, `activate`, and only then code that is not trusted.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import glob
import importlib
import json.encoder
import os
import signal
import site
import socket
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from metabolismgraph.sandbox import landlock, seccomp, watcher

LEAK = 86  # exit code after an attempt
# Readable files of a shared folder.
SHARED_FILES = tuple(f"{name}.{kind}" for name in ("observations", "phase1") for kind in ("safetensors", "json"))

# Takes a path, whether it may be relative, and whether it may contain "..".
Resolve = Callable[[Any, bool, bool], "str | None"]
_reports: list[int] = []  # the descriptor to which a sealed process reports
_watchers: list[socket.socket] = []  # the channel to its watcher
_FINE, _QUIET, _REFUSED = range(3)  # verdicts; a quiet refusal does not count as an attempt

_ACTIVATE = "metabolismgraph.activate"
_TAKEN_OUT = "metabolismgraph.taken_out"
_PACKAGE = "metabolismgraph"
# Modules and folders of the package that hold true values, or compute them.
_HIDDEN = frozenset({"ground_truth", "evaluation", "benchmarks", "config/simulation", "config/shipped"})
# They open files, start processes or make interpreters without an audit event.
READERS = frozenset(
    {
        *("h5py", "h5netcdf", "netCDF4", "cftime", "pyarrow", "fastparquet", "tables", "zarr", "polars", "duckdb"),
        *("libsbml", "_libsbml", "cffi", "_cffi_backend", "lxml", "sqlite3", "_sqlite3", "_gdbm", "_dbm", "_fmm_core"),
        *("readline", "_curses", "_curses_panel", "psutil", "PIL", "cv2", "torch", "tensorflow", "numba", "llvmlite"),
        *("_xxsubinterpreters", "_interpreters", "_xxinterpchannels", "_interpchannels", "_testcapi"),
        *("_testinternalcapi", "_ctypes_test", "_tkinter", "_posixshmem", "_multiprocessing", "_ssl", "nis", "spwd"),
        "ossaudiodev",
    }
)
# Packages whose extension modules are loaded, besides those of the standard library and packages named jax...
_NATIVE = frozenset(
    {"numpy", "scipy", "pandas", "ml_dtypes", "safetensors", "pydantic_core", "yaml", "equinox", "nvidia"}
)
# Functions of modules needed in training that read or write files, start processes or load code without an audit event.
# So are those that act on other processes, leave the process group, or make what the kernel refuses without a report.
_OF_PROCESSES = (
    *("chroot", "setpriority", "sched_setaffinity", "sched_setscheduler", "sched_setparam", "setsid", "setpgid"),
    *("setuid", "seteuid", "setreuid", "setresuid", "setgid", "setegid", "setregid", "setresgid", "setgroups"),
    *("initgroups", "mkfifo", "mknod", "openpty", "pidfd_open", "setns", "unshare", "memfd_create", "tcsetpgrp"),
    *("setpgrp", "login_tty", "posix_openpt"),
    # One thread could end the process with a code of its own while another one reports.
    *("_exit", "abort"),
)
# Handlers would run inside the hook. A process that stops or kills itself looks like one of a machine that is lost.
_OF_SIGNALS = ("pidfd_send_signal", "pthread_kill", "signal", "set_wakeup_fd", "raise_signal", "alarm", "setitimer")
_DISABLED_FUNCTIONS: dict[str, tuple[str, ...]] = {
    "os": _OF_PROCESSES,
    "posix": _OF_PROCESSES,
    "signal": _OF_SIGNALS,
    "_signal": _OF_SIGNALS,
    "time": ("clock_settime", "clock_settime_ns"),
    "gc": ("enable",),
    "_posixsubprocess": ("fork_exec",),
    "subprocess": ("_fork_exec",),
    "_imp": ("create_builtin",),
    "safetensors": ("safe_open", "serialize_file"),
    "safetensors._safetensors_rust": ("safe_open", "serialize_file"),
    "safetensors.numpy": ("safe_open", "serialize_file"),
    "jaxlib._jax": (
        *("load_pjrt_plugin", "initialize_pjrt_plugin", "get_c_api_client", "start_transfer_server"),
        *("make_transfer_server_interface_factory", "get_distributed_runtime_service"),
        *("get_distributed_runtime_client", "make_gloo_tcp_collectives", "make_mpi_collectives"),
    ),
    "jaxlib._profiler": (
        *("start_server", "get_fdo_profile", "aggregate_profiled_instructions", "get_instructions_profile"),
        "get_profiled_instructions_proto",
    ),
    "jaxlib._profiler.ProfilerSession": ("export", "stop_and_export"),
    "jaxlib._profile_data.ProfileData": ("from_file",),
    "jaxlib._ifrt_proxy": ("get_client",),
    "jaxlib.mlir._mlir_libs._mlir.ir.Module": ("parseFile",),
    "jaxlib.mlir._mlir_libs._mlir.passmanager.PassManager": ("enable_ir_printing", "enable_reproducer_before_all"),
    "scipy.optimize._highspy._core._Highs": (
        *("readBasis", "readModel", "readOptions", "readSolution", "writeBasis", "writeIisModel", "writeInfo"),
        *("writeModel", "writeOptions", "writePresolvedModel", "writeSolution", "setOptionValue"),
    ),
}
# Their extension modules (folder and name) must not be loaded twice, since that would restore the functions. Others,
# which start-up does not load, open files or connections.
_ONCE = frozenset(
    {
        *("lib-dynload/_posixsubprocess", "safetensors/_safetensors_rust", "_highspy/_core", "odr/__odrpack"),
        *("jaxlib/_jax", "jaxlib/_profiler", "jaxlib/_profile_data", "jaxlib/_ifrt_proxy", "jaxlib/_pathways"),
        "_mlir_libs/_mlir",
    }
)

_FAMILIES = (
    *("socket.", "subprocess.", "pty.", "ctypes.", "sqlite3.", "gc.", "syslog.", "urllib.", "http.client.", "ftplib."),
    *("imaplib.", "nntplib.", "poplib.", "smtplib.", "telnetlib.", "webbrowser.", "os.exec", "os.spawn", "os.fork"),
    "fcntl.",
)
_EVENTS = frozenset(
    {
        *("os.system", "os.posix_spawn", "os.link", "os.symlink", "os.kill", "os.killpg", "os.chdir", "os.startfile"),
        *("resource.setrlimit", "resource.prlimit"),
        *("os.utime", "os.chmod", "os.chown", "os.chflags", "os.setxattr", "os.removexattr"),
        # These show or change the execution of other code, the hook included.
        *("sys._current_frames", "sys._current_exceptions", "sys.settrace", "sys.setprofile", "sys.remote_exec"),
        *("cpython.PyInterpreterState_New", _TAKEN_OUT),
    }
)
# Allowed while trusted code is loaded; ctypes opens the interpreter's own library when it is imported.
_AT_START = (
    *("ctypes.", "gc.", "fcntl.", "resource.setrlimit", "socket.gethostname", "socket.__new__", "socket.sendmsg"),
)
# Positions of the changed paths among the arguments of an event, and of the folders that they are relative to.
_CHANGES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "os.mkdir": ((0,), (2,)),
    "os.remove": ((0,), (1,)),
    "os.rmdir": ((0,), (1,)),
    "os.rename": ((0, 1), (2, 3)),
    "os.truncate": ((0,), ()),
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_MOST_LINKS = 40  # the limit of the kernel
_FILE_TYPE, _REGULAR, _FOLDER = 0o170000, 0o100000, 0o040000  # of st_mode

_SYSTEM_FILES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_PROC_FILES = ("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems", "/proc/version")
# Counts of cores, memory and threads of this process; nothing else in /proc/PID is read.
_OWN_PROC_FILES = frozenset({f"/proc/self/{name}" for name in ("cgroup", "limits", "stat", "statm", "status")})
_SYSTEM_FOLDERS = (
    "/sys/bus/pci",
    "/sys/devices",
    "/sys/fs/cgroup",
    "/usr/share/zoneinfo",
    "/usr/share/locale",
    "/usr/lib/locale",
)
# For the kernel, which also checks files opened by the dynamic linker, the C library and device drivers.
_KERNEL_FOLDERS = (
    *("/bin", "/etc", "/lib", "/lib32", "/lib64", "/nix/store", "/sys", "/usr", *_PROC_FILES),
    *("/proc/self", "/proc/sys", "/proc/driver", "/proc/devices", "/proc/loadavg", "/proc/mounts"),
)
_DEVICES = (*_SYSTEM_FILES, "/dev/full", "/dev/dxg", "/dev/kfd", "/dev/dri")
# Where there is one of these, GPU libraries need the memory that processes share.
_ACCELERATORS = ("/dev/nvidia*", "/dev/kfd", "/dev/dxg")
_SOURCES = ("/usr/src/", "/usr/local/src/")  # projects with their runs lie there in some containers


class Bounds(NamedTuple):
    """The files and folders that the process may access.

    Paths end in a slash, so that the path of a folder is a prefix of its contents.

    Attributes:
        folder: the training folder.
        around: the parent folders of it and of the shared one, where the truth may be: refused, even if another
            rule allows them.
        shared: readable files of the shared folder.
        package: folder of this package.
        libraries: readable folders of the Python installation and the system.
        sites: folders of installed packages.
        within: libraries and cache that are inside `around`.
        files: single readable files.
        listed: folders that may be listed, but whose contents may not be read.
        cache: JAX's compilation cache, or nothing.
        cache_kept: whether the cache may be written to.
    """

    folder: str
    around: tuple[str, ...]
    shared: frozenset[str]
    package: str
    libraries: tuple[str, ...]
    sites: tuple[str, ...]
    within: tuple[str, ...]
    files: frozenset[str]
    listed: frozenset[str]
    cache: tuple[str, ...]
    cache_kept: bool

    @property
    def single_files(self) -> tuple[str, ...]:
        return tuple(path.rstrip("/") for path in (*self.files, *self.shared))

    @property
    def own(self) -> tuple[str, ...]:
        """Folders that may be written to."""
        return (self.folder, *(self.cache if self.cache_kept else ()))


def seal(folder: Path, shared: Path | None = None, *, keep_compiled: bool = True, watched: bool = True) -> bool:
    """Confine this process to `folder` permanently; to be called before any other thread runs.

    Until `activate` a refusal is an exception, since libraries probe for optional files and modules.

    Args:
        shared: a folder of which `SHARED_FILES` may be read.
        keep_compiled: whether JAX's compilation cache may be written to, or only read. Programs that code without
            review writes there would be run by other processes.
        watched: whether a process of its own decides on files as well, where the kernel asks it (`watcher.py`).

    Returns:
        whether the kernel guards as well.

    Raises:
        ValueError: the shared folder lies in `folder`, which is writable.
    """
    bounds = _bounds(folder, shared, keep_compiled=keep_compiled)
    # Nothing outside the folder is written: neither compiled modules nor temporary files.
    sys.dont_write_bytecode = True
    os.environ["TMPDIR"] = bounds.folder.rstrip("/")
    for path in bounds.cache:
        Path(path).mkdir(parents=True, exist_ok=True)
    readable, listed = _readable_for_kernel(bounds)
    accelerators = [path for pattern in _ACCELERATORS for path in glob.glob(pattern)]  # noqa: PTH207
    allowed = landlock.Allowed(
        readable=(*readable, *bounds.single_files),
        writable=(*bounds.own, *(("/dev/shm",) if accelerators else ())),  # noqa: S108
        listed=(*bounds.listed, *listed),
        devices=(*_DEVICES, *accelerators),
    )
    _reports[:] = [os.dup(1)]
    # Drivers of accelerators open files of their own, which nobody can list.
    if watched and not accelerators and (calls := seccomp.asked()):
        _watchers[:] = [watcher.start(allowed, _reports[0], calls)]
    held = landlock.confine(allowed)
    sys.addaudithook(_hook(bounds, _reports[0]))
    return held


def activate(*, programs: bool = False) -> bool:
    """End start-up: after this call a refused attempt ends the process.

    Args:
        programs: whether libraries may start other programs, as compilers of accelerators do.

    Returns:
        whether the kernel filters system calls as well.
    """
    for name in (*sys.builtin_module_names, *_DISABLED_FUNCTIONS):
        # Functions are disabled in loaded modules: load them now.
        if name not in READERS and ("." not in name or name.partition(".")[0] in sys.modules):
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    # The exception of an interrupt could arise inside the hook.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for name, attributes in _DISABLED_FUNCTIONS.items():
        owner = _loaded(name)
        for attribute in attributes:
            if hasattr(owner, attribute):
                setattr(owner, attribute, _taken_out(f"{name}.{attribute}"))
    report = _reports[0] if _reports else None
    with contextlib.ExitStack() as opened:
        channels = [opened.enter_context(channel) for channel in _watchers]
        listen = functools.partial(watcher.hand_over, channels[0]) if channels else None
        filtered = seccomp.restrict(programs=programs, report=report, listen=listen)
    sys.audit(_ACTIVATE)
    return filtered


def attempt_of(code: int) -> str | None:
    """The attempt behind the exit code of a sealed process that has reported none; None for other codes."""
    calls = {LEAK: "an unreported attempt", -signal.SIGSYS: "a system call that training does not make"}
    return calls.get(code)


def _loaded(name: str) -> object:
    """A module, or a class in one, if it is loaded."""
    if name in sys.modules:
        return sys.modules[name]
    home, _, attribute = name.rpartition(".")
    return getattr(sys.modules.get(home), attribute, None)


def _taken_out(name: str) -> Callable[..., None]:
    def refuse(*_: object, **__: object) -> None:
        sys.audit(_TAKEN_OUT, name)

    return refuse


def _bounds(folder: Path, shared: Path | None = None, *, keep_compiled: bool = True) -> Bounds:
    real = os.path.realpath
    inside = _prefix(real(folder))
    around = tuple(_prefix(os.path.dirname(real(path))) for path in (folder, shared) if path)  # noqa: PTH120
    if shared is not None and _prefix(real(shared)).startswith(inside):
        raise ValueError(f"{shared}: lies in {folder}, which training writes to; share a folder outside it")
    entries = [real(entry) for entry in sys.path if entry]
    sites = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
    sites |= {entry for entry in entries if entry.endswith(("/site-packages", "/dist-packages"))}
    libraries = {f"{prefix}/{part}" for prefix in (sys.prefix, sys.base_prefix) for part in ("lib", "lib64")}
    libraries |= {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), *_SYSTEM_FOLDERS, *sites}
    cache = {os.environ["JAX_COMPILATION_CACHE_DIR"]} if os.environ.get("JAX_COMPILATION_CACHE_DIR") else set()
    every = tuple(sorted({_prefix(real(path)) for path in libraries | cache}))
    return Bounds(
        folder=inside,
        around=around,
        shared=frozenset(_prefix(real(shared / name)) for name in SHARED_FILES) if shared else frozenset(),
        package=_prefix(os.path.dirname(os.path.dirname(real(__file__)))),  # noqa: PTH120
        libraries=every,
        sites=tuple(sorted({_prefix(real(path)) for path in sites})),
        within=tuple(
            path
            for path in every
            if path.startswith(around) and not any(one.startswith(path) for one in (inside, *around))
        ),
        files=frozenset(_prefix(real(path)) for path in (*_SYSTEM_FILES, *_PROC_FILES, f"{sys.prefix}/pyvenv.cfg")),
        listed=frozenset(_prefix(entry) for entry in entries),
        cache=tuple(_prefix(real(path)) for path in cache),
        cache_kept=keep_compiled,
    )


def _prefix(path: str) -> str:
    return path.rstrip("/") + "/"


def _readable_for_kernel(bounds: Bounds) -> tuple[set[str], set[str]]:
    """Readable folders and files without hidden ones, and the folders that hold both kinds, to be listed only."""
    places = [f"{bounds.package}{name}" for name in _HIDDEN]
    names = [(os.path.dirname(place), os.path.basename(place)) for place in places]  # noqa: PTH119, PTH120
    compiled = [f"{glob.escape(folder)}/__pycache__/{name}.*" for folder, name in names]
    patterns = [*(f"{glob.escape(place)}.*" for place in places), *compiled]
    files = [path for pattern in patterns for path in glob.glob(pattern)]  # noqa: PTH207
    hidden = {*map(_prefix, (*places, *files)), *_SOURCES, *bounds.around}
    readable: set[str] = set()
    listed: set[str] = set()
    pending = [os.path.realpath(path) for path in (*_KERNEL_FOLDERS, *_linker_folders(), bounds.package)]
    pending += bounds.libraries
    while pending:
        path = _prefix(pending.pop())
        if path in hidden:
            continue
        if not any(one.startswith(path) for one in hidden):
            readable.add(path.rstrip("/") or "/")
        elif path not in listed:
            listed.add(path)
            # A rule for a link would be one for its target.
            pending += [entry.path for entry in os.scandir(path) if not entry.is_symlink()]
    return readable, listed


def _linker_folders() -> tuple[str, ...]:
    return tuple(path for path in os.environ.get("LD_LIBRARY_PATH", "").split(":") if path)


# The code below runs in the process of an attacker, who may replace any function of any module. The hook and its
# parts are therefore closures that use no global names, built-in names included, and whose only variable is a flag
# that can only be set. `os.path.realpath` and similar functions do not meet this condition.
#
# Nor may code of the attacker ever see a frame of the hook, since the functions in it can be changed. So it uses only
# arguments of built-in types, whose methods are not the attacker's; no signal has a handler; no garbage is collected
# meanwhile, which would call finalizers; and no exception leaves it but one whose only frame holds none of its parts.


def _resolver() -> Resolve:
    """Make a realpath that ends in a slash; it gives None for a path that cannot be verified."""
    readlink, here, kind, text, raw, failure = os.readlink, os.getcwd(), type, str, bytes, OSError  # noqa: PTH109
    most, digits = _MOST_LINKS, "0123456789"

    def resolve(path: Any, relative: bool, upwards: bool) -> str | None:
        path = path.decode() if kind(path) is raw else path
        # A subclass of str may give the hook one text and the kernel another.
        if kind(path) is not text or not (relative or path.startswith("/")):
            return None
        pending = (path if path.startswith("/") else here + "/" + path).split("/")[::-1]
        # If another thread moves a folder meanwhile, its parent changes.
        if ".." in pending and not upwards:
            return None
        done, links = "", 0
        while pending:
            name = pending.pop()
            if name == "..":
                done = done.rpartition("/")[0]
            if name in {"", ".", ".."}:
                continue
            # /proc/PID gives access to other folders and to the memory of processes.
            if done == "/proc" and name[0] in digits:
                return None
            try:
                target = readlink(done + "/" + name)
            except failure:
                done += "/" + name
                continue
            links += 1
            if links > most:
                return None
            done = "" if target.startswith("/") else done
            pending.extend(target.split("/")[::-1])
        return done + "/"

    return resolve


def _hidden_test() -> Callable[[str], bool]:
    """Make the test whether a path in the package is hidden, or is compiled from what is hidden."""
    hidden = frozenset("/" + name for name in _HIDDEN)

    def is_hidden(path: str) -> bool:
        name = ""
        for part in path.casefold().split("/"):
            if part != "__pycache__":
                name += "/" + part.partition(".")[0]
            if name in hidden:
                return True
        return False

    return is_hidden


def _reader(bounds: Bounds) -> Callable[[str], bool]:
    """Make the test whether a resolved path may be read."""
    folder, around, package, within, files = bounds.folder, bounds.around, bounds.package, bounds.within, bounds.files
    shared, libraries, length = bounds.shared, bounds.libraries, len(bounds.package)
    package, is_hidden = package.casefold(), _hidden_test()
    lstat, failure = os.lstat, OSError
    file_type, ordinary = _FILE_TYPE, frozenset({_REGULAR, _FOLDER})

    def may_read(path: str) -> bool:
        if path.startswith(folder):
            try:
                # A device node in the folder gives access to the disk behind it.
                return lstat(path[:-1]).st_mode & file_type in ordinary
            except failure:
                return True
        # Some file systems do not distinguish cases.
        if path.casefold().startswith(package):
            return not is_hidden(path[length:])
        if path in shared:
            return True
        if path.startswith(around):
            return path.startswith(within)
        return path.startswith(libraries) or path in files

    return may_read


def _judge_files(bounds: Bounds, resolve: Resolve) -> Callable[[str, tuple[Any, ...], bool], int]:
    """Make the judge of events that open, list or change files."""
    own, listed, may_read, changes, writing = bounds.own, bounds.listed, _reader(bounds), dict(_CHANGES), _WRITING
    number, fine, refused, nowhere = int, _FINE, _REFUSED, "/dev/null/"
    kind, text, own_proc = type, str, _OWN_PROC_FILES

    def opens(arguments: tuple[Any, ...], active: bool) -> int:
        name, mode, flags = arguments
        # An event that code made up may hold objects with methods of their own.
        if kind(flags) is not number or (mode is not None and kind(mode) is not text):
            return refused
        # os.open reports neither a mode nor the folder of a relative path.
        path = resolve(name, mode is not None, not active)
        writes = flags & writing or (mode is not None and not {"w", "a", "x", "+"}.isdisjoint(mode))
        if kind(name) is text and name in own_proc and not writes:
            return fine
        if path is None or not may_read(path):
            return refused
        return fine if not writes or path.startswith(own) or path == nowhere else refused

    def lists(name: Any, active: bool) -> int:
        path = resolve("." if name is None else name, True, not active)
        return fine if path is not None and (path in listed or may_read(path)) else refused

    def judge(event: str, arguments: tuple[Any, ...], active: bool) -> int:
        if event in changes:
            names, folders = changes[event]
            for at in folders:
                if kind(arguments[at]) is not number or arguments[at] != -1:
                    return refused
            for at in names:
                path = resolve(arguments[at], True, not active)
                if path is None or not path.startswith(own):
                    return refused
            return fine
        # isinstance asks the object, which may lie, and would run its code here.
        if kind(arguments[0]) is number:
            return fine
        return opens(arguments, active) if event == "open" else lists(arguments[0], active)

    return judge


def _judge_imports(bounds: Bounds, resolve: Resolve) -> Callable[[tuple[Any, ...], bool], int]:
    """Make the judge of imports: of a module by its name, and of compiled code by its file."""
    sites, libraries, own, kind, text = bounds.sites, bounds.libraries, bounds.own, type, str
    package, is_hidden, readers, native, once, length = _PACKAGE, _hidden_test(), READERS, _NATIVE, _ONCE, len
    fine, quiet, refused = _FINE, _QUIET, _REFUSED

    def compiled(file: Any, active: bool) -> int:
        path = resolve(file, True, not active)
        if path is None or path.startswith(own) or not path.startswith(libraries):
            return refused
        *_, above, last, _ = path.split("/")
        stem = last.partition(".")[0]
        if stem in readers or (active and above + "/" + stem in once):
            return refused
        for folder in sites:
            if path.startswith(folder):
                top = path[length(folder) :].partition("/")[0].partition(".")[0]
                return refused if top in readers else fine if top in native or top.startswith("jax") else quiet
        return fine

    def judge(arguments: tuple[Any, ...], active: bool) -> int:
        name, file = arguments[:2]
        if kind(name) is not text:
            return refused
        first, _, rest = name.partition(".")
        if first in readers or (first == package and is_hidden(rest.replace(".", "/"))):
            return refused
        return fine if file is None else compiled(file, active)

    return judge


def _terminator(out: int) -> Callable[[str, tuple[Any, ...]], None]:
    """Make the function that reports an attempt to a descriptor of the parent process and ends this one."""
    write, leave, quote, code = os.write, os._exit, json.encoder.encode_basestring_ascii, LEAK
    text, raw, several, row, kind = str, bytes, tuple, list, type

    def words(values: tuple[Any, ...]) -> str:
        found = ""
        for value in values:
            # Only these types themselves: the methods of others are code of the attacker.
            if kind(value) is several or kind(value) is row:
                found += words(value)
            elif kind(value) is raw:
                found += " " + value.decode("latin-1")
            elif kind(value) is text:
                found += " " + value
        return found

    def end(event: str, arguments: tuple[Any, ...]) -> None:
        try:
            # Further arguments are modes and search paths. The last line of output may be incomplete.
            arguments = arguments[:1] if event == "open" else arguments[:2] if event == "import" else arguments
            line = '\n{"event": "leak", "tried": ' + quote(event) + ', "on": ' + quote(words(arguments)[1:500]) + "}\n"
            write(out, line.encode())
        finally:
            leave(code)

    return end


def _hook(bounds: Bounds, out: int = 1) -> Callable[[str, tuple[Any, ...]], None]:
    """Make the audit hook, which passes, raises, or ends the process."""
    resolve, end = _resolver(), _terminator(out)
    judge_file, judge_import = _judge_files(bounds, resolve), _judge_imports(bounds, resolve)
    of_files, activate_event = frozenset({"open", "os.listdir", "os.scandir", *_CHANGES}), _ACTIVATE
    events, families, at_start = _EVENTS, _FAMILIES, _AT_START
    fine, quiet, refused = _FINE, _QUIET, _REFUSED
    not_loaded, not_permitted, mistake = ImportError, PermissionError, Exception
    exhausted = (RecursionError, MemoryError)
    keep_garbage, collect_garbage, leave, code = gc.disable, gc.enable, os._exit, LEAK
    active = ended = False
    inside = 0  # threads in the hook

    def judge(event: str, arguments: tuple[Any, ...]) -> int:
        if event in of_files:
            return judge_file(event, arguments, active)
        if event == "import":
            return judge_import(arguments, active)
        if event in events or event.startswith(families):
            return fine if not active and event.startswith(at_start) else refused
        return fine

    def decide(event: str, arguments: tuple[Any, ...]) -> Exception | None:
        nonlocal active, ended, inside
        if event == activate_event:
            active = True
            return None
        inside += 1
        keep_garbage()
        try:
            verdict = judge(event, arguments)
        except exhausted:
            verdict = quiet
        except mistake:
            verdict = refused  # the arguments are not those of the interpreter
        if ended:
            leave(code)  # while another thread reports
        if active and verdict == refused:
            ended = True
            end(event, arguments)
        inside -= 1
        if not inside:
            collect_garbage()
        if verdict == fine:
            return None
        # Exceptions that libraries expect for a missing module or an inaccessible file.
        if event == "import":
            return not_loaded("not for training: " + arguments[0])
        return not_permitted(1, "not for training", arguments[0] if arguments else event)

    def hook(
        decide: Callable[[str, tuple[Any, ...]], Exception | None],
        mistake: type[Exception],
        otherwise: type[Exception],
        event: str,
        arguments: tuple[Any, ...],
    ) -> None:
        try:
            refusal = decide(event, arguments)
        except mistake:
            refusal = otherwise()
        # This frame is part of the exception.
        del decide, mistake, otherwise
        if refusal is not None:
            raise refusal

    return functools.partial(hook, decide, mistake, not_permitted)
