"""Pages that explain results: one file each, which opens without a network."""
