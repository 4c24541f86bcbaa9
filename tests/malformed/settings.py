"""Configurations and options."""

from __future__ import annotations

from collections.abc import Iterator

from malformed.case import Case, Content, calls
from malformed.models import TABLE, model
from malformed.mutations import mutated

_VALID = "description: mine\nsimulation:\n  n_metabolites: 6\n  n_reactions: 9\n  n_frames: 60\ntraining:\n  seed: 1\n"
_SIZES = (
    *("simulation.n_metabolites", "simulation.n_reactions", "simulation.n_frames", "simulation.n_runs"),
    *("simulation.n_metabolite_types", "simulation.cycle_length", "simulation.max_metabolites_per_reaction"),
    "simulation.start_frame",
)
_COUNTS = (
    *("training.n_epochs", "training.batch_size", "training.data_augmentation_loop", "training.phase1_max_iterations"),
    *("training.phase2_steps", "training.homeostasis_time_step", "training.time_step", "training.phase1_frame_stride"),
    *("training.held_out_part", "graph_model.hidden_dim_sub", "graph_model.n_layers_node", "plotting.dpi"),
    *("exploration.n_parallel", "exploration.n_iter_block", "exploration.replicates", "exploration.n_workers"),
)
_NUMBERS = (
    *("simulation.delta_t", "simulation.concentration_min", "simulation.concentration_max", "simulation.log_k_max"),
    *("simulation.homeostatic_strength", "simulation.noise_model_level", "simulation.measurement_noise_level"),
    *("simulation.cycle_fraction", "simulation.michaelis_constant", "training.learning_rate_start"),
    *("training.held_out_fraction", "training.coeff_similarity", "exploration.slot_minutes", "exploration.ucb_c"),
)


def _yaml() -> dict[str, Content]:
    many = "\n".join(f"a{i}: &x{i} 1" for i in range(20_000))
    found: dict[str, Content] = {
        "empty": "",
        "null": "null\n",
        "a number": "3\n",
        "a list": "- 1\n- 2\n",
        "a word": "hello\n",
        "tabs": "simulation:\n\tn_frames: 3\n",
        "deep list": "[" * 3000 + "]" * 3000,
        "deep mapping": "{a: " * 3000 + "1" + "}" * 3000,
        "deep block": "".join("  " * i + "a:\n" for i in range(1500)),
        "merged bomb": "a0: &a0 {k: 1}\n"
        + "".join(f"a{i}: &a{i}\n  <<: [*a{i - 1}, *a{i - 1}, *a{i - 1}]\n" for i in range(1, 14)),
        "alias bomb": "a0: &a0 [1,1]\n"
        + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]\n" for i in range(1, 20)),
        "alias bomb in a value": "description: &a0 [1,1]\nsimulation:\n"
        + "".join(f"  a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]\n" for i in range(1, 20)),
        "contains itself": "simulation: &a [*a]\n",
        "merges itself": "simulation: &a\n  <<: *a\n",
        "mapping that contains itself": "simulation: &a\n  rate_law: *a\n",
        "huge number": "simulation: {n_frames: " + "9" * 100_000 + "}\n",
        "huge number as text": 'simulation: {n_frames: "' + "9" * 5000 + '"}\n',
        "long text": 'description: "' + "x" * 5_000_000 + '"\n',
        "date": "description: 99999-99-99\n",
        "real date": "description: 2001-12-14\n",
        "sexagesimal": "simulation: {n_frames: " + "1:" * 2000 + "1}\n",
        "octal": "simulation: {seed: 0o" + "7" * 10_000 + "}\n",
        "hexadecimal": "simulation: {seed: 0x" + "f" * 100_000 + "}\n",
        "python object": "description: !!python/object/apply:os.system [ls]\n",
        "complex key": "? [1,2]\n: 3\n",
        "mapping as a key": "? {a: 1}\n: 2\n",
        "key of a number": "1: 2\n",
        "key of null": "null: 2\n",
        "nul": "description: a\0b\n",
        "escape": 'description: "\\e[31m"\n',
        "escape in a key": '"\\e[31mred": 1\n',
        "escape in a value": 'simulation: {n_frames: "\\e[31m"}\n',
        "long key": "x" * 1_000_000 + ": 1\n",
        "set": "!!set {a,b}\n",
        "omap": "!!omap [a: 1]\n",
        "binary": "description: !!binary xxxx\n",
        "binary in a section": "simulation: !!binary aGVsbG8=\n",
        "twice": "description: 1\ndescription: 2\n",
        "many anchors": many,
        "two documents": "description: a\n---\ndescription: b\n",
        "many documents": "---\n" * 10_000,
        "directive": "%YAML 99.9\n---\ndescription: a\n",
        "not closed": "description: [1, 2\n",
        "latin-1": "description: \xe4\n".encode("latin-1"),
        "utf-16": _VALID.encode("utf-16"),
        "binary file": bytes(range(256)),
        "sections of other kinds": "simulation: 3\n",
        "section as a list": "simulation: [1, 2]\n",
        "section of null": "simulation:\n",
        "rate law of another kind": "simulation: {rate_law: [1]}\n",
        "unknown rate law": "simulation: {rate_law: {magic: {}}}\n",
        "two rate laws": "simulation: {rate_law: {mass_action: {}, michaelis_menten: {half_saturation: 5}}}\n",
        "wrong parameter of a rate law": "simulation: {rate_law: {michaelis_menten: {half_saturation: -5}}}\n",
        "huge parameter of a rate law": "simulation: {rate_law: {michaelis_menten: {half_saturation: 1.0e308}}}\n",
        "types without end": "simulation: {homeostatic_lambda_per_type: [" + "1," * 100_000 + "1]}\n",
        "strategies of another kind": "training: {strategies: [1, 2]}\n",
        "unknown strategy": "training: {strategies: [magic]}\n",
        "nested strategy": "training: {strategies: [{residual: {weights: [[[[1]]]]}}]}\n",
        "name as a path": "dataset: ../../x\n",
        "name that is long": "dataset: " + "x" * 5000 + "\n",
        "name with a line": 'dataset: "a\\nb"\n',
        "name with nul": 'dataset: "a\\0b"\n',
    }
    return found | {f"mutation {seed}": mutated(_VALID.encode(), seed) for seed in range(30)}


