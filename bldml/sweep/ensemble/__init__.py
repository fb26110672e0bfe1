"""The command `ensemble`: the runs of an experiment as one classifier."""
