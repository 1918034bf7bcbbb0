"""Networks that tests make."""