def yaml_files() -> Iterator[Case]:
    """Configurations as YAML files."""
    yield from calls("nothing changed", {"c.yaml": _VALID}, "configs --show c.yaml", right=True)
    for name, content in _yaml().items():
        yield from calls(
            name, {"c.yaml": content}, "configs --show c.yaml", "run c.yaml --out out --set training.skip_phase1=true"
        )


def values() -> Iterator[Case]:
    """Values of keys that are too large, too small or of another kind."""
    quick = "--set simulation.n_metabolites=6 --set simulation.n_reactions=9 --set simulation.n_frames=60"
    for key in _SIZES:
        for value in ("1000000000", "1000000000000", "1e30", "-1", "0.5", "true", "null", "[1]", "9" * 30):
            yield Case(f"{key} {value[:12]}", ("simulate", "small", "--out", "out", "--set", f"{key}={value}"))
    for key in _COUNTS:
        for value in ("1000000000000", "-1", "1e30", "many"):
            words = f"run small --out out --set training.skip_phase1=true --set {key}={value}".split()
            yield Case(f"{key} {value}", tuple(words))
    for key in _NUMBERS:
        for value in ("1e300", "-1", "nan", "inf", "1e-320", "word"):
            words = f"simulate small --out out {quick} --set {key}={value}".split()
            yield Case(f"{key} {value}", tuple(words), fails=True)
    for key in ("simulation.seed", "training.seed"):
        for value in ("18446744073709551616", "-1", "1e30", "9" * 400, "18446744073709551615", "9223372036854775808"):
            words = f"simulate small --out out {quick} --set {key}={value}".split()
            yield Case(f"{key} {value[:22]}", tuple(words))


