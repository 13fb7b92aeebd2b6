"""Peers that need an environment of their own: scripts for another Python to run.

They import nothing of this project and speak with it in lines of JSON.
"""
