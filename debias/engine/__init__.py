"""Optimisers, compiled steps, several processes, and the runtimes of exports."""
