"""The doctor's checks of a Slurm job, its script and its cluster."""
