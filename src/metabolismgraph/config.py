"""Configuration: one YAML tree of frozen models; every key has its unit, meaning and bounds.

`load_config` reads a file, or one of the configurations shipped in `configs/`, and turns whatever is wrong
with it into an InputError of one line. Nothing is ignored in silence: a misspelt key is an error, and a key
of older files that nothing reads any more is named in a warning.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from metabolismgraph.errors import InputError

DEFAULT_CONFIG = "oscillatory_rank50"

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


class OldKeyWarning(UserWarning):
    """A configuration holds keys of older versions that nothing reads any more."""


class _Section(BaseModel):
    """Frozen, no unknown keys, finite numbers only."""

    # ser_json_inf_nan: a strategy's own option may be infinite, and is written as such
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True, ser_json_inf_nan="constants"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, value: object, info: Any) -> object:
        # pydantic takes true for 1; YAML reads `yes`, `no`, `on` and `off` as booleans too.
        if isinstance(value, bool) and cls.model_fields[info.field_name].annotation is not bool:
            raise ValueError("expected a value that is not true or false")
        return value


def _ordered(section: BaseModel, low: str, high: str) -> None:
    if getattr(section, low) > getattr(section, high):
        raise ValueError(f"{low} ({getattr(section, low):g}) must not exceed {high} ({getattr(section, high):g})")


class Simulation(_Section):
    """The system that is made up: network, rate law, homeostasis, noise. c stands for concentration."""

    n_metabolites: int = Field(100, ge=2, description="number of metabolites (species)")
    n_metabolite_types: int = Field(
        2, ge=1, description="number of metabolite types; a type shares lambda and baseline"
    )
    n_reactions: int = Field(256, ge=1, description="number of reactions, those in cycles included")
    max_metabolites_per_reaction: int = Field(
        4, ge=1, description="most substrates, and most products, of a random (non-cycle) reaction"
    )
    n_frames: int = Field(
        2880, ge=1, description="Euler steps per run [frames]; the initial state is stored too: n_frames + 1 frames"
    )
    delta_t: float = Field(0.1, gt=0, description="length of one Euler step [time]")
    start_frame: int = Field(
        0, le=0, description="first simulated frame [frames]; negative: that many frames come first and are not stored"
    )
    n_runs: int = Field(1, ge=1, description="runs of the same system from different initial states")
    seed: int = Field(42, ge=0, description="seed of network, rate constants, initial states and noise")
    concentration_min: float = Field(1.0, ge=0, description="lower end of the uniform initial concentrations [c]")
    concentration_max: float = Field(9.0, gt=0, description="upper end of the uniform initial concentrations [c]")
    cycle_fraction: float = Field(
        1.0, ge=0, le=1, description="share of the reactions that form closed autocatalytic cycles A + B -> 2 B [0-1]"
    )
    cycle_length: int = Field(3, ge=2, description="metabolites in one cycle")
    use_mass_action: bool = Field(True, description="rate law f = c^s; false: saturating, see michaelis_constant")
    michaelis_constant: float = Field(
        5.0,
        gt=0,
        description="half-saturation K of f = (c (1 + K) / (c + K))^s, used where use_mass_action is false [c]",
    )
    log_k_min: float = Field(-2.0, ge=-20, le=20, description="lower end of the log-uniform rate constants [log10 k]")
    log_k_max: float = Field(-1.0, ge=-20, le=20, description="upper end of the log-uniform rate constants [log10 k]")
    flux_limit: bool = Field(
        False, description="scale a reaction down where it would use up more of a substrate than there is in one step"
    )
    homeostatic_strength: float = Field(
        0.0, ge=0, description="lambda of every type where homeostatic_lambda_per_type is empty [1/time]"
    )
    homeostatic_lambda_per_type: tuple[NonNegative, ...] = Field(
        (0.001, 0.002),
        description="lambda of each type [1/time]; empty, or left out beside homeostatic_strength: that one for all",
    )
    homeostatic_baseline_per_type: tuple[NonNegative, ...] = Field(
        (4.0, 6.0),
        description="baseline of each type [c]; empty, or left out beside baseline_concentration: that one for all",
    )
    baseline_mode: Literal["fixed", "initial"] = Field(
        "fixed", description="baseline of homeostasis: fixed, as configured, or each metabolite's initial concentration"
    )
    baseline_concentration: float = Field(
        5.0, ge=0, description="baseline of every type where homeostatic_baseline_per_type is empty [c]"
    )
    circadian_amplitude: float = Field(
        0.0, ge=0, le=1, description="A of the baseline's factor 1 + A sin(2 pi t / period) [relative]; 0: none"
    )
    circadian_period: float = Field(1440.0, gt=0, description="period of the baseline's modulation [frames]")
    noise_model_level: float = Field(
        0.0, ge=0, description="standard deviation of the noise added to the state at each step [c]; 0: none"
    )
    measurement_noise_level: float = Field(
        0.0, ge=0, description="standard deviation of the noise added to what is stored [c]; 0: none"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_value_for_all_types(cls, raw: Any) -> Any:
        # Whoever writes the value for all types and no list means it: the default list must not hide it.
        if not isinstance(raw, Mapping):
            return raw
        raw = dict(raw)
        for for_all, per_type in _FOR_ALL_TYPES.items():
            if for_all in raw and per_type not in raw:
                raw[per_type] = ()
        return raw

    @model_validator(mode="after")
    def _consistent(self) -> Simulation:
        _ordered(self, "concentration_min", "concentration_max")
        _ordered(self, "log_k_min", "log_k_max")
        for key in _FOR_ALL_TYPES.values():
            n = len(getattr(self, key))
            if n not in (0, self.n_metabolite_types):
                raise ValueError(
                    f"{key} has {n} entries for n_metabolite_types {self.n_metabolite_types}; "
                    "give one per type, or [] for the same value in all"
                )
        if self.n_metabolite_types > self.n_metabolites:
            raise ValueError(
                f"n_metabolite_types ({self.n_metabolite_types}) must not exceed n_metabolites ({self.n_metabolites})"
            )
        return self

    @property
    def lambda_of_type(self) -> tuple[float, ...]:
        """Homeostatic strength of each type, 1/time."""
        return self.homeostatic_lambda_per_type or (self.homeostatic_strength,) * self.n_metabolite_types

    @property
    def baseline_of_type(self) -> tuple[float, ...]:
        """Baseline concentration of each type (without meaning where baseline_mode is initial)."""
        return self.homeostatic_baseline_per_type or (self.baseline_concentration,) * self.n_metabolite_types


_FOR_ALL_TYPES = {
    "homeostatic_strength": "homeostatic_lambda_per_type",
    "baseline_concentration": "homeostatic_baseline_per_type",
}


class GraphModel(_Section):
    """Shape of the learned model: MLP_sub (rate law), MLP_node (homeostasis), embeddings."""

    aggr_type: Literal["mul", "add"] = Field(
        "mul", description="how the substrates of a reaction combine, in simulation and model: product or sum of f"
    )
    rate_law: Literal["auto", "mass_action", "learned"] = Field(
        "auto",
        description="f in the rate k * product of f(c): auto = mass action (c^order) where the network file says so, "
        "and one learned function for all other reactions; mass_action = known for all; learned = for all",
    )
    substrate_input: Literal["log", "raw"] = Field(
        "log",
        description="what MLP_sub is a network of: log = log c, a power law being a straight line over all decades; "
        "raw = c itself, as published (gradient Phase 1 only)",
    )
    embedding_dim: int = Field(2, ge=1, le=64, description="dimension of a metabolite's embedding a_i")
    hidden_dim_sub: int = Field(64, ge=1, le=4096, description="width of MLP_sub [units]")
    n_layers_sub: int = Field(3, ge=1, le=16, description="Linear layers of MLP_sub")
    hidden_dim_node: int = Field(64, ge=1, le=4096, description="width of MLP_node [units]")
    n_layers_node: int = Field(3, ge=1, le=16, description="Linear layers of MLP_node")


class Training(_Section):
    """Phase 1 (rate constants and rate law) and Phase 2 (homeostasis and types)."""

    seed: int = Field(42, ge=0, description="seed of initial weights and batches")
    held_out_fraction: float = Field(
        0.2, ge=0, lt=1, description="last share of each run's frames, never trained on; for the held-out error [0-1]"
    )

    # Phase 1, projection
    phase1_method: Literal["projection", "gradient"] = Field(
        "projection",
        description="how Phase 1 is solved: projection = k solved exactly while only f is learned; gradient = "
        "minibatch Adam on all parameters, as published",
    )
    phase1_max_iterations: int = Field(300, ge=1, description="L-BFGS iterations at most; it stops when converged")
    phase1_tolerance: float = Field(
        1e-3,
        gt=0,
        lt=1,
        description="converged when the loss falls by less than this share over ten iterations [relative]",
    )
    phase1_frame_stride: int | None = Field(
        None,
        ge=1,
        description="learn f on every n-th transition [frames]; null: chosen from the number of transitions",
    )
    nuisance_degree: int = Field(
        1, ge=0, le=8, description="degree in c of the polynomial that stands for homeostasis while k is solved"
    )
    derivative: Literal["auto", "forward", "trapezoid", "cubic"] = Field(
        "auto",
        description="rule for dc/dt: forward, for data made by Euler steps; trapezoid and cubic (four frames, fourth "
        "order), for continuous processes; auto: the one that leaves least unexplained, each with an f of its own",
    )
    outlier_threshold: float = Field(
        20.0, gt=0, description="residuals beyond that many robust standard deviations are left out"
    )
    log_k_prior: tuple[float, float] | None = Field(
        None,
        description="range of rate constants that the data do not determine [log10 k]; null: that of the determined",
    )
    identifiability_tolerance: float = Field(
        1e-8,
        gt=0,
        lt=1,
        description="eigenvalues of the scaled normal matrix below this share of the largest are zero",
    )

    # Phase 1, gradient descent: published keys, same names, same meaning
    n_epochs: int = Field(1, ge=0, description="epochs of gradient Phase 1 (our default)")
    batch_size: int = Field(64, ge=1, description="frames per gradient step (our default) [frames]")
    data_augmentation_loop: int = Field(
        1000, ge=1, description="multiplies the gradient steps per epoch, see steps_per_epoch (our default)"
    )
    learning_rate_start: float = Field(1e-3, gt=0, description="learning rate where a more specific one is 0")
    learning_rate_k: float = Field(0.0, ge=0, description="learning rate of log_k; 0: learning_rate_start")
    learning_rate_node: float = Field(0.0, ge=0, description="learning rate of MLP_node; 0: learning_rate_start")
    learning_rate_sub: float = Field(0.0, ge=0, description="learning rate of MLP_sub; 0: learning_rate_start")
    learning_rate_embedding: float = Field(
        0.0, ge=0, description="learning rate of the embeddings; 0: learning_rate_start"
    )
    freeze_stoichiometry: bool = Field(True, description="take S from the network; false: learn it (our default)")
    coeff_MLP_sub_diff: float = Field(5.0, ge=0, description="weight: MLP_sub rises with c (our default)")
    coeff_MLP_sub_norm: float = Field(1.0, ge=0, description="weight: MLP_sub(1, 1) = 1 (our default)")
    coeff_MLP_node_L1: float = Field(1.0, ge=0, description="weight: mean |MLP_node| in Phase 1 (our default)")
    coeff_k_floor: float = Field(0.0, ge=0, description="weight: log10 k above k_floor_threshold (our default)")
    k_floor_threshold: float = Field(-3.0, ge=-20, le=20, description="floor of log10 k (our default) [log10 k]")
    coeff_S_L1: float = Field(0.0, ge=0, description="weight: mean |S| where S is learned (our default)")
    coeff_S_integer: float = Field(0.0, ge=0, description="weight: S near whole numbers where learned (our default)")
    coeff_mass_conservation: float = Field(
        0.0, ge=0, description="weight: column sums of S are 0 where S is learned (our default)"
    )
    recurrent_training: bool = Field(False, description="Phase 1 on rollouts of time_step steps (our default)")
    time_step: int = Field(1, ge=1, description="Euler steps of a Phase 1 rollout (our default) [frames]")
    phase1_snapshots: int = Field(
        0, ge=0, le=1000, description="copies of the model taken on the way, log-spaced in steps; 0: none"
    )
    phase1_stop_at_r2: float | None = Field(
        None,
        le=1,
        description="simulated systems only, whose truth is known: a bad Phase 1, to practise on; gradient descent, of "
        "which the snapshot is taken whose R2 of identifiable log10 k comes closest (training itself never reads it)",
    )

    # Phase 2
    homeostasis_training: bool = Field(True, description="train Phase 2, MLP_node and embeddings (our default)")
    skip_phase1: bool = Field(False, description="start Phase 2 from an existing Phase 1 checkpoint (our default)")
    homeostasis_time_step: int = Field(
        1, ge=1, description="Euler steps of a Phase 2 rollout; 1: plain regression (our default) [frames]"
    )
    strategies: tuple[str | dict[str, dict[str, Any]], ...] | None = Field(
        None,
        description="how Phase 2 trains: names of strategies (see `metabolismgraph strategies`), each alone or as "
        "{name: {option: value}}; []: plain rollouts; null: [residual, contrastive] after a projection, "
        "[orthogonalised, contrastive] after gradient Phase 1",
    )
    joint_refinement: bool = Field(
        False,
        description="after Phase 2 unfreeze everything and refine it together, from the checkpoint on; reported "
        "apart from Phase 2, as refined_*",
    )
    phase2_steps: int = Field(
        600,
        ge=1,
        description="gradient steps of full-batch Phase 2 (residual, orthogonalised); see also steps_per_epoch",
    )
    learning_rate_node_homeostasis: float = Field(
        0.01, ge=0, description="learning rate of MLP_node in Phase 2; 0: that of Phase 1 (our default)"
    )
    learning_rate_embedding_homeostasis: float = Field(
        0.001, ge=0, description="learning rate of the embeddings in Phase 2; 0: MLP_node's in Phase 2 (our default)"
    )
    embedding_start: Literal["coefficients", "random"] = Field(
        "coefficients",
        description="initial embeddings: each metabolite's own response coefficients (no labels), or random",
    )
    coeff_similarity: float = Field(1.0, ge=0, description="weight: equal response curves have equal embeddings")
    cluster_distance_threshold: float = Field(0.1, gt=0, description="DBSCAN's eps on the embeddings [embedding units]")

    @model_validator(mode="after")
    def _consistent(self) -> Training:
        if self.log_k_prior is not None and self.log_k_prior[0] > self.log_k_prior[1]:
            raise ValueError("log_k_prior must be [lower, upper]")
        return self

    @property
    def rate_k(self) -> float:
        """Learning rate of log_k in Phase 1."""
        return self.learning_rate_k or self.learning_rate_start

    @property
    def rate_node(self) -> float:
        """Learning rate of MLP_node in Phase 1."""
        return self.learning_rate_node or self.learning_rate_start

    @property
    def rate_sub(self) -> float:
        """Learning rate of MLP_sub in Phase 1."""
        return self.learning_rate_sub or self.learning_rate_start

    @property
    def rate_embedding(self) -> float:
        """Learning rate of the embeddings in Phase 1."""
        return self.learning_rate_embedding or self.learning_rate_start

    @property
    def rate_node_homeostasis(self) -> float:
        """Learning rate of MLP_node in Phase 2: its own, then Phase 1's."""
        return self.learning_rate_node_homeostasis or self.rate_node

    @property
    def rate_embedding_homeostasis(self) -> float:
        """Learning rate of the embeddings in Phase 2: their own, then the node's, then Phase 1's."""
        return self.learning_rate_embedding_homeostasis or self.learning_rate_node_homeostasis or self.rate_embedding

    def steps_per_epoch(self, n_frames: int) -> int:
        """Gradient steps in one epoch: floor(n_frames * data_augmentation_loop / batch_size * 0.2)."""
        return n_frames * self.data_augmentation_loop // (5 * self.batch_size)


