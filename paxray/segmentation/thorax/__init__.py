"""The built-in thorax segmenter: needs no weights and no GPU. `segment.segment_thorax` is its face."""
