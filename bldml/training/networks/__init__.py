"""Networks beyond torchvision's, and a head that is fitted without epochs."""
