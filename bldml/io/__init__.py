"""Files and text: atomic writing, strict reading, uniform formatting."""
