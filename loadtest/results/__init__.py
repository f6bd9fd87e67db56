"""`make results`: every table and plot of docs/results.md, from the recorded data that is there."""
