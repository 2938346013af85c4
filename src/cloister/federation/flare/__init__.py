"""Everything that is an NVFlare class: what job folders name, and the engines of a job in one process.

These classes translate between NVFlare's messages and the parties' nodes and decide nothing themselves.
"""
