"""A run that is interrupted and resumed: signals, safe points, Slurm, what last.ckpt holds."""
