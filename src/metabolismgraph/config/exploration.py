"""Section `exploration`: the search over configurations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from metabolismgraph.config.section import NonNegative, Section


class Exploration(Section):
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

    engine: str = Field("local", description="where jobs run: local = processes of this machine")
    n_workers: int | None = Field(
        None, ge=1, description="training processes at the same time; null: one per core, n_parallel at most"
    )
    slot_minutes: float = Field(30.0, gt=0, description="time limit of one iteration [minutes]")
    max_hours: float | None = Field(None, gt=0, description="no new batch after so much time [hours]; null: no limit")
    max_cost: float | None = Field(
        None, ge=0, description="language models are asked no more after that [US dollars]; null: no limit"
    )

    proposer: str = Field("rules", description="who proposes what to run next: rules, llm or command")
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
