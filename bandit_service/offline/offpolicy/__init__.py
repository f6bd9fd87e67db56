"""What another policy would have earned on a log: fold it along, weigh, estimate or refuse."""
