"""Section `training`: both phases."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from metabolismgraph.config.section import Section

_LEARNED_STOICHIOMETRY = ("coeff_S_L1", "coeff_S_integer", "coeff_mass_conservation")
_PROJECTION_ONLY = ("phase1_max_iterations", "phase1_tolerance", "phase1_frame_stride", "outlier_threshold")
_GRADIENT_ONLY = (
    *("learning_rate_k", "learning_rate_sub", "coeff_MLP_sub_diff", "coeff_MLP_sub_norm", "coeff_MLP_node_L1"),
    *("coeff_k_floor", "k_floor_threshold", "recurrent_training", "time_step", "phase1_snapshots"),
)
_NOT_IMPLICIT = ("nuisance_degree", "derivative", "log_k_prior")


class Training(Section):
    """Phase 1 (rate constants and rate law) and Phase 2 (homeostasis and types)."""

    seed: int = Field(42, ge=0, description="seed of initial weights and batches")
    held_out_fraction: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="share of the last frames of each run, held out from training for tests of predictions [0-1]",
    )

    held_out_part: int = Field(
        0, ge=0, description="which part of each run is held out, counted from its end; 0: the last frames"
    )

    # Phase 1, projection
    phase1_method: Literal["auto", "projection", "gradient", "shooting", "implicit"] = Field(
        "auto",
        description="method of Phase 1: projection = exact least squares for k from dc/dt, for clean and fine samples; "
        "shooting = fit of trajectories over growing windows, for noise and coarse samples; auto = projection, then "
        "shooting where that does not explain dc/dt; gradient = minibatch Adam on all parameters, as published; "
        "implicit = implicit integration between frames, for stiff networks of mass action without homeostasis",
    )
    phase1_max_iterations: int = Field(300, ge=1, description="largest number of L-BFGS iterations")
    phase1_tolerance: float = Field(
        1e-3,
        gt=0,
        lt=1,
        description="converged if the loss decreases by less than this over ten iterations [relative]",
    )
    phase1_frame_stride: int | None = Field(
        None,
        ge=1,
        description="learn f on every n-th transition [frames]; null: chosen from the number of transitions",
    )
    nuisance_degree: int = Field(
        1, ge=0, le=8, description="degree in c of the polynomial that represents homeostasis in Phase 1"
    )
    derivative: Literal["auto", "forward", "trapezoid", "cubic"] = Field(
        "auto",
        description="rule for dc/dt: forward, for data made by Euler steps; trapezoid and cubic (four frames, fourth "
        "order), for continuous processes; auto: the rule with the smallest residual, each with its own f",
    )
    outlier_threshold: float = Field(
        20.0, gt=0, description="residuals beyond this number of robust standard deviations are left out"
    )
    log_k_prior: tuple[float, float] | None = Field(
        None,
        description="range of undetermined rate constants [log10 k]; null: the range of the determined ones",
    )
    identifiability_tolerance: float = Field(
        1e-8,
        gt=0,
        lt=1,
        description="eigenvalues of the scaled normal matrix below this count as zero",
    )

    # Phase 1, gradient descent: published keys with the same names and meanings
    n_epochs: int = Field(1, ge=0, description="epochs of gradient Phase 1")
    batch_size: int = Field(64, ge=1, description="frames per gradient step [frames]")
    data_augmentation_loop: int = Field(
        1000, ge=1, description="factor on the number of gradient steps per epoch, see steps_per_epoch"
    )
    learning_rate_start: float = Field(1e-3, gt=0, description="learning rate, used where a more specific one is 0")
    learning_rate_k: float = Field(0.0, ge=0, description="learning rate of log_k; 0: learning_rate_start")
    learning_rate_node: float = Field(0.0, ge=0, description="learning rate of MLP_node; 0: learning_rate_start")
    learning_rate_sub: float = Field(0.0, ge=0, description="learning rate of MLP_sub; 0: learning_rate_start")
    learning_rate_embedding: float = Field(
        0.0, ge=0, description="learning rate of the embeddings; 0: learning_rate_start"
    )
    freeze_stoichiometry: bool = Field(
        True, description="S is that of the network; false: S is learned (not supported)"
    )
    coeff_MLP_sub_diff: float = Field(5.0, ge=0, description="weight of the penalty on decreases of MLP_sub with c")
    coeff_MLP_sub_norm: float = Field(1.0, ge=0, description="weight of the penalty on MLP_sub(1, 1) - 1")
    coeff_MLP_node_L1: float = Field(1.0, ge=0, description="weight of the penalty on mean |MLP_node| in Phase 1")
    coeff_k_floor: float = Field(0.0, ge=0, description="weight of the penalty on log10 k below k_floor_threshold")
    k_floor_threshold: float = Field(
        -3.0, ge=-20, le=20, description="log10 k below which coeff_k_floor applies [log10 k]"
    )
    coeff_S_L1: float = Field(0.0, ge=0, description="weight of the penalty on mean |S|, for learned S")
    coeff_S_integer: float = Field(0.0, ge=0, description="weight of the penalty on non-integer S, for learned S")
    coeff_mass_conservation: float = Field(
        0.0, ge=0, description="weight of the penalty on column sums of S, for learned S"
    )
    joint_training: bool = Field(
        False,
        description="gradient Phase 1 keeps the MLP_node and the embeddings that it trains, and no Phase 2 follows, as "
        "published; far less accurate than both phases",
    )
    recurrent_training: bool = Field(False, description="Phase 1 on rollouts of time_step steps")
    time_step: int = Field(1, ge=1, description="Euler steps of a Phase 1 rollout [frames]")
    phase1_snapshots: int = Field(
        0, ge=0, le=1000, description="copies of the model during the descent, log-spaced in steps; 0: none"
    )
    phase1_stop_at_r2: float | None = Field(
        None,
        le=1,
        description="for simulated systems only: an imperfect Phase 1 as a test for Phase 2. The snapshot of gradient "
        "descent with the closest R2 of identifiable log10 k is selected (training itself does not use this key)",
    )

    # Phase 2
    homeostasis_training: bool = Field(True, description="train Phase 2, MLP_node and embeddings")
    skip_phase1: bool = Field(False, description="start Phase 2 from an existing Phase 1 checkpoint")
    homeostasis_time_step: int = Field(
        1, ge=1, description="Euler steps of a Phase 2 rollout; 1: plain regression [frames]"
    )
    strategies: tuple[str | dict[str, dict[str, Any]], ...] | None = Field(
        None,
        description="method of Phase 2: names of strategies (see `metabolismgraph strategies`), each alone or as "
        "{name: {option: value}}; []: plain rollouts; null: [residual, contrastive] after a projection, "
        "[shooting, contrastive] after shooting, [orthogonalised, contrastive] after gradient Phase 1",
    )
    joint_refinement: bool = Field(
        False,
        description="after Phase 2, learn all parameters together, starting from the checkpoint; reported "
        "separately, as refined_*",
    )
    phase2_steps: int = Field(
        600,
        ge=1,
        description="gradient steps of full-batch Phase 2 (residual, orthogonalised); see also steps_per_epoch",
    )
    phase2_snapshots: int = Field(
        0,
        ge=0,
        le=100,
        description="models kept on the way through Phase 2, log-spaced in steps, each with its figures; 0: none",
    )
    learning_rate_node_homeostasis: float = Field(
        0.01, ge=0, description="learning rate of MLP_node in Phase 2; 0: that of Phase 1"
    )
    learning_rate_embedding_homeostasis: float = Field(
        0.001, ge=0, description="learning rate of the embeddings in Phase 2; 0: that of MLP_node in Phase 2"
    )
    embedding_start: Literal["coefficients", "random"] = Field(
        "coefficients",
        description="initial embeddings: response coefficients of each metabolite (without labels), or random",
    )
    coeff_similarity: float = Field(
        1.0, ge=0, description="weight of the similarity loss: equal response curves, equal embeddings"
    )
    cluster_distance_threshold: float = Field(
        0.1, gt=0, description="eps of DBSCAN for the embeddings [embedding units]"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Training:
        if self.log_k_prior is not None and self.log_k_prior[0] > self.log_k_prior[1]:
            raise ValueError("log_k_prior must be [lower, upper]")
        if self.joint_training and (self.phase1_method != "gradient" or self.skip_phase1):
            wrong = "skip_phase1 is true" if self.skip_phase1 else f"phase1_method is {self.phase1_method}"
            raise ValueError(
                f"joint_training is true, but {wrong}; set phase1_method to gradient and skip_phase1 to false"
            )
        if not self.freeze_stoichiometry:
            raise ValueError(
                "freeze_stoichiometry is false, but the stoichiometry is taken from the network and not learned; "
                "set it to true"
            )
        asked = [key for key in _LEARNED_STOICHIOMETRY if getattr(self, key)]
        if asked and "freeze_stoichiometry" not in self.model_fields_set:
            raise ValueError(
                f"{asked[0]} is {getattr(self, asked[0]):g}, but the stoichiometry is taken from the network and not "
                "learned; set it to 0, or freeze_stoichiometry to true"
            )
        return self

    @property
    def without_effect(self) -> tuple[str, ...]:
        """Keys with other values than their defaults that the chosen method of Phase 1 does not use."""
        unread = {
            "gradient": _PROJECTION_ONLY,
            "implicit": (*_PROJECTION_ONLY, *_GRADIENT_ONLY, *_NOT_IMPLICIT),
        }.get(self.phase1_method, _GRADIENT_ONLY)
        fields = type(self).model_fields
        return tuple(
            key for key in (*unread, *_LEARNED_STOICHIOMETRY) if getattr(self, key) != fields[key].get_default()
        )

    @property
    def held_out(self) -> tuple[float, int]:
        """Share and part of the frames that are held out, as for `Observations.split`."""
        return self.held_out_fraction, self.held_out_part

    @property
    def trains_jointly(self) -> bool:
        """Whether Phase 2 is the result of the descent of Phase 1."""
        return self.joint_training and self.homeostasis_training

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
        """Learning rate of MLP_node in Phase 2; if it is 0, that of Phase 1."""
        return self.learning_rate_node_homeostasis or self.rate_node

    @property
    def rate_embedding_homeostasis(self) -> float:
        """Learning rate of the embeddings in Phase 2; if it is 0, that of MLP_node; if it is 0 too, that of Phase 1."""
        return self.learning_rate_embedding_homeostasis or self.learning_rate_node_homeostasis or self.rate_embedding

    def steps_per_epoch(self, n_frames: int) -> int:
        """Gradient steps in one epoch: floor(n_frames * data_augmentation_loop / batch_size * 0.2)."""
        return n_frames * self.data_augmentation_loop // (5 * self.batch_size)
