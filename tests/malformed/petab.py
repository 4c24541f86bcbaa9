"""PEtab problems."""

from __future__ import annotations

from collections.abc import Iterator

from malformed.case import Case, Content, calls
from malformed.models import model
from malformed.mutations import mutated

PROBLEM: dict[str, str] = {
    "problem.yaml": "format_version: 1\nparameter_file: parameters.tsv\nproblems:\n- sbml_files: [model.xml]\n"
    "  condition_files: [conditions.tsv]\n  observable_files: [observables.tsv]\n"
    "  measurement_files: [measurements.tsv]\n",
    "model.xml": model(),
    "parameters.tsv": "parameterId\tparameterScale\tlowerBound\tupperBound\tnominalValue\testimate\nk\tlog10\t0.01\t100\t0.5\t1\n",
    "conditions.tsv": "conditionId\nc0\n",
    "observables.tsv": "observableId\tobservableFormula\tnoiseFormula\nobs\tB\t0.1\n",
    "measurements.tsv": "observableId\tsimulationConditionId\tmeasurement\ttime\n"
    + "".join(f"obs\tc0\t{1 - 2.0**-t:.4f}\t{t}\n" for t in range(5)),
}


_COMMANDS = (
    "simulate-petab problem.yaml --out out.tsv",
    "fit-petab problem.yaml --starts 1 --minutes 0.01 --processes 1 --out out --quiet",
)


def _changes() -> Iterator[tuple[str, dict[str, Content]]]:
    for name, plain in PROBLEM.items():
        contents: dict[str, Content] = {
            "empty": "",
            "binary": bytes(range(256)) * 4,
            "spaces": " \n \n",
            "nul": plain.replace("e", "\0", 1),
            "escape": plain.replace("o", "\x1b[31m", 2),
            "utf-16": plain.encode("utf-16"),
            "header only": plain.split("\n")[0] + "\n",
            "twice": plain + plain.split("\n", 1)[-1],
        }
        contents |= {f"mutation {seed}": mutated(plain.encode(), seed) for seed in range(6)}
        for what, content in contents.items():
            yield f"{name} {what}", {name: content}
    cells = {
        "parameters.tsv": {
            "log10": "word",
            "0.01": ("nan", "-1", "1e400", "1000", "x"),
            "0.5": ("nan", "-1", "1e300", "x", "0"),
        },
        "conditions.tsv": {"c0": ("c1", "", "\u202e")},
        "observables.tsv": {
            "B": ("Z", "B+", "1/0", "(" * 5000, "__import__('os')", "B**B**B**1e9", "log(-1)", "A" * 100_000),
            "0.1": ("0", "-1", "nan", "x", "noise", "1e-320"),
        },
        "measurements.tsv": {
            "0.5000": ("nan", "inf", "1e300", "x", "-1e308"),
            "\t4\n": ("\tnan\n", "\tinf\n", "\t-1\n", "\t1e300\n", "\tx\n"),
            "obs": ("other", ""),
        },
        "problem.yaml": {
            "format_version: 1": (
                "format_version: 3",
                "format_version: [1]",
                "format_version: {}",
                "format_version: 2",
            ),
            "model.xml": ("nowhere.xml", "../../../etc/passwd", "[1]", "{a: 1}"),
            "parameters.tsv": ("nowhere", "[nowhere]", "{}", "3", ".", "model.xml"),
            "problems:": ("problem:", "problems: 3\nx:", "problems: {}\nx:"),
        },
        "model.xml": {'"0.7"': ('"nan"', '"1e400"', '"-1e300"')},
    }
    for name, by_text in cells.items():
        for text, others in by_text.items():
            for other in [others] if isinstance(others, str) else others:
                yield f"{name} {text.strip()} is {other.strip()[:20]!r}", {name: PROBLEM[name].replace(text, other)}
    bomb = "a0: &a0 [1,1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]\n" for i in range(1, 20))
    yield "problem.yaml alias bomb", {"problem.yaml": bomb}
    yield "problem.yaml deep", {"problem.yaml": "[" * 3000}
    yield "problem.yaml object", {"problem.yaml": "!!python/object/apply:os.system [ls]\n"}


def petab() -> Iterator[Case]:
    """Problems of version 1."""
    yield from calls("nothing changed", PROBLEM, *_COMMANDS, right=True)
    for name, changed in _changes():
        yield from calls(
            name,
            {**PROBLEM, **changed},
            *_COMMANDS,
        )