def options() -> Iterator[Case]:
    """Options with values that make no sense."""
    files = {"m.xml": model(), "t.csv": TABLE}
    simulate = "simulate-model m.xml --end 1 --points 3"
    fit = "fit-model m.xml t.csv --starts 1 --minutes 0.01 --processes 1 --out out"
    words = [
        *(
            f"simulate-model m.xml --end {end} --points 3"
            for end in ("-1", "nan", "inf", "1e300", "0", "word", "1e-320", "")
        ),
        *(
            f"simulate-model m.xml --end 1 --points {n}"
            for n in ("-1", "0", "1", "1000000000", "1000000000000", "1e3", "9" * 30)
        ),
        *(
            f"{simulate} --value {v}"
            for v in ("k", "k=", "=1", "k=nan", "k=inf", "k=word", "q=1", "k=1e999", "k=-1e300", "A=-1")
        ),
        *(f"{simulate} --variables {v}" for v in ("q", ",", "A,A", "x" * 10_000)),
        *(f"{fit} --fold {v}" for v in ("0", "-1", "nan", "inf", "1e300", "1")),
        *(f"{fit} --prior {v}" for v in ("0", "-1", "nan", "inf", "1e300", "1")),
        *(f"{fit} --noise {v}" for v in ("0", "-1", "nan", "inf", "1e300")),
        *(f"{fit} --seed {v}" for v in ("-1", "18446744073709551616", "9" * 400, "0.5")),
        *(f"{fit} --hold-out-after {v}" for v in ("-1", "nan", "inf", "1e300", "0")),
        *(f"fit-model m.xml t.csv --out out --processes 1 --starts {v}" for v in ("0", "-1", "word", "9" * 30)),
        *(
            f"fit-model m.xml t.csv --out out --starts 1 --minutes 0.01 --processes {v}"
            for v in ("0", "-1", "1000000000")
        ),
        *(f"fit-model m.xml t.csv --out out --starts 1 --processes 1 --minutes {v}" for v in ("-1", "nan")),
        *(f"{fit} --law {v}" for v in ("R", "R=magic", "Q=learned", "R=", "=learned", "*=learned,magic")),
        *(f"{fit} --estimate {v}" for v in ("q", "[", "**", "?")),
        *(f"{fit} --input {v}" for v in ("q", "[", "B")),
        *(f"{fit} --homeostasis {v}" for v in ("q", "[")),
        *(f"{fit} --deviations {v}" for v in ("q", "*", "**", "*_sd")),
        *(
            f"{fit} --observable {v}"
            for v in ("q", "q=", "total=A+", "total=__import__('os')", "total=A**A**A", "total=" + "(" * 5000)
        ),
        *(f"{fit} --map {v}" for v in ("q", "q=A", "A=B", "=", "A=")),
        *(f"{fit} --relative {v}" for v in ("q", "[")),
        *(f"{fit} --offset {v}" for v in ("q", "[")),
        "identify m.xml t.csv --set training.identifiability_tolerance=2",
        "identify m.xml t.csv --map A=B",
        "identify m.xml --map A=B",
        "identify m.xml no_such.csv",
        "identify no_such.xml t.csv",
        "identify . t.csv",
        "identify m.xml .",
        "identify t.csv m.xml",
        "fit m.xml t.csv --truth nowhere --out out",
        "fit m.xml t.csv --checkpoint nowhere --out out",
        "fit m.xml t.csv --checkpoint m.xml --out out",
        "fit m.xml t.csv --config nowhere --out out",
        "fit m.xml t.csv --out out --resume --overwrite",
        "run small --out out --resume --overwrite",
        "run small --out out --checkpoint nowhere",
        "run small --out out --set training",
        "run small --out out --set =1",
        "run small --out out --set training.seed=[",
        "run small --out out --set training.seed=" + "[" * 5000,
        "run small --out out --set training.seed=" + "x" * 100_000,
        "run small --out out --set " + "x" * 100_000 + "=1",
        "run small --out out --set \x1b[31m=1",
        "run small --out out --set training.seed=\x1b[31m",
        "run \x1b[31m --out out",
        "run " + "x" * 5000 + " --out out",
        "run small --bogus",
        "run small --ou out",
        "run small --out",
        "bogus",
        "explore bogus",
        "explore status nowhere",
        "explore start --out out --iterations 0",
        "explore start --out out --iterations -5",
        "explore start small --out out --proposer magic",
        "explore start small --out out --proposer command",
        "explore start small --out out --proposer replay",
        "explore start small --out out --primary magic",
        "explore start small --out out --network m.xml",
        "explore start small --out out --continue nowhere",
        "explore start small --out out --set exploration.space=nowhere.yaml",
        "explore start small --out out --checkpoint nowhere",
        "explore start nowhere --out out",
        "explore validate nowhere 1 --seeds 0",
        "explore compare nowhere 1",
        "configs --show nowhere",
        "strategies magic",
        "evaluate nowhere",
        "profile nowhere k:R",
        "uncertainty nowhere",
        "uncertainty nowhere --bootstrap -1",
        "convert nowhere out.csv",
        "convert t.csv out.docx",
        "convert t.csv t.csv",
        "convert m.xml m.xml",
        "convert . out.omex",
        "convert t.csv out.csv --delta-t 1",
        "convert t.csv out.csv --config small",
        "convert t.csv " + "x" * 300 + ".csv",
        "benchmark recovery --seeds -1",
        "benchmark noise --noise -1 --out out",
        "benchmark noise --noise nan --out out",
        "benchmark noise --every 0 --out out",
        "benchmark noise --methods magic --out out",
        "benchmark models --networks magic --out out",
        "benchmark strategies --names magic --out out",
        "simulate-petab nowhere.yaml",
        "fit-petab nowhere.yaml --out out",
        "fit-petab m.xml --out out",
    ]
    for text in words:
        arguments = tuple(text.split(" "))
        yield Case(f"{text[:20]} ... {text[-50:]}", arguments, files)
    for empty in (
        ("run", ""),
        ("run", "small", "--out", ""),
        ("fit", "", ""),
        ("convert", "", ""),
        ("simulate", "small", "--out", ""),
        ("configs", "--show", ""),
    ):
        yield Case(f"empty words of {' '.join(empty)}", empty, files)
    for bad in ("a\0b", "\udcff\udcfe", "x" * 300, "x/" * 3000):
        if "\0" not in bad:  # no operating system passes such a word on
            for command in (
                ("simulate", "small", "--out"),
                ("evaluate",),
                ("identify",),
                ("explore", "status"),
                ("configs", "--show"),
            ):
                yield Case(f"path {bad[:8]!r} {command[0]}", (*command, bad), files)
    yield Case("many words", ("fit", *["m.xml"] * 3000, "--out", "out"), files)
