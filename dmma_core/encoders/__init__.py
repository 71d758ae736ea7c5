"""Networks that turn frames, text and sound into features."""
