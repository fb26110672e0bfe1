"""The labels of an experiment's photographs, looked at again in the light of its out-of-fold predictions."""
