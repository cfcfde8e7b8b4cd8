"""Parity with the real trainers: recordings of what they build, and the replay of them through lorads."""
