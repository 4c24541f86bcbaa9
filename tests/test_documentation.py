"""README.md and docs/: what they show runs as it stands there, and what they name exists."""

import ast
import contextlib
import doctest
import functools
import importlib
import importlib.util
import io
import json
import os
import pkgutil
import re
import shlex
import statistics
import sys
import tempfile
import tomllib
import types
from collections import defaultdict
from inspect import ismodule
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
import typer
import yaml
from continuous import LOTKA_VOLTERRA, observe

import metabolismgraph as mg
from metabolismgraph.cli import main
from metabolismgraph.cli.app import app
from metabolismgraph.config import load_config, shipped_configs
from metabolismgraph.config.tree import KEYS, SECTIONS
from metabolismgraph.evaluation.variables import VARIABLES
from metabolismgraph.formats.dataset import write_dataset
from metabolismgraph.formats.table_writer import write_timeseries
from metabolismgraph.homeostasis.strategies import STRATEGIES

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "metabolismgraph"
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
}
COMMAND = typer.main.get_command(app)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def load_hooks():
    spec = importlib.util.spec_from_file_location("documentation_hooks", ROOT / "docs" / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    return hooks


HOOKS = load_hooks()


# -- code blocks


class Block(NamedTuple):
    """A fenced block: its language, the name of the file that it is written to, its text and first line."""

    language: str
    title: str | None
    text: str
    line: int


FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def blocks(page):
    text = PAGES[page]
    return [Block(m[1], m[2], m[3], text.count("\n", 0, m.start(3))) for m in FENCE.finditer(text)]


def commands(block):
    """The words of every command of a block."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


class Ran(NamedTuple):
    """What running a page gave: its namespace, and where output differs from what it shows."""

    names: dict
    faults: list


@functools.cache
def run(page):
    """Run the blocks of a page in order, in a folder of its own with two input files."""
    module, faults, shown = types.ModuleType("page"), [], blocks(page)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), page_module(module):
        observations = observe(LOTKA_VOLTERRA, np.linspace(0, 30, 301))
        write_dataset(Path(), observations)
        write_timeseries(observations, Path("timeseries.csv"))
        for block, following in zip(shown, [*shown[1:], None], strict=True):
            expected = following.text if following is not None and following.language == "output" else None
            if block.title:
                Path(block.title).write_text(block.text)
            if block.language == "python":
                printed = run_python(block, page, module)
            elif block.language == "sh" and expected is not None:
                printed = "".join(run_command(words) for words in commands(block))
            else:
                continue
            options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            if expected is not None and not doctest.OutputChecker().check_output(expected, printed, options):
                faults.append(f"{page}:{block.line}: expected\n{expected}\nprinted\n{printed}")
    return Ran(vars(module), faults)


@contextlib.contextmanager
def page_module(module):
    sys.modules[module.__name__] = module  # where annotations are looked up
    try:
        yield
    finally:
        del sys.modules[module.__name__]


def run_python(block, page, module):
    code = compile("\n" * block.line + block.text, str(ROOT / page), "exec", dont_inherit=True)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, vars(module))
    return printed.getvalue()


def run_command(words):
    """What a command of ours prints, to standard output and to standard error."""
    before, width = sys.argv, os.environ.get("COLUMNS")
    sys.argv, os.environ["COLUMNS"] = words, "120"
    try:
        to = io.StringIO()
        with (
            contextlib.redirect_stdout(to),
            contextlib.redirect_stderr(to),
            contextlib.suppress(SystemExit),
            mock.patch("metabolismgraph.cli.app.skip_last_collection"),  # the process goes on
        ):
            main()
    finally:
        sys.argv = before
        os.environ.pop("COLUMNS") if width is None else os.environ.update(COLUMNS=width)
    return to.getvalue()


@pytest.mark.parametrize("page", [page for page in PAGES if any(b.language == "python" for b in blocks(page))])
def test_code_runs_and_prints_what_is_shown(page):
    assert not run(page).faults, "\n".join(run(page).faults)


@pytest.mark.parametrize("page", PAGES)
def test_blocks_are_of_a_known_kind(page):
    shown = blocks(page)
    assert PAGES[page].count("```") == 2 * len(shown)
    known = {"python", "sh", "output", "yaml", "xml", "text"}
    assert not [f"{page}:{block.line}" for block in shown if block.language not in known]
    for block, following in zip([None, *shown], shown, strict=False):
        assert following.language != "output" or block.language in {"python", "sh"}


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page):
    for block in blocks(page):
        if block.language == "sh":
            for words in commands(block):
                check_command(words, refused="error:" in PAGES[page].split(block.text)[1][:40])


def check_command(words, *, refused=False):
    """A command line is one that the program, make or pip takes."""
    match words:
        case ["make", target, *_]:
            assert target in TARGETS, target
        case ["pip", "install", what]:
            extras = re.fullmatch(r"\.(?:\[([\w,]+)\])?", what)
            assert extras, what
            assert set(filter(None, (extras[1] or "").split(","))) <= set(PROJECT["optional-dependencies"])
        case ["metabolismgraph", *rest]:
            name, command, rest = leaf(rest)
            if getattr(command, "commands", None):
                return  # an option of the program itself
            context = command.make_context(name, rest)
            if not refused:
                load_config("oscillatory_rank50", context.params.get("set_") or [])
                config = context.params.get("config")
                assert config is None or config.endswith(".yaml") or config in shipped_configs(), config
        case _:
            raise AssertionError(f"what is {words[0]}?")


def leaf(words):
    """The command that words name, and the words that are left."""
    name, command = "metabolismgraph", COMMAND
    while getattr(command, "commands", None) and words[:1] not in [[option] for option in options_of(command)]:
        assert words, f"{name} needs a command"
        name, *words = words
        assert name in command.commands, name
        command = command.commands[name]
    return name, command, words


@pytest.mark.parametrize("page", PAGES)
def test_yaml_is_a_configuration(page, tmp_path):
    for block in blocks(page):
        # Search spaces have a test of their own.
        if block.language == "yaml" and not page.endswith("search_spaces.md"):
            (tmp_path / "shown.yaml").write_text(block.text)
            load_config(tmp_path / "shown.yaml")


# -- words in code style

# Names of a reader's own, ids of examples, pieces of notation and other programs.
EXAMPLES = {"NAME", "id_conc", "time_s", "sh", "MLP_sub"}
FILE = re.compile(
    r"[\w./*-]+(\.(csv|tsv|xml|gz|html|jsonl?|log|nc|png|tif|ya?ml|py|md|safetensors|txt|toml|parquet|pt|npy)|/)"
)
CODE = re.compile(r"[A-Za-z_][\w.]*")


def spans(page):
    """What stands between backticks, outside of blocks."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", FENCE.sub("", PAGES[page]))]


