"""Configuration: defaults, old files, overrides, and a clear line for everything that is wrong."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from metabolismgraph.config import Config, OldKeyWarning, load_config, shipped_configs
from metabolismgraph.config.tree import KEYS
from metabolismgraph.errors import InputError
from metabolismgraph.explore.start import prepared

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write text to my.yaml."""

    def to_file(text: str) -> Path:
        path = tmp_path / "my.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return to_file


def test_published_defaults() -> None:
    config = Config()
    published = {
        "n_metabolites": 100,
        "n_metabolite_types": 2,
        "n_reactions": 256,
        "max_metabolites_per_reaction": 4,
        "n_frames": 2880,
        "delta_t": 0.1,
        "start_frame": 0,
        "seed": 42,
        "concentration_min": 1,
        "concentration_max": 9,
        "cycle_fraction": 1.0,
        "cycle_length": 3,
        "use_mass_action": True,
        "log_k_min": -2,
        "log_k_max": -1,
        "flux_limit": False,
        "homeostatic_strength": 0,
        "homeostatic_lambda_per_type": (0.001, 0.002),
        "homeostatic_baseline_per_type": (4, 6),
        "baseline_mode": "fixed",
        "baseline_concentration": 5,
        "circadian_amplitude": 0,
        "circadian_period": 1440,
        "noise_model_level": 0,
        "measurement_noise_level": 0,
    }
    assert {key: getattr(config.simulation, key) for key in published} == published
    assert config.graph_model.model_dump() == {
        "aggr_type": "mul",
        "rate_law": "auto",
        "substrate_input": "log",
        "embedding_dim": 2,
        "hidden_dim_sub": 64,
        "n_layers_sub": 3,
        "hidden_dim_node": 64,
        "n_layers_node": 3,
    }
    assert config.training.cluster_distance_threshold == 0.1


def _fields(model: type[BaseModel], prefix: str = "") -> list[tuple[str, str | None]]:
    fields = []
    for name, field in model.model_fields.items():
        fields.append((prefix + name, field.description))
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            fields += _fields(annotation, f"{prefix}{name}.")
    return fields


def test_every_key_is_described() -> None:
    assert [name for name, description in _fields(Config) if not description] == []


def test_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().training.seed = 3


@pytest.mark.parametrize("name", shipped_configs())
def test_shipped_configs_load(name: str) -> None:
    config = load_config(name)
    assert config.dataset == name
    assert config.description == shipped_configs()[name]
    assert "\n" not in config.description


def test_shipped_configs_are_what_they_are_called() -> None:
    assert list(shipped_configs()) == [
        "explore_joint_rank50",
        "explore_rank50",
        "explore_rank50_published",
        "homeostatic",
        "oscillatory_rank20",
        "oscillatory_rank50",
        "oscillatory_rank70",
        "small",
        "types3",
    ]
    assert load_config() == load_config("oscillatory_rank50")
    assert load_config("oscillatory_rank50").simulation == Config().simulation
    assert load_config("homeostatic").simulation.lambda_of_type == (0.01,)
    assert load_config("homeostatic").simulation.baseline_of_type == (5.0,)
    assert load_config("homeostatic").graph_model.aggr_type == "add"
    published, quick = load_config("explore_rank50_published"), load_config("explore_rank50")
    assert published.exploration.data_augmentation_loop == 1000
    same = {"exploration.data_augmentation_loop": 10, "exploration.slot_minutes": 30.0}
    others = {"description", "dataset", "simulation"}
    assert published.replace(same).model_dump(exclude=others) == quick.model_dump(exclude=others)
    drawn = {
        "secret",
        *(f"homeostatic_{name}_{kind}" for name in ("lambda", "baseline") for kind in ("range", "per_type")),
    }
    assert published.simulation == Config().replace({"simulation.secret": False}).simulation
    assert quick.simulation.model_dump(exclude=drawn) == Config().simulation.model_dump(exclude=drawn)
    assert quick.simulation.secret is None
    assert prepared(quick).simulation.secret
    assert not prepared(published).simulation.secret
    assert quick.simulation == load_config("explore_joint_rank50").simulation
    assert load_config("types3").simulation.lambda_of_type == (0.0005, 0.002, 0.004)


