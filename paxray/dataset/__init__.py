"""What lies on disk: plan, samples, labels, shards, commits, verification, and reading it back."""
