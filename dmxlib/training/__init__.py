"""How the separator, its codec and the baselines learn: one loop, one step a system."""
