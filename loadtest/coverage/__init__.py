"""Do the intervals of experiments cover the truth at every look? A study by simulation."""
