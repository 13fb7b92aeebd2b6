"""What `debias` does at a prompt: one module a command; loads no TensorFlow."""
