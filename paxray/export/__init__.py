"""A built data set in the formats that other people's loaders read."""