class Exploration(_Section):
    """The search over configurations (section `claude` in older files)."""

    n_parallel: int = Field(4, ge=1, le=1024, description="iterations in one batch (slots)")
    n_iter_block: int = Field(8, ge=1, description="iterations in one block")
    time_steps: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (4, 16, 32, 64), min_length=1, description="training.homeostasis_time_step of each slot, in turn [frames]"
    )
    n_epochs: int = Field(1, ge=1, description="training.n_epochs of each iteration")
    data_augmentation_loop: int = Field(1000, ge=1, description="training.data_augmentation_loop of each iteration")
    primary: Literal["avg_slope_ratio", "validation"] = Field(
        "avg_slope_ratio",
        description="what is maximised: avg_slope_ratio = agreement with the true slopes, an oracle; validation = "
        "skill of held-out rollouts, for real data",
    )
    replicates: int = Field(3, ge=1, description="runs with other seeds before a node may be called best")
    ucb: Literal["spread", "legacy"] = Field(
        "spread", description="UCB score: exploration scaled to the spread of rewards; legacy: as published"
    )
    ucb_c: float = Field(1.414, ge=0, description="weight of exploration in the UCB score")

    n_workers: int | None = Field(
        None, ge=1, description="training processes at the same time; null: one per core, n_parallel at most"
    )
    slot_minutes: float = Field(30.0, gt=0, description="time limit of one iteration [minutes]")
    max_hours: float | None = Field(None, gt=0, description="no new batch after so much time [hours]; null: no limit")
    max_cost: float | None = Field(
        None, ge=0, description="language models are asked no more after that [US dollars]; null: no limit"
    )

    proposer: Literal["rules", "llm", "command"] = Field("rules", description="who proposes what to run next")
    attempts: int = Field(3, ge=1, description="answers asked for before the rules stand in for a proposer")
    llm_model: str = Field(
        "", description="provider:model, such as openai:NAME or anthropic:NAME; with llm_base_url the bare name"
    )
    llm_base_url: str | None = Field(
        None, description="address of a server that speaks the OpenAI protocol, a local one for instance"
    )
    llm_key_variable: str | None = Field(
        None,
        description="environment variable that holds the key; null: the provider's usual one, and none with "
        "llm_base_url, where a key goes only if it is named",
    )
    llm_images: bool = Field(True, description="show the latest figures to the model")
    llm_timeout_s: float = Field(120.0, gt=0, description="time limit of one question [s]")
    llm_price_per_million: tuple[NonNegative, NonNegative] | None = Field(
        None, description="price of a million input and output tokens [US dollars]; null: from the provider's list"
    )
    command: tuple[str, ...] = Field(
        (), description="program and arguments of proposer `command`: prompt on standard input, JSON on standard output"
    )


