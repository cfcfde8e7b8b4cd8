"""Rules about special tokens and the vocabulary."""
