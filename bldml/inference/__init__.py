"""What a trained classifier sees in a photograph: knows checkpoints and networks, writes no file."""
