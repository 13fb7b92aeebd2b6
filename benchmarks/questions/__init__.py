"""Tables on open research questions, measured on small worlds."""
