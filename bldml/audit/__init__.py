"""What is wrong with a set of photographs: damaged, repeated, leaking between splits, confounded."""
