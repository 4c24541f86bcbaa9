"""Generated parts of the site: the reports of `benchmarks/`, executed notebooks, and text made from the source.

A line such as `<!-- made from the source: configuration -->` in a page is replaced by the text of a function.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import annotated_types
import typer

import metabolismgraph as mg
from metabolismgraph.cli.app import app
from metabolismgraph.config import Config, shipped_configs
from metabolismgraph.config.tree import SECTIONS
from metabolismgraph.homeostasis.strategies import STRATEGIES
from metabolismgraph.schedulers.settings import ClusterSettings

if TYPE_CHECKING:
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "metabolismgraph"
MARK = re.compile(r"<!-- made from the source: ([a-z ]+) -->")
# Classes of the results of public functions.
RESULTS = (
    "metabolismgraph.fitting.result.FitResult",
    "metabolismgraph.fitting.trust.Trust",
    "metabolismgraph.evaluation.evaluate.Evaluation",
    "metabolismgraph.reactions.identifiability.Identifiability",
    "metabolismgraph.uncertainty.profile.Profile",
    "metabolismgraph.uncertainty.bootstrap.Bootstrap",
    "metabolismgraph.uncertainty.next_measurement.Suggestions",
)
# Modules of the readers, by heading of their refusals.
READERS = {
    "The files together": ("formats/__init__.py", "formats/network_and_table.py"),
    "The network file": ("formats/sbml.py", "formats/antimony.py", "formats/sbml_reader.py", "system/network.py"),
    "The table as a file": ("formats/contents.py", "formats/dialects.py", "formats/layout.py"),
    "Columns and cells": ("formats/headers.py", "formats/tables.py"),
    "The numbers": ("system/observations.py", "reactions/fit.py"),
    "Folders of data sets": ("formats/dataset.py",),
    "Models to simulate": ("kinetic_models/from_sbml.py", "kinetic_models/simulation.py"),
    "Models and tables": (
        "kinetic_models/problem.py",
        "kinetic_models/experiments.py",
        "kinetic_models/edited_model.py",
        "kinetic_models/observable_formulas.py",
        "kinetic_models/observable_table.py",
        "kinetic_models/comparison.py",
    ),
    "PEtab problems": (
        "formats/petab.py",
        "formats/petab_v2.py",
        "kinetic_models/measurements.py",
        "kinetic_models/likelihood.py",
        "kinetic_models/priors.py",
        "kinetic_models/starts.py",
        "kinetic_models/held_out.py",
        "kinetic_models/objective.py",
        "kinetic_models/estimation.py",
        "runs/petab.py",
    ),
    "Conversions": (
        "runs/conversion.py",
        "formats/model_conversion.py",
        "formats/table_conversion.py",
        "formats/combine_archive.py",
        "files.py",
    ),
    "Files of the published program": ("formats/published.py", "formats/torch_file.py", "ground_truth/published.py"),
}
_UNIT = re.compile(
    r" \[(c|time|1/time|frames|units|relative|log10 k|0-1|minutes|hours|s|US dollars|dots per inch|embedding units)\]"
)
_BOUNDS = {annotated_types.Ge: ("≥", "ge"), annotated_types.Gt: (">", "gt")}
_BOUNDS |= {annotated_types.Le: ("≤", "le"), annotated_types.Lt: ("<", "lt")}


def on_files(files: Files, config: Any) -> Files:
    """Add reports and figures of the benchmarks, and notebooks, as pages."""
    from mkdocs.structure.files import File  # noqa: PLC0415 - tests use the rest without it

    for path in sorted((ROOT / "benchmarks").rglob("*")):
        if (path.suffix in {".md", ".png"} or path.name == "speed.json") and "checkpoints" not in path.parts:
            uri = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        for uri, content in notebook(path).items():
            files.append(File.generated(config, f"notebooks/{uri}", content=content))
    return files


def notebook(path: Path) -> dict[str, str | bytes]:
    """An executed notebook as a page in Markdown, and its figures, by file."""
    from nbconvert import MarkdownExporter  # noqa: PLC0415 - tests use the rest without it

    names = {"unique_key": path.stem, "output_files_dir": path.stem}
    text, made = MarkdownExporter().from_filename(str(path), names)
    title, _, rest = text.partition("\n")
    below = f"This page is a notebook: download [{path.name}]({path.name}) to run it.\n"
    return {f"{path.stem}.md": f"{title}\n\n{below}{rest}", **made["outputs"]}


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Fill in text made from the source; links to the benchmarks and notebooks lead to their pages."""
    if page.file.src_uri.startswith("notebooks/"):
        return markdown
    filled = MARK.sub(lambda mark: MADE[mark[1]](), markdown)
    return filled.replace("](../benchmarks/", "](benchmarks/").replace(".ipynb)", ".md)")


def command_line() -> str:
    """Every command with its arguments and options."""
    return "\n".join(_command(typer.main.get_command(app), "metabolismgraph"))


