"""The patch index: a decoded pool of pixels, patch coordinates with statistics, and the batches drawn from them."""
