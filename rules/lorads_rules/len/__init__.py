"""Rules about length and truncation."""
