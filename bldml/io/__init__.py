"""Files and text: written whole or not at all, read strictly, shown in one way."""
