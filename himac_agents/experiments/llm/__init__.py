"""The study with a pretrained language model: a warm start that leaves something to learn, arms."""
