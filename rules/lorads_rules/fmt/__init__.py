"""Rules about the file and its rows."""
