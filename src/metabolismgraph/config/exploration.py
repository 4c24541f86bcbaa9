"""Section `exploration`: the search over configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from metabolismgraph.config.section import NonNegative, Section

Hook = Literal["on_iteration", "on_best", "on_end"]
_Words = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]


class Exploration(Section):
    """The search over configurations (section `claude` in older files)."""

    n_parallel: int = Field(4, ge=1, le=1024, description="iterations in one batch (slots)")
    n_iter_block: int = Field(8, ge=1, description="iterations in one block")
    batches: Literal["synchronous", "asynchronous"] = Field(
        "synchronous",
        description="synchronous: all slots of a batch begin together, reproducible; asynchronous: a slot that is free "
        "begins the next iteration of the block",
    )
    time_steps: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (4, 16, 32, 64), min_length=1, description="training.homeostasis_time_step of each slot, in turn [frames]"
    )
    n_epochs: int = Field(1, ge=1, description="training.n_epochs of each iteration")
    data_augmentation_loop: int = Field(1000, ge=1, description="training.data_augmentation_loop of each iteration")
    space: str = Field(
        "phase2",
        min_length=1,
        description="what may change, how runs are judged, which moves there are: phase2, joint, phase1 or a YAML file",
    )
    primary: str | None = Field(
        None,
        description="objective, a reward of the search space; null: its first one. For phase2: avg_slope_ratio = "
        "agreement with the true slopes, which needs the truth; validation = skill of held-out rollouts, for real data",
    )
    replicates: int = Field(3, ge=1, description="runs with other seeds that a node needs to be the best one")
    replicates_vary: tuple[Literal["training_seed", "data_seed", "held_out"], ...] = Field(
        ("training_seed",),
        min_length=1,
        description="what differs between replicates: training_seed; data_seed, data simulated with another seed; "
        "held_out, another part of the frames is held out. The last two need a base run for each",
    )
    reward: Literal["mean", "lower_bound", "worst"] = Field(
        "mean",
        description="reward by which nodes are ranked: the mean over replicates, the lower end of its 95 % interval, "
        "or the worst one",
    )
    until_settled: bool = Field(
        True, description="end when the best node is proven and no reward can exceed it by more than its error"
    )
    retries: int = Field(
        2, ge=0, description="further runs of an iteration that was lost with its machine, disk or time limit"
    )
    ucb: Literal["spread", "legacy"] = Field(
        "spread", description="UCB score: exploration scaled to the spread of rewards; legacy: as published"
    )
    ucb_c: float = Field(1.414, ge=0, description="weight of exploration in the UCB score")

    n_workers: int | None = Field(
        None, ge=1, description="training processes at the same time; null: one per core, n_parallel at most"
    )
    slot_minutes: float = Field(30.0, gt=0, description="time limit of one iteration [minutes]")
    max_hours: float | None = Field(
        None, gt=0, description="time after which no new batch begins [hours]; null: no limit"
    )
    max_cost: float | None = Field(
        None, ge=0, description="cost after which language models are not used [US dollars]; null: no limit"
    )

    proposer: str = Field("rules", description="source of proposals for the next runs: rules, llm or command")
    attempts: int = Field(3, ge=1, description="number of requests to a proposer before the rules replace it")
    llm_model: str = Field(
        "", description="provider:model, such as openai:NAME or anthropic:NAME; with llm_base_url the bare name"
    )
    llm_base_url: str | None = Field(
        None, description="address of a server with the OpenAI protocol, for instance a local one"
    )
    llm_key_variable: str | None = Field(
        None,
        description="environment variable with the key; null: the usual one of the provider; with llm_base_url, none: "
        "a key is sent there only if this variable is given",
    )
    llm_images: bool = Field(True, description="show the latest figures to the model")
    llm_timeout_s: float = Field(120.0, gt=0, description="time limit of one question [s]")
    llm_price_per_million: tuple[NonNegative, NonNegative] | None = Field(
        None, description="price of a million input and output tokens [US dollars]; null: from the provider's list"
    )
    command: tuple[str, ...] = Field(
        (), description="program and arguments of proposer `command`: prompt on standard input, JSON on standard output"
    )

    approve: bool = Field(
        False, description="whether strategy files that passed the review wait for the approval of a researcher"
    )
    unsafe_strategies: bool = Field(
        False, description="whether strategy files are executed where the kernel has no Landlock, see Security"
    )
    hooks: dict[Hook, _Words] = Field(
        {},
        description="programs with arguments, which get JSON on standard input: on_iteration is run after every "
        "iteration, on_best when another node is the best, on_end when the explorer ends",
    )
    hook_timeout_s: float = Field(30.0, gt=0, description="time after which a hook is stopped [s]")

    @model_validator(mode="before")
    @classmethod
    def _without_engine(cls, raw: Any) -> Any:
        # Journals of earlier versions have it. Where jobs run belongs to the computer, not to an exploration.
        if not isinstance(raw, Mapping) or raw.get("engine") != "local":
            return raw
        return {key: value for key, value in raw.items() if key != "engine"}
