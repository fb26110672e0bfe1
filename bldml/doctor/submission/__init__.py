"""The submission of a job: what sbatch would take from its command line, its variables and the file, and its checks."""
