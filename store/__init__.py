"""Keeps bytes in order and vectors in reach; knows no bandit."""

__distribution__ = "bandit-service"
