"""Tables on open questions of the field, on small worlds."""