class Plotting(_Section):
    """Looks of the figures."""

    colormap: str = Field(
        "okabe_ito", description="colours of the types: okabe_ito (colour-blind safe) or a Matplotlib colour map's name"
    )
    dpi: int = Field(150, ge=30, le=1200, description="resolution of the figures [dots per inch]")


class Config(_Section):
    """The whole configuration; see the sections for their keys."""

    description: str = Field("", description="one line on what this configuration is for")
    dataset: str = Field("", description="name of the data set; the file's name where left out")
    simulation: Simulation = Field(default_factory=Simulation, description="the simulated system")
    graph_model: GraphModel = Field(default_factory=GraphModel, description="the learned model")
    training: Training = Field(default_factory=Training, description="Phase 1 and Phase 2")
    exploration: Exploration = Field(default_factory=Exploration, description="the search over configurations")
    plotting: Plotting = Field(default_factory=Plotting, description="looks of the figures")

    def to_yaml(self) -> str:
        """The whole tree as YAML, defaults included; `load_config` reads it back to an equal Config."""
        tree = self.model_dump(mode="json")
        return str(yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True))

    def replace(self, changes: Mapping[str, object]) -> Config:
        """A copy with other values, by dotted key: `config.replace({"training.seed": 3})`.

        Raises:
            InputError: a key is unknown, or a value does not fit.
        """
        tree = self.model_dump()
        changed = _merge(tree, changes, "replace")
        return _validate(tree, "configuration", "replace", changed)

    def override(self, overrides: Sequence[str]) -> Config:
        """The same for changes as they are written behind --set: `config.override(["training.seed=3"])`.

        Raises:
            InputError: as `replace`, or not of the form key=value.
        """
        return self.replace(_written_changes(overrides))


