"""Studies: methods x environments x seeds at equal budgets, and what came of them."""
