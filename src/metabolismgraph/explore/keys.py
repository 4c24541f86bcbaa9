"""Keys of the configuration that the explorer itself knows."""

from __future__ import annotations

TIME_STEP = "training.homeostasis_time_step"
STRATEGY = "training.strategies"
RATE_NODE = "training.learning_rate_node_homeostasis"
RATE_EMBEDDING = "training.learning_rate_embedding_homeostasis"
LOOP, BATCH, EPOCHS = "training.data_augmentation_loop", "training.batch_size", "training.n_epochs"
STEPS, SIMILARITY = "training.phase2_steps", "training.coeff_similarity"
# What may differ between replicates, besides training.seed.
DATA_SEED, HELD_OUT_PART = "simulation.seed", "training.held_out_part"
