"""The heavy half of the front door, where module and data module meet: LightningCLI, start of a run, evaluations."""
