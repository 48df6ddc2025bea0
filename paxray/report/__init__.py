"""A built data set as a page that a person looks at."""
