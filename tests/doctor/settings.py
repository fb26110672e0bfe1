"""Settings of a fit, for the checks that need some."""

from pathlib import Path

from bldml.doctor.configuration import Settings

SETTINGS = Settings(
    backbone="mobilenet_v2_x0_35",
    image_size=64,
    weights="none",
    batch_size=8,
    num_workers="auto",
    precision="16-mixed",
    accelerator="auto",
    devices="auto",
    num_nodes=1,
    root_dir=Path(),
    unfrozen=(2, "stages"),
)