_SECTIONS: dict[str, type[_Section]] = {
    "simulation": Simulation,
    "graph_model": GraphModel,
    "training": Training,
    "exploration": Exploration,
    "plotting": Plotting,
}
_KEYS = [
    *(key for key in Config.model_fields if key not in _SECTIONS),
    *(f"{section}.{key}" for section, model in _SECTIONS.items() for key in model.model_fields),
]
_OLDER_SECTIONS = {"claude": "exploration"}
_OLDER_PLACES = {
    "training.measurement_noise_level": "simulation.measurement_noise_level",
    "training.n_runs": "simulation.n_runs",
}
_OLD_KEYS = {
    "config_file",
    *(
        f"simulation.{key}"
        for key in (
            "dimension",
            "kinograph_range",
            "n_input_metabolites",
            "external_input_type",
            "external_input_mode",
            "node_value_map",
        )
    ),
    *(
        f"graph_model.{key}"
        for key in (
            "model_name",
            "prediction",
            "field_type",
            "input_size",
            "output_size",
            "hidden_dim",
            "n_layers",
            "input_size_update",
            "n_layers_update",
            "hidden_dim_update",
            "update_type",
            "inr_type",
            "input_size_nnr_f",
            "n_layers_nnr_f",
            "hidden_dim_nnr_f",
            "output_size_nnr_f",
            "outermost_linear_nnr_f",
            "omega_f",
            "nnr_f_xy_period",
            "nnr_f_T_period",
            "lowrank_rank",
            "lowrank_svd_init",
        )
    ),
    *(
        f"training.{key}"
        for key in (
            "device",
            "n_epochs_init",
            "small_init_batch_size",
            "noise_recurrent_level",
            "variance_weighted_sampling",
            "sparsity",
            "learning_rate_embedding_start",
            "learning_rate_NNR_f",
            "learning_rate_S_start",
            "training_single_type",
            "coeff_k_center",
            "first_coeff_L1",
            "learn_external_input",
        )
    ),
    "exploration.node_name",
}


