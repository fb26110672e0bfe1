"""From a folder of photographs to a map, a list and a sheet for review; and from the review to the next training."""
