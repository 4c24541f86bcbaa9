"""Keys of the published program and of older files: their current names, and which are ignored or rejected."""

from __future__ import annotations

from typing import NamedTuple

OLDER_SECTIONS = {"claude": "exploration"}
OLDER_PLACES = {
    "training.measurement_noise_level": "simulation.measurement_noise_level",
    "training.n_runs": "simulation.n_runs",
}

# Obsolete keys, ignored with a warning for any value.
_IGNORED = {
    "": ("config_file",),
    "simulation": ("dimension", "kinograph_range", "node_value_map"),
    "graph_model": (
        *("model_name", "prediction", "field_type", "input_size", "output_size", "hidden_dim", "n_layers"),
        *("input_size_update", "n_layers_update", "hidden_dim_update", "update_type", "input_size_nnr_f"),
        *("n_layers_nnr_f", "hidden_dim_nnr_f", "output_size_nnr_f", "outermost_linear_nnr_f", "omega_f"),
        *("nnr_f_xy_period", "nnr_f_T_period", "lowrank_rank", "lowrank_svd_init"),
    ),
    "training": (
        *("device", "n_epochs_init", "small_init_batch_size", "sparsity", "learning_rate_embedding_start"),
        *("learning_rate_NNR_f", "learning_rate_S_start", "coeff_k_center", "first_coeff_L1"),
    ),
    "exploration": ("node_name",),
}
IGNORED_KEYS = frozenset(f"{section}.{key}".lstrip(".") for section, keys in _IGNORED.items() for key in keys)


class Neutral(NamedTuple):
    """A key that is accepted and ignored if its value is neutral, that is, requests no missing feature.

    Attributes:
        missing: why any other value is rejected.
        also: a neutral value in addition to none, 0 and false.
    """

    missing: str
    also: object = None

    def accepts(self, value: object) -> bool:
        """Whether a value is neutral."""
        return value is None or value in (0, "none", "None", "") or (self.also is not None and value == self.also)

    @property
    def example(self) -> str:
        """The neutral value in YAML."""
        return "none" if self.also is None else str(self.also)


NEUTRAL_KEYS = {
    "simulation.external_input_type": Neutral("external inputs are not simulated"),
    "simulation.external_input_mode": Neutral("external inputs are not simulated"),
    "simulation.n_input_metabolites": Neutral("external inputs are not simulated", 0),
    "graph_model.inr_type": Neutral("external inputs are not learned"),
    "graph_model.output_size_sub": Neutral("MLP_sub has one output", 1),
    "training.learn_external_input": Neutral("external inputs are not learned", also=False),
    "training.noise_recurrent_level": Neutral("rollouts are trained without noise", 0),
    "training.variance_weighted_sampling": Neutral("minibatches are drawn uniformly", also=False),
    "training.training_single_type": Neutral("training never sees the types", also=False),
    "training.learning_rate_W_start": Neutral("there is no matrix W to learn", 0),
}


def current_name(key: str) -> str:
    """The current name of a key, which may be that of an older file."""
    section, dot, name = key.partition(".")
    key = OLDER_SECTIONS.get(section, section) + dot + name
    return OLDER_PLACES.get(key, key)


def older_name(key: str) -> str:
    """The name in older files of a current key."""
    older = {new: old for old, new in (OLDER_PLACES | OLDER_SECTIONS).items()}
    section, dot, name = key.partition(".")
    return older.get(key, older.get(section, section) + dot + name)
