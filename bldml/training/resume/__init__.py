"""Interrupting and resuming a run: signals, safe points, Slurm, the content of last.ckpt."""