def _command(command: Any, path: str) -> Iterator[str]:
    nested = getattr(command, "commands", None)
    if nested is None:
        yield f"\n## {path}\n\n{inspect.cleandoc(command.help or '')}\n"
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option"]
        words = [p.name.upper() if p.required else f"[{p.name.upper()}]" for p in arguments]
        yield f"```text\n{' '.join([path, *words, *(['[OPTIONS]'] if options else [])])}\n```\n"
        rows = [(f"`{p.name.upper()}`", p) for p in arguments]
        rows += [(" ".join(f"`{name}`" for name in (*p.opts, *p.secondary_opts)), p) for p in options]
        if rows:
            yield "| argument or option | default | meaning |\n|---|---|---|"
            yield from (f"| {name} | {_default(p.default)} | {_cell(p.help or '')} |" for name, p in rows)
        if command.epilog:
            yield f"\n{command.epilog.replace('Example: ', 'Example: `', 1)}`\n"
        return
    for parameter in command.params:
        if parameter.opts != ["--help"]:
            yield f"\n`{path}` `{parameter.opts[0]}`: {_cell(parameter.help or '')}\n"
    for name, inner in nested.items():
        yield from _command(inner, f"{path} {name}")


def _default(value: Any) -> str:
    if value is None or value is False or value is Ellipsis or callable(value) or value == ():
        return ""
    return f"`{value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("{", "&#123;").replace("<", "&lt;")


def configuration() -> str:
    """Every key with default, unit, bounds and meaning."""
    lines = ["## Top level\n", *_keys(Config, "", leave_out=SECTIONS)]
    for name, section in SECTIONS.items():
        lines += [f"\n## {name}\n", f"{inspect.cleandoc(section.__doc__ or '')}\n", *_keys(section, f"{name}.")]
    return "\n".join(lines)


def cluster_settings() -> str:
    """Every setting of a cluster."""
    return "\n".join(_keys(ClusterSettings, ""))


def _keys(section: Any, prefix: str, leave_out: Any = ()) -> Iterator[str]:
    yield "| key | default | unit | meaning |\n|---|---|---|---|"
    for name, field in section.model_fields.items():
        if name in leave_out:
            continue
        text = field.description or ""
        unit = _UNIT.search(text)
        meaning = _cell(_UNIT.sub("", text))
        bounds = f" ({limits})" if (limits := ", ".join(_bounds(field))) else ""
        yield f"| `{prefix}{name}` | `{_yaml(field.default)}` | {unit[1] if unit else ''} | {meaning}{bounds} |"


def _bounds(field: Any) -> Iterator[str]:
    for limit in field.metadata:
        sign = _BOUNDS.get(type(limit))
        if sign:
            yield f"{sign[0]} {getattr(limit, sign[1]):g}"


def _yaml(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    return f"{value:g}" if isinstance(value, float) else '""' if value == "" else str(value)


def shipped() -> str:
    """The ready-made configurations."""
    rows = (f"| `{name}` | {_cell(text)} |" for name, text in shipped_configs().items())
    return "\n".join(["| name | description |\n|---|---|", *rows])


def strategies() -> str:
    """Every strategy with its options."""
    lines = ["| strategy | options (default) | needs | reference |\n|---|---|---|---|"]
    for name, strategy in STRATEGIES.items():
        options = "<br>".join(
            f"`{option}` ({_yaml(field.default)}): {_cell(field.description or '')}"
            for option, field in strategy.model_fields.items()
        )
        lines.append(f"| `{name}` | {options} | {strategy.needs} | {strategy.reference} |")
    return "\n".join(lines)


def refusals() -> str:
    """Every refusal of the readers, by kind of file."""
    lines: list[str] = []
    for heading, modules in READERS.items():
        lines += [f"\n### {heading}\n", "```text", *(text for name in modules for text in _messages(name)), "```"]
    return "\n".join(lines)


def _messages(module: str) -> list[str]:
    """The texts of all InputErrors of a module in order, with … for parts that depend on the case."""
    tree = ast.parse((SOURCE / module).read_text(encoding="utf-8"))
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    raised = [
        node.exc
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and ast.unparse(node.exc.func) == "InputError"
    ]
    texts = [_text(call.args[0], constants) for call in sorted(raised, key=lambda call: call.lineno)]
    return list(dict.fromkeys(text for text in texts if re.search(r"\w{3}", text.replace("FILE", ""))))


def _text(node: ast.expr, constants: dict[str, Any]) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, constants) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        name = ast.unparse(node.value)
        if name in constants:
            return str(constants[name])
        return "FILE" if name in {"path", "source", "self.source", "self.path", "folder"} else "…"
    return "…"


def python() -> str:
    """Every public name, functions first, then the classes of their results."""
    public = [getattr(mg, name) for name in mg.__all__]
    modules = [one.__name__ for one in public if inspect.ismodule(one)]
    public = [one for one in public if callable(one)]  # without the version
    public.sort(key=inspect.isclass)
    names = [*(f"{one.__module__}.{one.__name__}" for one in public), *modules]
    return "\n\n".join(f"::: {name}" for name in dict.fromkeys([*names, *RESULTS]))


MADE = {
    "command line": command_line,
    "configuration": configuration,
    "cluster settings": cluster_settings,
    "shipped configurations": shipped,
    "strategies": strategies,
    "refusals": refusals,
    "python": python,
}
