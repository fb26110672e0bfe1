"""CSV tables as others write them: which columns, which files, which splits, labels and groups they mean."""
