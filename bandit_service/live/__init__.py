"""What the web page shows: the newest seconds, decisions and outcomes, and who listens to them."""
