"""The root configuration of every job: its inputs, its output, and the configs of the components it uses.

Every `*_uri` is a local path or gs://bucket/path. Components own their configs; this module only puts them together.
"""
