"""What runs, stores and prints tables."""
