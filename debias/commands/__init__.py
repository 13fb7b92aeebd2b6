"""Command-line commands of `debias`. Importing them does not load TensorFlow."""
