"""The search of an experiment: a study whose trials are configurations of the experiment."""
