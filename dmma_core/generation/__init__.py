"""Turns a checkpoint and features into sounds and files."""
