"""The keys of the configuration that an exploration may change, and their short names."""

from __future__ import annotations

from collections.abc import Mapping

TIME_STEP = "training.homeostasis_time_step"
STRATEGY = "training.strategies"
RATE_NODE = "training.learning_rate_node_homeostasis"
RATE_EMBEDDING = "training.learning_rate_embedding_homeostasis"
LOOP, BATCH, EPOCHS = "training.data_augmentation_loop", "training.batch_size", "training.n_epochs"
STEPS, SIMILARITY = "training.phase2_steps", "training.coeff_similarity"

# Keys that an exploration may change, with their names in a log; all others are fixed, so that runs remain comparable.
CHANGEABLE: Mapping[str, str] = {
    RATE_NODE: "lr_node_homeo",
    RATE_EMBEDDING: "lr_emb_homeo",
    LOOP: "data_augmentation_loop",
    BATCH: "batch_size",
    EPOCHS: "n_epochs",
    STEPS: "phase2_steps",
    SIMILARITY: "coeff_similarity",
    "training.embedding_start": "embedding_start",
    STRATEGY: "strategies",
}
