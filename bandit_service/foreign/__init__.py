"""Other systems' logs of decisions with propensities, read as events of ours."""
