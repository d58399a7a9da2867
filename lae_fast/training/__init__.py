"""From a second-moment operator S, or rows, to trained weights: `train.train` and what it goes through."""
