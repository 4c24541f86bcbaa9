"""Attacks by way of the folder that several trainings share: its four files are read, and that is all.

As in test_firewall_attacks.py every attack works without walls, is ended and reported in a sealed process, and is
refused by the kernel alone.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from metabolismgraph.sandbox import audit_hook


@dataclasses.dataclass(frozen=True)
class Attack:
    """Code that prints GOT if it gets what it wants.

    Attributes:
        event: what the report must say was tried.
        kernel: whether the kernel alone stops it; it lets code be loaded, which then gets no further.
    """

    event: str
    code: str
    kernel: bool = True


ATTACKS = {
    "writing": Attack("open", "open(SHARED + '/observations.json', 'w').write('forged'); print('GOT')"),
    "appending": Attack("open", "open(SHARED + '/phase1.json', 'a').write('forged'); print('GOT')"),
    "writing beside": Attack("open", "open(SHARED + '/phase2.json', 'w').write('forged'); print('GOT')"),
    "a folder of its own there": Attack("os.mkdir", "os.mkdir(SHARED + '/new'); print('GOT')"),
    "truncating": Attack("os.truncate", "os.truncate(SHARED + '/phase1.json', 0); print('GOT')"),
    "removing": Attack("os.remove", "os.remove(SHARED + '/phase1.json'); print('GOT')"),
    "putting another in its place": Attack(
        "os.rename",
        "open('mine.json', 'w').write('forged'); os.rename('mine.json', SHARED + '/phase1.json'); print('GOT')",
    ),
    "taking it away": Attack("os.rename", "os.rename(SHARED + '/phase1.json', 'mine'); print('GOT')"),
    "a hard link to write through": Attack(
        "os.link", "os.link(SHARED + '/phase1.json', 'hard'); open('hard', 'w').write('forged'); print('GOT')"
    ),
    "listing": Attack("os.listdir", "print('GOT', os.listdir(SHARED))"),
    "what else lies there": Attack("open", "print('GOT', open(SHARED + '/settings.json').read())"),
    "the folder above": Attack("os.listdir", "print('GOT', os.listdir(BASE))"),
    "its manifest": Attack("open", "print('GOT', open(BASE + '/manifest.json').read())"),
    "the truth beside it": Attack("open", "print('GOT', open(BASE + '/data/truth/reactions.csv').read())"),
    "upwards from it": Attack("open", "print('GOT', open(SHARED + '/../data/truth/reactions.csv').read())"),
    "numpy": Attack(
        "open", "import numpy; print('GOT', numpy.fromfile(BASE + '/data/truth/reactions.csv', dtype='u1').tobytes())"
    ),
    "another run": Attack("open", "print('GOT', open(OTHER + '/phase2.json').read())"),
    "writing to another run": Attack("open", "open(OTHER + '/phase2.json', 'w').write('forged'); print('GOT')"),
    "a link placed beforehand": Attack("open", "print('GOT', open('link.csv').read())"),
    "a strategy file that is a link": Attack(
        "open",
        """
        from metabolismgraph.homeostasis.strategies import custom
        try: custom.load(Path('strategies/linked.py').absolute())
        except ValueError: print('GOT', sys.modules['metabolismgraph_strategies.linked'].true)
        """,
    ),
    "a link that has the name of a shared file": Attack("open", "print('GOT', open('elsewhere/phase1.json').read())"),
    "compiled code from there": Attack(
        "import",
        """
        import importlib.machinery as m, importlib.util as u
        loader = m.ExtensionFileLoader('_struct', SHARED + '/observations.safetensors')
        u.module_from_spec(u.spec_from_loader('_struct', loader)); print('GOT')
        """,
        kernel=False,
    ),
    "compiled code in its own folder": Attack(
        "import",
        """
        import importlib.machinery as m, importlib.util as u
        open('x.so', 'wb').write(open(SHARED + '/observations.safetensors', 'rb').read())
        loader = m.ExtensionFileLoader('_struct', os.path.abspath('x.so'))
        u.module_from_spec(u.spec_from_loader('_struct', loader)); print('GOT')
        """,
        kernel=False,
    ),
}

PROCESS = """
import json, os, sys
from pathlib import Path
given = json.loads(sys.argv[1])
from metabolismgraph.sandbox import audit_hook
walls = given.pop("walls")
code = given.pop("code")
globals().update(given)
if "custom" in code:
    import jax, metabolismgraph.homeostasis.strategies
if walls == "kernel":
    sys.addaudithook = lambda _: None