def load_config(source: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration.

    Args:
        source: path of a YAML file, or name of a shipped configuration; None: `oscillatory_rank50`.
        overrides: changes on top, such as "training.learning_rate_k=0.003"; the value is read as YAML.

    Raises:
        InputError: no such source, not readable, an unknown key or a value that does not fit.

    Warns:
        OldKeyWarning: once, naming every key that older files carry and nothing reads any more.
    """
    name, text = _read(DEFAULT_CONFIG if source is None else source)
    tree, old = _normalise(_parse(text, name), name)
    tree.setdefault("dataset", Path(name).stem)
    changes = _written_changes(overrides)
    old += [key for key in changes if _current_name(key) in _OLD_KEYS]
    changed = _merge(tree, {key: value for key, value in changes.items() if key not in old}, "--set")
    if old:
        old = list(dict.fromkeys(old))
        warnings.warn(f"{name}: nothing reads these old keys any more: {', '.join(old)}", OldKeyWarning, stacklevel=2)
    return _validate(tree, name, "--set", changed)


def _written_changes(overrides: Sequence[str]) -> dict[str, object]:
    changes: dict[str, object] = {}
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise InputError(f"--set {override}: expected section.key=value, such as training.seed=3")
        changes[key.strip()] = _parse(value, f"--set {override}")
    return changes


def shipped_configs() -> dict[str, str]:
    """The configurations in the package: name -> its one-line description."""
    return {
        name: str(cast("dict[str, object]", _parse(path.read_text(encoding="utf-8"), name))["description"])
        for name, path in _shipped_files().items()
    }


def _shipped_files() -> dict[str, Traversable]:
    folder = resources.files("metabolismgraph") / "configs"
    files = {path.name.removesuffix(".yaml"): path for path in folder.iterdir() if path.name.endswith(".yaml")}
    return dict(sorted(files.items()))


def _read(source: str | Path) -> tuple[str, str]:
    """Name for messages, and text; a file comes before a shipped configuration of the same name."""
    path = Path(source)
    shipped = _shipped_files()
    # A folder called as a shipped configuration (an earlier run's, say) must not stand in its way.
    if not path.is_file() and str(source) in shipped:
        return str(source), shipped[str(source)].read_text(encoding="utf-8")
    try:
        return str(source), path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(path.stem, shipped, 1, 0.0)
        raise InputError(
            f"{source}: neither a file nor a shipped configuration; did you mean {near[0]}? "
            f"(shipped: {', '.join(shipped)})"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{source}: not a text file; a configuration is YAML in UTF-8") from None
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror}); give a YAML file") from None


class _Loader(yaml.SafeLoader):
    """YAML with two traps closed: 1E-3 is a number, as in YAML 1.2, and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, f"key {name} is given twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that `_Loader` would take for something else: both decide by the same patterns."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def represent_text(self, text: str) -> yaml.ScalarNode:
        # Line ends and invisible characters survive as escapes only, and those need double quotes.
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.represent_text)


