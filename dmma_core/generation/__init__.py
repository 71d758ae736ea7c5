"""Generates sounds and files from a checkpoint and features."""