if walls and not audit_hook.seal(Path.cwd(), Path(SHARED)) and walls == "kernel":
    sys.exit("NO LANDLOCK")
if walls == "both":
    import numpy
    audit_hook.activate()
assert "observed" in open(SHARED + "/observations.json").read()
exec(code)
"""


def _exploration(path: Path) -> dict[str, str]:
    """Two runs that share observations and a checkpoint; the truth beside the latter."""
    base, folder, other = path / "base", path / "runs" / "0001" / "training", path / "runs" / "0002" / "training"
    shared = base / "training"
    for place in (shared, folder / "strategies", other, base / "data" / "truth", path / "elsewhere"):
        place.mkdir(parents=True)
    import _struct  # noqa: PLC0415

    shutil.copyfile(_struct.__file__, shared / "observations.safetensors")
    (shared / "observations.json").write_text("observed")
    for file in (shared / "phase1.json", shared / "phase1.safetensors", shared / "settings.json"):
        file.write_text("whole")
    for file in (base / "data" / "truth" / "reactions.csv", base / "manifest.json", other / "phase2.json"):
        file.write_text("true = 1")
    (folder / "link.csv").symlink_to(base / "data" / "truth" / "reactions.csv")
    (folder / "strategies" / "linked.py").symlink_to(base / "data" / "truth" / "reactions.csv")
    (path / "elsewhere" / "phase1.json").write_text("true")
    (folder / "elsewhere").symlink_to(path / "elsewhere")
    return {"FOLDER": str(folder), "SHARED": str(shared), "BASE": str(base), "OTHER": str(other)}


def _strike(path: Path, attack: Attack, walls: str) -> tuple[subprocess.CompletedProcess[str], dict[str, bytes]]:
    """What came of it, and what lies outside its folder afterwards."""
    given = _exploration(path)
    command = [
        sys.executable, "-P", "-c", PROCESS,
        json.dumps({**given, "walls": walls, "code": textwrap.dedent(attack.code).strip()}),
    ]  # fmt: skip
    folder = Path(given["FOLDER"])
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    outside = {
        str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file() and folder not in f.parents
    }
    return answer, outside


@pytest.fixture(scope="module")
def struck(tmp_path_factory):
    """Every attack without walls, sealed, and behind the kernel's wall alone."""
    keys = [(name, walls) for name in ATTACKS for walls in ("", "both", "kernel")]

    def strike(key: tuple[str, str]) -> tuple[subprocess.CompletedProcess[str], dict[str, bytes]]:
        return _strike(tmp_path_factory.mktemp("shared"), ATTACKS[key[0]], key[1])

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(keys, pool.map(strike, keys), strict=True))


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    path = tmp_path_factory.mktemp("untouched")
    folder = Path(_exploration(path)["FOLDER"])
    return {
        str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file() and folder not in f.parents
    }


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_works_without_walls(name, struck):
    answer, _ = struck[name, ""]
    assert "GOT" in answer.stdout, answer.stderr


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused_and_reported(name, struck, untouched):
    answer, outside = struck[name, "both"]
    assert answer.returncode == audit_hook.LEAK, answer.stderr
    assert "GOT" not in answer.stdout
    report = json.loads(answer.stdout.splitlines()[-1])
    assert (report["event"], report["tried"]) == ("leak", ATTACKS[name].event)
    assert outside == untouched


@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if attack.kernel])
def test_the_kernel_alone_refuses_it_too(name, struck, untouched):
    answer, outside = struck[name, "kernel"]
    if "NO LANDLOCK" in answer.stderr:
        pytest.skip("this kernel has no Landlock")
    assert answer.returncode != 0
    assert "GOT" not in answer.stdout
    assert outside == untouched


def test_a_shared_folder_inside_of_the_own_is_refused(tmp_path):
    (tmp_path / "training" / "shared").mkdir(parents=True)
    with pytest.raises(ValueError, match="lies in .*, which training writes to; share a folder outside it"):
        audit_hook._bounds(tmp_path / "training", tmp_path / "training" / "shared")


def test_a_shared_folder_around_the_own_holds_its_files_alone(tmp_path):
    (tmp_path / "training").mkdir()
    may_read = audit_hook._reader(audit_hook._bounds(tmp_path / "training", tmp_path))
    here = str(tmp_path.resolve())
    assert may_read(f"{here}/observations.json/")
    assert may_read(f"{here}/training/settings.json/")
    assert not may_read(f"{here}/settings.json/")
    assert not may_read(f"{here}/observations.json/x/")
    assert not may_read(f"{here}/")
