"""The credit benchmark: how far estimates of advantages are from the true ones."""