def test_a_file_comes_before_a_shipped_name_and_a_folder_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small").mkdir()
    assert load_config("small").simulation.n_metabolites == 30
    Path("small").rmdir()
    Path("small").write_text("simulation: {n_metabolites: 31}", encoding="utf-8")
    assert load_config("small").simulation.n_metabolites == 31


def test_an_empty_file_is_all_defaults(write: Write) -> None:
    assert load_config(write("")) == Config(dataset="my")
    assert load_config(write("plotting:\ntraining:\n")) == Config(dataset="my")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "training: {learning_rate_kk: 1}",
            "unknown key training.learning_rate_kk; did you mean training.learning_rate_k?",
        ),
        ("simulation: {batch_size: 8}", "unknown key simulation.batch_size; did you mean training.batch_size?"),
        ("learning_rate_k: 1", "unknown key learning_rate_k; did you mean training.learning_rate_k?"),
        ("trainin: {seed: 1}", "unknown key trainin; did you mean training?"),
        ("training: {lr_nod: 1}", "unknown key training.lr_nod; did you mean training.learning_rate_node?"),
        ("training: {node_lr: 1}", "unknown key training.node_lr; did you mean training.learning_rate_node?"),
        ("training: {hidden_dim: 1}", "unknown key training.hidden_dim; did you mean graph_model.hidden_dim_sub?"),
        ("simulation: {noise: 1}", "unknown key simulation.noise; did you mean simulation.noise_model_level?"),
        ("lambda: 1", "unknown key lambda; did you mean simulation.homeostatic_lambda_range?"),
        ("claude: {ucb_d: 1}", "unknown key claude.ucb_d; did you mean exploration.ucb_c?"),
        ("training: 3", "training is 3, expected keys below it, such as `seed: 42`"),
        ("- training", "found ['training'], expected sections such as `training:` with keys below them"),
        ("training: {seed: many}", "training.seed is 'many', expected a whole number"),
        ("training: {seed: 1.5}", "training.seed is 1.5, expected a whole number"),
        ("training: {seed: yes}", "training.seed is true, expected a value that is not true or false"),
        ("training: {seed: }", "training.seed is empty, expected a whole number"),
        ("training: {seed: {a: 1}}", "training.seed is a mapping, expected a whole number"),
        ("training: {batch_size: 0}", "training.batch_size is 0, expected a value greater than or equal to 1"),
        ("training: {phase1_tolerance: .nan}", "training.phase1_tolerance is nan, expected a finite number"),
        ("training: {log_k_prior: [1]}", "training.log_k_prior is [1], expected two numbers, such as [-2, -1]"),
        ("training: {log_k_prior: [0, a]}", "training.log_k_prior[1] is 'a', expected a number"),
        ("training: {log_k_prior: [1, 0]}", "training.log_k_prior must be [lower, upper]"),
        (
            "training: {seed: -1, batch_size: 0}",
            "training.seed is -1, expected a value greater than or equal to 0 (and 1 more)",
        ),
        ("simulation: {use_mass_action: 3}", "simulation.use_mass_action is 3, expected true or false"),
        (
            "simulation: {concentration_min: 10}",
            "simulation.concentration_min (10) must not exceed concentration_max (9)",
        ),
        ("simulation: {log_k_min: 0}", "simulation.log_k_min (0) must not exceed log_k_max (-1)"),
        (
            "simulation: {n_metabolites: 2, n_metabolite_types: 3, homeostatic_strength: 0, baseline_concentration: 5}",
            "simulation.n_metabolite_types (3) must not exceed n_metabolites (2)",
        ),
        (
            "simulation: {homeostatic_lambda_range: [1e-3, 2e-3], homeostatic_lambda_per_type: [1e-3, 2e-3]}",
            "simulation.homeostatic_lambda_range and homeostatic_lambda_per_type are both given; "
            "leave one of them empty",
        ),
        (
            "simulation: {homeostatic_baseline_range: [6, 4]}",
            "simulation.homeostatic_baseline_range must be [lower, upper]",
        ),
        (
            "simulation: {n_metabolite_types: 3}",
            "simulation.homeostatic_lambda_per_type has 2 entries for n_metabolite_types 3; "
            "give one per type, or [] for the same value in all",
        ),
        (
            "simulation: {homeostatic_lambda_per_type: 0.1}",
            "simulation.homeostatic_lambda_per_type is 0.1, expected a list in brackets, such as [4.5, 5.5] or "
            "[residual]",
        ),
        ("graph_model: {aggr_type: mull}", "graph_model.aggr_type is 'mull', expected 'mul' or 'add'"),
        ("description: 3", "description is 3, expected text (put it in quotes)"),
        (f"description: [{'a' * 80}]", f"description is ['{'a' * 55}..., expected text (put it in quotes)"),
        (
            "claude: {ucb_c: 2}\nexploration: {ucb_c: 1}",
            "exploration.ucb_c and its older name claude.ucb_c differ; keep one of them",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(write: Write, text: str, message: str) -> None:
    path = write(text)
    with pytest.raises(InputError) as caught:
        load_config(path)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training:\n  seed: 1\n  seed: 2\n", ", line 3: not valid YAML (key seed is given twice)"),
        ("[" * 3000 + "]" * 3000, ": nested too deeply to be read"),
        ("training:\n  seed: 1e30\n", ": training.seed is 1e+30, expected a whole number"),
        (
            "a0: &a0 {k: 1}\n"
            + "".join(f"a{i}: &a{i}\n  <<: [{', '.join([f'*a{i - 1}'] * 4)}]\n" for i in range(1, 30)),
            ", line 14: not valid YAML (too many merged keys)",
        ),
        ("training: {seed: [1}", ", line 1: not valid YAML (expected ',' or ']', but got '}')"),
        ("[1, 2]: 3", ", line 1: not valid YAML (found unhashable key)"),
        ("dataset: 2023-13-45", ": not valid YAML (month must be in 1..12)"),
    ],
)
def test_broken_yaml(write: Write, text: str, message: str) -> None:
    path = write(text)
    with pytest.raises(InputError) as caught:
        load_config(path)
    assert str(caught.value) == f"{path}{message}"


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="^oscilatory_rank50: neither a file .* did you mean oscillatory_rank50?"):
        load_config("oscilatory_rank50")
    with pytest.raises(InputError, match="cannot be read"):
        load_config(tmp_path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(InputError, match="not a text file"):
        load_config(binary)


def test_old_keys_give_one_warning_that_names_them(write: Write) -> None:
    path = write(
        "simulation: {kinograph_range: 2.0}\n"
        "graph_model: {model_name: PDE_M1, prediction: first_derivative, n_layers: 3, hidden_dim_sub: 32}\n"
        "training: {device: auto}\n"
        "claude: {node_name: a100}\n"
    )
    with pytest.warns(OldKeyWarning) as caught:
        config = load_config(path, ["training.device=cpu"])
    assert config.graph_model.hidden_dim_sub == 32
    assert [str(w.message) for w in caught] == [
        f"{path}: these keys are obsolete and have no effect: simulation.kinograph_range, graph_model.model_name, "
        "graph_model.prediction, graph_model.n_layers, training.device, claude.node_name"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "simulation: {external_input_type: visual}",
            "simulation.external_input_type is 'visual', but external inputs",
        ),
        ("simulation: {n_input_metabolites: 100}", "are not simulated; remove the key, or set it to 0"),
        (
            "training: {learn_external_input: true}",
            "inputs are not learned; remove the key, or set it to False",
        ),
        ("training: {noise_recurrent_level: 0.1}", "rollouts are trained without noise"),
        ("training: {training_single_type: true}", "training never sees the types"),
        ("graph_model: {inr_type: siren}", "external inputs are not learned"),
        ("graph_model: {output_size_sub: 2}", "MLP_sub has one output; remove the key, or set it to 1"),
        ("training: {learning_rate_W_start: 0.1}", "there is no matrix W to learn"),
        ("training: {freeze_stoichiometry: false}", "the stoichiometry is taken from the network and not learned"),
        ("training: {coeff_S_L1: 0.001}", "coeff_S_L1 is 0.001, but the stoichiometry is taken from the network"),
    ],
)
def test_what_is_not_there_is_refused(write: Write, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_config(write(text))


def test_neutral_values_of_the_same_keys_are_old_keys(write: Write) -> None:
    path = write(
        "simulation: {external_input_type: none, n_input_metabolites: 0}\n"
        "graph_model: {output_size_sub: 1, inr_type: null}\n"
        "training: {learn_external_input: false, learning_rate_W_start: 0.0, noise_recurrent_level: 0}\n"
    )
    with pytest.warns(OldKeyWarning, match="output_size_sub.*learning_rate_W_start"):
        load_config(path)
    with pytest.raises(InputError, match="--set: training.noise_recurrent_level is 1"):
        load_config("small", ["training.noise_recurrent_level=1"])


def test_settings_without_effect(write: Write) -> None:
    assert Config().training.without_effect == ()
    training = load_config(
        write("training: {freeze_stoichiometry: true, coeff_S_L1: 0.1, learning_rate_k: 0.01}")
    ).training
    assert training.without_effect == ("learning_rate_k", "coeff_S_L1")
    gradient = Config().replace({"training.phase1_method": "gradient", "training.learning_rate_k": 0.01}).training
    assert gradient.without_effect == ()


def test_claude_is_the_older_name_of_exploration(write: Write) -> None:
    path = write("claude: {ucb_c: 2.0, n_iter_block: 12}")
    assert load_config(path).exploration.ucb_c == 2.0
    assert load_config(path, ["claude.n_iter_block=6"]).exploration.n_iter_block == 6


def test_measurement_noise_level_moved(write: Write) -> None:
    assert load_config(write("training: {measurement_noise_level: 0.1}")).simulation.measurement_noise_level == 0.1
    same = "training: {measurement_noise_level: 0.1}\nsimulation: {measurement_noise_level: 1E-1}"
    assert load_config(write(same)).simulation.measurement_noise_level == 0.1
    with pytest.raises(InputError, match="older name training.measurement_noise_level differ; keep one"):
        load_config(write("simulation: {measurement_noise_level: 0.2}\ntraining: {measurement_noise_level: 0.1}"))


def test_n_runs_moved(write: Write) -> None:
    assert load_config(write("training: {n_runs: 3}")).simulation.n_runs == 3


def test_scientific_notation_is_a_number(write: Write) -> None:
    path = write(
        "training: {learning_rate_k: 1E-3, log_k_prior: [-2e0, 1E-1], batch_size: 1e2, learning_rate_sub: '5E-4'}\n"
        "simulation: {homeostatic_lambda_per_type: [1E-3, '2e-3']}"
    )
    config = load_config(path, ["training.learning_rate_node=3E-2"])
    assert config.training.learning_rate_k == 1e-3
    assert config.training.learning_rate_sub == 5e-4
    assert config.training.learning_rate_node == 3e-2
    assert config.training.log_k_prior == (-2.0, 0.1)
    assert config.training.batch_size == 100
    assert config.simulation.homeostatic_lambda_per_type == (0.001, 0.002)


def test_overrides() -> None:
    config = load_config(
        "small",
        [
            "training.learning_rate_k=0.003",
            "training.log_k_prior=[-3, 0]",
            "graph_model.aggr_type=add",
            "dataset=mine",
            "training.seed=1",
            "training.seed=2",
        ],
    )
    assert config.training.learning_rate_k == 0.003
    assert config.training.log_k_prior == (-3, 0)
    assert config.graph_model.aggr_type == "add"
    assert config.dataset == "mine"
    assert config.training.seed == 2
    assert config.simulation.n_metabolites == 30


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.seeed=3", "--set: unknown key training.seeed; did you mean training.seed?"),
        ("trainin.seed=3", "--set: unknown key trainin.seed; did you mean training.seed?"),
        ("training.seed", "--set training.seed: expected section.key=value, such as training.seed=3"),
        ("training.seed=a", "--set: training.seed is 'a', expected a whole number"),
        ("training=3", "--set: training is a section; set one of its keys, such as training.seed"),
        (
            "simulation.homeostatic_strength=0.1",
            "--set: simulation.homeostatic_strength has no effect beside simulation.homeostatic_lambda_per_type "
            "[0.0005, 0.002, 0.004]; set that one, or set it to [] as well",
        ),
    ],
)
def test_wrong_overrides(override: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_config("types3", [override])
    assert str(caught.value) == message


def test_the_value_for_all_types_hides_the_default_list(write: Write) -> None:
    simulation = load_config(write("simulation: {homeostatic_strength: 0.05, baseline_concentration: 3}")).simulation
    assert simulation.lambda_of_type == (0.05, 0.05)
    assert simulation.baseline_of_type == (3.0, 3.0)
    assert load_config(None, ["simulation.homeostatic_strength=0.1"]).simulation.lambda_of_type == (0.1, 0.1)


def test_learning_rates_fall_back() -> None:
    none = Config(
        training={
            "learning_rate_start": 0.5,
            "learning_rate_node_homeostasis": 0,
            "learning_rate_embedding_homeostasis": 0,
        }
    ).training
    assert {none.rate_k, none.rate_node, none.rate_sub, none.rate_embedding} == {0.5}
    assert none.rate_node_homeostasis == none.rate_embedding_homeostasis == 0.5
    phase1 = Config(
        training={
            "learning_rate_node": 0.1,
            "learning_rate_embedding": 0.2,
            "learning_rate_node_homeostasis": 0,
            "learning_rate_embedding_homeostasis": 0,
        }
    ).training
    assert phase1.rate_node_homeostasis == 0.1
    assert phase1.rate_embedding_homeostasis == 0.2
    node = Config(training={"learning_rate_node_homeostasis": 0.3, "learning_rate_embedding_homeostasis": 0}).training
    assert node.rate_node_homeostasis == node.rate_embedding_homeostasis == 0.3
    own = Config(training={"learning_rate_embedding_homeostasis": 0.4, "learning_rate_k": 0.7}).training
    assert own.rate_embedding_homeostasis == 0.4
    assert own.rate_k == 0.7


def test_steps_per_epoch() -> None:
    training = Config(training={"batch_size": 8, "data_augmentation_loop": 1200}).training
    assert training.steps_per_epoch(2880) == 86400


def test_replace() -> None:
    config = Config().replace({"training.seed": 3, "dataset": "other"})
    assert (config.training.seed, config.dataset) == (3, "other")
    assert Config().training.seed == 42
    with pytest.raises(InputError, match="^replace: training.seed is -1"):
        config.replace({"training.seed": -1})


def test_values_by_dotted_key() -> None:
    config = Config(training={"strategies": ["residual"]})
    tree = config.model_dump(mode="json")
    for key in KEYS:
        section, _, name = key.rpartition(".")
        assert config.value(key) == (tree[section] if section else tree)[name]
    assert config.value("training.strategies") == ["residual"]
    with pytest.raises(InputError, match="^value: unknown key training.sede; did you mean training.seed?"):
        config.value("training.sede")


_NUMBERS = st.floats(0, 1e6)
# No lone surrogates: they are no text. Characters that YAML, or its writer, treats in a way of its own come often.
ANY_TEXT = st.text(
    st.characters(codec="utf-8") | st.sampled_from("\n\r\t \x00\x85\u2028\ufeff'\"#:-?*&!|>%@[]{},0123456789.+_eExo~")
)
NUMBER_LIKE = st.from_regex(r"[-+]?[0-9_.:]{1,4}([eExob][-+]?[0-9_a-fA-F]{0,3})?", fullmatch=True)
NOTATIONS = (
    "0E0 1e3 1E-3 1e+3 -1e5 .5 5. 1.5 +1 -0 1_000 1_0.5 0x1F 0o7 017 08 0b101 1:30 1:30:00.5 -1:30 yes No on OFF y n "
    "true False TRUE ~ null Null NULL 2020-01-01 2020-01-01T00:00:00Z .inf -.INF nan .nan .NaN inf = << ! & * - ? : # |"
)
ODD = ["", " ", "2001-12-14 21:59:43.10 -5", "a: b", "- a", "a #b", "'", '"', "\x85", "\u2028", "\ufeff", "\r\n", "\0"]


@settings(deadline=None)  # a busy machine is no failure
@given(
    description=ANY_TEXT,
    seed=st.integers(0, 2**63 - 1),
    rates=st.tuples(_NUMBERS, _NUMBERS),
    lambdas=st.lists(_NUMBERS, min_size=1, max_size=5),
    prior=st.none() | st.tuples(st.floats(-9, 0), st.floats(0, 9)),
    stride=st.none() | st.integers(1, 1000),
    aggregation=st.sampled_from(["mul", "add"]),
    strength=_NUMBERS,
)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    description: str,
    seed: int,
    rates: tuple[float, float],
    lambdas: list[float],
    prior: tuple[float, float] | None,
    stride: int | None,
    aggregation: str,
    strength: float,
) -> None:
    config = Config(
        description=description,
        dataset="data",
        simulation={
            "n_metabolite_types": len(lambdas),
            "homeostatic_lambda_per_type": lambdas,
            "homeostatic_baseline_per_type": [],
            "homeostatic_strength": strength,
        },
        graph_model={"aggr_type": aggregation},
        training={
            "seed": seed,
            "learning_rate_k": rates[0],
            "learning_rate_sub": rates[1],
            "log_k_prior": prior,
            "phase1_frame_stride": stride,
        },
    )
    path = tmp_path_factory.mktemp("config") / "written.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_config(path) == config


