"""The incident as a demo: a dataset of real code with faults whose places are known. See ``lorads.demo.build``."""
