"""Other people's data sets, read, put right and written in layouts that loaders know."""
