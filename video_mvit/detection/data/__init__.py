"""Annotated images: from files on disk to batches for a detector."""
