"""Policies whose answers vLLM writes, with the weights of a model that learns elsewhere."""
