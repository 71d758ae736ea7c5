"""The flow network and the audio codecs."""
