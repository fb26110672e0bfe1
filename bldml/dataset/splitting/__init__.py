"""The command split: groups to train, val, test and folds."""