def _parse(text: str, where: str) -> object:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of the safe loader
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"{where}{line}: not valid YAML ({problem})") from None


def _normalise(raw: object, where: str) -> tuple[dict[str, Any], list[str]]:
    """The tree under today's names, and the old keys left out of it.

    Raises:
        InputError: the tree's shape is wrong, a key is unknown, or a value is given in two places that differ.
    """
    tree: dict[str, Any] = {}
    old: list[str] = []
    for written, key, value in _leaves(raw, where):
        if key in _OLD_KEYS:
            old.append(written)
            continue
        _check_known(written, key, where)
        section, _, name = key.rpartition(".")
        target = tree.setdefault(section, {}) if section else tree
        if name in target and target[name] != value:
            raise InputError(f"{where}: {key} and its older name {_older_name(key)} differ; keep one of them")
        target[name] = value
    return tree, old


def _leaves(raw: object, where: str) -> Iterator[tuple[str, str, object]]:
    """Every (key as written, key of today, value) of a tree."""
    if not isinstance(raw, Mapping | None):
        raise InputError(f"{where}: found {_shown(raw)}, expected sections such as `training:` with keys below them")
    for top, value in (raw or {}).items():
        if _OLDER_SECTIONS.get(top, top) not in _SECTIONS:
            yield str(top), str(top), value
            continue
        if not isinstance(value, Mapping | None):
            raise InputError(f"{where}: {top} is {_shown(value)}, expected keys below it, such as `seed: 42`")
        for name, leaf in (value or {}).items():
            yield f"{top}.{name}", _current_name(f"{top}.{name}"), leaf


