"""Section `simulation`: the simulated system."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from metabolismgraph.config.section import NonNegative, Section, check_order

# Keys with one value for all types, and the keys with a list of values that they replace.
FOR_ALL_TYPES = {
    "homeostatic_strength": "homeostatic_lambda_per_type",
    "baseline_concentration": "homeostatic_baseline_per_type",
}
# Keys with a range from which values are drawn, and the keys with a list of values that they replace.
_RANGES = {
    "homeostatic_lambda_range": "homeostatic_lambda_per_type",
    "homeostatic_baseline_range": "homeostatic_baseline_per_type",
}
_Positive = Annotated[float, Field(gt=0)]


class Simulation(Section):
    """The simulated system: network, rate law, homeostasis, noise. The unit c is that of concentration."""

    n_metabolites: int = Field(100, ge=2, description="number of metabolites (species)")
    n_metabolite_types: int = Field(
        2, ge=1, description="number of metabolite types; metabolites of a type have the same lambda and baseline"
    )
    n_reactions: int = Field(256, ge=1, description="number of reactions, including those in cycles")
    max_metabolites_per_reaction: int = Field(
        4, ge=1, description="largest number of substrates, and of products, of a random (non-cycle) reaction"
    )
    n_frames: int = Field(
        2880, ge=1, description="Euler steps per run [frames]; the initial state is stored too: n_frames + 1 frames"
    )
    delta_t: float = Field(0.1, gt=0, description="length of one Euler step [time]")
    start_frame: int = Field(
        0,
        le=0,
        description="first simulated frame [frames]; negative: number of frames simulated before and not stored",
    )
    n_runs: int = Field(1, ge=1, description="runs of the same system from different initial states")
    seed: int = Field(42, ge=0, description="seed of network, rate constants, initial states and noise")
    secret: bool | None = Field(
        None,
        description="draw all but the network with a secret key as well, which is kept with the truth (secret.key): "
        "the configuration alone does not give the system again; null: in explorations",
    )
    concentration_min: float = Field(1.0, ge=0, description="lower end of the uniform initial concentrations [c]")
    concentration_max: float = Field(9.0, gt=0, description="upper end of the uniform initial concentrations [c]")
    cycle_fraction: float = Field(
        1.0, ge=0, le=1, description="share of the reactions that form closed autocatalytic cycles A + B -> 2 B [0-1]"
    )
    cycle_length: int = Field(3, ge=2, description="metabolites in one cycle")
    hub_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the places in reactions that few metabolites fill, such as water and ATP, by Zipf's law; "
        "the others are filled by all metabolites alike; 0.65: as in a genome-scale model [0-1]",
    )
    rate_law: dict[str, dict[str, float]] | None = Field(
        None,
        description="rate law of every reaction with its parameters, such as {michaelis_menten: {half_saturation: 5}}; "
        "null: as given by use_mass_action and michaelis_constant",
    )
    use_mass_action: bool = Field(True, description="rate law f = c^s; false: saturating, see michaelis_constant")
    michaelis_constant: float = Field(
        5.0,
        gt=0,
        description="half-saturation K of f = (c (1 + K) / (c + K))^s, used if use_mass_action is false [c]",
    )
    log_k_min: float = Field(-2.0, ge=-20, le=20, description="lower end of the log-uniform rate constants [log10 k]")
    log_k_max: float = Field(-1.0, ge=-20, le=20, description="upper end of the log-uniform rate constants [log10 k]")
    flux_limit: bool = Field(
        False, description="reduce fluxes so that one step does not consume more of a substrate than its concentration"
    )
    homeostatic_strength: float = Field(
        0.0, ge=0, description="lambda of all types if homeostatic_lambda_per_type is empty [1/time]"
    )
    homeostatic_lambda_per_type: tuple[NonNegative, ...] = Field(
        (0.001, 0.002),
        description="lambda of each type [1/time]; empty, or only homeostatic_strength is given: that value for all",
    )
    homeostatic_baseline_per_type: tuple[NonNegative, ...] = Field(
        (4.0, 6.0),
        description="baseline of each type [c]; empty, or only baseline_concentration is given: that value for all",
    )
    homeostatic_lambda_range: tuple[_Positive, _Positive] | None = Field(
        None, description="range from which lambda of each type is drawn, log-uniform in parts [1/time]; null: as given"
    )
    homeostatic_baseline_range: tuple[_Positive, _Positive] | None = Field(
        None, description="range from which the baseline of each type is drawn, as for lambda [c]; null: as given"
    )
    baseline_mode: Literal["fixed", "initial"] = Field(
        "fixed", description="baseline of homeostasis: fixed, as configured, or initial, the initial concentration"
    )
    baseline_concentration: float = Field(
        5.0, ge=0, description="baseline of all types if homeostatic_baseline_per_type is empty [c]"
    )
    circadian_amplitude: float = Field(
        0.0, ge=0, le=1, description="A of the factor 1 + A sin(2 pi t / period) on the baseline [relative]; 0: none"
    )
    circadian_period: float = Field(1440.0, gt=0, description="period of the modulation of the baseline [frames]")
    noise_model_level: float = Field(
        0.0, ge=0, description="standard deviation of the noise added to the state at each step [c]; 0: none"
    )
    measurement_noise_level: float = Field(
        0.0, ge=0, description="standard deviation of the noise added to stored concentrations [c]; 0: none"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_value_for_all_types(cls, raw: Any) -> Any:
        # A value for all types, or a range, without a list, must not be overridden by the default list.
        if not isinstance(raw, Mapping):
            return raw
        raw = dict(raw)
        for for_all, per_type in FOR_ALL_TYPES.items():
            if for_all in raw and per_type not in raw:
                raw[per_type] = ()
        for drawn, per_type in _RANGES.items():
            if raw.get(drawn) is not None:
                raw.setdefault(per_type, ())
        return raw

    @model_validator(mode="after")
    def _consistent(self) -> Simulation:
        check_order(self, "concentration_min", "concentration_max")
        check_order(self, "log_k_min", "log_k_max")
        for drawn, per_type in _RANGES.items():
            limits = getattr(self, drawn)
            if limits is not None and limits[0] > limits[1]:
                raise ValueError(f"{drawn} must be [lower, upper]")
            if limits is not None and getattr(self, per_type):
                raise ValueError(f"{drawn} and {per_type} are both given; leave one of them empty")
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
        """Homeostatic strength of each type, 1/time (not used beside homeostatic_lambda_range)."""
        return self.homeostatic_lambda_per_type or (self.homeostatic_strength,) * self.n_metabolite_types

    @property
    def baseline_of_type(self) -> tuple[float, ...]:
        """Baseline concentration of each type (not used if baseline_mode is initial, or beside a range)."""
        return self.homeostatic_baseline_per_type or (self.baseline_concentration,) * self.n_metabolite_types
