"""Binary leaf-disease classifiers: trained, evaluated and handed over.

Data pass through four wings, in this order, and the user through one front door. `bldml.dataset` turns
photographs on disk into labelled samples and knows no model. `bldml.training` turns samples into a run folder
with Lightning. `bldml.inference` turns a checkpoint and photographs into probabilities, pictures and exports.
`bldml.results` turns tables of predictions into numbers and pages, on any computer, and knows no model
either. `bldml.config` reads YAML strictly, `bldml.app` puts module, data and trainer together, and
`bldml.cli` is the front door: the commands of `bldml` and of `python -m bldml`. Who may import whom is held
by `tests/test_import_law.py`.
"""

__version__ = "0.1.0"