def written_and_read(tmp_path: Path, config: Config) -> Config:
    path = tmp_path / "written.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    return load_config(path)


@pytest.mark.parametrize("text", [*NOTATIONS.split(), *ODD])
def test_text_stays_text(tmp_path: Path, text: str) -> None:
    config = Config(description=text, dataset=text, training={"strategies": [text, {text: {text: [text]}}]})
    assert written_and_read(tmp_path, config) == config


@given(text=ANY_TEXT | NUMBER_LIKE)
def test_any_text_stays_text(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    config = Config(description=text, dataset=text, training={"strategies": [{text: {text: text}}]})
    assert written_and_read(tmp_path_factory.mktemp("config"), config) == config


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), 1e300, 5e-324, 1e-5, 10**30, True, None, [1, "1"], "1"])
def test_options_of_strategies_stay_what_they_are(tmp_path: Path, value: object) -> None:
    config = Config(dataset="x", training={"strategies": [{"mine": {"option": value}}]})
    read = written_and_read(tmp_path, config)
    assert read == config
    assert "inf" not in repr(value) or "inf" in repr(read.training.strategies)


def test_reading_a_configuration_imports_nothing_heavy() -> None:
    code = "import sys, metabolismgraph.config; print(sorted({'jax', 'numpy', 'pandas', 'scipy'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
