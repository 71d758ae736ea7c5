"""DMMA: depth-aware video-to-audio models. The library; it does not import Ray, SkyPilot or MLflow."""
