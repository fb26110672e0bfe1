"""Binary leaf-disease classifiers: trained, evaluated and handed over.

`bldml.dataset` turns photographs on disk into labelled samples and knows no model. `bldml.training` turns
samples into a run folder with Lightning, `bldml.inference` a checkpoint and a photograph into what the
classifier sees. `bldml.metrics` turns predictions into numbers, `bldml.run` reads and writes run folders,
`bldml.figures` and `bldml.report` make pages of them, on any computer. `bldml.audit` and `bldml.doctor` check
photographs and machines, `bldml.app` puts module, data and trainer together, and `bldml.cli` is the front
door. docs/architecture.md is the map, `tests/test_import_law.py` holds who may import whom.
"""

__version__ = "0.1.0"
