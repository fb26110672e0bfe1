"""Pages, tables and figures of a run, and of runs compared; loads no model."""
