"""Questions that the field leaves open, each answered by a table on small worlds."""
