"""Which structures exist, how they nest, and masks turned into one `LabelVolume` of atoms."""
