"""What a set of image files is like, and whether it may be trained on."""
