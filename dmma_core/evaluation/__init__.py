"""Measures sounds, and compares the reports of two arms."""
