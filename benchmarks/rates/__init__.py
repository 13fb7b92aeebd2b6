"""Speed, memory and cost, compared with peers."""
