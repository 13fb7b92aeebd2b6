"""Optimisers, compiled steps, distributed training, and runtimes of exports."""
