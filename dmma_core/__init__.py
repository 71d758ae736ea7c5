"""DMMA: depth-aware video-to-audio models. The library; it knows neither Ray nor SkyPilot nor MLflow."""