def constants(tree):
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def names_in(tree):
    """Every name of a syntax tree."""
    for node in ast.walk(tree):
        for field in ("id", "attr", "arg", "name", "asname", "module"):
            name = getattr(node, field, None)
            if isinstance(name, str):
                yield from name.split(".")


@functools.cache
def source():
    """All texts of the source, one below the other, and all names, texts of one word included."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]
    texts = [text for tree in trees for text in constants(tree)]
    names = {name for tree in trees for name in names_in(tree)} | {text for text in texts if CODE.fullmatch(text)}
    names |= {key.rpartition(".")[2] for key in KEYS} | {
        *STRATEGIES,
        *shipped_configs(),
        *PROJECT["optional-dependencies"],
    }
    wanted = [*PROJECT["dependencies"], *(d for extra in PROJECT["optional-dependencies"].values() for d in extra)]
    names |= set(re.findall(r"[\w-]+", " ".join(wanted)))
    return "\n".join(texts), names


def fault(span):
    """What is wrong with a word in code style, or an empty text."""
    if span in EXAMPLES:
        return ""
    section = re.match(r"(\w+)\.", span)
    if section and section[1] in SECTIONS:
        return "" if re.split(r"[=: ]", span)[0] in KEYS else "no such key"
    return next((check(span) for pattern, check in CHECKS if re.fullmatch(pattern, span)), "")


def fault_of_command(span):
    name, command = "metabolismgraph", COMMAND
    for word in shlex.split(span)[1:]:
        inner = getattr(command, "commands", None)
        if inner and word not in options_of(command):
            if word not in inner:
                return f"{name} has no command {word}"
            name, command = word, inner[word]
        elif word.startswith("-") and word not in options_of(command):
            return f"{name} has no option {word}"
    return ""


def fault_of_name(span):
    texts, names = source()
    unknown = [part for part in span.split(".") if part not in names and not is_family(part, texts)]
    return f"nothing is called {unknown[0]}" if unknown else ""


# What a word looks like, and what must be there then.
CHECKS = (
    (r"metabolismgraph .*", fault_of_command),
    (r"make .*", lambda span: "" if span.split()[1] in TARGETS else "no such target"),
    (r"--.*", lambda span: "" if re.split(r"[ =]", span)[0] in every_option() else "no such option"),
    (r"mg\..*", lambda span: "" if hasattr(mg, re.split(r"\W", span[3:])[0]) else "not in metabolismgraph"),
    (FILE, lambda span: "" if is_file(span, source()[0]) else "no such file"),
    (r"metabolismgraph\..*", lambda span: "" if is_module(span) else "no such module"),
    (CODE, fault_of_name),
)


def is_module(span):
    try:
        return importlib.util.find_spec(span) is not None
    except ModuleNotFoundError:
        return False


def options_of(command):
    return {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"--help"}


@functools.cache
def every_option():
    def below(command):
        inner = getattr(command, "commands", {}).values()
        return options_of(command).union(*(below(one) for one in inner))

    return below(COMMAND) | set(re.findall(r"--[a-z-]+", (ROOT / "Makefile").read_text()))


def is_file(span, texts):
    """Whether a file of the repository, or one that the source names; NAME, STEP and digits stand for anything."""
    if any((folder / span).exists() for folder in (ROOT, ROOT / "docs", PACKAGE)):
        return True
    parts = [part for part in re.split(r"[/*]|NAME|STEP|\d{4}|(?=\.safetensors)", span) if part]
    return all(part in (source()[1] if span.endswith("/") else texts) for part in parts)


def is_family(word, texts):
    """Whether the source has a name with the number of a type T, of a cluster G, or with any NAME in it."""
    pieces = re.split(r"(?<=_)(?:T|G|NAME)(?=_|$)", word)
    return len(pieces) > 1 and all(piece in texts for piece in pieces)


@pytest.mark.parametrize("page", PAGES)
def test_what_is_named_exists(page):
    faults = {span: fault(span) for span in spans(page)}
    assert not {span: why for span, why in faults.items() if why}


@pytest.mark.parametrize(
    "span",
    [
        *("training.sede", "metabolismgraph run --sede", "metabolismgraph fits", "make tests", "--checkpint"),
        *("mg.reed", "rate_constant.csv", "reactions/phase1.py", "avg_slope_ratios", "result.rate_konstants"),
        *("metabolismgraph.reactions.phase1", "MLP_node_slop_ratio_T", "residuum", "no_such_folder/"),
    ],
)
def test_what_does_not_exist_is_found(span):
    assert fault(span)


# -- tables that must be complete


def metric_rows():
    page = PAGES["docs/outputs.md"]
    table = page[page.index("## Metrics") : page.index("## Figures")]
    return {row[0]: row[1] == "truth" for row in re.findall(r"^\| `(\w+)` \|.*\| (\w*) ?\|$", table, re.MULTILINE)}


def general(metric):
    """A metric with T in place of the number of a type, G in that of a cluster."""
    metric = re.sub(r"(_cluster)_\d+$", r"\1_G", metric)
    return re.sub(r"(MLP_node_\w*(?:slope|offset)(?:_ratio)?)_\d+", r"\1_T", metric)


def test_metrics_are_described_and_marked_if_they_use_the_truth():
    rows = metric_rows()
    of_run = {"training_time_min", "notes", "refined_NAME"}
    with_truth = {general(name) for name in run("docs/tutorial.md").names["evaluation"].metrics}
    evaluated = mg.evaluate(run("README.md").names["result"])
    without = {general(name) for name in evaluated.metrics}
    assert with_truth | without | of_run == set(rows)
    assert with_truth - without == {name for name, truth in rows.items() if truth} | {"MLP_sub_R2", "MLP_sub_corr"}
    for table in (evaluated.rate_constants, evaluated.homeostasis):
        for column in table.columns:
            assert f"`{column}`" in PAGES["docs/outputs.md"]


@pytest.mark.parametrize("name", VARIABLES)
def test_every_variable_of_evaluation_nc_has_its_line(name):
    assert f"| `{name}` | {VARIABLES[name][0]} |" in PAGES["docs/outputs.md"]


def test_every_strategy_has_its_paragraph():
    for name, strategy in STRATEGIES.items():
        assert f"\n**`{name}`** ({strategy.number}) " in PAGES["docs/strategies.md"]


def test_every_key_has_its_line():
    table = HOOKS.configuration()
    for key in KEYS:
        assert re.search(rf"^\| `{re.escape(key)}` \| `[^`]+` \| [^|]* \| \w", table, re.MULTILINE), key
    left = [text for text in re.findall(r"\[([^]]*)\]", re.sub(r"`[^`]*`", "", table)) if text and "," not in text]
    assert left == [], "units that hooks.py does not know"


def test_every_command_has_its_section():
    def paths(command, path):
        inner = getattr(command, "commands", None) or {}
        return [path] if not inner else [p for name, one in inner.items() for p in paths(one, f"{path} {name}")]

    text = HOOKS.command_line()
    for path in paths(COMMAND, "metabolismgraph"):
        assert f"\n## {path}\n" in text
    for option in every_option() - {"--help"} & set(re.findall(r"--[a-z-]+", text)):
        assert f"`{option}`" in text or f" {option}`" in text
    for example in re.findall(r"^Example: `(.*)`$", text, re.MULTILINE):
        check_command(shlex.split(example))


def test_every_reader_has_its_refusals_listed():
    listed = {module for modules in HOOKS.READERS.values() for module in modules}
    raising = {
        path.relative_to(PACKAGE).as_posix()
        for path in (PACKAGE / "formats").glob("*.py")
        if "raise InputError" in path.read_text()
    }
    assert raising <= listed
    assert "FILE: the table has no rows" in HOOKS.refusals()


def test_every_public_name_has_its_page():
    text = HOOKS.python()
    for name in mg.__all__:
        if callable(getattr(mg, name)) or ismodule(getattr(mg, name)):
            assert re.search(rf"^::: metabolismgraph\.[\w.]*\b{name}$", text, re.MULTILINE), name


def test_no_module_hides_a_public_name():
    """Importing a submodule sets an attribute of its name on the package."""
    for module in pkgutil.walk_packages(mg.__path__, "metabolismgraph."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in mg.__all__:
        assert ismodule(getattr(mg, name)) == (name == "plot"), name


# -- links, and the site


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", PAGES[page]):
        assert ((ROOT / page).parent / target).exists(), target


def test_every_page_is_in_the_menu():
    text = re.sub(r"^(extra_css|  polyfills).*$", "", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE)
    menu = re.findall(r"[\w/]+\.md", yaml.dump(yaml.safe_load(text)["nav"]))
    pages = {Path(page).name for page in PAGES if page.startswith("docs/")}
    assert pages == {page for page in menu if "/" not in page}
    notebooks = {page for page in menu if page.startswith("notebooks/")}
    assert notebooks == {f"notebooks/{path.stem}.md" for path in (ROOT / "docs" / "notebooks").glob("*.ipynb")}
    assert all((ROOT / page).exists() for page in menu if "/" in page and page not in notebooks)


def test_nothing_is_loaded_from_elsewhere():
    for path in (ROOT / "docs").rglob("*"):
        if path.suffix in {".md", ".js", ".css"}:
            assert not re.search(r"(\(|import|src=.)\s*[\"']?(https?:)?//\w", path.read_text(encoding="utf-8")), path


# -- figures in README.md


def test_version_to_cite_is_this_one():
    assert f"version {PROJECT['version']}:" in PAGES["docs/citation.md"]


def test_readme_is_short():
    assert len(PAGES["README.md"].splitlines()) < 90


def test_figures_of_recovery_are_those_of_the_benchmark():
    text = " ".join(PAGES["README.md"].split())
    cases = json.loads((ROOT / "benchmarks" / "recovery.json").read_text())["cases"]
    metrics = [case["metrics"] for case in cases]
    ratio = re.compile(r"MLP_node_(slope|offset)_ratio_\d+")
    farthest = max(abs(v - 1) for m in metrics for name, v in m.items() if ratio.fullmatch(name))
    every = [m["rate_constants_R2"] for m in metrics]
    rank50 = [case for case in cases if case["config"] == "oscillatory_rank50"]
    phase1, phase2 = (statistics.median(c[key] for c in rank50) for key in ("phase1_s", "phase2_s"))
    assert f"{len(cases)} cases" in text
    assert f"1 - {1 - min(m['rate_constants_R2_identifiable'] for m in metrics):.0e}" in text
    assert farthest <= float(re.search(r"within ([\d.]+) of 1", text)[1]) < farthest + 2e-4
    assert min(m["embedding_cluster_acc"] for m in metrics) == 1
    assert f"{min(every):.3f} (median {statistics.median(every):.3f})" in text
    assert f"they take {phase1:.1f} s and {phase2:.1f} s" in text


def test_figures_of_textbook_networks_are_those_of_the_benchmark():
    text, report = " ".join(PAGES["README.md"].split()), (ROOT / "benchmarks" / "models.md").read_text()
    assert "| clean cases with a false alarm | 1 of 31," in report
    assert "| corrupted twins missed | 0 of 120," in report
    recovered = int(re.search(r"\| corrupted twins recovered \| (\d+) of 120,", report)[1])
    assert "31 textbook networks" in text
    assert "120 deliberately corrupted variants" in text
    assert f"in {recovered} of the 31 with coarse samples, the right constants are found" in text
    assert "One of the 31 uncorrupted networks is wrongly reported" in text


def test_figures_of_strategies_are_those_of_the_benchmark():
    """The tables by rollout length: medians over the simulations, of the type that is farthest from 1."""
    lines = (ROOT / "benchmarks" / "strategies" / "strategies.jsonl").read_text().splitlines()
    header, *rows = map(json.loads, lines)
    far = defaultdict(list)
    for row in rows:
        if "slope_ratio" in row and row["sweep"] is None:
            place = row["config"], row["strategies"], row["checkpoint"], row["T"]
            far[place].append(max(abs(ratio - 1) for ratio in row["slope_ratio"]))
    checkpoints = ("projection", "imperfect 0.87", "imperfect 0.70")
    for config in header["configs"]:
        text = PAGES["docs/strategies.md"].split(f"\n{config}:\n\n", 1)[1].split("\n\n", 1)[0]
        shown = {name: cells for name, *cells in table_rows(text)[1:]}
        assert list(shown) == header["strategies"]
        for name, cells in shown.items():
            found = [
                far.get((config, name, checkpoint, steps)) or far[config, name, checkpoint, None]
                for checkpoint in checkpoints
                for steps in header["time_steps"]
            ]
            assert all(len(each) == header["seeds"] for each in found)
            np.testing.assert_allclose(
                [float(cell) for cell in cells], list(map(statistics.median, found)), rtol=0.1, atol=1e-4
            )


def table_rows(text):
    """Cells of a Markdown table, without the line below its headings."""
    lines = [line for line in text.strip().splitlines() if not line.startswith("|--")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
