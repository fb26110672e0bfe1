"""A checkpoint as a file or page that needs no bldml: ONNX, and a page that opens offline in a browser."""
