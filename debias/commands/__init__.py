"""The commands of `debias`, one module each; importing them loads no TensorFlow."""