def _current_name(key: str) -> str:
    section, dot, name = key.partition(".")
    key = _OLDER_SECTIONS.get(section, section) + dot + name
    return _OLDER_PLACES.get(key, key)


def _older_name(key: str) -> str:
    for old, new in _OLDER_PLACES.items():
        if new == key:
            return old
    section, dot, name = key.partition(".")
    return next((old for old, new in _OLDER_SECTIONS.items() if new == section), section) + dot + name


def _check_known(written: str, key: str, where: str) -> None:
    if key in _KEYS:
        return
    if key in _SECTIONS:
        example = next(k for k in _KEYS if k.startswith(f"{key}."))
        raise InputError(f"{where}: {written} is a section; set one of its keys, such as {example}")
    raise InputError(f"{where}: unknown key {written}; did you mean {_nearest(key)}?")


def _nearest(key: str) -> str:
    """The valid key that the user most likely meant."""
    section, _, name = key.rpartition(".")
    # The right name in the wrong section, or in none, is more likely than a misspelt other name.
    same = [k for k in _KEYS if k.rpartition(".")[2] == name]
    siblings = [k for k in _KEYS if section and k.startswith(f"{section}.")]
    tops = [*(k for k in _KEYS if "." not in k), *_SECTIONS]
    by_name = {k.rpartition(".")[2]: k for k in _KEYS}
    if same:
        return same[0]
    for candidates in (siblings, _KEYS if section else tops):
        near = difflib.get_close_matches(key, candidates, 1, 0.6 if section else 0.75)
        if near:
            return near[0]
    return by_name[nearest_name(name, by_name)]


