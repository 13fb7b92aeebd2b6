"""Speed, memory and cost, beside peers."""
