"""Trains one arm: steps, averages, validation, checkpoints."""