def nearest_name(name: str, names: Iterable[str]) -> str:
    """The one of `names` that is most like `name`."""
    return difflib.get_close_matches(name, list(names), 1, 0.0)[0]


def _merge(tree: dict[str, Any], changes: Mapping[str, object], where: str) -> list[str]:
    """Put dotted changes into a normalised tree; returns the keys that changed, under today's names."""
    changed: list[str] = []
    for written, value in changes.items():
        key = _current_name(written)
        _check_known(written, key, where)
        section, _, name = key.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[name] = value
        changed.append(key)
    for for_all, per_type in _FOR_ALL_TYPES.items():
        values = tree.get("simulation", {}).get(per_type)
        if f"simulation.{for_all}" in changed and f"simulation.{per_type}" not in changed and values:
            raise InputError(
                f"{where}: simulation.{for_all} has no effect beside simulation.{per_type} {list(values)}; "
                "set that one, or set it to [] as well"
            )
    return changed


def _validate(tree: dict[str, Any], where: str, where_changed: str, changed: Sequence[str]) -> Config:
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        first = problems[0]
        key = ".".join(str(part) for part in first["loc"][:2])
        place = where_changed if key in changed else where
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(f"{place}: {_explained(first['loc'], first)}{more}") from None


def _explained(loc: tuple[int | str, ...], problem: Mapping[str, Any]) -> str:
    """What was found and what is expected, for one complaint of pydantic."""
    whole_list = problem["type"] == "missing"  # pydantic points at the element that is not there
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc[: 2 if whole_list else None])
    key = key.lstrip(".")
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "value_error":
        # A section's own checks start their message with the name of the key they complain about.
        return f"{key} is {_shown(problem['input'])}, {message}" if "." in key else f"{key}.{message}"
    expected = message.removeprefix("Input should be ").split(", unable")[0].split(", got a number")[0]
    if problem["type"] in _BOUNDS:
        expected = f"a value {expected}"
    return f"{key} is {_shown(problem['input'])}, expected {_PLAIN_WORDS.get(problem['type'], expected)}"


_BOUNDS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
_PLAIN_WORDS = {
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text (put it in quotes)",
    "tuple_type": "a list in brackets, such as [0.001, 0.002] or [residual]",
    "missing": "two numbers, such as [-2, -1]",
    "too_long": "two numbers, such as [-2, -1]",
}


def _shown(value: object) -> str:
    """A value as a short piece of one line."""
    if isinstance(value, Mapping):
        return "a mapping"
    if value is None:
        return "empty"
    text = " ".join((str(value).lower() if isinstance(value, bool) else repr(value)).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
