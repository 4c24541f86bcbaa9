"""Section `simulation`: the system that is made up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from metabolismgraph.config.section import NonNegative, Section, check_order

# What one value for all types replaces.
FOR_ALL_TYPES = {
    "homeostatic_strength": "homeostatic_lambda_per_type",
    "baseline_concentration": "homeostatic_baseline_per_type",
}


class Simulation(Section):
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
    rate_law: dict[str, dict[str, float]] | None = Field(
        None,
        description="rate law of every reaction with its parameters, such as {michaelis_menten: {half_saturation: 5}}; "
        "null: as use_mass_action and michaelis_constant say",
    )
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
        for for_all, per_type in FOR_ALL_TYPES.items():
            if for_all in raw and per_type not in raw:
                raw[per_type] = ()
        return raw

    @model_validator(mode="after")
    def _consistent(self) -> Simulation:
        check_order(self, "concentration_min", "concentration_max")
        check_order(self, "log_k_min", "log_k_max")
        for key in FOR_ALL_TYPES.values():
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
