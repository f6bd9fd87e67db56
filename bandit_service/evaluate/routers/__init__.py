"""Offline routers: fitted on the training part, they choose for the test part at every setting."""
