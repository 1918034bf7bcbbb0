"""From a float network to a program: quantisation, the nine schemes, budgets, compilation."""
